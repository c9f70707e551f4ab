"""Metrics against independent libraries, hand-made numbers and laws."""

import math
from fractions import Fraction

import calibration
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from ssvi.core.calibration import ece, ece_marginal
from ssvi.core.metrics import BINNED, METRICS, accuracy, brier, evaluate_all, nll
from ssvi.data.sources import import_torchvision
from ssvi.runs.files import MEASURED

# torchmetrics imports torchvision, which needs this beside a CPU-only torch.
import_torchvision()
from torchmetrics.functional.classification import multiclass_calibration_error  # noqa: E402

SHAPES = [(1, 2), (7, 2), (14, 3), (16, 2), (100, 10), (361, 10), (1000, 100), (1000, 2)]


def _case(n, k, seed, kind):
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        probabilities = np.full((n, k), 1 / k)
    elif kind == "one_hot":
        probabilities = np.eye(k)[rng.integers(0, k, n)]
    elif kind == "grid":
        probabilities = rng.multinomial(4, np.ones(k) / k, n) / 4
    elif kind == "half_ties":
        probabilities = rng.dirichlet(np.ones(k), n)
        probabilities[: n // 2] = probabilities[0]
    else:
        probabilities = rng.dirichlet(np.full(k, {"flat": 1.0, "sharp": 0.05, "soft": 20.0}[kind]), n)
    hit = rng.random(n) < 0.7
    labels = np.where(hit, probabilities.argmax(1), rng.integers(0, k, n))
    return torch.from_numpy(probabilities), torch.from_numpy(labels)


KINDS = ["flat", "sharp", "soft", "uniform", "one_hot", "grid", "half_ties"]
CASES = [pytest.param(*_case(n, k, n + k, kind), id=f"{kind}-{n}x{k}") for kind in KINDS for n, k in SHAPES]


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_ece_marginal_is_the_published_one(probabilities, labels):
    expected = calibration.get_calibration_error(probabilities.numpy(), labels.numpy())
    assert ece_marginal(probabilities, labels) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def guos_ece(probabilities, labels, bins=15):
    """Guo et al. 2017, eqs. 1 to 3, in exact arithmetic on the bins ((m-1)/M, m/M]."""
    total = 0
    confidence = [Fraction(float(row.max())) for row in probabilities]
    right = [int(row.argmax()) == int(label) for row, label in zip(probabilities, labels, strict=True)]
    for m in range(1, bins + 1):
        inside = [i for i, c in enumerate(confidence) if Fraction(m - 1, bins) < c <= Fraction(m, bins)]
        total += abs(sum(right[i] for i in inside) - sum(confidence[i] for i in inside))
    return float(total / len(labels))


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
@pytest.mark.parametrize("bins", [1, 8, 16])
def test_ece_is_guos(probabilities, labels, bins):
    assert ece(probabilities, labels, bins) == pytest.approx(guos_ece(probabilities, labels, bins), abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels"), [case for case in CASES if "flat" in case.id or "soft" in case.id]
)
def test_ece_is_torchmetrics_where_nothing_lies_on_an_edge(probabilities, labels):
    k = probabilities.shape[1]
    # torchmetrics bins in float32, so confidences must be told apart from the edges there too.
    expected = multiclass_calibration_error(probabilities, labels, num_classes=k, n_bins=15, norm="l1")
    assert ece(probabilities, labels) == pytest.approx(expected.item(), abs=2e-6)


def test_a_certain_prediction_is_in_the_last_bin():
    """With one at 0.98, of which the first is wrong: in a bin of its own it would count for itself."""
    probabilities = torch.tensor([[1.0, 0.0], [0.98, 0.02]], dtype=torch.float64)
    assert ece(probabilities, torch.tensor([1, 0])) == pytest.approx((1.98 - 1) / 2)


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_accuracy_and_brier(probabilities, labels):
    p, y = probabilities.numpy(), labels.numpy()
    assert accuracy(probabilities, labels) == pytest.approx(accuracy_score(y, p.argmax(1)))
    by_hand = np.mean(
        [sum((row[j] - (j == label)) ** 2 for j in range(len(row))) for row, label in zip(p, y, strict=True)]
    )
    assert brier(probabilities, labels) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 10, 100])
def test_nll_is_log_loss(k, seed):
    probabilities, labels = _case(300, k, seed, "flat")
    expected = log_loss(labels.numpy(), probabilities.numpy(), labels=range(k))
    assert nll(probabilities, labels) == pytest.approx(expected, rel=1e-9)


def test_brier_of_two_classes_is_twice_sklearns():
    probabilities, labels = _case(200, 2, 0, "flat")
    expected = brier_score_loss(labels.numpy(), probabilities[:, 1].numpy())
    assert brier(probabilities, labels) == pytest.approx(2 * expected)


@pytest.mark.parametrize("bins", [1, 5, 15, 40])
@pytest.mark.parametrize("seed", range(3))
def test_other_numbers_of_bins(bins, seed):
    probabilities, labels = _case(333, 4, seed, "flat")
    marginal = calibration.lower_bound_scaling_ce(probabilities.numpy(), labels.numpy(), num_bins=bins)
    assert ece_marginal(probabilities, labels, bins) == pytest.approx(marginal, abs=1e-9)
    top = multiclass_calibration_error(probabilities, labels, num_classes=4, n_bins=bins, norm="l1")
    assert ece(probabilities, labels, bins) == pytest.approx(top.item(), abs=2e-6)


def test_ece_of_four_points_by_hand():
    # Two bins: (0.5, 1] holds 0.9 right, 0.7 wrong, 0.6 right; (0, 0.5] holds 0.4 wrong.
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.3, 0.3, 0.4]])
    labels = torch.tensor([0, 1, 1, 0])
    expected = abs(2 - (0.9 + 0.7 + 0.6)) / 4 + abs(0 - 0.4) / 4
    assert ece(probabilities, labels, bins=2) == pytest.approx(expected, abs=1e-7)


def test_ece_marginal_of_four_points_by_hand():
    # One bin: per class (mean p - mean y)^2 - mean y (1 - mean y) / 3, with mean p = 0.9 and mean y = 0.5.
    probabilities = torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.86, 0.14], [0.84, 0.16]])
    labels = torch.tensor([0, 1, 0, 1])
    assert ece_marginal(probabilities, labels, bins=1) == pytest.approx(math.sqrt(0.4**2 - 0.25 / 3), abs=1e-6)


def test_certain_predictions():
    probabilities = torch.eye(3)[[0, 1, 2, 0]]
    right = evaluate_all(probabilities, torch.tensor([0, 1, 2, 0]))
    assert right == dict.fromkeys(METRICS, 0) | {"accuracy": 1}
    wrong = torch.tensor([1, 2, 0, 1])
    assert ece(probabilities, wrong) == 1
    assert brier(probabilities, wrong) == 2
    assert nll(probabilities, wrong) == pytest.approx(-math.log(torch.finfo(torch.float64).tiny))


def test_uniform_predictions():
    probabilities, labels = torch.full((40, 10), 0.1, dtype=torch.float64), torch.arange(40) % 10
    assert nll(probabilities, labels) == pytest.approx(math.log(10))
    assert accuracy(probabilities, labels) == 0.1
    assert ece(probabilities, labels) == pytest.approx(0, abs=1e-12)
    assert ece_marginal(probabilities, labels) == 0


def test_probabilities_that_round_above_one_are_accepted():
    probabilities = torch.tensor([[1.0000001, 0.0], [0.5, 0.5]])
    assert ece(probabilities, torch.tensor([0, 0])) == pytest.approx(0.25)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 20))
def test_laws(n, k, seed, kind, bins):
    probabilities, labels = _case(n, k, seed, kind)
    values = evaluate_all(probabilities, labels, bins)
    assert list(values) == list(METRICS)
    assert values.keys() == set(MEASURED)
    assert set(METRICS) >= BINNED
    assert 0 <= values["ece"] <= 1
    assert all(-1e-12 <= values[name] <= 1 for name in (*BINNED, "aurc"))
    assert 0 <= values["brier"] <= 2
    images = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert evaluate_all(probabilities[images], labels[images], bins) == pytest.approx(values, abs=1e-9)
    perfect = torch.nn.functional.one_hot(labels, k).double()
    assert ece(perfect, labels, bins) == 0


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 10**6))
def test_renaming_the_classes_changes_nothing(n, k, seed):
    probabilities, labels = _case(n, k, seed, "flat")
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    renamed = evaluate_all(probabilities[:, order], order.argsort()[labels])
    assert renamed == pytest.approx(evaluate_all(probabilities, labels), abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (torch.full((3,), 1 / 3), torch.zeros(3, dtype=torch.int64), "shapes"),
        (torch.full((3, 2), 0.5), torch.zeros(2, dtype=torch.int64), "shapes"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "shapes"),
        (torch.full((3, 2), 0.5), torch.zeros(3), "int64"),
        (torch.full((3, 2), 0.51), torch.zeros(3, dtype=torch.int64), "sum to 1"),
        (torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.int64), "sum to 1"),
        (torch.tensor([[1.5, -0.5]]), torch.zeros(1, dtype=torch.int64), ">= 0"),
        (torch.full((3, 2), 0.5), torch.full((3,), 2), r"0\.\.1"),
        (torch.full((3, 2), 0.5), torch.full((3,), -1), r"0\.\.1"),
    ],
)
def test_bad_inputs_are_refused(probabilities, labels, message):
    for metric in METRICS.values():
        with pytest.raises(ValueError, match=message):
            metric(probabilities, labels)


@pytest.mark.parametrize("metric", [METRICS[name] for name in sorted(BINNED)])
def test_no_bins_are_refused(metric):
    with pytest.raises(ValueError, match="bins"):
        metric(torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64), 0)
