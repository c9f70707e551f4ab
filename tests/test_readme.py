"""What README.md says of results is rendered, and what it names exists."""

import re
import shutil
from pathlib import Path

import pytest
from fake_runs import with_seeds, write_runs

from benchmarks import performance, serving, uncertainty
from benchmarks.readme import (
    COMPACT_HEADINGS,
    PERFORMANCE,
    RESULTS,
    STUDIES,
    gallery,
    insert,
    refresh,
    section,
    snapshot,
)
from ssvi.analysis.collect import load_frames
from ssvi.analysis.tables import TABLES, make_table, write_table
from ssvi.cli import parser
from ssvi.errors import UserError
from ssvi.machine.disk import write_text
from ssvi.runs.config import load_config, resolve
from ssvi.runs.spec import RunSpec

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
# Of a figure measured in seconds: these, and the processor's.
SECONDS = ("", ".processor")


def test_results_are_rendered_from_the_snapshots() -> None:
    docs = ROOT / "docs"
    assert insert(TEXT, RESULTS, section(docs)) == TEXT
    there = [name for name in STUDIES if (docs / name).is_dir()]
    assert there
    for name in there:
        assert gallery(docs / name) == (docs / name / "README.md").read_text()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """docs/ with digits as it is, and fashion of made-up runs."""
    shutil.copytree(ROOT / "docs/digits", tmp_path / "docs/digits")
    specs = {}
    for method in ("vi", "rigl", "ssvi"):
        specs |= write_runs(tmp_path, with_seeds(RunSpec(method=method, dataset="fashion", density=0.1), 3))
    reports = tmp_path / "reports/fashion"
    for name in ("table1", "uncertainty", "shift", "claims"):
        maker = TABLES[name]
        frames = load_frames(tmp_path, specs, maker.needs, maker.uses)
        write_table(make_table(name, frames), reports / "tables" / name)
    write_text(reports / "figures/shift.png", "no picture")
    write_text(reports / "figures/shift.md", "By severity.\n\n- A note.\n")
    write_text(reports / "report.html", "")
    assert refresh(tmp_path / "reports", tmp_path / "docs") == ["fashion"]
    return tmp_path / "docs"


def cells(text: str, caption: str) -> list[list[str]]:
    """Headings and rows of the table under a caption."""
    lines = text.split(f"**{caption}**\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| :-")]


def test_fashion_leads_the_results_once_it_is_made(fashion) -> None:
    text = section(fashion)
    assert re.findall("^## (.*)", text, re.M) == ["Results on Fashion-MNIST", "Results on digits"]
    # a part of the columns, each with its own cells
    whole, short = (
        cells(one, "Calibration, and the posterior in use.") for one in (gallery(fashion / "fashion"), text)
    )
    assert short[0] == [name for name in whole[0] if name in COMPACT_HEADINGS]
    assert {"method", "accuracy (%)", "ECE, scaled", "mutual information, share of it (%)", "n"} <= set(short[0])
    assert len(short) == len(whole) == 4
    for row, full in zip(short, whole, strict=True):
        assert row == [full[whole[0].index(name)] for name in short[0]]
    assert "![shift](docs/fashion/figures/shift.png)\n\nBy severity.\n\n" in text
    of_fashion, of_digits = text.split("## Results on digits")
    for part, name in ((of_fashion, "fashion"), (of_digits, "digits")):
        assert re.search(r"Verdicts of (\d+) lines: (\d+) hold", part).group() in gallery(fashion / name)
        assert f"(docs/{name}/README.md)" in part
    # digits is shorter then, and as it was
    assert "**Sparse Bayesian networks.**" not in text
    assert gallery(fashion / "digits") == gallery(ROOT / "docs/digits")


def test_a_table_and_a_figure_of_one_name_have_headings_of_their_own(fashion) -> None:
    headings = re.findall("^## (.*)", (fashion / "fashion/README.md").read_text(), re.M)
    assert headings == ["Table claims", "Table shift", "Table table1", "Table uncertainty", "Figure shift"]


def test_what_a_part_made_study_lacks_is_one_clear_line(fashion) -> None:
    (fashion / "fashion/tables/uncertainty.md").unlink()
    with pytest.raises(UserError, match=r"uncertainty.md: no such file; make the whole study fashion, then"):
        section(fashion)


def test_performance_is_rendered_from_the_records() -> None:
    records = performance.read_records(ROOT / "benchmarks/records")
    assert insert(TEXT, PERFORMANCE, performance.section(records)) == TEXT
    figure = performance.draw(records)
    for axes in figure.axes:
        assert axes.lines, axes.get_xlabel()
    # a GPU row appears only if it was measured
    on_gpu = any(f["name"].startswith("gpu.") for f in records["speed"]["figures"])
    assert ("on the GPU" in performance.speed_table(records)) == on_gpu


@pytest.mark.parametrize("benchmark", [serving, uncertainty])
def test_records_of_commands_have_one_form(benchmark) -> None:
    """As `made` writes it, with what the limits are of."""
    name = benchmark.__name__.rpartition(".")[2]
    record = performance.read_records(ROOT / "benchmarks/records")[name]
    form = serving.made(0.0, 1, {}, {f"{name}.x": [1.0]}, {f"{name}.bytes": 1})
    assert record.keys() == form.keys()
    assert {tuple(one) for one in record["figures"]} == {tuple(one) for one in form["figures"]}
    assert {one["name"] for one in record["figures"]} >= {limit + end for limit in benchmark.LIMITS for end in SECONDS}


def test_memory_of_the_suite_is_flat_over_the_test_images() -> None:
    """As it was measured."""
    found = {
        one["name"]: one["value"]
        for one in performance.read_records(ROOT / "benchmarks/records")["uncertainty"]["figures"]
    }
    few, many = (found[f"uncertainty.memory.{number}"] for number in uncertainty.TESTED)
    assert 0.95 < many / few < 1.05


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
    listed = set(re.findall(r"`(\w+)`", TEXT.split("## The paper, output by output")[1].split("## What a run is")[0]))
    for study in ("paper", "fashion", "learning"):
        content = resolve(config, study)
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
