"""`ssvi doctor`: a check that breaks, crashes or hangs costs its line; lines, JSON and exit code say what was found."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from doctors import bare, examined
from studies import config_of, write_config

from ssvi.cli import main
from ssvi.doctor import command, installation, running, study
from ssvi.doctor.base import VERDICTS, Asked, Check, Result, chosen, worst
from ssvi.doctor.registry import CHECKS
from ssvi.errors import UserError
from ssvi.runs import versions


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Asked:
    return bare(tmp_path, monkeypatch)


# ---------------------------------------------------------------- processes, lines, JSON

FAULTY = """
import ctypes, os, time
from pathlib import Path
from ssvi.doctor.base import Result
from ssvi.doctor.probing import scratch

def good(asked): return Result("ok", f"in {os.getpid()}")
def broken(asked): raise ValueError("nonsense\\nand more")
def exits(asked): print("last words", flush=True); os._exit(3)
def segfault(asked): ctypes.string_at(0)
def hang(asked):
    with scratch(asked.results, asked) as place:
        (asked.results.parent / "left").write_text(str(place))
        time.sleep(600)
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch) -> dict[str, Check]:
    """Checks that end in every way, in a module of the package that only this test has."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "sitecustomize.py").write_text("import sys, faulty; sys.modules['ssvi.doctor.faulty'] = faulty\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ("good", "broken", "segfault", "after", "hang", "exits", "again", "last")
    codes = {name: name for name in names} | dict.fromkeys(("after", "again", "last"), "good")
    # what depends on one that failed is left out
    needs = {"last": ("good", "hang")}
    limits = {"hang": 1.0}
    return {n: Check(f"faulty:{codes[n]}", limits.get(n, 30.0), needs.get(n, ())) for n in names}


def test_a_check_that_breaks_crashes_or_hangs_costs_its_line(faulty, asked) -> None:
    told: list[running.Line] = []
    lines = running.play(faulty, asked, 60.0, told.append)
    assert lines == told
    found = {line.name: line.result for line in lines}
    assert {name: result.verdict for name, result in found.items()} == {
        **dict.fromkeys(("good", "after", "again"), "ok"),
        **dict.fromkeys(("broken", "segfault", "hang", "exits"), "failed"),
        "last": "skipped",
    }
    assert found["broken"].finding == "ValueError: nonsense"
    assert found["segfault"].finding == "it crashed: it was ended by SIGSEGV"
    assert found["exits"].finding == "it crashed: it ended with exit code 3: last words"
    assert found["hang"].finding == "it hangs: no answer in 1 s, and it was killed"
    assert found["last"].finding == "hang failed"
    left = Path((asked.results.parent / "left").read_text())
    assert left.name.startswith(".ssvi-doctor-test-")
    assert not left.exists()  # what a check that was killed has left is removed, too


def test_when_the_time_is_over_the_rest_is_skipped(faulty, asked) -> None:
    checks = {name: faulty[name] for name in ("hang", "after")}
    checks["hang"] = Check("faulty:hang", 30.0)
    lines = running.play(checks, asked, 1.0, lambda line: None)
    assert [line.result.verdict for line in lines] == ["skipped", "skipped"]
    assert "time for all checks was over" in lines[0].result.finding
    assert lines[1].result.advice == "ssvi doctor --only after"


@pytest.mark.parametrize(("good", "code"), [("ok", 0), ("note", 0), ("warning", 0), ("failed", 1)])
def test_the_exit_code_and_the_json_say_what_failed(monkeypatch, capsys, tmp_path, good, code) -> None:
    monkeypatch.chdir(tmp_path)
    checks = {"a": Check("a:a"), "b.c": Check("b:c")}
    found = {"a": Result(good, "so it is", "meaning", "advice"), "b.c": Result("ok", "fine")}
    monkeypatch.setattr(command, "CHECKS", checks)

    def play(checks, asked, seconds, tell):
        lines = [running.Line(name, found[name], 0.5) for name in checks]
        for line in lines:
            tell(line)
        return lines

    monkeypatch.setattr(command, "play", play)
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--json", "--device=cpu", "--results=here"])
    assert caught.value.code == code
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert told.err.splitlines()[0] == f"{good:<7}  a    so it is. meaning -> advice"
    assert record["format"] == 1
    assert record["asked"] == {"device": "cpu", "results": "here", "data_root": "data", "threads": None, "config": None}
    assert record["verdicts"] == {verdict: [good, "ok"].count(verdict) for verdict in VERDICTS}
    first = {"name": "a", "verdict": good, "finding": "so it is", "meaning": "meaning", "advice": "advice"}
    assert record["checks"][0] == {**first, "seconds": 0.5}
    with pytest.raises(SystemExit):
        main(["doctor", "--only", "a"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{good:<7}  a  so it is. meaning -> advice", f"1 checks in 0 s: 1 {good}"]


def test_the_command_looks_at_what_the_config_names(tmp_path, monkeypatch) -> None:
    config = config_of("tiny", {"experiments": {"vi": {"method": "vi", "epochs": 1, "seed": [0, 1]}}}, threads=3)
    write_config(tmp_path, {**config, "results": "there"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSVI_DATA", raising=False)
    seen: list[Asked] = []
    monkeypatch.setattr(command, "play", lambda checks, asked, seconds, tell: seen.append(asked) or [])
    for more in ([], ["--results=other", "--data-root=d", "--threads=2"]):
        with pytest.raises(SystemExit) as caught:
            main(["doctor", *more])
        assert caught.value.code == 0
    first, second = seen
    assert (first.results, first.data_root, first.threads) == (Path("there"), Path("data"), 3)
    assert (second.results, second.data_root, second.threads) == (Path("other"), Path("d"), 2)
    assert Asked.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert len(study.specs(first)) == 2
    assert examined("config", first).verdict == "ok"
    (tmp_path / "config.yaml").write_text("study: [")
    assert examined("config", first).verdict == "failed"
    assert study.specs(first) == study.settings(first.config) == {}


@pytest.mark.parametrize("arguments", [["--device=tpu"], ["--only", "fp23"], ["--threads=0"], ["--seconds=0"]])
def test_mistakes_are_one_line(arguments, monkeypatch) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    assert arguments[0].split("=")[0] in caught.value.code
    assert "\n" not in caught.value.code


def test_every_check_is_there_is_found_by_its_name_and_has_what_it_needs() -> None:
    names = list(CHECKS)
    for name, check in CHECKS.items():
        module, function = check.code.split(":")
        assert callable(getattr(importlib.import_module(f"ssvi.doctor.{module}"), function))
        assert all(names.index(need) < names.index(name) for need in check.needs)
    assert set(chosen(CHECKS, ["results.*", "fp32"], False)) == {
        name for name in CHECKS if name.startswith("results.") or name == "fp32"
    }
    usual = chosen(CHECKS, [], thorough=False)
    assert {name for name in chosen(CHECKS, [], thorough=True) if name not in usual} == {
        name for name in CHECKS if name.startswith("methods.")
    }
    with pytest.raises(UserError, match="--only 'gpus': no such check"):
        chosen(CHECKS, ["gpus"], False)


def test_several_findings_are_told_worst_first() -> None:
    bad = Result("warning", "bad", "slow", "mend")
    assert worst([Result("ok", "good"), bad, bad]) == Result("warning", "bad; good", "slow", "mend")


# ---------------------------------------------------------------- what is installed


def test_other_versions_and_missing_packages_are_told(monkeypatch, asked) -> None:
    here = {name: versions.tested()[name] for name in versions.COMPUTING}
    monkeypatch.setattr(versions, "installed", here.get)
    monkeypatch.setattr(installation, "installed", here.get)
    assert examined("packages", asked) == Result("ok", "as tested")
    here["rich"] = "0.0.1"
    found = examined("packages", asked)
    assert found.verdict == "note"
    assert f"rich 0.0.1 (tested: {versions.tested()['rich']})" in found.finding
    here["torch"] = "2.0.1"
    assert examined("packages", asked).verdict == "warning"
    del here["torch"]
    assert examined("packages", asked).verdict == "failed"
    numerics = f"numerics {versions.NUMERICS} ({versions.NUMERICS_OF_FOLDERS} of folder:PATH)"
    assert numerics in examined("python", asked).finding


def test_a_torch_that_cannot_be_loaded_fails(monkeypatch, asked) -> None:
    assert examined("torch", asked).verdict == "ok"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch cannot be loaded" in examined("torch", asked).finding
