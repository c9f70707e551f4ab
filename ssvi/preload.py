"""A process that has torch in memory already and forks a copy of itself for every `ssvi` command it is asked to run.

Starting Python and importing torch costs more than a second of processor time, which a study of hundreds of short
trainings pays for each of them. The workflow starts this server before its first local job and names its socket in
`SSVI_PRELOAD`; `ssvi train` and its like then hand themselves over. The command runs in a process of its own, with
the caller's working folder, environment, output and signals, and the caller ends with its exit code, so a job is still
a job: it has its own log, fails alone and can be killed. Without a server, or one of another installation, a command
simply runs by itself.

Standard library only; Unix only (it forks, and passes open files over a socket).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SOCKET = "SSVI_PRELOAD"
COMMANDS = ("train", "evaluate", "samples")
# Handed on to the command: the caller's Ctrl-C and its workflow's or scheduler's wish to end.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_LENGTH = struct.Struct("!I")


def installation() -> str:
    """Which `ssvi` under which Python this is; a server only serves its own."""
    return f"{sys.prefix}\n{Path(__file__).resolve()}"


# The caller ------------------------------------------------------------------------------------------


def hand_over(arguments: list[str]) -> int | None:
    """Run `ssvi ARGUMENTS` in the server that the environment names; its exit code, or None without a server."""
    path = os.environ.get(SOCKET)
    if not path or not arguments or arguments[0] not in COMMANDS:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    with connection:
        request = {
            "installation": installation(),
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": {name: value for name, value in os.environ.items() if name != SOCKET},
        }
        try:
            socket.send_fds(connection, [b"+"], [0, 1, 2])
            _send(connection, json.dumps(request).encode())
            if connection.recv(1) != b"+":
                return None
        except OSError:
            return None
        with _forwarding(connection) as forwarded:
            code = _receive(connection, _LENGTH.size)
    if len(code) == _LENGTH.size:
        return _LENGTH.unpack(code)[0]
    if forwarded:
        return 128 + forwarded[-1]
    print("ssvi: the command was killed, perhaps for want of memory.", file=sys.stderr)
    return 128 + signal.SIGKILL


@contextlib.contextmanager
def _forwarding(connection: socket.socket) -> Iterator[list[int]]:
    """Hand signals on, but for those that this process was told to ignore; yields the list of those that came."""
    came: list[int] = []

    def forward(number: int, _: object) -> None:
        came.append(number)
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    heeded = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heeded}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer if the other side ends before."""
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


# The server ------------------------------------------------------------------------------------------


def serve(path: str, prepare: Callable[[], None], command: Callable[[list[str]], None]) -> None:
    """Listen at `path` until standard input ends, that is until whoever started this is gone.

    Commands still running then go on to their end: they belong to their callers.

    Args:
        path: of the Unix socket to be made.
        prepare: loads what every command needs; it must compute nothing, because threads do not survive a fork.
        command: runs `ssvi` with the given arguments, ending as the command line does (by SystemExit).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        prepare()
        signal.signal(signal.SIGCHLD, _reap)
        # Under another name until it listens: a caller that finds the socket is served.
        server.bind(f"{path}.new")
        server.listen(64)
        os.rename(f"{path}.new", path)
        threading.Thread(target=_end_with_input, args=(path,), daemon=True).start()
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    _run(connection, command)


def _reap(number: int, frame: object) -> None:
    """Let go of commands that have ended; their callers know how."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_with_input(path: str) -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os._exit(0)


def _run(connection: socket.socket, command: Callable[[list[str]], None]) -> None:
    """In the forked process: become the command, run it, tell its exit code. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        request = json.loads(_receive(connection, _LENGTH.unpack(_receive(connection, _LENGTH.size))[0]))
        if request["installation"] != installation():
            connection.send(b"-")
            os._exit(0)
        connection.send(b"+")
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _become(request["folder"], request["environment"])
        threading.Thread(target=_obey, args=(connection,), daemon=True).start()
        code = _exit_code(command, request["arguments"])
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        with contextlib.suppress(OSError):
            connection.send(_LENGTH.pack(code))
        os._exit(code)


def _become(folder: str, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # A process group of its own: the terminal's signals reach it through the caller alone, once.
    os.setpgid(0, 0)


def _obey(connection: socket.socket) -> None:
    """Pass the caller's signals on; if it is gone without a word it was killed, and so is this."""
    while number := connection.recv(1):
        os.kill(os.getpid(), number[0])
    os.kill(os.getpid(), signal.SIGKILL)


def _exit_code(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    try:
        command(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        # What the interpreter would print of an error that nobody caught; the process is the command's own.
        traceback.print_exc()
        return 1
    return 0
