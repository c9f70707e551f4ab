"""Table 1 and the summary by hand, and tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run, write_runs

from ssvi.analysis import tables
from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.tables.format import to_markdown
from ssvi.errors import UserError
from ssvi.runs.spec import RunSpec

CIFAR = {"dataset": "cifar10", "validation": 0.0}
VI = RunSpec(method="vi", **CIFAR)
SSVI = RunSpec(method="ssvi", density=0.1, **CIFAR)


def _frames(results: Path) -> tuple[Frames, dict[str, RunSpec]]:
    """Dense BNN with accuracies 0.94, 0.95, 0.96; SSVI at 0.1 with 0.90, 0.94; half and all of the cost."""
    specs: dict[str, RunSpec] = {}
    for spec, accuracy in zip(with_seeds(VI), (0.94, 0.95, 0.96), strict=True):
        run = write_run(results, spec, accuracy=accuracy, training_flops=2e15, training_seconds=100.0)
        specs[run] = spec
    for spec, accuracy in zip(with_seeds(SSVI, 2), (0.90, 0.94), strict=True):
        run = write_run(results, spec, accuracy=accuracy, training_flops=3e14, training_seconds=150.0)
        specs[run] = spec
    return load_frames(results, specs), specs


def test_table1_by_hand(tmp_path: Path) -> None:
    table = tables.make_table("table1", _frames(tmp_path)[0])
    dense, sparse = table.numbers.to_dict("records")
    assert (dense["n"], sparse["n"]) == (3, 2)
    assert dense["accuracy_percent_mean"] == pytest.approx(95)
    assert dense["accuracy_percent_sd"] == pytest.approx(1)
    assert sparse["accuracy_percent_mean"] == pytest.approx(92)
    assert sparse["accuracy_percent_sd"] == pytest.approx(math.sqrt(8))
    assert sparse["training_flops_ratio_mean"] == pytest.approx(0.15)
    assert sparse["training_seconds_ratio_mean"] == pytest.approx(1.5)
    assert sparse["training_flops_paper_mean"] == pytest.approx(1.14e16)
    assert list(table.frame["accuracy (%)"]) == ["95.00 ± 1.00", "92.00 ± 2.83"]


def test_paper_units_only_where_the_paper_counted(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [RunSpec(dataset="digits", epochs=3)])
    table = tables.make_table("table1", load_frames(tmp_path, specs))
    assert not [name for name in table.frame.columns if "paper" in name]
    assert table.numbers["training_flops_ratio_mean"].iloc[0] == pytest.approx(0.1)
    assert any("the method itself at density 1" in note for note in table.notes)


def test_diverged_run_is_left_out_and_named(tmp_path: Path) -> None:
    _, specs = _frames(tmp_path)
    spec = dataclasses.replace(SSVI, seed=7)
    run = write_run(tmp_path, spec, diverged="the loss is nan at epoch 2")
    frames = load_frames(tmp_path, {**specs, run: spec})
    for table in (tables.make_table("table1", frames), tables.make_table("summary", frames)):
        assert table.numbers["n"].tolist() == [3, 2]
        assert table.numbers["accuracy_percent_mean"].iloc[1] == pytest.approx(92)
        assert f"Left out, diverged: {run} (the loss is nan at epoch 2)." in table.notes


def test_only_diverged_runs_give_dashes(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI, diverged="the loss is inf")
    table = tables.make_table("summary", load_frames(tmp_path, {run: SSVI}))
    assert table.frame["accuracy (%)"].tolist() == ["–"]
    assert table.frame["n"].tolist() == ["0"]


SMALL = tables.Table(
    pd.DataFrame(
        {"method": ["SSVI"], "criterion": ["snr_abs"], "accuracy (%)": ["92.00 ± 2.83"], "FLOPs": ["(3.00 ± 0.10)e14"]}
    ),
    pd.DataFrame({"method": ["ssvi"], "accuracy_mean": [0.1 + 0.2]}),
    "A & B",
    ("Left out: a_b (x|y).",),
)


def test_markdown() -> None:
    assert to_markdown(SMALL) == (
        "**A & B**\n\n"
        "| method | criterion | accuracy (%) | FLOPs |\n"
        "| :--- | :--- | ---: | ---: |\n"
        "| SSVI | snr_abs | 92.00 ± 2.83 | (3.00 ± 0.10)e14 |\n\n"
        "- Left out: a_b (x\\|y).\n"
    )


def test_latex_and_csv(tmp_path: Path) -> None:
    tables.write_table(SMALL, tmp_path / "t")
    latex = (tmp_path / "t.tex").read_text()
    assert r"SSVI & snr\_abs & 92.00 $\pm$ 2.83 & $(3.00 \pm 0.10) \times 10^{14}$ \\" in latex
    assert r"\caption{A \& B}" in latex
    assert r"method & criterion & accuracy (\%) & FLOPs \\" in latex
    assert r"\begin{tabular}{llrr}" in latex
    assert r"a\_b (x\textbar{}y)" in latex
    assert (tmp_path / "t.csv").read_text() == "method,accuracy_mean\nssvi,0.30000000000000004\n"
    assert (tmp_path / "t.md").read_text() == to_markdown(SMALL)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"did you mean 'table1'\?"):
        tables.make_table("tabel1", Frames(*[pd.DataFrame()] * 5))
