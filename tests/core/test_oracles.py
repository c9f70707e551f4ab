"""Metrics against what other packages say (`make oracles` installs them): where one differs, by what, in its test.

No package is proof by itself: the same figures are counted out in the tests beside this one.
"""

import importlib.util

import numpy as np
import pytest
import torch

from ssvi.core.calibration import ece_classwise, ece_mass
from ssvi.core.conformal import aps, lac, sets, threshold
from ssvi.core.detection import aupr_in, aupr_out, auroc, fpr95
from ssvi.core.selective import accuracy_at_coverage, augrc, aurc, coverage_at_risk, curve, judged
from ssvi.data.sources import import_torchvision


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}: make oracles")


def scores(seed: int, tied: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of 137 known and 64 foreign images."""
    source = torch.Generator().manual_seed(seed)
    known = torch.randn(137, generator=source, dtype=torch.float64)
    foreign = torch.randn(64, generator=source, dtype=torch.float64) + 1
    return ((2 * known).round(), (2 * foreign).round()) if tied else (known, foreign)


def predictions(seed: int, n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Of five classes, too sure of itself; no two confidences are alike."""
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 5, generator=source, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=source)[:, 0]
    return (2 * logits).softmax(1), labels


SEEDS = pytest.mark.parametrize("seed", range(4))
TIED = pytest.mark.parametrize("tied", [False, True])


@needs("pytorch_ood")
@SEEDS
@TIED
def test_detection_is_pytorch_oods(seed: int, tied: bool) -> None:
    import_torchvision()
    from pytorch_ood.metrics import functional as theirs

    known, foreign = scores(seed, tied)
    both = torch.cat([known, foreign])
    labels = torch.cat([torch.zeros(len(known)), -torch.ones(len(foreign))]).long()
    assert auroc(known, foreign) == pytest.approx(theirs.auroc(both, labels).item())
    # its positive class is the foreign one: with both turned round, it is the known one
    turned = torch.cat([-torch.ones(len(known)), torch.zeros(len(foreign))]).long()
    assert fpr95(known, foreign) == pytest.approx(theirs.fpr_at_tpr(-both, turned, 0.95).item())
    # it joins the points of the curve by straight lines, which no threshold reaches: the steps under its curve are ours
    for positive, ours in (("ood", aupr_out), ("id", aupr_in)):
        precision, recall, _ = theirs.pr_curve(both, labels, positive)
        steps = ((recall[:-1] - recall[1:]) * precision[:-1]).sum().item()
        assert ours(known, foreign) == pytest.approx(steps)


@needs("torch_uncertainty")
@SEEDS
@TIED
def test_detection_is_torch_uncertaintys(seed: int, tied: bool) -> None:
    import_torchvision()
    from torch_uncertainty.metrics import FPR95

    known, foreign = scores(seed, tied)
    metric = FPR95(pos_label=0)
    # what it calls confidence is of the positive class, here the known one
    metric.update(-torch.cat([known, foreign]), torch.cat([torch.zeros(len(known)), torch.ones(len(foreign))]))
    assert fpr95(known, foreign) == pytest.approx(metric.compute().item(), abs=1e-6)


@needs("torch_uncertainty")
@SEEDS
def test_selective_prediction_is_torch_uncertaintys(seed: int) -> None:
    import_torchvision()
    from torch_uncertainty.metrics import AUGRC, AURC, CovAtxRisk, RiskAtxCov

    probabilities, labels = predictions(seed)
    image = judged(probabilities, labels)
    n, risks = len(labels), [risk for _, risk in curve(*image, len(labels))]

    def said(metric) -> float:
        metric.update(probabilities, labels)
        return metric.compute().item()

    # it leaves out the strip up to 1/n and scales the rest to [0, 1]; ours are the mean of n, and the whole area
    trapezoids = said(AURC()) * (n - 1)
    assert aurc(*image) * n == pytest.approx(trapezoids + (risks[0] + risks[-1]) / 2, rel=1e-5)
    generalised = said(AUGRC()) * (n - 1)
    assert augrc(*image) * n == pytest.approx(generalised + risks[0] / n / 2, rel=1e-5)
    for level in (0.1, 0.3, 0.5):
        assert coverage_at_risk(*image, level) == pytest.approx(np.nan_to_num(said(CovAtxRisk(level))), abs=1e-6)
    for share in (0.8, 0.9, 0.95):
        assert accuracy_at_coverage(*image, share) == pytest.approx(1 - said(RiskAtxCov(share)), abs=1e-6)


@needs("torch_uncertainty")
@SEEDS
@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_is_torch_uncertaintys(seed: int, bins: int) -> None:
    import_torchvision()
    from torch_uncertainty.metrics import AdaptiveCalibrationError, ClasswiseCalibrationError

    probabilities, labels = predictions(seed)
    classwise = ClasswiseCalibrationError(num_classes=5, num_bins=bins)
    classwise.update(probabilities, labels)
    assert ece_classwise(probabilities, labels, bins) == pytest.approx(classwise.compute().item(), abs=1e-5)
    adaptive = AdaptiveCalibrationError(task="multiclass", num_classes=5, num_bins=bins)
    adaptive.update(probabilities, labels)
    assert ece_mass(probabilities, labels, bins) == pytest.approx(adaptive.compute().item(), abs=1e-5)


@needs("crepes")
@SEEDS
@pytest.mark.parametrize("rule", [lac, aps])
@pytest.mark.parametrize("level", [0.5, 0.83, 0.9, 0.95])
def test_conformal_sets_are_crepes(seed: int, rule, level: float) -> None:
    """With 100 held-out images, of which no level here makes a whole number of 101: where one does, crepes, which keeps
    a class whose p-value is 1 - level instead of leaving it out, takes the next score as threshold."""
    from crepes import ConformalClassifier
    from crepes.extras import hinge

    probabilities, labels = predictions(seed, 160)
    scored = rule(probabilities)
    if rule is lac:
        assert torch.equal(scored, torch.from_numpy(hinge(probabilities.numpy())))
    peer = ConformalClassifier().fit(scored.gather(1, labels[:, None])[:100, 0].numpy())
    expected = peer.predict_set(scored[100:].numpy(), confidence=level, smoothing=False)
    held = sets(scored[100:], threshold(scored[:100], labels[:100], level))
    assert held.int().tolist() == expected.tolist()
