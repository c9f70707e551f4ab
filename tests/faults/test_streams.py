"""Standard output and error that are full, closed, or read by nobody: no command fails because nobody can be told."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SPECS, run, training

from ssvi.cli import main
from ssvi.machine import process
from ssvi.runs import files
from ssvi.runs.runfolder import read_spec

SAYS = "import sys; from ssvi.machine import process; process.hold_streams(); "
BOTH = SAYS + "print('a word', flush=True); print('another', file=sys.stderr); "
FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def shell(program: str, redirections: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python program with the shell's redirections, in a folder."""
    words = ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, program]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    "redirections",
    [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-", "> >(:)", "2> >(:)"],
)
def test_nothing_fails_and_no_file_gets_what_was_meant_for_people(tmp_path: Path, redirections: str) -> None:
    program = (
        BOTH + "f = open('file', 'w'); import os; os.write(f.fileno(), b'own'); print('x' * 99999, file=sys.stderr)"
    )
    done = shell(program, redirections, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "own"
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor"), (">/dev/null", None)],
)
def test_a_product_that_is_lost_is_told(tmp_path: Path, redirection: str, why: str | None) -> None:
    program = BOTH + "process.check_output()"
    done = shell(program, redirection, tmp_path)
    assert done.returncode == (0 if why is None else 1)
    assert ("standard output" in done.stderr.splitlines()[-1]) == (why is not None)
    assert why is None or why in done.stderr


def test_words_come_out_as_before(tmp_path: Path) -> None:
    done = shell(BOTH + "print('é', end='')", "", tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("a word\né", "another\n", 0)


def test_unbuffered_output_stays_so(tmp_path: Path) -> None:
    program = SAYS + "print('a word'); import os; os._exit(0)"
    words = [sys.executable, "-u", "-c", program]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "a word\n"


@pytest.mark.parametrize(
    ("room", "command"), [("data", "data"), ("checkup", "bench"), ("checkup", "doctor"), ("evaluate", "evaluate")]
)
def test_commands_whose_output_is_the_product_end_with_one_line(monkeypatch, capsys, room: str, command: str) -> None:
    """By their exit code 1; the others go on to 0, because what they are for is in files."""
    monkeypatch.setattr(f"ssvi.cli.{room}._{command}", lambda given: print("lost"))
    with open("/dev/full", "wb", buffering=0) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", _output(full.fileno()))
        words = [command, *{"data": ["digits"], "evaluate": ["run"]}.get(command, [])]
        if command == "evaluate":
            main(words)
        else:
            with pytest.raises(SystemExit, match=r"^ssvi: standard output: No space left on device"):
                main(words)


def test_a_doctor_whose_findings_are_lost_has_not_told_them() -> None:
    """The command as it is, which ends by itself with the code of its checks."""
    words = [sys.executable, "-m", "ssvi", "doctor", "--only", "python"]
    with FULL.open("wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "standard output: No space left on device" in done.stderr


def _output(number: int) -> object:
    return io.TextIOWrapper(io.BufferedWriter(process.Output(number, "w", closefd=False)))


@pytest.mark.fault("standard error that is full, or closed")
@pytest.mark.parametrize("closed", [False, True])
def test_a_training_of_which_nobody_can_be_told_ends_as_any_other(tmp_path: Path, data_root, closed: bool) -> None:
    def mute() -> None:
        if closed:
            os.close(2)
        else:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        process.hold_streams()

    assert run(training(SPECS["mlp"], tmp_path / "run", data_root), tmp_path / "log", mute) == 0
    assert files.is_trained(tmp_path / "run")
    assert json.loads((tmp_path / "run" / files.TRAINING).read_text())["status"] == "complete"
    assert read_spec(tmp_path / "run") == SPECS["mlp"]
