"""Collecting, tables and figures, on made-up finished runs with hand-computed answers."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run, write_runs

from ssvi import runs as files
from ssvi.analysis import collect, figures, tables
from ssvi.errors import UserError
from ssvi.spec import RunSpec

CIFAR = {"dataset": "cifar10"}
VI = RunSpec(method="vi", **CIFAR)
SSVI = RunSpec(method="ssvi", density=0.1, **CIFAR)


def _frame(results: Path) -> tuple[pd.DataFrame, dict[str, RunSpec]]:
    """Dense BNN with accuracies 0.94, 0.95, 0.96; SSVI at 0.1 with 0.90, 0.94; half and all of the cost."""
    specs: dict[str, RunSpec] = {}
    for spec, accuracy in zip(with_seeds(VI), (0.94, 0.95, 0.96), strict=True):
        run = write_run(results, spec, accuracy=accuracy, training_flops=2e15, training_seconds=100.0)
        specs[run] = spec
    for spec, accuracy in zip(with_seeds(SSVI, 2), (0.90, 0.94), strict=True):
        run = write_run(results, spec, accuracy=accuracy, training_flops=3e14, training_seconds=150.0)
        specs[run] = spec
    return collect.load_runs(results, specs), specs


def test_row_has_used_options_only_and_measured_density(tmp_path: Path) -> None:
    frame, _ = _frame(tmp_path)
    dense, sparse = frame.iloc[0], frame.iloc[-1]
    assert dense["density"] == 1.0
    assert pd.isna(dense["criterion"])
    assert pd.isna(dense["delta_t"])
    assert sparse["density"] == 0.1
    assert sparse["criterion"] == "snr_abs"
    assert sparse["delta_t"] == 100
    assert sparse["density_actual"] == pytest.approx(0.1, abs=1e-6)
    assert (sparse["commit"], sparse["device"], sparse["evaluation_samples"]) == ("0123abc", "cpu", 5)


def test_collected_files_give_the_same_numbers_back(tmp_path: Path) -> None:
    frame, specs = _frame(tmp_path)
    for name in ("a", "b"):
        collect.write_collected(tmp_path, specs, tmp_path / name)
    runs, history = collect.read_collected([tmp_path / "a", tmp_path / "b"])
    assert list(runs["run"]) == list(specs)
    assert list(runs["nll"]) == pytest.approx(list(frame["nll"]), rel=1e-14)
    assert len(history) == len(specs) * 5
    assert history["lr_start"].unique() == [0.01]
    assert history["lr"].nunique() == 5
    before, after = tables.summary(frame), tables.summary(runs)
    assert tables.to_markdown(before) == tables.to_markdown(after)


def test_foreign_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI)
    with pytest.raises(UserError, match=r"delta_t was 100 and is now 50"):
        collect.load_runs(tmp_path, {run: dataclasses.replace(SSVI, delta_t=50)})
    (tmp_path / "runs" / run / files.METRICS).unlink()
    with pytest.raises(UserError, match=r"metrics\.json: no such file"):
        collect.load_runs(tmp_path, {run: SSVI})
    with pytest.raises(UserError, match="collect the experiment first"):
        collect.read_collected([tmp_path / "nothing"])


def test_runs_on_different_images_are_not_put_side_by_side(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    path = tmp_path / "runs" / list(specs)[1] / files.SPEC
    path.write_text(path.read_text().replace("f" * 64, "0" * 64))
    with pytest.raises(UserError, match="trained on other images of 'cifar10'") as caught:
        collect.load_runs(tmp_path, specs)
    assert "\n" not in str(caught.value)


def test_broken_history_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI)
    files.write_text(tmp_path / "runs" / run / files.HISTORY, "epoch,loss\n1,many\n")
    with pytest.raises(UserError, match=r"history\.csv: not a history"):
        collect.load_history(tmp_path, {run: SSVI})


@pytest.mark.parametrize(
    ("mean", "sd", "style", "text"),
    [
        (95.0, 1.0, ".2f", "95.00 ± 1.00"),
        (95.0, math.nan, ".2f", "95.00 ± –"),
        (math.nan, math.nan, ".2f", "–"),
        (12345.4, 0.0, "big", "12,345 ± 0"),
        (9.996e15, 2e13, "big", "(10.00 ± 0.02)e15"),
        (2.5e15, math.nan, "big", "(2.50 ± –)e15"),
        (1.14e16, math.nan, "exact", "1.14e16"),
    ],
)
def test_format(mean: float, sd: float, style: str, text: str) -> None:
    assert tables.format_mean_sd(mean, sd, style) == text


def test_table1_by_hand(tmp_path: Path) -> None:
    table = tables.table1(_frame(tmp_path)[0])
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
    table = tables.table1(collect.load_runs(tmp_path, specs))
    assert not [name for name in table.frame.columns if "paper" in name]
    assert table.numbers["training_flops_ratio_mean"].iloc[0] == pytest.approx(0.1)
    assert any("the method itself at density 1" in note for note in table.notes)


def test_diverged_run_is_left_out_and_named(tmp_path: Path) -> None:
    _, specs = _frame(tmp_path)
    spec = dataclasses.replace(SSVI, seed=7)
    run = write_run(tmp_path, spec, diverged="the loss is nan at epoch 2")
    frame = collect.load_runs(tmp_path, {**specs, run: spec})
    for table in (tables.table1(frame), tables.summary(frame)):
        assert table.numbers["n"].tolist() == [3, 2]
        assert table.numbers["accuracy_percent_mean"].iloc[1] == pytest.approx(92)
        assert f"Left out, diverged: {run} (the loss is nan at epoch 2)." in table.notes


def test_only_diverged_runs_give_dashes_and_no_figure(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI, diverged="the loss is inf")
    frame = collect.load_runs(tmp_path, {run: SSVI})
    table = tables.summary(frame)
    assert table.frame["accuracy (%)"].tolist() == ["–"]
    assert table.frame["n"].tolist() == ["0"]
    with pytest.raises(UserError, match="did not diverge"):
        figures.figure2_left(frame, collect.load_history(tmp_path, {run: SSVI}))


def test_settings_differ_by_what_varies(tmp_path: Path) -> None:
    specs = [dataclasses.replace(SSVI, criterion=c) for c in ("snr_abs", "abs_mu")] + [VI]
    frame = collect.load_runs(tmp_path, write_runs(tmp_path, specs))
    table = tables.summary(frame)
    assert list(table.numbers.columns[:5]) == ["dataset", "method", "density", "lr", "criterion"]
    assert table.frame["criterion"].tolist() == ["", "abs_mu", "snr_abs"]
    assert table.frame["n"].tolist() == ["1", "1", "1"]


SMALL = tables.Table(
    pd.DataFrame(
        {"method": ["SSVI"], "criterion": ["snr_abs"], "accuracy (%)": ["92.00 ± 2.83"], "FLOPs": ["(3.00 ± –)e14"]}
    ),
    pd.DataFrame({"method": ["ssvi"], "accuracy_mean": [0.1 + 0.2]}),
    "A & B",
    ("Left out: a_b (x|y).",),
)


def test_markdown() -> None:
    assert tables.to_markdown(SMALL) == (
        "**A & B**\n\n"
        "| method | criterion | accuracy (%) | FLOPs |\n"
        "| :--- | :--- | ---: | ---: |\n"
        "| SSVI | snr_abs | 92.00 ± 2.83 | (3.00 ± –)e14 |\n\n"
        "- Left out: a_b (x\\|y).\n"
    )


def test_latex_and_csv(tmp_path: Path) -> None:
    tables.write_table(SMALL, tmp_path / "t")
    latex = (tmp_path / "t.tex").read_text()
    assert r"SSVI & snr\_abs & 92.00 $\pm$ 2.83 & $(3.00 \pm \mbox{--}) \times 10^{14}$ \\" in latex
    assert r"\caption{A \& B}" in latex
    assert r"method & criterion & accuracy (\%) & FLOPs \\" in latex
    assert r"\begin{tabular}{llrr}" in latex
    assert r"a\_b (x\textbar{}y)" in latex
    assert (tmp_path / "t.csv").read_text() == "method,accuracy_mean\nssvi,0.30000000000000004\n"
    assert (tmp_path / "t.md").read_text() == tables.to_markdown(SMALL)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"did you mean 'table1'\?"):
        tables.make_table("tabel1", pd.DataFrame())
    with pytest.raises(UserError, match=r"did you mean 'curves'\?"):
        figures.make_figure("curve", pd.DataFrame(), pd.DataFrame())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    results = tmp_path_factory.mktemp("sweep")
    specs = [s for d in (0.2, 0.1, 0.01) for s in with_seeds(dataclasses.replace(SSVI, density=d), 2)]
    specs += [RunSpec(method="rigl", density=d, lr=lr, **CIFAR) for d in (0.1, 0.01) for lr in (0.01, 0.1)]
    specs += [VI, RunSpec(method="dense", lr=0.1, **CIFAR)]
    written = write_runs(results, specs)
    return collect.load_runs(results, written), collect.load_history(results, written)


def test_figure2_left_draws_its_csv_and_the_csv_is_the_means(
    sweep: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    runs, history = sweep
    figure, data = figures.figure2_left(runs, history)
    figures.write_figure(figure, data, tmp_path / "f")
    stored = pd.read_csv(tmp_path / "f.csv")
    assert set(stored["series"]) == {"SSVI", "RigL, lr 0.01", "RigL, lr 0.1", "dense BNN (VI)", "dense network"}
    for row in stored.itertuples():
        mine = runs[(runs["method"] == row.method) & (runs["density"] == row.density) & (runs["lr"] == row.lr)]
        assert row.n == len(mine)
        assert row.accuracy_percent_mean == pytest.approx(100 * sum(mine["accuracy"]) / len(mine))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    drawn = next(c for c in axes.containers if c.get_label() == "SSVI").lines[0].get_ydata()
    assert list(drawn) == pytest.approx(list(stored[stored["series"] == "SSVI"]["accuracy_percent_mean"]))


def test_curves_show_one_density_a_method_and_their_range(sweep: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    runs, history = sweep
    figure, data = figures.curves(runs, history)
    assert {a.get_ylabel() for a in figure.axes} == {
        "likelihood loss (nats)",
        "validation accuracy (%)",
        "KL to the prior (nats)",
    }
    assert set(data["series"]) == {
        "SSVI, density 10%",
        "RigL, density 10%, lr 0.01",
        "RigL, density 10%, lr 0.1",
        "dense BNN (VI)",
        "dense network",
    }
    row = data[(data["series"] == "SSVI, density 10%") & (data["quantity"] == "loss") & (data["epoch"] == 2)].iloc[0]
    mine = history[(history["method"] == "ssvi") & (history["density"] == 0.1) & (history["epoch"] == 2)]["loss"]
    assert row["n"] == 2
    assert (row["mean"], row["min"], row["max"]) == (pytest.approx(mine.mean()), mine.min(), mine.max())


def test_curves_without_validation_show_training_accuracy(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [RunSpec(method="dense", validation=0.0, epochs=1)])
    figure, _ = figures.curves(collect.load_runs(tmp_path, specs), collect.load_history(tmp_path, specs))
    assert [a.get_ylabel() for a in figure.axes] == ["likelihood loss (nats)", "training accuracy (%)"]


def test_figures_are_the_same_bytes_twice(sweep: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    for name in ("a", "b"):
        figures.write_figure(*figures.figure2_left(*sweep), tmp_path / name / "f")
    for suffix in ("png", "svg", "csv"):
        assert (tmp_path / "a" / f"f.{suffix}").read_bytes() == (tmp_path / "b" / f"f.{suffix}").read_bytes()


def test_analysis_needs_neither_torch_nor_mlflow_nor_pyplot() -> None:
    code = (
        "import json, sys; import ssvi.analysis.collect, ssvi.analysis.tables, ssvi.analysis.figures; "
        "print(json.dumps([m for m in ('torch', 'mlflow', 'matplotlib.pyplot', 'seaborn') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
