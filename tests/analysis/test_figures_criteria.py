"""The removal criteria and the noise floor, on made-up runs with hand-computed answers."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run
from scipy import stats as scipy_stats

from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import make_figure
from ssvi.analysis.stats import DIFFERENCES, MAX_SPLITS, noise_floor, split_differences
from ssvi.errors import UserError
from ssvi.registry import CRITERIA
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

SSVI = RunSpec(method="ssvi", dataset="cifar10", density=0.1)
VI = RunSpec(method="vi", dataset="cifar10")
# Of ten seeds; the first three have mean 0.91.
REPLICATES = (0.90, 0.91, 0.92, 0.93, 0.90, 0.94, 0.91, 0.92, 0.90, 0.95)


def _write(results: Path, accuracies: dict[RunSpec, float]) -> Frames:
    specs = {write_run(results, spec, accuracy=value): spec for spec, value in accuracies.items()}
    return load_frames(results, specs)


def _seeds(spec: RunSpec, accuracies: tuple[float, ...]) -> dict[RunSpec, float]:
    return dict(zip(with_seeds(spec, len(accuracies)), accuracies, strict=True))


def _criterion(name: str, **options: float) -> RunSpec:
    return dataclasses.replace(SSVI, criterion=name, **options)


def _brute_force(values: list[float], n: int) -> list[float]:
    """Every pair of disjoint groups by their sets of places, each once."""
    places = range(len(values))
    pairs = {
        frozenset((first, second))
        for first in combinations(places, n)
        for second in combinations(places, n)
        if not set(first) & set(second)
    }
    return sorted(
        abs(sum(values[i] for i in first) - sum(values[i] for i in second)) / n for first, second in map(tuple, pairs)
    )


@pytest.mark.parametrize(("count", "n", "pairs"), [(10, 5, 126), (8, 3, 280), (6, 3, 10), (4, 1, 6), (2, 1, 1)])
def test_noise_floor_by_brute_force(count: int, n: int, pairs: int) -> None:
    values = [math.sin(7.0 * i) for i in range(count)]
    found = sorted(split_differences(pd.Series(values), n))
    expected = _brute_force(values, n)
    assert len(found) == pairs
    assert found == pytest.approx(expected)
    bound = noise_floor(pd.Series(values), n)
    assert sum(d <= bound + 1e-12 for d in expected) >= 0.95 * pairs
    assert sum(d < bound - 1e-12 for d in expected) < 0.95 * pairs


def test_noise_floor_of_too_few_or_too_many() -> None:
    assert math.isnan(noise_floor(pd.Series([1.0, 2.0, None, 3.0, 4.0, 5.0]), 3))
    assert math.isnan(noise_floor(pd.Series(dtype=float), 1))
    assert noise_floor(pd.Series([1.0] * 6), 3) == 0
    many = pd.Series([math.sin(7.0 * i) for i in range(40)])
    assert len(split_differences(many, 5)) == MAX_SPLITS
    # Twice the standard error of a difference of two means, as the central limit theorem has it.
    assert noise_floor(many, 5) == pytest.approx(1.96 * math.sqrt(2 / 5) * many.std(), rel=0.05)
    assert noise_floor(many, 5) == noise_floor(many, 5)


def test_criteria_by_hand(tmp_path: Path) -> None:
    accuracies = _seeds(SSVI, REPLICATES) | _seeds(_criterion("abs_mu"), (0.92, 0.92, 0.92))
    accuracies |= _seeds(_criterion("snr_abs", density=0.01), (0.5,)) | _seeds(_criterion("snr", density=0.01), (0.6,))
    drawing = make_figure("criteria", _write(tmp_path, accuracies))
    data = drawing.data.set_index(["quantity", "density", "criterion"])
    # The seven further replicates are in the noise floor alone.
    assert data.loc[("accuracy_percent", 0.1, "snr_abs"), ["mean", "sd", "n"]].tolist() == pytest.approx([91, 1, 3])
    difference = data.loc[("difference_percent_points", 0.1, "abs_mu")]
    half = 4.302652729911275 / math.sqrt(3)
    assert difference[["mean", "sd", "n"]].tolist() == pytest.approx([1, 1, 3])
    assert difference[["low", "high"]].tolist() == pytest.approx([1 - half, 1 + half])
    assert data.loc[("difference_percent_points", 0.01, "snr"), ["mean", "n"]].tolist() == pytest.approx([10, 1])
    floor = drawing.data[drawing.data["quantity"] == "noise_floor_accuracy_percent"]
    assert floor["mean"].tolist() == pytest.approx([noise_floor(pd.Series(REPLICATES), 3) * 100])
    assert any("3 of 10 seeds" in note for note in drawing.notes)
    assert DIFFERENCES in drawing.notes


def test_differences_are_judged_as_in_the_tables(tmp_path: Path) -> None:
    """Alike to the last image is no certainty; without common seeds it is Welch's interval."""
    accuracies = _seeds(SSVI, REPLICATES[:3]) | _seeds(_criterion("snr"), REPLICATES[:3])
    others = [dataclasses.replace(_criterion("abs_mu"), seed=seed) for seed in (7, 8, 9)]
    accuracies |= dict(zip(others, (0.92, 0.94, 0.93), strict=True))
    accuracies |= _seeds(_criterion("e_abs"), (0.5, 0.5))
    for name in ("criteria", "noise_floor"):
        drawing = make_figure(name, _write(tmp_path, accuracies))
        found = drawing.data[drawing.data["quantity"] == "difference_percent_points"].set_index("criterion")
        half = scipy_stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(6) / math.sqrt(3)
        assert found.loc["snr", ["mean", "low", "high", "n"]].tolist() == pytest.approx([0, -half, half, 3])
        if "abs_mu" in found.index:
            welch = scipy_stats.ttest_ind([92, 94, 93], [90, 91, 92], equal_var=False).confidence_interval(0.95)
            assert found.loc["abs_mu", ["mean", "low", "high"]].tolist() == pytest.approx([2, welch.low, welch.high])
    assert "abs_mu" in found.index


def test_criteria_without_the_default_or_replicates(tmp_path: Path) -> None:
    accuracies = _seeds(_criterion("snr"), (0.9, 0.91)) | _seeds(_criterion("abs_mu"), (0.9, 0.91))
    drawing = make_figure("criteria", _write(tmp_path, accuracies))
    assert set(drawing.data["quantity"]) == {"accuracy_percent"}
    assert drawing.notes[0].startswith("No noise floor")


def test_figure2_right_by_hand(tmp_path: Path) -> None:
    accuracies = _seeds(SSVI, REPLICATES)
    for sigma in (0.001, 0.01):
        for spec in (VI, SSVI, _criterion("e_exp")):
            accuracies |= _seeds(dataclasses.replace(spec, sigma_init=sigma), (0.8, 0.82, 0.84))
        for spec in (VI, SSVI):
            accuracies |= _seeds(dataclasses.replace(spec, sigma_init=sigma, kl_warmup=False), (0.7,))
    drawing = make_figure("figure2_right", _write(tmp_path, accuracies))
    data = drawing.data[drawing.data["quantity"] == "accuracy_percent"]
    assert not data.duplicated(["method", "criterion", "sigma_init", "kl_warmup"]).any()
    assert len(data) == 11
    default = data[(data["criterion"] == "snr_abs") & (data["sigma_init"] == 0.0006)]
    assert default[["mean", "sd", "n"]].iloc[0].tolist() == pytest.approx([91, 1, 3])
    cold = data[(data["method"] == "vi") & (data["kl_warmup"].eq(False))]
    assert cold["mean"].tolist() == pytest.approx([70, 70])
    assert cold["sd"].isna().all()
    left, right = drawing.figure.axes
    assert left.get_xscale() == right.get_xscale() == "log"
    dashed = {line.get_label() for line in left.containers if line.lines[0].get_linestyle() == "--"}
    assert dashed == {"SSVI, no warm-up", "dense BNN, no warm-up"}


def test_figure2_right_leaves_out_what_does_not_start_from_sigma_init(tmp_path: Path) -> None:
    ivon = dataclasses.replace(VI, posterior_optimizer="ivon")
    accuracies = _seeds(VI, (0.9, 0.92)) | _seeds(ivon, (0.8, 0.82))
    accuracies |= _seeds(dataclasses.replace(ivon, curvature_init=2.0), (0.1, 0.2))
    drawing = make_figure("figure2_right", _write(tmp_path, accuracies))
    assert sorted(drawing.data["mean"]) == pytest.approx([81, 91])
    titles = [axes.get_ylabel().partition("\n")[0] for axes in drawing.figure.axes[::2]]
    assert titles == ["cifar10, resnet18, posterior optimizer sgd", "cifar10, resnet18, natural gradient (IVON)"]


def test_noise_floor_figure_by_hand(tmp_path: Path) -> None:
    accuracies = _seeds(SSVI, REPLICATES) | _seeds(_criterion("snr"), REPLICATES[:3])
    accuracies |= _seeds(_criterion("e_abs"), (0.93, 0.93, 0.93))
    drawing = make_figure("noise_floor", _write(tmp_path, accuracies))
    data = drawing.data.set_index(["quantity", "n"])
    percents = pd.Series(REPLICATES) * 100
    assert data.loc[("noise_floor_accuracy_percent", 5), ["mean", "pairs"]].tolist() == pytest.approx(
        [noise_floor(percents, 5), 126]
    )
    assert data.loc[("noise_floor_accuracy_percent", 3), ["mean", "pairs"]].tolist() == pytest.approx(
        [noise_floor(percents, 3), 2100]
    )
    # Seeds 5 to 9 have mean 92.4, seeds 0 to 4 have mean 91.2.
    assert data.loc[("split_percent_points", 5), "mean"] == pytest.approx(1.2)
    observed = drawing.data[drawing.data["quantity"] == "difference_percent_points"].set_index("criterion")["mean"]
    assert observed.to_dict() == pytest.approx({"snr": 0, "e_abs": 2})


def test_noise_floor_needs_two_seeds(tmp_path: Path) -> None:
    frames = _write(tmp_path, {SSVI: 0.9, _criterion("snr"): 0.91})
    with pytest.raises(UserError, match="noise_floor: needs two finished runs") as caught:
        make_figure("noise_floor", frames)
    assert "\n" not in str(caught.value)
    few = _write(tmp_path / "few", _seeds(SSVI, (0.9, 0.92)))
    data = make_figure("noise_floor", few).data
    assert data[["mean", "n", "pairs"]].iloc[0].tolist() == pytest.approx([2, 1, 1])


@pytest.mark.parametrize("name", ["figure2_right", "criteria", "noise_floor"])
def test_two_data_sets_missing_and_diverged(tmp_path: Path, name: str) -> None:
    specs = {}
    for dataset in ("cifar10", "cifar100"):
        for criterion in CRITERIA:
            for spec in with_seeds(dataclasses.replace(SSVI, dataset=dataset, criterion=criterion), 2):
                specs[write_run(tmp_path, spec)] = spec
        lost = dataclasses.replace(SSVI, dataset=dataset, density=0.05)
        specs[write_run(tmp_path, lost, diverged="loss is nan")] = lost
    absent = dataclasses.replace(SSVI, seed=9)
    specs[run_path(absent)] = absent
    drawing = make_figure(name, load_frames(tmp_path, specs, partial=True))
    assert set(drawing.data["dataset"]) == {"cifar10", "cifar100"}
    (note,) = [note for note in drawing.notes if "diverged" in note]
    assert note.count("/seed=") == 2
    assert sum("missing" in note for note in drawing.notes) == 1
    drawing.figure.savefig(tmp_path / "f.png", dpi=50)


@pytest.mark.parametrize("name", ["figure2_right", "criteria", "noise_floor"])
def test_nothing_to_show_is_one_line(tmp_path: Path, name: str) -> None:
    dense = RunSpec(method="dense", dataset="cifar10")
    for i, frames in enumerate(
        (
            load_frames(tmp_path, {write_run(tmp_path, SSVI, diverged="loss is nan"): SSVI}),
            load_frames(tmp_path, {write_run(tmp_path, dense): dense}),
        )
    ):
        with pytest.raises(UserError, match=name) as caught:
            make_figure(name, frames)
        assert "\n" not in str(caught.value), i
