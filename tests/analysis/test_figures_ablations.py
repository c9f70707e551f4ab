"""The figures of SSVI's single choices, on made-up runs with hand-computed answers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run

from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import make_figure
from ssvi.analysis.figures.style import criterion_name
from ssvi.analysis.stats import noise_floor
from ssvi.errors import UserError
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

SSVI = RunSpec(method="ssvi", dataset="cifar10", density=0.1)
VI = RunSpec(method="vi", dataset="cifar10")
TEN = (0.90, 0.91, 0.92, 0.93, 0.90, 0.94, 0.91, 0.92, 0.90, 0.95)


def _frames(results: Path, runs: list[tuple[RunSpec, dict[str, Any]]]) -> Frames:
    return load_frames(results, {write_run(results, spec, **metrics): spec for spec, metrics in runs})


def _seeds(spec: RunSpec, accuracies: tuple[float, ...], **metrics: Any) -> list[tuple[RunSpec, dict[str, Any]]]:
    seeds = with_seeds(spec, len(accuracies))
    return [(run, {"accuracy": value, **metrics}) for run, value in zip(seeds, accuracies, strict=True)]


def _ssvi(**options: Any) -> RunSpec:
    return dataclasses.replace(SSVI, **options)


def _of(data: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return data[data["quantity"] == quantity]


def test_figure3_left_by_hand(tmp_path: Path) -> None:
    runs = _seeds(SSVI, TEN, nll=0.3) + _seeds(_ssvi(addition="mean"), (0.95, 0.95, 0.95), nll=0.2)
    runs += _seeds(_ssvi(addition="mcK", addition_samples=4), (0.93,), nll=0.25)
    drawing = make_figure("figure3_left", _frames(tmp_path, runs))
    accuracy = _of(drawing.data, "accuracy_percent").set_index(["addition", "addition_samples"])
    assert accuracy.loc[("mc1", 1), ["mean", "sd", "n"]].tolist() == pytest.approx([91, 1, 3])
    assert accuracy.loc[("mc1", 1), "high"] == pytest.approx(91 + 4.302652729911275 / math.sqrt(3))
    assert accuracy.loc[("mcK", 4), ["mean", "n"]].tolist() == pytest.approx([93, 1])
    assert _of(drawing.data, "nll")["mean"].tolist() == pytest.approx([0.3, 0.2, 0.25])
    floor = _of(drawing.data, "noise_floor_accuracy_percent")
    # Groups of 3, 3 and 1 runs: the floor is that of three.
    assert floor[["mean", "n"]].iloc[0].tolist() == pytest.approx([noise_floor(pd.Series(TEN) * 100, 3), 3])
    names = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert names == ["one sample (default)", "posterior mean", "4 samples"]


def test_figure3_right_by_hand(tmp_path: Path) -> None:
    runs = _seeds(SSVI, TEN) + _seeds(_ssvi(grow_sigma="mean_rho"), (0.8, 0.9))
    for value in (1e-6, 1e-2):
        runs += _seeds(_ssvi(grow_sigma="constant", grow_sigma_value=value), (0.7, 0.7 + value, 0.7))
    drawing = make_figure("figure3_right", _frames(tmp_path, runs))
    data = _of(drawing.data, "accuracy_percent").set_index("grow_sigma")
    assert data.loc["mean", ["mean", "n"]].tolist() == pytest.approx([91, 3])
    assert data.loc["mean_rho", ["mean", "sd"]].tolist() == pytest.approx([85, math.sqrt(50)])
    assert data.loc["constant", "grow_sigma_value"].tolist() == [1e-6, 1e-2]
    assert data.loc["constant", "mean"].iloc[1] == pytest.approx(70 + 1 / 3)
    labels = [text.get_text() for text in drawing.figure.axes[0].get_xticklabels()]
    assert labels == ["$10^{-6}$", "$10^{-2}$", "mean\nσ", "mean\nρ"]


def test_exp_lambda_by_hand(tmp_path: Path) -> None:
    runs = _seeds(SSVI, (0.9, 0.92))
    for value, accuracy in ((0.1, 0.8), (10.0, 0.84)):
        runs += _seeds(_ssvi(criterion="snr_exp", exp_lambda=value), (accuracy, accuracy + 0.02))
    drawing = make_figure("exp_lambda", _frames(tmp_path, runs))
    data = drawing.data.set_index("criterion")
    assert data.loc["snr_exp", "exp_lambda"].tolist() == [0.1, 10]
    assert data.loc["snr_exp", "mean"].tolist() == pytest.approx([81, 85])
    assert data.loc["snr_abs", ["mean", "sd", "n"]].tolist() == pytest.approx([91, math.sqrt(2), 2])
    assert math.isnan(data.loc["snr_abs", "exp_lambda"])
    assert drawing.figure.axes[0].get_xscale() == "log"


def test_only_the_default_criterion_is_called_so(tmp_path: Path) -> None:
    runs = (
        _seeds(SSVI, (0.9, 0.92)) + _seeds(_ssvi(criterion="abs_mu"), (0.8,)) + _seeds(_ssvi(criterion="e_exp"), (0.9,))
    )
    (axes,) = make_figure("exp_lambda", _frames(tmp_path, runs)).figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert f"{criterion_name('snr_abs')} (default)" in labels
    assert criterion_name("abs_mu") in labels


def test_schedule_holds_the_other_option(tmp_path: Path) -> None:
    runs = _seeds(SSVI, (0.9, 0.9)) + _seeds(_ssvi(alpha=0.1), (0.8,)) + _seeds(_ssvi(alpha=0.5), (0.85,))
    runs += _seeds(_ssvi(delta_t=50), (0.7,)) + _seeds(_ssvi(delta_t=500), (0.75,))
    data = make_figure("schedule", _frames(tmp_path, runs)).data.set_index("varied")
    assert data.loc["alpha", ["alpha", "delta_t", "mean", "n"]].to_numpy().tolist() == [
        pytest.approx(row) for row in ([0.1, 100, 80, 1], [0.3, 100, 90, 1], [0.5, 100, 85, 1])
    ]
    assert data.loc["delta_t", ["alpha", "delta_t", "mean"]].to_numpy().tolist() == [
        pytest.approx(row) for row in ([0.3, 50, 70], [0.3, 100, 90], [0.3, 500, 75])
    ]


def test_allocation_by_hand(tmp_path: Path) -> None:
    runs = []
    for way, flops in (("uniform", 1e14), ("erk", 2e14), ("global", 3e14)):
        runs += _seeds(_ssvi(allocation=way), (0.9, 0.92), nll=0.3, training_flops=flops, training_flops_dense=1e15)
    data = make_figure("allocation", _frames(tmp_path, runs)).data
    ratio = _of(data, "training_flops_ratio")
    assert ratio["allocation"].tolist() == ["uniform", "erk", "global"]
    assert ratio["mean"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert _of(data, "accuracy_percent")["mean"].tolist() == pytest.approx([91, 91, 91])


def test_sampling_by_hand(tmp_path: Path) -> None:
    runs = []
    for spec in (VI, SSVI):
        for way, seconds in (("local", 10.0), ("weight", 20.0)):
            one = dataclasses.replace(spec, sampling=way)
            runs += _seeds(one, (0.9, 0.92), nll=0.3, ece=0.02, training_seconds=seconds)
    drawing = make_figure("sampling", _frames(tmp_path, runs))
    seconds = _of(drawing.data, "training_seconds")
    assert seconds[["method", "sampling", "mean"]].to_numpy().tolist() == [
        ["vi", "local", 10.0],
        ["vi", "weight", 20.0],
        ["ssvi", "local", 10.0],
        ["ssvi", "weight", 20.0],
    ]
    assert len(drawing.figure.axes) == 4
    assert "cpu" in drawing.caption


VARIED: dict[str, list[dict[str, Any]]] = {
    "figure3_left": [{"addition": "mean"}, {"addition": "mcK", "addition_samples": 2}],
    "figure3_right": [{"grow_sigma": "mean_rho"}, {"grow_sigma": "constant", "grow_sigma_value": 1e-4}],
    "exp_lambda": [{"criterion": "e_exp", "exp_lambda": 0.1}, {"criterion": "snr_exp", "exp_lambda": 10.0}],
    "schedule": [{"alpha": 0.1}, {"delta_t": 50}],
    "allocation": [{"allocation": "erk"}, {"allocation": "global"}],
    "sampling": [{"sampling": "weight"}],
}


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("seeds", [1, 6])
def test_two_data_sets_missing_and_diverged(tmp_path: Path, name: str, seeds: int) -> None:
    specs = {}
    for dataset in ("cifar10", "cifar100"):
        for options in ({}, *VARIED[name]):
            for spec in with_seeds(_ssvi(dataset=dataset, **options), seeds):
                specs[write_run(tmp_path, spec)] = spec
    lost, absent = _ssvi(seed=8), _ssvi(seed=9)
    specs[write_run(tmp_path, lost, diverged="loss is nan")] = lost
    specs[run_path(absent)] = absent
    drawing = make_figure(name, load_frames(tmp_path, specs, partial=True))
    assert set(drawing.data["dataset"]) == {"cifar10", "cifar100"}
    assert drawing.data["n"].max() == seeds
    assert sum("diverged" in note for note in drawing.notes) == 1
    assert sum("missing" in note for note in drawing.notes) == 1
    drawing.figure.savefig(tmp_path / "f.png", dpi=50)


@pytest.mark.parametrize("name", VARIED)
def test_nothing_to_show_is_one_line(tmp_path: Path, name: str) -> None:
    dense = RunSpec(method="dense", dataset="cifar10")
    for frames in (_frames(tmp_path, [(SSVI, {"diverged": "loss is nan"})]), _frames(tmp_path, [(dense, {})])):
        with pytest.raises(UserError, match=name) as caught:
            make_figure(name, frames)
        assert "\n" not in str(caught.value)
