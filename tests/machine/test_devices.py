"""Which GPU a process takes: claims of processes that really run at once, on GPUs that are only named."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ssvi.cli.machine import device_of
from ssvi.machine import devices, preload
from ssvi.machine.devices import claim_gpu, gpu_count

CLAIM = "import sys; from ssvi.machine.devices import claim_gpu; print(claim_gpu({}), flush=True); sys.stdin.read()"
SERVE = f"""
from ssvi.machine import preload

def command(arguments):
    {CLAIM.format("int(arguments[1])")}

preload.serve({{!r}}, lambda: None, command)
"""
HAND_OVER = "import sys; from ssvi.machine import preload; sys.exit(preload.hand_over(['train', '{}']))"

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program that sees the GPUs named by `visible`; what still runs in the end is killed."""
    started: list[subprocess.Popen] = []

    def start(program: str, visible: str | None = None, **environment: str) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", preload.SOCKET)}
        named = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean, "XDG_RUNTIME_DIR": str(tmp_path), **named, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def taken(process: subprocess.Popen) -> int:
    """The GPU that a process has claimed."""
    return int(process.stdout.readline())


def kill(process: subprocess.Popen) -> None:
    """As `kill -9` does; until the last process that could write to its output has ended."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout.read() == ""
    process.wait()


def test_the_first_get_a_gpu_each_and_the_next_share(start: Start) -> None:
    running = [start(CLAIM.format(2), "0,1") for _ in range(4)]
    assert sorted(map(taken, running)) == [0, 0, 1, 1]
    assert taken(start(CLAIM.format(2), "0,1")) == 0


def test_in_turn_and_a_killed_process_leaves_its_place(start: Start) -> None:
    running = []
    for expected in (0, 1, 0, 1):
        running.append(start(CLAIM.format(2), "0,1"))
        assert taken(running[-1]) == expected
    kill(running[1])
    assert taken(start(CLAIM.format(2), "0,1")) == 1
    kill(running[0])
    kill(running[2])
    assert [taken(start(CLAIM.format(2), "0,1")) for _ in range(3)] == [0, 0, 0]


def test_an_ended_process_leaves_no_file(start: Start, tmp_path: Path) -> None:
    for _ in range(3):
        process = start(CLAIM.format(2), "0,1")
        assert taken(process) == 0
        process.communicate("")
    assert len(list(tmp_path.glob("ssvi-gpus-*/*~*"))) == 1


def test_processes_that_see_different_gpus_understand_each_other(start: Start) -> None:
    assert taken(start(CLAIM.format(1), "2")) == 0
    assert taken(start(CLAIM.format(2), "2,3")) == 1
    assert taken(start(CLAIM.format(2), "3,2,-1")) == 0
    assert taken(start(CLAIM.format(2), "3,2")) == 1
    # Without the variable all are visible, by their number.
    assert [taken(start(CLAIM.format(4))) for _ in range(2)] == [0, 1]
    assert taken(start(CLAIM.format(2), "MIG-GPU-5a/1/0,MIG-GPU-5a/2/0")) == 0
    assert taken(start(CLAIM.format(2), "MIG-GPU-5a/1/0,MIG-GPU-5a/2/0")) == 1


def test_commands_of_a_preloaded_server_claim_for_themselves(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start(SERVE.format(str(path)))
    while not path.exists():
        assert server.poll() is None
        time.sleep(0.02)
    callers = [start(HAND_OVER.format(2), "0,1", **{preload.SOCKET: str(path)}) for _ in range(4)]
    assert sorted(map(taken, callers)) == [0, 0, 1, 1]
    for caller in callers:
        kill(caller)
    # The server and what it forks next hold nothing of theirs.
    assert [taken(start(CLAIM.format(2), "0,1")) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("thing", ["a link", "a file", "open to others", "a link as gate", "a gate that stays shut"])
def test_where_nothing_can_be_claimed_the_first_is_taken(monkeypatch, tmp_path: Path, capsys, thing: str) -> None:
    """And nothing that others put there is followed, changed or waited for."""
    folder, elsewhere = tmp_path / f"ssvi-gpus-{os.uname().nodename}", tmp_path / "elsewhere"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(devices, "GATE_SECONDS", 0.05)
    elsewhere.mkdir(mode=0o700)
    if thing == "a link":
        folder.symlink_to(elsewhere)
    elif thing == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir(mode=0o755 if thing == "open to others" else 0o700)
    if thing == "a link as gate":
        (folder / "gate").symlink_to(elsewhere / "made")
    with (folder / "gate" if thing == "a gate that stays shut" else elsewhere / "none").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        assert claim_gpu(2) == 0
    assert "ssvi: no GPU could be claimed, so this takes the first one: " in capsys.readouterr().err
    assert [path.name for path in elsewhere.iterdir()] == ([] if thing == "a gate that stays shut" else ["none"])


def test_claims_delete_no_file_of_others(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / f"ssvi-gpus-{os.uname().nodename}"
    folder.mkdir(mode=0o700)
    (folder / "notes~").write_text("mine")
    (folder / "0~linked00").symlink_to(folder / "notes~")
    assert claim_gpu(2) == 0
    assert {"notes~", "0~linked00"} <= {path.name for path in folder.iterdir()}


def test_auto_claims_and_a_named_device_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    current = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    devices = [device_of(name, None) for name in ("auto", "cuda:1", "cuda", "auto", "cpu", "auto")]
    assert [str(device) for device in devices] == ["cuda:0", "cuda:1", "cuda", "cuda:1", "cpu", "cuda:0"]
    assert current == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(("visible", "count"), [("0,1", 2), ("3", 1), ("GPU-5a, GPU-6b", 2), ("", 0), ("-1", 0)])
def test_only_visible_gpus_count(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count
