"""What evaluation says of the spread of a posterior, and of the epoch that was best on test data."""

import json
import math

import numpy as np
import pytest
import torch

from ssvi.cli import main
from ssvi.core.metrics import accuracy
from ssvi.core.noise import NormalSource
from ssvi.core.prediction import averages, entropy
from ssvi.data import load
from ssvi.runs import files
from ssvi.runs.evaluated import evaluated_otherwise, measured_otherwise
from ssvi.runs.options import options_of
from ssvi.runs.spec import make_spec
from ssvi.training import passes
from ssvi.training.evaluate import evaluate, sample_curve
from ssvi.training.measure import last, predictions, uncertainty
from ssvi.training.network import build
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.stored import load_model
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
TINY = {"dataset": "digits", "model": "mlp", "width": 0.1, "epochs": 4, "batch_size": 256, "lr": 0.1}
WIDE = {"sigma_init": 0.2, "sigma_init_sd": 0.05, "prior_sigma": 0.2}


def trained(tmp_path, method: str, **options):
    given = {**TINY, "method": method, **options}
    spec = make_spec({k: v for k, v in given.items() if k in options_of(method) or k == "preset"})
    data = load(spec, tmp_path / "data", CPU)
    Trainer(spec, data, tmp_path / "run", Settings(Machine(CPU)), Lines()).run()
    return spec, data


def test_entropy_is_its_sum_and_a_certain_one_is_zero() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    assert entropy(p).tolist() == pytest.approx([1.5 * math.log(2), 0.0])


def test_mutual_information_is_that_of_the_joint_distribution(tmp_path) -> None:
    """Of the label and the index of the weight sample, by its definition as a sum over both."""
    spec, data = trained(tmp_path, "vi", **WIDE)
    source = NormalSource(spec.seed, "evaluation")
    model, method = build(spec, data.channels, data.image_size, data.n_classes, source)
    load_model(tmp_path / "run", method)
    samples = []
    with torch.inference_mode():
        model.eval()
        for _ in method.predictive.samples(7, source):
            samples.append(model(data.normalise(data.test_images)).double().softmax(1).numpy())
    joint = np.stack(samples) / len(samples)  # [sample, image, class]
    product = joint.sum(0, keepdims=True) * joint.sum(2, keepdims=True)
    by_hand = (joint * np.log(joint / product)).sum((0, 2))

    source = NormalSource(spec.seed, "evaluation")
    model, method = build(spec, data.channels, data.image_size, data.n_classes, source)
    load_model(tmp_path / "run", method)
    prediction = last(predictions(model, method, data, data.test_images, 7, source))
    assert prediction.mutual_information.numpy() == pytest.approx(by_hand, abs=1e-12)
    assert by_hand.mean() > 1e-3

    metrics = evaluate(spec, data, tmp_path / "run", CPU, samples=7)
    assert metrics["mutual_information"] == pytest.approx(by_hand.mean())
    assert metrics["mutual_information_share"] == pytest.approx(by_hand.mean() / metrics["predictive_entropy"])


def test_samples_that_agree_share_nothing_and_ones_that_are_sure_of_different_labels_everything() -> None:
    same = last(averages([torch.ones(2, 4)] * 3))
    assert uncertainty(same) == {
        "predictive_entropy": pytest.approx(math.log(4)),
        "expected_entropy": pytest.approx(math.log(4)),
        "mutual_information": 0.0,
        "mutual_information_share": 0.0,
        "disagreement": 0.0,
        "logit_sd": 0.0,
    }
    sure = uncertainty(last(averages([torch.tensor([[800.0, 0.0]]), torch.tensor([[0.0, 800.0]])])))
    assert sure["mutual_information_share"] == pytest.approx(1.0)
    assert sure["disagreement"] == 1.0
    # centred, the logits are 400 and -400 in turn: a sample variance of 400^2 * 2 in both
    assert sure["logit_sd"] == pytest.approx(400 * 2**0.5)


@pytest.mark.parametrize("method", ["dense", "vi"])
def test_one_sample_has_no_mutual_information(tmp_path, method, capsys) -> None:
    spec, data = trained(tmp_path, method)
    metrics = evaluate(spec, data, tmp_path / "run", CPU, samples=1)
    assert metrics["predictive_entropy"] > 0
    assert metrics["mutual_information"] is metrics["mutual_information_share"] is None
    main(["evaluate", str(tmp_path / "run"), "--samples=1", f"--data-root={tmp_path / 'data'}"])
    assert "nats, of one sample: no mutual information" in capsys.readouterr().out


def test_the_command_says_what_the_posterior_makes_of_the_uncertainty(tmp_path, capsys) -> None:
    trained(tmp_path, "vi", **WIDE)
    main(["evaluate", str(tmp_path / "run"), "--samples=7", f"--data-root={tmp_path / 'data'}"])
    metrics = json.loads((tmp_path / "run" / files.METRICS).read_text())
    said = capsys.readouterr().out
    assert f"mutual information {metrics['mutual_information']:.2g} nats" in said
    assert f"{metrics['mutual_information_share']:.2%} of it (7 samples)" in said


@pytest.mark.parametrize("cut", [False, True])
def test_the_network_of_the_best_epoch_is_kept_and_evaluated(tmp_path, monkeypatch, capsys, cut) -> None:
    """Also by a training that was stopped and gone on: its metrics are those of a training that ended there."""
    spec = make_spec({**TINY, "method": "ssvi", "preset": "official", "epochs": 3})
    data = load(spec, tmp_path / "data", CPU)
    folder = tmp_path / "run"
    kept = {}

    class Spy(Lines):
        def epoch(self, row):
            if row["epoch"] == 2:
                kept.update({k: v.clone() for k, v in trainer.method.predictive.tensors().items()})
                if cut and not folder.joinpath("cut").exists():
                    folder.joinpath("cut").touch()
                    raise KeyboardInterrupt

    wanted, measured = iter((0.5, 0.9, *([0.9] if cut else []), 0.9)), passes.accuracy

    def on_test_images(stepper, images, labels):
        found = measured(stepper, images, labels)
        return next(wanted) if images is data.test_images else found

    monkeypatch.setattr("ssvi.training.trainer.accuracy", on_test_images)
    trainer = Trainer(spec, data, folder, Settings(Machine(CPU), checkpoint_seconds=0.0), Spy())
    if cut:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        trainer = Trainer(spec, data, folder, Settings(Machine(CPU), checkpoint_seconds=0.0), Spy())
    summary = trainer.run()
    assert (summary["best_epoch"], summary["accuracy_best_test"]) == (2, 0.9)

    main(["evaluate", str(folder), "--samples=5", f"--data-root={tmp_path / 'data'}"])
    assert "of epoch 2, the best on test data: accuracy 0." in capsys.readouterr().out
    metrics = json.loads((folder / files.METRICS).read_text())
    source = NormalSource(spec.seed, "evaluation")
    model, method = build(spec, data.channels, data.image_size, data.n_classes, source)
    model.load_state_dict(kept)
    prediction = last(predictions(model, method, data, data.test_images, 5, source))
    assert metrics["accuracy_best_checkpoint"] == accuracy(prediction.probabilities, data.test_labels)
    # in columns of its own: what is of record is the last epoch
    assert metrics["nll"] != metrics["nll_best_checkpoint"]


def test_nobody_else_keeps_it(tmp_path) -> None:
    spec, data = trained(tmp_path, "vi")
    metrics = evaluate(spec, data, tmp_path / "run", CPU)
    assert not (tmp_path / "run" / files.BEST_MODEL).exists()
    assert metrics["best_epoch"] is metrics["accuracy_best_checkpoint"] is None


def test_the_files_say_what_was_asked_for(tmp_path) -> None:
    spec, data = trained(tmp_path, "vi")
    folder = tmp_path / "run"
    for asked in ((2, 15), (3, 15), (2, 4)):
        metrics = evaluate(spec, data, folder, CPU, *asked)
        sample_curve(spec, data, folder, CPU, *asked)
        for samples, bins in ((2, 15), (3, 15), (2, 4)):
            wanted = {"samples": samples, "bins": bins, "most_samples": samples}
            assert (evaluated_otherwise(metrics, spec, wanted) is None) == (asked == (samples, bins))
            assert (measured_otherwise(folder / files.SAMPLES, spec, wanted) is None) == (asked == (samples, bins))
