"""Commands handed over to a process that has torch in memory: the same results, output, exit codes and signals."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssvi.errors import UserError
from ssvi.machine import preload

FLAGS = ["--dataset=digits", "--model=mlp", "--epochs=2", "--delta-t=5", "--threads=1"]
SSVI = [str(Path(sys.executable).parent / "ssvi")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("preload") / "socket")
    process = subprocess.Popen([*SSVI, "preload", path], stdin=subprocess.PIPE)
    while not os.path.exists(path):
        assert process.poll() is None
        time.sleep(0.05)
    yield path
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert not os.path.exists(path)


def run(server: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, preload.SOCKET: server}
    return subprocess.run([*SSVI, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_same_bytes_as_without(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(preload.SOCKET, server)
    assert preload.hand_over(["evaluate", "no folder"]) == 1  # it is there, and answers
    cold = run(str(tmp_path / "no socket"), "train", *FLAGS, "--out", "cold", cwd=tmp_path)
    warm = run(server, "train", *FLAGS, "--out", "warm", cwd=tmp_path)
    assert (cold.returncode, warm.returncode) == (0, 0)
    assert (tmp_path / "cold/model.safetensors").read_bytes() == (tmp_path / "warm/model.safetensors").read_bytes()
    assert (tmp_path / "cold/topology.jsonl").read_bytes() == (tmp_path / "warm/topology.jsonl").read_bytes()
    assert "warm: trained in" in warm.stderr
    done = run(server, "evaluate", "warm", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("accuracy 0.")


def test_mistakes_end_as_without(server: str, tmp_path: Path) -> None:
    done = run(server, "train", "--density", "3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ssvi: command line: density is 3, but must be > 0 and <= 1.\n"
    assert run(server, "train", "--epoch", "3", cwd=tmp_path).returncode == 2
    assert run(server, "evaluate", "nothing", cwd=tmp_path).returncode == 1


def test_the_server_ends_with_its_input_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    process = subprocess.Popen(
        [*SSVI, "preload", str(folder / "socket")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (folder / "socket").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == b""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_the_command(server: str, tmp_path: Path, sign: signal.Signals, code: int) -> None:
    """Interrupted or killed, the training stops with its caller, and leaves what it needs to go on."""
    flags = [*FLAGS[:2], "--epochs=100000", "--checkpoint-seconds=0", "--threads=1", "--out", "run"]
    caller = subprocess.Popen(
        [*SSVI, "train", *flags], cwd=tmp_path, env={**os.environ, preload.SOCKET: server}, stderr=subprocess.PIPE
    )
    checkpoint = tmp_path / "run/live/checkpoint.pt"
    while not checkpoint.exists():
        assert caller.poll() is None
        time.sleep(0.05)
    caller.send_signal(sign)
    caller.stderr.read()  # ends when the last process that could write to it has ended
    assert caller.wait(timeout=30) == code
    # killed between two renamings, it has only the one before
    assert checkpoint.exists() or (tmp_path / "run/live/checkpoint.previous.pt").exists()


def test_without_a_server_or_with_a_foreign_one_a_command_runs_by_itself(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(str(tmp_path / "no socket"), "train", "--density", "3", cwd=tmp_path)
    assert (done.returncode, "density is 3" in done.stderr) == (1, True)
    monkeypatch.setenv(preload.SOCKET, server)
    assert preload.hand_over(["train", "--density", "3"]) == 1
    assert preload.hand_over(["data", "digits"]) is None
    monkeypatch.setattr(preload, "installation", lambda: "another")
    assert preload.hand_over(["train", "--density", "3"]) is None


# What is at the path already ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "pipe"])
@pytest.mark.parametrize("name", ["socket", "socket.new"])
def test_nothing_foreign_is_replaced_by_a_socket(tmp_path: Path, kind: str, name: str) -> None:
    path, target = tmp_path / name, tmp_path / "config.yaml"
    target.write_text("study: mine")
    make = {
        "file": lambda: path.write_text("mine"),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(target),
        "dangling link": lambda: path.symlink_to("nothing"),
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    before = os.lstat(path)
    with pytest.raises(UserError, match=f"^{path}: is there, and no socket"):
        preload.serve(str(tmp_path / "socket"), pytest.fail, pytest.fail)
    assert os.lstat(path) == before
    assert {path.name for path in tmp_path.iterdir()} == {name, "config.yaml"}
    assert target.read_text() == "study: mine"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_somebody_listens_at_is_refused_and_a_dead_one_replaced(tmp_path: Path, kind: int) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(path)
        if kind == socket.SOCK_STREAM:
            other.listen(1)
        with pytest.raises(UserError, match=f"^{path}: another process listens there"):
            preload.serve(path, pytest.fail, pytest.fail)
    preload._make_way(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("links", [True, False])
def test_the_socket_is_this_users_alone_and_not_replaced_when_something_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "socket"
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with socket.socket(socket.AF_UNIX) as server:
        identity = preload._listen(server, str(path))
        found = os.lstat(path)
        assert (stat.S_IMODE(found.st_mode), found.st_dev, found.st_ino) == (0o600, *identity)
        assert [path.name for path in tmp_path.iterdir()] == ["socket"]
    path.unlink()
    path.write_text("mine")
    with socket.socket(socket.AF_UNIX) as server, pytest.raises(UserError, match=f"^{path}: "):
        preload._listen(server, str(path))
    assert path.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["socket"]


def test_a_path_that_no_socket_can_have_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "socket", tmp_path / ("x" * 108)):
        with pytest.raises(UserError, match=f"^{path}: no socket can be made there"):
            preload.serve(str(path), lambda: None, pytest.fail)


def test_the_socket_of_a_workflow_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the temporary files, and where that path is too long in a folder that is this user's alone too."""
    short, long = tmp_path / "short", tmp_path / ("long" * 30)
    for folder in (short, long):
        folder.mkdir(mode=0o700)
    monkeypatch.setattr(preload.tempfile, "tempdir", "/tmp")
    path = Path(preload.socket_path())
    assert path.parent.parent == Path("/tmp")
    path.parent.rmdir()
    for runtime in ("/", str(long)):  # none of this user's alone, and one that is no shorter
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setattr(preload.tempfile, "tempdir", str(long))
        path = Path(preload.socket_path())
        assert long not in path.parents
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as server:
            preload._listen(server, str(path))
        path.unlink()
        path.parent.rmdir()
        assert not list(long.glob("ssvi-????????"))


# Waiting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["never accepts", "never answers", "answers after that"])
def test_a_server_that_does_not_begin_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    path = str(tmp_path / "socket")
    monkeypatch.setenv(preload.SOCKET, path)
    monkeypatch.setattr(preload, "HANDSHAKE_SECONDS", 0.1)
    monkeypatch.setenv("LARGE", "x" * 100_000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        if moment == "never accepts":
            queue = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for waiting in queue:
                waiting.setblocking(False)
                waiting.connect_ex(path)
        assert preload.hand_over(["train"]) is None
        assert f"the server at {path} did not answer in 0.1 s; this command runs by itself" in capsys.readouterr().err
        if moment == "answers after that":
            connection, _ = server.accept()
            ran: list[list[str]] = []
            monkeypatch.setattr(os, "_exit", sys.exit)
            with connection, pytest.raises((SystemExit, BrokenPipeError, ConnectionError)):
                preload._run(connection, ran.append)
            assert ran == []


def test_a_command_takes_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for its beginning alone."""
    path = str(tmp_path / "socket")
    monkeypatch.setenv(preload.SOCKET, path)
    monkeypatch.setattr(preload, "HANDSHAKE_SECONDS", 0.2)

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            socket.recv_fds(connection, 1, 3)
            preload._receive(connection, preload._LENGTH.unpack(preload._receive(connection, 4))[0])
            connection.sendall(b"+")
            assert connection.recv(1) == preload.BEGIN
            time.sleep(0.6)
            connection.sendall(preload._LENGTH.pack(7))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        thread = threading.Thread(target=answer, args=[server])
        thread.start()
        assert preload.hand_over(["train"]) == 7
        thread.join()


def test_a_command_goes_on_when_the_server_is_stopped_or_killed(tmp_path: Path) -> None:
    program = """
import sys, time
from ssvi.machine import preload

def command(arguments):
    print("begun", flush=True)
    sys.stdin.read()
    sys.exit(5)

preload.serve(sys.argv[1], lambda: None, command)
"""
    path = str(tmp_path / "socket")
    server = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE)
    while not os.path.exists(path):
        assert server.poll() is None
        time.sleep(0.02)
    hand_over = "import sys; from ssvi.machine import preload; sys.exit(preload.hand_over(['train']))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, preload.SOCKET: path}
    caller = subprocess.Popen([sys.executable, "-c", hand_over], env=environment, **pipes)
    assert caller.stdout.readline() == "begun\n"
    server.send_signal(signal.SIGSTOP)
    server.kill()
    server.communicate()
    caller.communicate("")
    assert caller.returncode == 5
