"""Figures of the uncertainty suite, on made-up runs and on numbers computed by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run, write_runs

from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import FIGURES, Drawing, make_figure, needs
from ssvi.analysis.figures.suite import chosen
from ssvi.analysis.records import UNCERTAINTY_COLUMNS
from ssvi.errors import UserError
from ssvi.runs.evaluated import POINT_SHARE
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

MINE = ("reliability", "shift", "ood", "risk_coverage", "posterior_use")
SSVI = RunSpec(method="ssvi", density=0.1)
VI = RunSpec(method="vi")
RIGL = RunSpec(method="rigl", density=0.1)
T2 = 12.706204736432095  # Student's t of one degree of freedom, at 97.5 %
T3 = 4.302652729749464  # the same of three


def over(spec: RunSpec, **options: Any) -> RunSpec:
    return dataclasses.replace(spec, **options)


def frames(results: Path, specs: Iterable[RunSpec]) -> Frames:
    return load_frames(results, write_runs(results, specs), ["uncertainty"])


def saying(frames: Frames, rows: Iterable[tuple[Any, ...]]) -> Frames:
    """The same runs with these rows: spec, part, name, score, level, metric, value."""
    made = [(run_path(spec), *row, 5, 4, 1) for spec, *row in rows]
    return dataclasses.replace(frames, uncertainty=pd.DataFrame(made, columns=list(UNCERTAINTY_COLUMNS)))


def drawn(name: str, frames: Frames) -> Drawing:
    """The figure, after every text and line of it was laid out once."""
    drawing = make_figure(name, frames)
    drawing.figure.set_dpi(40)
    drawing.figure.canvas.draw()
    return drawing


def shown(drawing: Drawing) -> list[Any]:
    return [axes for axes in drawing.figure.axes if axes.get_visible()]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Two data sets, two seeds of each setting."""
    both = [over(spec, dataset=dataset) for spec in (SSVI, VI, RIGL) for dataset in ("digits", "cifar10")]
    return frames(tmp_path_factory.mktemp("sweep"), [run for spec in both for run in with_seeds(spec, 2)])


@pytest.mark.parametrize("name", MINE)
def test_one_run_two_data_sets_and_the_numbers_of_runs(name: str, sweep: Frames, tmp_path: Path) -> None:
    assert needs(name) == ("uncertainty",)
    one = drawn(name, frames(tmp_path / "one", [SSVI]))
    assert "n = 1)" in one.caption
    assert set(one.data["n"]) == {1}
    two = drawn(name, sweep)
    assert set(two.data["dataset"]) == {"digits", "cifar10"}
    assert set(two.data["n"]) == {2}
    assert "n = 2)" in two.caption
    assert set(two.data["method"]) == {"ssvi", "vi", *(["rigl"] if name != "posterior_use" else [])}
    assert not two.data[[key for key in two.data if key not in ("auroc", "auroc_low", "auroc_high")]].isna().any().any()


@pytest.mark.parametrize("name", MINE)
def test_runs_without_the_suite_are_not_drawn_and_none_is_one_line(name: str, tmp_path: Path) -> None:
    lost = over(SSVI, seed=1)
    specs = {write_run(tmp_path, SSVI): SSVI, write_run(tmp_path, lost, diverged="loss is nan"): lost}
    found = load_frames(tmp_path, specs, ["uncertainty"])
    drawing = drawn(name, found)
    assert set(drawing.data["n"]) == {1}
    assert any("loss is nan" in note for note in drawing.notes)
    with pytest.raises(UserError, match=rf"^{name}: needs a finished run with uncertainty.csv"):
        make_figure(name, dataclasses.replace(found, uncertainty=found.uncertainty.iloc[:0]))


def test_the_settings_that_are_shown_are_told_from_those_that_are_not(tmp_path: Path) -> None:
    densities = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    specs = [over(SSVI, density=d) for d in densities] + [over(RIGL, density=d) for d in densities]
    found = frames(tmp_path, [*specs, VI, RunSpec(method="dense"), RunSpec(method="mbnn")])
    drawing = make_figure("risk_coverage", found)
    assert list(dict.fromkeys(drawing.data["series"])) == [
        *(f"SSVI, density {100 * d:g}%" for d in (0.5, 0.2, 0.1, 0.05)),
        *("dense BNN (VI)", "RigL, density 50%", "dense network", "mBNN"),
    ]
    (note,) = drawing.notes
    assert note.startswith("Not drawn, for want of room: SSVI, density 2%; SSVI, density 1%; RigL, density 20%;")
    few = chosen(found.runs[found.runs["method"].isin(["ssvi", "dense"])])
    assert len(few.panels[0].series) == 7
    assert few.notes == ()


def test_reliability_pools_the_seeds_by_images(tmp_path: Path) -> None:
    """Bin 2 has 10 images of accuracy 0.4 and 30 of 0.8; the first seed alone has images in bin 1; bin 3 has none."""
    one, other = with_seeds(SSVI, 2)
    bins = {one: {1: (2, 0.3, 0.5), 2: (10, 0.60, 0.4), 3: (0,)}, other: {1: (0,), 2: (30, 0.64, 0.8), 3: (0,)}}
    rows = [
        (spec, "reliability", name, None, level, metric, value)
        for name in ("raw", "scaled")
        for spec, of in bins.items()
        for level, numbers in of.items()
        for metric, value in zip(("images", "confidence", "accuracy"), numbers, strict=False)
    ]
    errors = [(spec, "calibration", "raw", None, None, "ece", ece) for spec, ece in ((one, 0.1), (other, 0.2))]
    drawing = make_figure("reliability", saying(frames(tmp_path, [one, other]), rows + errors))
    data = drawing.data.set_index(["name", "bin"])
    assert set(data.index) == {("raw", 1), ("raw", 2), ("scaled", 1), ("scaled", 2)}
    columns = ["confidence_percent", "accuracy_percent", "accuracy_min_percent", "accuracy_max_percent", "images", "n"]
    assert data.loc[("raw", 2), columns].tolist() == pytest.approx([63, 70, 40, 80, 20, 2])
    assert data.loc[("raw", 1), columns].tolist() == pytest.approx([30, 50, 50, 50, 1, 2])
    diagram, counts = shown(drawing)
    assert diagram.get_title() == "SSVI, density 10%"
    # of the two images of bin 1 no accuracy is drawn
    assert [list(drawn[0].get_xdata()) for drawn in diagram.containers] == [pytest.approx([63])] * 2
    assert [text.get_text() for text in diagram.texts] == ["ECE\nraw 0.150"]
    raw = counts.patches[0].get_data()
    assert (list(raw.values), list(raw.edges)) == ([0, 1, 20, 0], [0, 25, 50, 75, 100])


def test_shift_boxes_are_over_corruptions_of_means_over_seeds(tmp_path: Path) -> None:
    accuracies = {"fog": (0.5, 0.7), "snow": (0.7, 0.7), "frost": (0.8, 0.8), "blur": (0.9, 0.9), "noise": (0.1, 0.3)}
    seeds = with_seeds(SSVI, 2)
    rows = [
        (spec, "shift", name, None, 3, metric, value)
        for name, values in accuracies.items()
        for spec, value in zip(seeds, values, strict=True)
        for metric in ("accuracy", "nll", "ece", "brier")
    ]
    rows += [(spec, "shift", "clean", None, 0, m, 0.95) for spec in seeds for m in ("accuracy", "nll", "ece")]
    rows += [(spec, "shift", "mean", None, 3, m, 0.0) for spec in seeds for m in ("accuracy", "nll", "ece")]
    drawing = make_figure("shift", saying(frames(tmp_path, seeds), rows))
    data = drawing.data.set_index(["quantity", "severity"])
    columns = ["low", "q25", "median", "q75", "high", "corruptions", "n"]
    assert set(drawing.data["quantity"]) == {"accuracy_percent", "nll", "ece"}
    assert data.loc[("accuracy_percent", 3), columns].tolist() == pytest.approx([20, 60, 70, 80, 90, 5, 2])
    assert data.loc[("ece", 3), columns].tolist() == pytest.approx([0.2, 0.6, 0.7, 0.8, 0.9, 5, 2])
    assert data.loc[("nll", 0), columns].tolist() == pytest.approx([0.95] * 5 + [1, 2])
    assert "5 kinds of corruption" in drawing.caption
    (box, *_) = [patch for patch in drawing.figure.axes[0].patches if patch.get_path().vertices[:, 1].max() < 90]
    assert sorted(set(box.get_path().vertices[:, 1].round(9))) == pytest.approx([60, 80])


def test_ood_shows_shares_and_how_well_entropy_tells_the_sets(tmp_path: Path) -> None:
    one, other = with_seeds(SSVI, 2)
    rows = [(spec, "histogram", n, "entropy", b, "images", v) for spec in (one, other)
            for n, images in (("test", (30, 10)), ("a$", (0, 5))) for b, v in enumerate(images)]  # fmt: skip
    rows += [(spec, "ood", "a$", None, None, "near", 1) for spec in (one, other)]
    for spec, auroc in ((one, 0.8), (other, 0.9)):
        rows += [
            (spec, "ood", "a$", "entropy", None, "auroc", auroc),
            (spec, "ood", "a$", "energy", None, "auroc", 0.1),
        ]
    drawing = drawn("ood", saying(frames(tmp_path, [one, other]), rows))
    data = drawing.data.set_index(["set", "from"])
    assert data["images_percent"].to_dict() == {("test", 0): 75, ("test", 0.5): 25, ("a$", 0): 0, ("a$", 0.5): 100}
    assert data.loc[("a$", 0), ["auroc", "auroc_low", "auroc_high"]].tolist() == pytest.approx(
        [0.85, 0.85 - T2 * 0.05, 0.85 + T2 * 0.05]
    )
    (axes,) = shown(drawing)
    assert [text.get_text() for text in axes.texts] == ["AUROC", "0.850"]
    assert [line.get_linestyle() for line in axes.lines] == ["-"]  # of the set, beside its number
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == ["test images", r"a\$ (near)"]


def test_ood_sets_are_told_apart_without_colour(tmp_path: Path) -> None:
    sets = {"near": 1, "far": 0, "farther": 0, "farthest": 0}
    rows = [(SSVI, "histogram", name, "entropy", b, "images", 5) for name in ("test", *sets) for b in range(2)]
    rows += [(SSVI, "ood", name, None, None, "near", value) for name, value in sets.items()]
    (axes,) = shown(drawn("ood", saying(frames(tmp_path, [SSVI]), rows)))
    lines = [(str(patch.get_linestyle()), patch.get_linewidth()) for patch in axes.patches]
    assert len(set(lines)) == 1 + len(sets)


def test_ood_holds_what_is_highest_in_a_row_of_panels(tmp_path: Path) -> None:
    rows = [(spec, "histogram", name, "entropy", b, "images", value) for spec, images in ((SSVI, (5, 5)), (VI, (0, 9)))
            for name in ("test", "far") for b, value in enumerate(images)]  # fmt: skip
    rows += [(spec, "ood", "far", None, None, "near", 0) for spec in (SSVI, VI)]
    drawing = make_figure("ood", saying(frames(tmp_path, [SSVI, VI]), rows))
    assert [axes.get_title() for axes in shown(drawing)] == ["SSVI, density 10%", "dense BNN (VI)"]
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= 100 for axes in shown(drawing))


def test_risk_coverage_has_the_interval_of_each_mean(tmp_path: Path) -> None:
    seeds = with_seeds(SSVI, 3)
    risks = dict(zip(seeds, ((0.0, 0.1), (0.02, 0.2), (0.01, 0.15)), strict=True))
    rows = [(spec, "risk", "test", "max_probability", level, "risk", value)
            for spec, values in risks.items() for level, value in zip((0.5, 1.0), values, strict=True)]  # fmt: skip
    drawing = make_figure("risk_coverage", saying(frames(tmp_path, seeds), rows))
    columns = ["coverage_percent", "risk_percent_mean", "risk_percent_low", "risk_percent_high", "n"]
    half = T3 / 3**0.5  # of an sd of 1 and of 5
    assert drawing.data[columns].to_numpy().tolist() == [
        pytest.approx([50, 1, 1 - half, 1 + half, 3]),
        pytest.approx([100, 15, 15 - 5 * half, 15 + 5 * half, 3]),
    ]
    (axes,) = drawing.figure.axes
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() == 0
    assert axes.get_ylim()[0] == 0
    # of two seeds the band would cover everything
    few = make_figure("risk_coverage", saying(frames(tmp_path / "few", seeds[:2]), rows[:4]))
    assert len(few.figure.axes[0].collections) == 0


def test_posterior_use_draws_the_bound_and_what_is_below_all_marks(tmp_path: Path) -> None:
    specs = [SSVI, over(SSVI, density=0.01), VI, RIGL]
    shares = {specs[0]: 0.2, specs[1]: 0.0, VI: 1e-6}
    rows = [(spec, "posterior", "test", None, None, "mutual_information_share", v) for spec, v in shares.items()]
    rows += [(spec, "posterior", "test", None, None, "disagreement", 0.05) for spec in shares]
    rows += [(RIGL, "posterior", "test", None, None, "predictive_entropy", 0.3)]
    drawing = drawn("posterior_use", saying(frames(tmp_path, specs), rows))
    data = drawing.data.set_index(["quantity", "method", "density"])["mean"].to_dict()
    assert data == pytest.approx(
        {
            **{("mutual_information_share_percent", "ssvi", d): v for d, v in ((0.1, 20), (0.01, 0))},
            ("mutual_information_share_percent", "vi", 1.0): 1e-4,
            **{("disagreement_percent", *at): 5 for at in (("ssvi", 0.1), ("ssvi", 0.01), ("vi", 1.0))},
        }
    )
    share, disagreement = drawing.figure.axes
    assert share.get_yscale() == "log"
    levels = [line.get_ydata()[0] for line in share.lines if line.get_linestyle() == ":" or len(line.get_xdata()) == 2]
    assert any(math.isclose(level, 100 * POINT_SHARE) for level in levels)
    assert sum(line.get_marker() == "v" for line in share.lines) == 2
    assert "Triangles at the foot are shares below 0.001 %." in drawing.notes
    assert disagreement.get_ylim()[0] == 0
    with pytest.raises(UserError, match="posterior_use: needs a run of several weight samples"):
        make_figure("posterior_use", saying(frames(tmp_path, [RIGL]), rows[-1:]))


def test_every_figure_of_the_suite_is_tried_here() -> None:
    assert {name for name in FIGURES if "uncertainty" in needs(name)} == set(MINE)
