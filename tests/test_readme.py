"""What README.md says of results is rendered, and what it names exists."""

import re
from pathlib import Path

import pytest

from benchmarks import performance
from benchmarks.readme import PERFORMANCE, RESULTS, gallery, insert, section, snapshot
from ssvi.cli import parser
from ssvi.errors import UserError
from ssvi.runs.config import load_config, resolve

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_results_are_rendered_from_the_snapshot() -> None:
    docs = ROOT / "docs/digits"
    assert insert(TEXT, RESULTS, section(docs)) == TEXT
    assert gallery(docs) == (docs / "README.md").read_text()


def test_performance_is_rendered_from_the_records() -> None:
    records = performance.read_records(ROOT / "benchmarks/records")
    assert insert(TEXT, PERFORMANCE, performance.section(records)) == TEXT
    figure = performance.draw(records)
    for axes in figure.axes:
        assert axes.lines, axes.get_xlabel()
    # a GPU row appears only if it was measured
    on_gpu = any(f["name"].startswith("gpu.") for f in records["speed"]["figures"])
    assert ("on the GPU" in performance.speed_table(records)) == on_gpu


def trial(**changed) -> dict:
    """A record as `make gpu` writes it, of a machine that there is not."""
    history = [{"history": {"epoch": i, "seconds": 2.0 + i, "validation_accuracy": 0.1 * i}} for i in (1, 2, 3)]
    jobs = [
        {"name": "gradients", "outcome": "passed", "reason": "", "found": []},
        {"name": "resume", "outcome": "timed out", "reason": "it was ended after 150 s", "found": []},
        {
            "name": "training.ssvi",
            "outcome": "passed",
            "reason": "",
            "found": [*history, {"metrics": {"accuracy": 0.25}}],
        },
        {"name": "training.dense", "outcome": "passed", "reason": "", "found": [*history[:2], {"stopped_after": 2}]},
    ]
    whole = {"minimum": 1.0, "maximum": 2.0, "repeats": 5}
    values = {"gpu.lrt_over_plain": 2.0, "gpu.ms.ssvi.eager": 8.0, "gpu.ms.ssvi.both": 4.0, "gpu.ms.dense.both": 2.0}
    values["gpu.ms.update"] = 30.0
    figures = [{"name": name, "value": value, "unit": "", "note": "R, G", **whole} for name, value in values.items()]
    figures[0]["note"] += "; ssvi without compile, which was switched off"
    header = {"when": "2001-02-03T04:05:06+00:00", "hardware": "G", "torch": "9", "commit": "0123456789", "dirty": True}
    return {**header, "device": "cuda", "tiny": False, "whole": True, "jobs": jobs, "figures": figures, **changed}


def test_a_trial_on_a_gpu_is_rendered_with_what_did_not_pass() -> None:
    records = performance.read_records(ROOT / "benchmarks/records")
    text = performance.section(records | {"gpu": trial()})
    assert (
        "On a GPU (G; torch 9; 2001-02-03, commit 0123456, with changes), 3 of the 4 jobs of `make gpu` passed" in text
    )
    assert "- timed out, for the time was over: `resume`" in text
    assert "- `gpu.lrt_over_plain`: ssvi without compile, which was switched off" in text
    assert "| SSVI step ÷ plain network's step, on the GPU | 2 | 1 to 2 | `gpu.lrt_over_plain` |" in text
    assert "| milliseconds a step | eager | both |" in text
    assert "| ssvi | 8 | 4 |\n| dense |  | 2 |" in text
    assert "| ssvi | 3 | 4 | 30.00 % | 25.00 % |\n| dense | 2 | 4 | 20.00 % |  |" in text
    assert "No GPU has been measured" not in text
    assert "No GPU has been measured" in performance.section({k: v for k, v in records.items() if k != "gpu"})


@pytest.mark.parametrize("changed", [{"device": "cpu"}, {"tiny": True}, {"whole": False}])
def test_what_no_gpu_measured_is_never_rendered_as_if_one_had(changed) -> None:
    with pytest.raises(UserError, match=r"gpu.json: is not a whole trial on a GPU; delete it"):
        performance.gpu_part(trial(**changed))


def test_the_readme_lists_every_target() -> None:
    config = load_config(ROOT / "config.yaml")
    content = resolve(config, "paper")
    listed = set(re.findall(r"`(\w+)`", TEXT.split("## The paper, output by output")[1].split("## What a run is")[0]))
    assert {*content["tables"], *content["figures"], "quick", "report"} <= listed


def test_files_and_targets_that_the_readme_names_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"\bmake ([a-z][a-z-]*)", TEXT):
        assert target in targets or target == "readme"


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in TEXT.split("## What it promises")[1].split("## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    files = {path.name: path for path in (ROOT / "tests").rglob("*.py")}
    for row in rows[1:]:
        proofs = row.split("|")[2]
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", proofs)
        assert "`::" not in proofs, row
        assert named or re.search(r"\]\(tests/", proofs), row
        for file, test in named:
            assert f"def {test}(" in files[file].read_text(), test


def test_commands_that_the_readme_shows_parse() -> None:
    lines = re.findall(r"^ssvi (.*?)(?:\s+#.*)?$", TEXT, re.M)
    assert lines
    for line in lines:
        parser().parse_args(line.split())


def test_rendering_before_the_study_is_one_clear_line(tmp_path) -> None:
    with pytest.raises(UserError, match="run `make reproduce` first"):
        snapshot(tmp_path, tmp_path / "docs")
