"""Figure 2 (left), training curves, figures described by config alone, and how figures are written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run, write_runs

from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import make_figure, write_figure
from ssvi.analysis.settings import METHOD_NAMES
from ssvi.errors import UserError
from ssvi.runs.spec import RunSpec

CIFAR = {"dataset": "cifar10"}
VI = RunSpec(method="vi", **CIFAR)
SSVI = RunSpec(method="ssvi", density=0.1, **CIFAR)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    results = tmp_path_factory.mktemp("sweep")
    specs = [s for d in (0.2, 0.1, 0.01) for s in with_seeds(dataclasses.replace(SSVI, density=d), 2)]
    specs += [RunSpec(method="rigl", density=d, lr=lr, **CIFAR) for d in (0.1, 0.01) for lr in (0.01, 0.1)]
    specs += [VI, RunSpec(method="dense", lr=0.1, **CIFAR)]
    return load_frames(results, write_runs(results, specs), ["history"])


def test_figure2_left_draws_its_csv_and_the_csv_is_the_means(sweep: Frames, tmp_path: Path) -> None:
    drawing = make_figure("figure2_left", sweep)
    write_figure(drawing, tmp_path / "f")
    stored = pd.read_csv(tmp_path / "f.csv")
    assert {"SSVI", "RigL, lr 0.01", "RigL, lr 0.1"} < set(stored["series"])
    assert len(set(stored["series"])) == 5
    for row in stored.itertuples():
        runs = sweep.runs
        mine = runs[(runs["method"] == row.method) & (runs["density"] == row.density) & (runs["lr"] == row.lr)]
        assert row.n == len(mine)
        assert row.accuracy_percent_mean == pytest.approx(100 * sum(mine["accuracy"]) / len(mine))
    (axes,) = drawing.figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    drawn = next(c for c in axes.containers if c.get_label() == "SSVI").lines[0].get_ydata()
    assert list(drawn) == pytest.approx(list(stored[stored["series"] == "SSVI"]["accuracy_percent_mean"]))


def test_curves_show_one_density_a_method_and_their_range(sweep: Frames) -> None:
    data = make_figure("curves", sweep).data
    assert {"SSVI, density 10%", "RigL, density 10%, lr 0.01", "RigL, density 10%, lr 0.1"} < set(data["series"])
    row = data[(data["series"] == "SSVI, density 10%") & (data["quantity"] == "loss") & (data["epoch"] == 2)].iloc[0]
    history = sweep.history
    mine = history[(history["method"] == "ssvi") & (history["density"] == 0.1) & (history["epoch"] == 2)]["loss"]
    assert row["n"] == 2
    assert (row["mean"], row["min"], row["max"]) == (pytest.approx(mine.mean()), mine.min(), mine.max())


def test_curves_without_validation_show_training_accuracy(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [RunSpec(method="dense", validation=0.0, epochs=1)])
    drawing = make_figure("curves", load_frames(tmp_path, specs, ["history"]))
    assert [a.get_ylabel() for a in drawing.figure.axes] == ["likelihood loss (nats)", "training accuracy (%)"]


GENERIC = {"of": ["x"], "x": "density", "y": "accuracy", "hue": "method", "facets": "lr"}


def test_a_generic_figure_holds_the_means(sweep: Frames) -> None:
    drawing = make_figure("mine", sweep, GENERIC)
    assert [axes.get_title() for axes in drawing.figure.axes] == ["lr 0.01", "lr 0.1"]
    assert drawing.figure.axes[0].get_ylabel() == "accuracy (%)"
    runs = sweep.runs
    names = {METHOD_NAMES[method]: method for method in METHOD_NAMES}
    for row in drawing.data.itertuples():
        mine = runs[
            (runs["method"] == names[row.method]) & (runs["density"] == row.density) & (runs["lr"] == float(row.lr))
        ]
        assert row.n == len(mine)
        assert row.accuracy_mean == pytest.approx(100 * mine["accuracy"].mean())
    assert drawing.data["n"].sum() == len(runs)


def test_a_generic_figure_over_words_and_with_a_hue_that_some_runs_lack(sweep: Frames) -> None:
    drawing = make_figure("mine", sweep, {"of": ["x"], "x": "method", "y": "nll", "hue": "density", "facets": "lr"})
    axes = drawing.figure.axes[0]
    assert {t.get_text() for t in axes.get_xticklabels()} == {"dense network", "RigL", "SSVI", "dense BNN"}
    assert axes.get_ylabel() == "nll (nats)"
    drawing = make_figure("mine", sweep, {**GENERIC, "hue": "exp_lambda"})
    assert set(drawing.data["exp_lambda"]) == {"1", "none"}


def test_a_generic_figure_of_a_measured_column_has_a_point_a_setting(sweep: Frames) -> None:
    drawing = make_figure("mine", sweep, {"of": ["x"], "x": "training_flops", "y": "accuracy", "hue": "method"})
    assert drawing.data["n"].tolist().count(2) == 3
    assert len(drawing.data) == 3 + 4 + 1 + 1
    assert drawing.figure.axes[0].get_xlabel() == "training flops (FLOPs)"


def test_a_generic_figure_does_not_average_what_it_does_not_show(sweep: Frames) -> None:
    with pytest.raises(
        UserError, match=r"figure mine: its runs also differ in .* \(lr: 0.01 and 0.1\): make that its hue"
    ):
        make_figure("mine", sweep, {"of": ["x"], "x": "density", "y": "accuracy", "hue": "method"})


def test_a_generic_figure_without_numbers_is_one_line(sweep: Frames) -> None:
    with pytest.raises(UserError, match="figure mine: y is 'criterion', which is not a number"):
        make_figure("mine", sweep, {"of": ["x"], "x": "density", "y": "criterion"})
    with pytest.raises(UserError, match="no finished run of its experiments has both delta_t and accuracy_best_test"):
        make_figure("mine", sweep, {"of": ["x"], "x": "delta_t", "y": "accuracy_best_test"})


def test_only_diverged_runs_are_no_figure(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI, diverged="the loss is inf")
    said = "figure2_left: needs a finished run, but of the experiments.* are 1 diverged, the first because the loss"
    with pytest.raises(UserError, match=said):
        make_figure("figure2_left", load_frames(tmp_path, {run: SSVI}))
    with pytest.raises(UserError, match=r"did you mean 'curves'\?"):
        make_figure("curve", load_frames(tmp_path, {run: SSVI}))


def test_figures_are_the_same_bytes_twice(sweep: Frames, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_figure(make_figure("figure2_left", sweep), tmp_path / name / "f")
    for suffix in ("png", "svg", "pdf", "csv", "md"):
        assert (tmp_path / "a" / f"f.{suffix}").read_bytes() == (tmp_path / "b" / f"f.{suffix}").read_bytes()


def test_a_generic_figure_says_at_its_foot_which_runs_it_leaves_out(tmp_path: Path) -> None:
    other = dataclasses.replace(SSVI, seed=1)
    specs = {write_run(tmp_path, SSVI): SSVI, write_run(tmp_path, other, diverged="loss is nan"): other}
    frames = load_frames(tmp_path, specs)
    drawing = make_figure("mine", frames, {"x": "density", "y": "accuracy"})
    assert drawing.figure.get_supxlabel() == "runs left out: 1 diverged"
