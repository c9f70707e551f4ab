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
import errno
import json
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ssvi.errors import UserError
from ssvi.machine.disk import REFUSED, runtime_folder

SOCKET = "SSVI_PRELOAD"
COMMANDS = ("train", "evaluate", "samples")
# Handed on to the command: the caller's Ctrl-C and its workflow's or scheduler's wish to end.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# Until a command begins; it takes milliseconds, and a server that was stopped, or hangs, is not waited for.
HANDSHAKE_SECONDS = 30.0
# What the system takes as the path of a socket, in bytes; on macOS, where it is the least.
LONGEST_PATH = 103
# Added to the path until the server listens.
UNFINISHED = ".new"
# A caller's last word before its command begins; then a byte is a signal, and this is none.
BEGIN = b"\0"
_LENGTH = struct.Struct("!I")


def installation() -> str:
    """Which `ssvi` under which Python this is; a server only serves its own."""
    return f"{sys.prefix}\n{Path(__file__).resolve()}"


def socket_path() -> str:
    """A path for a server's socket, alone in a new folder that only this user can enter.

    Among the temporary files, unless that path would be too long for a socket.
    """
    places = [tempfile.gettempdir(), "/tmp"]
    with contextlib.suppress(OSError):
        places.insert(1, str(runtime_folder()))
    for place in places:
        with contextlib.suppress(OSError):
            path = os.path.join(tempfile.mkdtemp(prefix="ssvi-", dir=place), "socket")
            if len(os.fsencode(path + UNFINISHED)) <= LONGEST_PATH:
                return path
            os.rmdir(os.path.dirname(path))
    raise UserError(f"{places[0]}: no folder for a socket can be made there, or its path is too long; set TMPDIR.")


# The caller ------------------------------------------------------------------------------------------


def hand_over(arguments: list[str]) -> int | None:
    """Run `ssvi ARGUMENTS` in the server that the environment names; its exit code, or None if it did not begin there.

    The server has `HANDSHAKE_SECONDS` to begin. From then on the command is a process of its own, which may take as
    long as it takes, whatever becomes of the server.
    """
    path = os.environ.get(SOCKET)
    if not path or not arguments or arguments[0] not in COMMANDS:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(HANDSHAKE_SECONDS)
        try:
            _connect(connection, path)
            if not _begins(connection, arguments):
                return None
        except TimeoutError:
            late = f"did not answer in {HANDSHAKE_SECONDS:g} s; this command runs by itself"
            print(f"note: the server at {path} {late}.", file=sys.stderr, flush=True)
            return None
        except OSError:
            return None
        connection.settimeout(None)
        with _forwarding(connection) as forwarded:
            code = _receive(connection, _LENGTH.size)
    if len(code) == _LENGTH.size:
        return _LENGTH.unpack(code)[0]
    if forwarded:
        return 128 + forwarded[-1]
    print("ssvi: the command was killed, perhaps for want of memory.", file=sys.stderr)
    return 128 + signal.SIGKILL


def _connect(connection: socket.socket, path: str) -> None:
    """Connect, waiting for room where many callers came at once, which the system does not do within a limit."""
    until = time.monotonic() + HANDSHAKE_SECONDS
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError from None
            time.sleep(0.02)


def _begins(connection: socket.socket, arguments: list[str]) -> bool:
    """Ask for a command; it only begins with the last word, which is the caller's, so it never runs in both places."""
    request = {
        "installation": installation(),
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": {name: value for name, value in os.environ.items() if name != SOCKET},
    }
    socket.send_fds(connection, [b"+"], [0, 1, 2])
    _send(connection, json.dumps(request).encode())
    if connection.recv(1) != b"+":
        return False
    connection.sendall(BEGIN)
    return True


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

    Raises:
        UserError: if there is something at `path` but a socket that nobody listens at, or no socket can be made.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        for name in (path, path + UNFINISHED):
            _make_way(name)
        prepare()
        signal.signal(signal.SIGCHLD, _reap)
        mine = _listen(server, path)
        threading.Thread(target=_end_with_input, args=(path, mine), daemon=True).start()
        while True:
            connection, _ = server.accept()
            # without a process to spare the caller is told nothing, and runs by itself
            with connection, contextlib.suppress(BlockingIOError, MemoryError):
                if os.fork() == 0:
                    server.close()
                    _run(connection, command)


def _make_way(path: str) -> None:
    """Delete a socket that a server has left behind when it was killed.

    Raises:
        UserError: if it is something else, or a server listens there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    if not stat.S_ISSOCK(mode):
        raise UserError(f"{path}: is there, and no socket; name a path where nothing is.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise UserError(f"{path}: {error.strerror or error}.") from None
    raise UserError(f"{path}: another process listens there; name another path.")


def _listen(server: socket.socket, path: str) -> tuple[int, int]:
    """Make the socket, for this user alone, and listen; returns what tells it from any other that may be there later.

    Under another name until it listens: a caller that finds the socket is served.
    """
    before = os.umask(0o177)
    try:
        server.bind(path + UNFINISHED)
    except OSError as error:
        raise UserError(f"{path}: no socket can be made there ({error.strerror or error}).") from None
    finally:
        os.umask(before)
    server.listen(64)
    try:
        os.link(path + UNFINISHED, path)  # which replaces nothing
    except OSError as error:
        if error.errno not in REFUSED:
            os.unlink(path + UNFINISHED)
            raise UserError(f"{path}: no socket can be made there ({error.strerror}).") from None
        _rename(path)
    else:
        os.unlink(path + UNFINISHED)
    return _identity(path)


def _rename(path: str) -> None:
    """What a file system without links has in place of one; it replaces what came there since this looked."""
    try:
        _make_way(path)
    except UserError:
        os.unlink(path + UNFINISHED)
        raise
    os.rename(path + UNFINISHED, path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _reap(number: int, frame: object) -> None:
    """Let go of commands that have ended; their callers know how."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_with_input(path: str, mine: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):  # closed, or a folder: there is nothing to wait for
        while os.read(0, 4096):
            pass
    with contextlib.suppress(OSError):
        if _identity(path) == mine:
            os.unlink(path)
    os._exit(0)


def _run(connection: socket.socket, command: Callable[[list[str]], None]) -> None:
    """In the forked process: become the command, run it, tell its exit code. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.settimeout(HANDSHAKE_SECONDS)
    code = 1
    try:
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        request = json.loads(_receive(connection, _LENGTH.unpack(_receive(connection, _LENGTH.size))[0]))
        if request["installation"] != installation():
            connection.send(b"-")
            os._exit(0)
        connection.send(b"+")
        if connection.recv(1) != BEGIN:
            os._exit(0)
        connection.settimeout(None)
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
