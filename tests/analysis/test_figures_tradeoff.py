"""Accuracy against cost and density: figure 1, figure 2 left, the accuracy axis, panels."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from fake_runs import with_seeds, write_run
from matplotlib.figure import Figure

from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import make_figure, write_figure
from ssvi.analysis.figures.lines import series
from ssvi.analysis.figures.panels import columns_within, split
from ssvi.analysis.figures.scales import accuracy_axis
from ssvi.errors import UserError
from ssvi.runs.spec import RunSpec

VI = RunSpec(method="vi", dataset="cifar10")
SSVI = RunSpec(method="ssvi", dataset="cifar10", density=0.1)


def _frames(results: Path) -> Frames:
    """On cifar10 VI with 0.94, 0.96 at 1e15 FLOPs, SSVI at 0.1 with 0.90 alone at 2e14; on cifar100 VI alone."""
    specs = {}
    for spec, accuracy, flops in [
        *((spec, accuracy, 1e15) for spec, accuracy in zip(with_seeds(VI, 2), (0.94, 0.96), strict=True)),
        (SSVI, 0.90, 2e14),
        (dataclasses.replace(VI, dataset="cifar100"), 0.7, 1e15),
    ]:
        specs[write_run(results, spec, accuracy=accuracy, training_flops=flops)] = spec
    lost = dataclasses.replace(SSVI, seed=1)
    specs[write_run(results, lost, diverged="loss is nan")] = lost
    return load_frames(results, specs)


def test_figure1_by_hand(tmp_path: Path) -> None:
    drawing = make_figure("figure1", _frames(tmp_path))
    data = drawing.data.set_index(["dataset", "method"])
    assert data.loc[("cifar10", "vi"), "mean"] == pytest.approx(95)
    assert data.loc[("cifar10", "vi"), "sd"] == pytest.approx(math.sqrt(2))
    assert data.loc[("cifar10", "vi"), "training_flops_mean"] == pytest.approx(1e15)
    assert data.loc[("cifar10", "ssvi"), ["mean", "n", "density"]].tolist() == pytest.approx([90, 1, 0.1])
    assert math.isnan(data.loc[("cifar10", "ssvi"), "sd"])
    assert [axes.get_title() for axes in drawing.figure.axes] == ["cifar10, resnet18", "cifar100, resnet18"]
    assert drawing.figure.axes[0].get_xscale() == "log"
    assert "counted" in drawing.figure.axes[0].get_xlabel()
    assert len(drawing.notes) == 1
    assert "loss is nan" in drawing.notes[0]
    assert "n = 1 to 2" in drawing.caption


def test_figure1_joins_the_densities_of_any_method(tmp_path: Path) -> None:
    specs = {}
    for method in ("ssvi", "rigl"):
        for density in (0.05, 0.1, 0.5):
            spec = RunSpec(method=method, dataset="cifar10", density=density)
            specs[write_run(tmp_path, spec)] = spec
    drawing = make_figure("figure1", load_frames(tmp_path, specs))
    assert drawing.data.groupby("method")["density"].apply(list).to_dict() == {
        "rigl": [0.05, 0.1, 0.5],
        "ssvi": [0.05, 0.1, 0.5],
    }
    write_figure(drawing, tmp_path / "f")
    assert (tmp_path / "f.pdf").stat().st_size > 1000


@pytest.mark.parametrize("name", ["figure1", "figure2_left"])
def test_nothing_to_show_is_one_line(tmp_path: Path, name: str) -> None:
    frames = load_frames(tmp_path, {write_run(tmp_path, SSVI, diverged="loss is nan"): SSVI})
    with pytest.raises(UserError, match=name) as caught:
        make_figure(name, frames)
    assert "\n" not in str(caught.value)


def test_accuracy_axis_is_stretched_only_where_the_errors_span_much() -> None:
    narrow, wide, perfect = Figure().subplots(1, 3)
    accuracy_axis(narrow, [90.0, 95.0], 10_000)
    accuracy_axis(wide, [40.0, 99.0], 10_000)
    accuracy_axis(perfect, [50.0, 100.0], 100)
    assert narrow.get_yscale() == "linear"
    assert wide.get_yscale() == "function"
    low, high = wide.get_ylim()
    assert low < 40 < 99 < high < 100
    place = wide.transData.transform
    gap = [place((0, a))[1] - place((0, b))[1] for a, b in ((99, 98), (200 / 3, 50))]
    assert gap[0] == pytest.approx(gap[1], rel=0.05)
    assert math.isfinite(place((0, 100.0))[1])
    assert perfect.get_ylim()[1] > 99.5


def test_figure2_left_stretches_and_says_so(tmp_path: Path) -> None:
    specs = {}
    for density, accuracy in ((0.5, 0.99), (0.01, 0.4)):
        spec = dataclasses.replace(SSVI, density=density)
        specs[write_run(tmp_path, spec, accuracy=accuracy)] = spec
    drawing = make_figure("figure2_left", load_frames(tmp_path, specs))
    assert drawing.figure.axes[0].get_yscale() == "function"
    assert "logarithmic in the odds" in drawing.caption
    assert drawing.data["accuracy_percent_mean"].tolist() == pytest.approx([99, 40])


def test_runs_that_differ_in_what_is_not_shown_stand_in_panels_of_their_own(tmp_path: Path) -> None:
    specs = {}
    for spec in (VI, SSVI, dataclasses.replace(SSVI, alpha=0.5)):
        specs[write_run(tmp_path, spec)] = spec
    runs = load_frames(tmp_path, specs).runs
    assert [panel.title for panel in split(runs)] == [""]
    assert [(panel.title, len(panel.runs)) for panel in split(runs, ("density",))] == [
        ("cifar10, resnet18, alpha 0.3", 2),
        ("cifar10, resnet18, alpha 0.5", 2),
    ]
    assert [len(panel.runs) for panel in split(runs, ("alpha",))] == [3]
    assert split(runs, ("alpha",))[0].runs["density"].tolist() == [1.0, 0.1, 0.1]


def test_panels_and_lines_are_not_named_by_what_has_no_effect(tmp_path: Path) -> None:
    ivon = dataclasses.replace(SSVI, posterior_optimizer="ivon")
    specs = [SSVI, dataclasses.replace(SSVI, sigma_lr=1.0), ivon, dataclasses.replace(ivon, ivon_lr=0.2)]
    runs = load_frames(tmp_path, {write_run(tmp_path, spec): spec for spec in specs}).runs
    learned = ["posterior optimizer sgd, sigma lr 0.01", "posterior optimizer sgd, sigma lr 1"]
    learned += [f"natural gradient (IVON), ivon lr {rate}" for rate in ("0.1", "0.2")]
    assert [panel.title for panel in split(runs, ("density",))] == [f"cifar10, resnet18, {words}" for words in learned]
    assert sorted(line.label for line in series(runs)) == sorted(f"SSVI, density 10%, {words}" for words in learned)


def test_legend_columns_are_as_many_as_fit() -> None:
    assert columns_within(6.0, [1, 1, 1]) == 3
    assert columns_within(2.5, [1, 1, 1]) == 2
    assert columns_within(2.5, [2, 1, 1]) == 1
    assert columns_within(3.0, [1, 1, 2]) == 2
    assert columns_within(0.5, [1]) == 1
