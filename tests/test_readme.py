"""What README.md says of results is rendered, and what it names exists."""

import re
from pathlib import Path

import pytest

from ssvi.analysis import performance
from ssvi.analysis.readme import PERFORMANCE, RESULTS, gallery, insert, section, snapshot
from ssvi.cli import parser
from ssvi.config import load_config, resolve
from ssvi.errors import UserError

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


def test_the_readme_lists_every_target() -> None:
    config = load_config(ROOT / "config.yaml")
    content = resolve(config, "paper")
    listed = set(re.findall(r"`(\w+)`", TEXT.split("## The paper, output by output")[1].split("## What a run is")[0]))
    assert {*content["tables"], *content["figures"], "quick", "report"} <= listed


def test_files_and_targets_that_the_readme_names_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"make ([a-z]+)", TEXT):
        assert target in targets or target == "readme"


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in TEXT.split("## What it promises")[1].split("## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    files = {path.name: path for path in (ROOT / "tests").rglob("*.py")}
    for row in rows[1:]:
        proofs = row.split("|")[2]
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", proofs)
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
