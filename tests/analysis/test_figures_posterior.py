"""Figures of the posterior and the subspace, on made-up records with numbers computed by hand."""

import dataclasses
import math

import pandas as pd
import pytest

from ssvi import registry
from ssvi.analysis import collect, records
from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import FIGURES, make_figure
from ssvi.analysis.figures.layers import short_name
from ssvi.analysis.figures.overlap import CHANCE, _two_digits
from ssvi.analysis.figures.sigma import start_of_sigma
from ssvi.analysis.records import used_options
from ssvi.errors import UserError
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

CRITERIA = tuple(registry.CRITERIA)
SSVI = RunSpec(method="ssvi", density=0.1, epochs=10)
VI = RunSpec(method="vi", epochs=10)
MINE = ("iou", "iou_course", "sigma_drift", "sigma_learning", "test_samples", "layers", "survival")
STEPS = 100


def over(spec, **options):
    return dataclasses.replace(spec, **options)


def seeded(spec, n=3):
    return [over(spec, seed=seed) for seed in range(n)]


def runs_of(specs, **metrics):
    """The runs frame; of each metric, a list with a value a run, or one value for all."""
    rows = []
    for i, spec in enumerate(specs):
        own = {k: v[i] if isinstance(v, list) else v for k, v in metrics.items()}
        measured = {"status": "complete", "accuracy": 0.9, "nll": 0.5, "ece": 0.1, "steps": STEPS}
        rows.append({"run": run_path(spec), **used_options(spec), **measured, "evaluation_samples": 5, **own})
    return pd.DataFrame(rows, columns=list(collect.RUN_COLUMNS))


def frames_of(specs, history=(), updates=(), overlap=(), samples=(), **metrics):
    tables = {
        "history": (history, records.HISTORY_COLUMNS),
        "updates": (updates, records.UPDATE_COLUMNS),
        "overlap": (overlap, records.OVERLAP_COLUMNS),
        "samples": (samples, records.SAMPLES_COLUMNS),
    }
    made = {name: pd.DataFrame(list(rows), columns=list(columns)) for name, (rows, columns) in tables.items()}
    return Frames(runs_of(specs, **metrics), **made)


def overlap_rows(spec, step, value):
    """Every pair agrees by `value`, but SNR of theta and of |theta| wholly; correlations are half as large."""
    for i, first in enumerate(CRITERIA):
        for second in CRITERIA[i + 1 :]:
            iou = 1.0 if (first, second) == ("snr", "snr_abs") else value
            at = {"run": run_path(spec), "step": step, "epoch": 1, "progress": step / STEPS}
            yield {**at, "first": first, "second": second, "iou": iou, "spearman": iou / 2}


def update_rows(spec, step, layers):
    """A row a layer; each is a dict with what differs from the defaults."""
    for position, layer in enumerate(layers):
        quantiles = {f"{n}_{q}": v for n in ("sigma", "snr") for q, v in zip(records.QUANTILES, range(5), strict=True)}
        counts = {"size": 100, "active": 10, "removed": 3, "added": 3, "born": 2, "survivors": 8}
        drift = {"sigma_drift_gradient": 0.0, "sigma_drift_topology": 0.0}
        at = {"run": run_path(spec), "step": step, "epoch": 1, "progress": step / STEPS, "drop_fraction": 0.3}
        yield {**at, "layer": f"blocks.{position}.conv1", "position": position, **counts, **quantiles, **drift, **layer}


def complete_frames(specs):
    """Something for every figure."""
    posterior = [spec for spec in specs if spec.method == "ssvi"]
    history = [
        {"run": run_path(spec), "epoch": e, "step": 10 * e, "sigma_mean": 0.001, "active_weights": 100}
        for spec in specs
        for e in (1, 2)
    ]
    samples = [
        {"run": run_path(spec), "samples": k, "accuracy": 0.9, "nll": 0.5, "ece": 0.1, "seconds": k}
        for spec in specs
        for k in (1, 5, 50)
    ]
    return frames_of(
        specs,
        history=history,
        updates=[row for spec in posterior for step in (10, 40, 70) for row in update_rows(spec, step, [{}, {}])],
        overlap=[row for spec in posterior for step in (10, 40, 70) for row in overlap_rows(spec, step, 0.5)],
        samples=samples,
    )


def drawn(name, frames):
    """The figure, after every text and line of it was laid out once."""
    drawing = make_figure(name, frames)
    drawing.figure.set_dpi(40)
    drawing.figure.canvas.draw()
    return drawing


@pytest.mark.parametrize("name", MINE)
def test_one_run_two_data_sets_and_the_numbers_of_runs(name):
    one = drawn(name, complete_frames([SSVI]))
    assert "n = 1)" in one.caption
    assert set(one.data["n"]) == {1}
    both = [over(spec, dataset=dataset) for spec in (SSVI, VI) for dataset in ("cifar10", "cifar100")]
    specs = [run for spec in both for run in seeded(spec)]
    two = drawn(name, complete_frames(specs))
    assert set(two.data["dataset"]) == {"cifar10", "cifar100"}
    assert set(two.data["n"]) == {3}
    assert "n = 3)" in two.caption


@pytest.mark.parametrize("name", MINE)
def test_runs_that_did_not_end_are_left_out_by_name_and_none_is_one_line(name):
    specs = seeded(SSVI)
    frames = complete_frames(specs[:1])
    runs = runs_of(specs, status=["complete", "diverged", "missing"], accuracy=[0.9, None, None])
    drawing = drawn(name, dataclasses.replace(frames, runs=runs))
    assert set(drawing.data["n"]) == {1}
    assert [note.split(":")[0] for note in drawing.notes] == ["Left out, diverged", "Left out, missing"]
    assert run_path(specs[1]) in drawing.notes[0]
    with pytest.raises(UserError, match=name) as error:
        make_figure(name, dataclasses.replace(frames, runs=runs.iloc[1:]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n for n in MINE if n != "sigma_learning"])
def test_runs_without_a_record_raise_one_line(name):
    with pytest.raises(UserError, match=f"^{name}: needs a finished run ") as error:
        make_figure(name, frames_of([SSVI, over(SSVI, seed=1)]))
    assert "\n" not in str(error.value)


def test_frames_that_figures_need_are_those_they_read():
    assert {name: set(FIGURES[name].needs) for name in MINE} == {
        "iou": {"overlap"},
        "iou_course": {"overlap"},
        "sigma_drift": {"updates", "history"},
        "sigma_learning": set(),
        "test_samples": {"samples"},
        "layers": {"updates"},
        "survival": {"updates"},
    }


def test_overlap_at_three_moments_is_the_mean_over_seeds():
    specs = seeded(SSVI, 2)
    rows = [r for i, s in enumerate(specs) for step in (5, 30, 55, 75) for r in overlap_rows(s, step, (step + i) / 100)]
    data = drawn("iou", frames_of(specs, overlap=rows)).data
    assert len(data) == 3 * math.comb(len(CRITERIA), 2)
    pair = data[(data["first"] == "abs_mu") & (data["second"] == "e_exp")].set_index("moment")
    # The middle one of four is the second.
    assert pair["iou_mean"].to_dict() == pytest.approx(
        {"first update": 0.055, "middle update": 0.305, "last update": 0.755}
    )
    last = pair.loc["last update", ["iou_min", "iou_max", "spearman_mean"]]
    assert last.tolist() == pytest.approx([0.75, 0.76, 0.3775])
    assert pair["progress_percent"].to_dict() == {"first update": 5, "middle update": 30, "last update": 75}
    assert (data.loc[(data["first"] == "snr") & (data["second"] == "snr_abs"), "iou_mean"] == 1).all()


def test_course_of_overlap_holds_every_pair_update_and_measure():
    rows = [r for step in (5, 30, 75) for r in overlap_rows(SSVI, step, 0.2)]
    drawing = drawn("iou_course", frames_of([SSVI], overlap=rows))
    assert len(drawing.data) == 2 * math.comb(len(CRITERIA), 2) * 3
    assert drawing.data.groupby("measure")["mean"].min().to_dict() == {"iou": 0.2, "spearman": 0.1}
    assert sorted(drawing.data["progress_percent"].unique()) == [5, 30, 75]
    # Two random sets of 30% have 9% in common and 51% together.
    assert pytest.approx(0.09 / 0.51) == CHANCE


def test_cells_are_short():
    words = [_two_digits(v) for v in (1.0, 0.999, 0.5, 0.004, -0.004, -0.41, -1.0)]
    assert words == ["1", "1", ".50", "0", "0", "−.41", "−1.00"]


def test_start_of_sigma_is_the_folded_normal():
    assert start_of_sigma(0.002, 0.0) == (0.002, 0.0)
    # At a mean of 0: half normal.
    mean, sd = start_of_sigma(0.0, 3.0)
    assert (mean, sd) == pytest.approx((3 * math.sqrt(2 / math.pi), 3 * math.sqrt(1 - 2 / math.pi)))
    # 20 sd away from 0 nothing is folded.
    assert start_of_sigma(1.0, 0.05) == pytest.approx((1.0, 0.05))


def test_drift_weighs_layers_by_active_weights_and_is_relative_to_the_start():
    spec = over(SSVI, sigma_init=0.001, sigma_init_sd=0.0)
    layers = [
        {"active": 30, "sigma_drift_gradient": 1e-4, "sigma_drift_topology": -4e-4},
        {"active": 10, "sigma_drift_gradient": -1e-4, "sigma_drift_topology": 0.0},
    ]
    data = drawn("sigma_drift", frames_of([spec], updates=update_rows(spec, 50, layers))).data
    drift = data.set_index(["cause", "progress_percent"])["mean"].to_dict()
    assert drift == pytest.approx(
        {("gradient", 0): 0, ("gradient", 50): 5.0, ("topology", 0): 0, ("topology", 50): -30.0}
    )


def test_drift_of_the_dense_network_is_its_history_and_sampling_error_is_no_drift():
    spec = over(VI, sigma_init=0.001, sigma_init_sd=0.0001)
    faster = over(spec, sigma_lr=1.0)
    epochs = {spec: (0.00101, 0.00102), faster: (0.0012, 0.003)}
    history = [
        {"run": run_path(s), "epoch": e, "step": 50 * e, "sigma_mean": value, "active_weights": 100}
        for s, values in epochs.items()
        for e, value in enumerate(values, 1)
    ]
    # Four standard errors of the start are 4%: 1% after an epoch is chance, 20% is not.
    data = drawn("sigma_drift", frames_of([spec, faster], history=history)).data
    drift = data.set_index(["sigma_lr", "progress_percent"])["mean"].to_dict()
    expected = {(0.01, 0): 0, (0.01, 50): 0, (0.01, 100): 1, (1.0, 0): 0, (1.0, 50): 20, (1.0, 100): 200}
    assert drift == pytest.approx(expected, abs=1e-6)
    assert set(data["cause"]) == {"all"}


def test_learning_sigma_shows_mean_and_t_interval_by_recipe_and_start():
    recipes = [{}, {"sigma_lr": 100.0}, {"sigma_optimizer": "adam", "sigma_lr": 0.001}]
    specs = [
        s
        for method in (SSVI, VI)
        for start in (0.0006, 0.01)
        for recipe in recipes
        for s in seeded(over(method, sigma_init=start, **recipe))
    ]
    accuracy = [(90 + spec.seed + (5 if spec.method == "vi" else 0)) / 100 for spec in specs]
    data = drawn("sigma_learning", frames_of(specs, accuracy=accuracy)).data
    assert len(data) == 2 * 2 * 3 * 3
    accuracies = data[data["metric"] == "accuracy"].groupby("method")[["mean", "low", "high"]].agg(["min", "max"])
    # Student's t with 2 degrees of freedom: 4.3027 sd / sqrt(3), sd 1.
    half = 4.302653 / math.sqrt(3)
    assert accuracies.loc["ssvi"].tolist() == pytest.approx([91, 91, 91 - half, 91 - half, 91 + half, 91 + half])
    assert accuracies.loc["vi", ("mean", "min")] == pytest.approx(96)


def test_natural_gradient_is_a_recipe_of_its_own_wherever_sigma_starts():
    """A start from a curvature stands beside those from a sigma, and nothing is drawn of options without effect."""
    ivon = {"posterior_optimizer": "ivon"}
    specs = [
        VI,
        over(VI, sigma_lr=100.0),
        over(VI, **ivon),
        over(VI, **ivon, curvature_memory=0.5),
        over(VI, **ivon, curvature_init=2.0, sigma_init_sd=VI.sigma_init_sd),
        over(VI, **ivon, curvature_init=2.0, curvature_beta=0.9),
    ]
    accuracy = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95]
    drawing = drawn("sigma_learning", frames_of(specs, accuracy=accuracy))
    data = drawing.data[drawing.data["metric"] == "accuracy"].set_index("mean")
    found = {round(mean): row.dropna().to_dict() for mean, row in data.iterrows()}
    start, rate = {"sigma_init": 0.0006}, {"posterior_optimizer": "ivon", "ivon_lr": 0.1, "step_clip": 0.0}
    sgd = {"posterior_optimizer": "sgd", "sigma_optimizer": "sgd"}
    memory = {"curvature_memory": 0.25, "curvature_beta": 0.0}
    options = {
        90: {**start, **sgd, "sigma_lr": 0.01},
        91: {**start, **sgd, "sigma_lr": 100.0},
        92: {**start, **rate, **memory, "curvature_init": 0.0},
        93: {**start, **rate, **memory, "curvature_init": 0.0, "curvature_memory": 0.5},
        94: {**rate, **memory, "curvature_init": 2.0},
        95: {**rate, "curvature_init": 2.0, "curvature_beta": 0.9},
    }
    about = {"dataset", "model", "method", "density", "metric", "low", "high", "n"}
    assert {mean: {k: v for k, v in row.items() if k not in about} for mean, row in found.items()} == options
    left, right, *_ = drawing.figure.axes
    assert (left.get_title(), right.get_title()) == (r"$\sigma_0$ = 0.0006", "$h_0$ = 2")
    below = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in drawing.figure.axes[-2:]]
    natural = "natural gradient (IVON)"
    assert below == [
        ["SGD\nlr 0.01", "SGD\nlr 100", natural, f"{natural}\ncurvature memory 0.5"],
        [natural, f"{natural}\ncurvature beta 0.9"],
    ]
    assert "or the natural gradient (IVON)" in drawing.caption
    assert "the mean of sigma or the curvature that gives sigma at the start" in drawing.caption


def test_drift_of_natural_gradient_is_told_from_the_official_recipe():
    ivon = over(SSVI, posterior_optimizer="ivon", sigma_init_sd=0.0, sigma_init=0.001)
    elsewhere = over(ivon, curvature_init=2.0, sigma_init=0.0006)
    official = over(SSVI, sigma_init_sd=0.0, sigma_init=0.001)
    layers = [[{"active": 10, "sigma_drift_gradient": -size}] for size in (1e-6, 5e-4, 9e-4)]
    specs = [official, ivon, elsewhere]
    rows = [row for spec, own in zip(specs, layers, strict=True) for row in update_rows(spec, 50, own)]
    drawing = drawn("sigma_drift", frames_of(specs, updates=rows))
    data = drawing.data[(drawing.data["cause"] == "gradient") & (drawing.data["progress_percent"] == 50)]
    assert data.set_index("posterior_optimizer")["mean"].to_dict() == pytest.approx({"sgd": -0.1, "ivon": -50})
    assert [axes.get_title() for axes in drawing.figure.axes] == ["SGD, lr 0.01 (official)", "natural gradient\n(IVON)"]
    left_out = "Left out: 1 run whose sigma starts from a curvature (curvature_init), which is not recorded."
    assert left_out in drawing.notes
    assert any("the KL warm-up does to it counts as done by gradient" in note for note in drawing.notes)
    warm = drawn("sigma_drift", frames_of([official], updates=update_rows(official, 50, layers[0])))
    assert not any("IVON" in note for note in (*warm.notes, warm.caption))
    with pytest.raises(UserError, match="needs a finished run that starts from sigma_init"):
        drawn("sigma_drift", frames_of([elsewhere], updates=update_rows(elsewhere, 50, layers[0])))


def test_weight_samples_show_only_what_has_weights_to_sample():
    dense = RunSpec(method="dense", epochs=10)
    specs = [*seeded(SSVI, 2), *seeded(VI, 2), dense]
    samples = [
        {"run": run_path(s), "samples": k, "accuracy": 0.8 + s.seed / 10, "nll": 1 / k, "ece": 0.1, "seconds": 2.0 * k}
        for s in specs
        for k in ((1,) if s.method == "dense" else (1, 5, 50))
    ]
    data = drawn("test_samples", frames_of(specs, samples=samples)).data
    assert set(data["method"]) == {"ssvi", "vi"}
    assert len(data) == 2 * 4 * 3
    accuracy = data[data["quantity"] == "accuracy_percent"]
    shown = accuracy[["mean", "min", "max", "n"]].drop_duplicates().to_numpy().tolist()
    assert shown == [pytest.approx([85, 80, 90, 2])]
    seconds = data[(data["quantity"] == "seconds") & (data["method"] == "vi")].set_index("samples")["mean"]
    assert seconds.to_dict() == {1: 2, 5: 10, 50: 100}
    with pytest.raises(UserError, match="ssvi samples"):
        make_figure("test_samples", frames_of([dense], samples=samples[-1:]))


def test_layers_show_density_and_quantiles_at_three_moments():
    rows = []
    for seed, spec in enumerate(seeded(SSVI, 2)):
        for step in (10, 40, 70):
            layers = [{"layer": "stem", "active": 100}, {"active": 10 + seed, "sigma_q50": step + seed}]
            rows += update_rows(spec, step, layers)
    data = drawn("layers", frames_of(seeded(SSVI, 2), updates=rows)).data
    assert set(data["quantity"]) == {"density_percent", "sigma", "snr"}
    density = data[data["quantity"] == "density_percent"].set_index(["layer", "moment"])["q50"]
    assert density["stem"].tolist() == [100, 100, 100]
    assert density["blocks.1.conv1"].tolist() == pytest.approx([10.5, 10.5, 10.5])
    sigma = data[(data["quantity"] == "sigma") & (data["layer"] == "blocks.1.conv1")].set_index("moment")
    assert sigma["q50"].to_dict() == {"first update": 10.5, "middle update": 40.5, "last update": 70.5}
    assert sigma["q95"].tolist() == [4, 4, 4]


def test_layers_of_a_deterministic_network_are_its_densities():
    spec = RunSpec(method="rigl", density=0.1, epochs=10)
    absent = {f"{name}_{q}": math.nan for name in ("sigma", "snr") for q in records.QUANTILES}
    drawing = drawn("layers", frames_of([spec], updates=update_rows(spec, 10, [absent])))
    assert set(drawing.data["quantity"]) == {"density_percent"}


def test_survivors_and_turnover_by_layer_and_in_all():
    layers = [{"active": 30, "survivors": 30, "born": 0}, {"active": 10, "survivors": 2, "born": 4}]
    data = drawn("survival", frames_of([SSVI], updates=update_rows(SSVI, 50, layers))).data
    found = data.set_index(["quantity", "layer", "progress_percent"])["mean"].to_dict()
    assert found == pytest.approx(
        {
            ("survivors_percent", "blocks.0.conv1", 0): 100,
            ("survivors_percent", "blocks.0.conv1", 50): 100,
            ("survivors_percent", "blocks.1.conv1", 0): 100,
            ("survivors_percent", "blocks.1.conv1", 50): 20,
            ("survivors_percent", "all", 0): 100,
            ("survivors_percent", "all", 50): 80,
            ("turnover_percent", "blocks.0.conv1", 50): 0,
            ("turnover_percent", "blocks.1.conv1", 50): 40,
            ("turnover_percent", "all", 50): 10,
        }
    )


def test_layer_names_are_short():
    names = ["stem", "blocks.0.conv1", "blocks.7.conv2", "blocks.2.shortcut.0", "layers.1", "head"]
    assert [short_name(name) for name in names] == ["stem", "1.conv1", "8.conv2", "3.skip", "layers.1", "head"]


def test_settings_are_never_averaged():
    """Two densities under one figure are two rows, not one mean."""
    specs = [SSVI, over(SSVI, density=0.05)]
    for name in ("iou", "iou_course", "layers", "survival", "test_samples"):
        data = drawn(name, complete_frames(specs)).data
        assert set(data["density"]) == {0.1, 0.05}
        assert set(data["n"]) == {1}
