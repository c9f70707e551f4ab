"""The suite of a run: every figure is what the kept predictions say, counted by hand."""

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssvi.analysis.collect import load_frames
from ssvi.analysis.figures import make_figure, needs
from ssvi.analysis.tables import TABLES
from ssvi.cli import main
from ssvi.core.layers import masked_layers
from ssvi.core.noise import NormalSource
from ssvi.core.prediction import averages
from ssvi.data import load
from ssvi.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from ssvi.errors import UserError
from ssvi.runs import evaluated as evaluated_module
from ssvi.runs import files
from ssvi.runs.evaluated import POINT_SHARE, is_practically_a_point, measured_otherwise, to_evaluate
from ssvi.runs.paths import run_path
from ssvi.runs.runfolder import read_spec
from ssvi.training.evaluate import STREAM, Trained
from ssvi.training.kept import arrays
from ssvi.training.kept import kept as kept_of
from ssvi.training.measure import last, predictions, uncertainty

CPU = torch.device("cpu")
FAR = {"photographs", "uniform_noise", "gaussian_noise"}


def table(folder: Path) -> dict[tuple[str, str, str, float | None, str], float]:
    """The figures of uncertainty.csv, each there once."""
    with (folder / files.UNCERTAINTY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        (r["part"], r["name"], r["score"], float(r["level"]) if r["level"] else None, r["metric"]): float(r["value"])
        for r in rows
    }
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def figures(run: Path):
    return table(run)


@pytest.fixture(scope="module")
def kept(run: Path):
    with np.load(run / files.UNCERTAINTY_PREDICTIONS) as shown, np.load(run / files.PREDICTIONS) as predicted:
        return dict(shown), dict(predicted)


def probabilities(shown: dict, name: str) -> np.ndarray:
    found = np.exp(shown[f"{name}/log_probabilities"].astype(float))
    return found / found.sum(1, keepdims=True)


def test_all_parts_are_there_and_say_with_what_they_were_made(run: Path, figures) -> None:
    parts = {"posterior", "calibration", "reliability", "selective", "risk", "conformal", "shift", "ood", "histogram"}
    assert {key[0] for key in figures} == parts
    assert {key[1] for key in figures if key[0] == "shift"} == {*CORRUPTIONS, "clean", "mean"}
    assert {key[1] for key in figures if key[0] == "ood"} == FAR
    metrics = json.loads((run / files.METRICS).read_text())
    with (run / files.UNCERTAINTY).open(newline="") as file:
        made = {(row["samples"], row["bins"], row["test_data"]) for row in csv.DictReader(file)}
    assert made == {("5", "15", metrics["test_data"])}
    for name in ("predictive_entropy", "mutual_information_share", "disagreement", "logit_sd"):
        assert figures["posterior", "test", "", None, name] == pytest.approx(metrics[name])
    for name in ("accuracy", "nll", "ece", "ece_mass", "ece_classwise"):
        # kept in float32
        assert figures["calibration", "raw", "", None, name] == pytest.approx(metrics[name], rel=1e-5, abs=1e-6)
    assert figures["selective", "test", "max_probability", None, "aurc"] == pytest.approx(metrics["aurc"])
    assert figures["calibration", "scaled", "", None, "nll"] == pytest.approx(metrics["nll_scaled"], rel=1e-5)


def test_corrupted_images_are_measured_as_they_are_kept(figures, kept, digits) -> None:
    shown, _ = kept
    labels = digits.test_labels.numpy()
    errors = []
    for name, severity in itertools.product(CORRUPTIONS, SEVERITIES):
        p = probabilities(shown, f"shift/{name}/{severity}")
        assert np.array_equal(shown[f"shift/{name}/{severity}/labels"], labels)
        right = (p.argmax(1) == labels).mean()
        errors.append(1 - right)
        assert figures["shift", name, "", severity, "accuracy"] == pytest.approx(right)
        by_hand = -np.log(p[np.arange(len(labels)), labels]).mean()
        assert figures["shift", name, "", severity, "nll"] == pytest.approx(by_hand)
    assert figures["shift", "mean", "", None, "corruption_error"] == pytest.approx(np.mean(errors))
    fives = [figures["shift", name, "", 5, "brier"] for name in CORRUPTIONS]
    assert figures["shift", "mean", "", 5, "brier"] == pytest.approx(np.mean(fives))
    # it hurts
    means = [figures["shift", "mean", "", severity, "accuracy"] for severity in (0, 1, 3, 5)]
    assert means == sorted(means, reverse=True)
    assert figures["shift", "clean", "", 0, "accuracy"] == means[0]


def test_every_set_is_shown_to_the_same_weights(run: Path, kept, data_root: Path) -> None:
    spec = read_spec(run)
    data = load(spec, data_root, CPU)
    trained = Trained.load(spec, data, run, CPU)
    source = NormalSource(spec.seed, STREAM)
    foggy = corrupted(data.test_images, "fog", 3, 0)
    found = last(predictions(trained.model, trained.method, data, foggy, 5, source))
    assert probabilities(kept[0], "shift/fog/3") == pytest.approx(found.probabilities.numpy(), rel=0.02, abs=1e-6)
    assert kept[0]["shift/fog/3/mutual_information"] == pytest.approx(found.mutual_information.numpy(), abs=1e-6)


def test_outsiders_are_told_by_counting_pairs(figures, kept) -> None:
    shown, predicted = kept
    inside = predicted["energy"].astype(float)
    for name in FAR:
        beyond = shown[f"ood/{name}/energy"].astype(float)
        assert (shown[f"ood/{name}/labels"] == -1).all()
        assert "drawn with seed 0" in str(shown[f"ood/{name}/source"])
        pairs = (inside[:, None] < beyond).mean() + (inside[:, None] == beyond).mean() / 2
        assert figures["ood", name, "energy", None, "auroc"] == pytest.approx(pairs)
        assert figures["ood", name, "", None, "near"] == 0
        bars = [figures["histogram", name, "entropy", level, "images"] for level in range(20)]
        assert sum(bars) == figures["ood", name, "", None, "images"] == len(beyond)


def test_conformal_sets_are_those_of_the_held_out_images(figures, kept) -> None:
    _, predicted = kept
    p, labels = predicted["val_probabilities"].astype(float), predicted["val_labels"]
    scores = np.sort(1 - p[np.arange(len(labels)), labels])
    threshold = scores[int(np.ceil((len(labels) + 1) * 0.9)) - 1]
    sets = 1 - predicted["probabilities"].astype(float) <= threshold
    test_labels = predicted["labels"]
    assert figures["conformal", "lac", "", 0.9, "size"] == pytest.approx(sets.sum(1).mean())
    covered = sets[np.arange(len(test_labels)), test_labels].mean()
    assert figures["conformal", "lac", "", 0.9, "coverage"] == pytest.approx(covered)


def test_the_same_again_gives_the_same_bytes(run: Path, tmp_path: Path, data_root: Path, capsys) -> None:
    again = shutil.copytree(run, tmp_path / "run")
    main(["evaluate", str(again), "--suite=uncertainty", f"--data-root={data_root}", "--device=cpu"])
    for name in (files.UNCERTAINTY, files.UNCERTAINTY_PREDICTIONS):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    said = capsys.readouterr().out
    assert "photographs: 1000 images, far: 1000 square patches of scikit-learn's two sample photographs" in said
    size = (run / files.UNCERTAINTY_PREDICTIONS).stat().st_size
    assert f"figures in uncertainty.csv, {size / 1e6:.2f} MB of predictions in uncertainty.npz" in said


def test_a_posterior_made_a_point_shares_nothing_and_a_wider_one_more(run: Path, digits, data_root: Path) -> None:
    spec = read_spec(run)

    def measured(factor: float) -> dict[str, float | None]:
        """With every sigma, the size of rho here, multiplied."""
        trained = Trained.load(spec, digits, run, CPU)
        with torch.no_grad():
            for layer in masked_layers(trained.model).values():
                layer.rho.mul_(factor)
        return uncertainty(trained.prediction(digits.test_images, 5))

    point, usual, double = (measured(factor) for factor in (0.0, 1.0, 2.0))
    assert point["mutual_information"] == pytest.approx(0, abs=1e-15)
    assert (point["disagreement"], point["logit_sd"]) == (0, 0)
    assert is_practically_a_point(point["mutual_information_share"])
    for name in ("mutual_information", "mutual_information_share", "disagreement", "logit_sd"):
        assert 0 < usual[name] < double[name]
    assert not is_practically_a_point(usual["mutual_information_share"])
    assert is_practically_a_point(POINT_SHARE) is False


def test_a_class_that_was_held_out_is_near(tmp_path: Path, data_root: Path) -> None:
    place = f"--data-root={data_root}"
    words = ["--dataset=digits", "--model=mlp", "--width=0.1", "--method=dense", "--epochs=1", "--lr=0.1"]
    main(["train", *words, "--held-out-classes=3+8", f"--out={tmp_path}/run", place, "--device=cpu"])
    main(["evaluate", f"{tmp_path}/run", place, "--device=cpu"])
    main(["evaluate", f"{tmp_path}/run", "--suite=uncertainty", place, "--device=cpu"])
    figures = table(tmp_path / "run")
    assert figures["ood", "held_out", "", None, "near"] == 1
    assert figures["ood", "held_out", "", None, "images"] == 72  # of 360 test images
    # a network without a posterior has no mutual information
    scores = {key[2] for key in figures if key[:2] == ("ood", "held_out")} - {""}
    assert scores == {
        *("max_probability", "entropy", "expected_entropy", "energy"),
        *("max_probability_scaled", "entropy_scaled"),
    }
    posterior = {key[4] for key in figures if key[0] == "posterior"}
    assert posterior == {"predictive_entropy", "expected_entropy"}
    metrics = json.loads((tmp_path / "run" / files.METRICS).read_text())
    assert metrics["point_posterior"] is None


def test_what_it_was_made_with_decides_whether_it_is_due(run: Path, tmp_path: Path) -> None:
    spec, path = read_spec(run), run / files.UNCERTAINTY
    usual = {"samples": 5, "bins": 15}
    assert measured_otherwise(path, spec, usual) is None
    assert "3 samples" in measured_otherwise(path, spec, usual | {"samples": 3})
    more = usual | {"outside": ["folder:images/others"]}
    assert measured_otherwise(path, spec, more) == "was made without folder:images/others, which the config names"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluated_module, "SUITE", 2)
        assert "by version 1 of the suite, which is 2 now" in measured_otherwise(path, spec, usual)
    # what is kept of an older evaluation is not enough
    results = tmp_path / "runs"
    shutil.copytree(run, results / "one")
    record = json.loads((results / "one" / files.METRICS).read_text())
    del record["logit_sd"]
    (results / "one" / files.METRICS).write_text(json.dumps(record))
    wanted = {files.UNCERTAINTY: ["one"]}
    assert ("one", files.METRICS) in to_evaluate(tmp_path, {"one": spec}, wanted, usual)


def test_predictions_that_are_not_finite_are_refused(run: Path, tmp_path: Path, digits, data_root: Path) -> None:
    from ssvi.uncertainty import suite

    spec = read_spec(run)
    broken = shutil.copytree(run, tmp_path / "run")
    (broken / files.UNCERTAINTY).unlink()

    def infinite(self: Trained, images, samples, batch) -> object:
        return last(predictions(self.model, self.method, self.data, images * torch.nan, 1, self.noise))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trained, "prediction", infinite)
        with pytest.raises(UserError, match="what it predicts of shift/clean/0 is not finite"):
            suite.evaluate_suite(spec, digits, broken, CPU, root=data_root)
    assert not (broken / files.UNCERTAINTY).exists()


@pytest.fixture(scope="module")
def results(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The run in a results folder, with its spec."""
    place, spec = tmp_path_factory.mktemp("results"), read_spec(run)
    shutil.copytree(run, place / "runs" / run_path(spec))
    return place, {run_path(spec): spec}


@pytest.mark.parametrize("name", ["uncertainty", "shift", "ood", "selective", "claims"])
def test_tables_are_made_of_a_real_suite(results, figures, name: str) -> None:
    maker = TABLES[name]
    table = maker.make(load_frames(*results, maker.needs, uses=maker.uses))
    assert len(table.numbers)
    if name == "selective":
        assert table.numbers["aurc_mean"].tolist() == [
            pytest.approx(figures["selective", "test", "max_probability", None, "aurc"], rel=1e-6)
        ]


@pytest.mark.parametrize("name", ["reliability", "shift", "ood", "risk_coverage", "posterior_use"])
def test_figures_are_drawn_of_a_real_suite(results, name: str) -> None:
    assert len(make_figure(name, load_frames(*results, needs(name))).data)


def test_a_suite_of_predictions_before_is_due_and_refused(results, tmp_path: Path, data_root: Path) -> None:
    place = tmp_path / "results"
    shutil.copytree(results[0], place)
    ((path, spec),) = results[1].items()
    assert to_evaluate(place, {path: spec}, {files.UNCERTAINTY: [path]}, {"samples": 5, "bins": 15}) == {}
    main(["evaluate", str(place / "runs" / path), "--samples=3", f"--data-root={data_root}", "--device=cpu"])
    due = to_evaluate(place, {path: spec}, {files.UNCERTAINTY: [path]}, {"samples": 3, "bins": 15})
    assert set(due) == {(path, files.UNCERTAINTY)}
    (row,) = load_frames(place, {path: spec}, ["uncertainty"]).runs.to_dict("records")
    assert (row["status"], "predictions.npz than this run's" in row["cause"]) == ("refused", True)


def test_the_most_probable_class_survives_rounding() -> None:
    p = torch.tensor([[0.10429, 0.10443, 0.79128], [0.33330, 0.33335, 0.33335 + 1e-9], [1e-9, 1 - 1e-9, 0]])
    p = (p / p.sum(1, keepdim=True)).double()
    logits = p.clamp_min(1e-300).log()
    found = kept_of(arrays(last(averages([logits])), torch.zeros(3, dtype=torch.int64), half=True))
    assert found.probabilities.argmax(1).equal(p.argmax(1))
    assert torch.allclose(found.probabilities, p, rtol=3e-3, atol=1e-6)


@given(st.integers(0, 2**31), st.floats(0.1, 30))
def test_rounded_predictions_are_close_and_of_the_same_class(seed: int, scale: float) -> None:
    logits = scale * torch.randn(20, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    prediction = last(averages([logits]))
    found = kept_of(arrays(prediction, torch.zeros(20, dtype=torch.int64), half=True))
    assert found.probabilities.argmax(1).equal(prediction.probabilities.argmax(1))
    ratio = found.probabilities.log() - prediction.probabilities.log()
    assert bool((ratio.abs() <= 1.1e-3 * (1 + prediction.probabilities.log().abs())).all())
