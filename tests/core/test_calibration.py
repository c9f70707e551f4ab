"""Calibration errors, their bins and the temperature against numbers worked out by hand, brute force and laws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssvi.core.calibration import (
    TEMPERATURES,
    Bin,
    at_temperature,
    ece,
    ece_classwise,
    ece_mass,
    fit_temperature,
    reliability,
)
from ssvi.core.metrics import evaluate_all, nll


def two_classes(*confidences: float) -> torch.Tensor:
    """Predictions of class 0 with these confidences, of at least 1/2."""
    first = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1)


# Twelfths of four classes, so that probabilities tie, and lie on edges of bins.
ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 12), min_size=4, max_size=4).filter(any), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


def case(rows) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.tensor([row for row, _ in rows], dtype=torch.float64)
    return weights / weights.sum(1, keepdim=True), torch.tensor([label for _, label in rows])


def test_equal_mass_by_hand() -> None:
    """Two bins of two: 0.6 wrong and 0.7 right, 0.8 right and 0.9 right."""
    probabilities, labels = two_classes(0.9, 0.6, 0.8, 0.7), torch.tensor([0, 1, 0, 0])
    assert ece_mass(probabilities, labels, 2) == pytest.approx((abs(1 - 1.3) + abs(2 - 1.7)) / 4)
    # of three bins the first is the larger
    assert ece_mass(probabilities, labels, 3) == pytest.approx((abs(1 - 1.3) + 0.2 + 0.1) / 4)
    # with more bins than images, each is a bin
    assert ece_mass(probabilities, labels, 15) == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)


def test_equal_mass_keeps_ties_together() -> None:
    """Of 0.6, 0.7, 0.7, 0.9 in two bins, both 0.7 are in the lower one, whichever of the two is right."""
    probabilities = two_classes(0.6, 0.7, 0.7, 0.9)
    expected = (abs(1 - 2.0) + abs(1 - 0.9)) / 4
    assert ece_mass(probabilities, torch.tensor([1, 0, 1, 0]), 2) == pytest.approx(expected)
    assert ece_mass(probabilities, torch.tensor([1, 1, 0, 0]), 2) == pytest.approx(expected)
    # all of one confidence: one bin
    assert ece_mass(two_classes(*[0.75] * 4), torch.tensor([0, 0, 0, 1]), 4) == pytest.approx(0, abs=1e-12)


def brute_mass(probabilities, labels, bins) -> float:
    """By sorting, cutting into nearly equal parts, and moving each cut up to the end of the tie that it falls into."""
    confidence = probabilities.max(1).values.tolist()
    right = (probabilities.argmax(1) == labels).tolist()
    images = sorted(zip(confidence, right, strict=True))
    n, bins = len(images), min(bins, len(images))
    ends, end = [], 0
    for i in range(bins):
        end += n // bins + (i < n % bins)
        ends.append(max(k for k in range(end, n + 1) if images[k - 1][0] == images[end - 1][0]))
    parts = [images[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return sum(abs(sum(r - c for c, r in part)) for part in parts) / n


def brute_classwise(probabilities, labels, bins) -> float:
    total, (n, k) = 0.0, probabilities.shape
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).tolist()
    for c in range(k):
        for low, high in itertools.pairwise(edges):
            of = [i for i in range(n) if low < probabilities[i, c] <= high or low == probabilities[i, c] == 0]
            total += abs(sum((labels[i] == c).double() - probabilities[i, c] for i in of))
    return float(total) / n / k


@settings(max_examples=60)
@given(ROWS, st.integers(1, 6))
def test_bins_by_brute_force(rows, bins) -> None:
    probabilities, labels = case(rows)
    assert ece_mass(probabilities, labels, bins) == pytest.approx(brute_mass(probabilities, labels, bins), abs=1e-9)
    found = ece_classwise(probabilities, labels, bins)
    assert found == pytest.approx(brute_classwise(probabilities, labels, bins), abs=1e-9)


def test_classwise_by_hand() -> None:
    """One bin a class: |1 - 1.5| and |1 - 0.5| of two images."""
    probabilities, labels = two_classes(0.9, 0.6), torch.tensor([0, 1])
    assert ece_classwise(probabilities, labels, 1) == pytest.approx((0.5 + 0.5) / 2 / 2)
    # Two bins: 0.9 and 0.6 of class 0 lie in the upper one, 0.1 and 0.4 of class 1 in the lower one.
    assert ece_classwise(probabilities, labels, 2) == pytest.approx((0.5 + 0.5) / 2 / 2)
    # Ten bins: every probability in one of its own.
    assert ece_classwise(probabilities, labels, 10) == pytest.approx((0.1 + 0.6 + 0.1 + 0.6) / 2 / 2)


def test_reliability_by_hand() -> None:
    """An edge belongs to the bin below it, 1 to the last one; an empty bin has no mean."""
    probabilities, labels = two_classes(0.5, 1.0, 0.75, 0.875), torch.tensor([1, 0, 0, 1])
    assert reliability(probabilities, labels, 4) == [
        Bin(0, None, None),
        Bin(1, 0.5, 0.0),
        Bin(1, 0.75, 1.0),
        Bin(2, 0.9375, 0.5),
    ]


@given(ROWS, st.integers(1, 20))
def test_reliability_is_what_ece_is_made_of(rows, bins) -> None:
    probabilities, labels = case(rows)
    found = reliability(probabilities, labels, bins)
    assert len(found) == bins
    assert sum(one.images for one in found) == len(labels)
    gaps = [one.images * abs(one.accuracy - one.confidence) for one in found if one.images]
    assert sum(gaps) / len(labels) == pytest.approx(ece(probabilities, labels, bins), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5])
def test_one_class_alone_is_always_right(n) -> None:
    found = evaluate_all(torch.ones(n, 1), torch.zeros(n, dtype=torch.int64))
    assert found == dict.fromkeys(found, 0) | {"accuracy": 1}


@pytest.mark.parametrize("metric", [ece, ece_mass])
def test_one_image(metric) -> None:
    probabilities = two_classes(0.8)
    assert metric(probabilities, torch.tensor([0])) == pytest.approx(0.2)
    assert metric(probabilities, torch.tensor([1])) == pytest.approx(0.8)
    assert ece_classwise(probabilities, torch.tensor([1])) == pytest.approx((0.8 + 0.8) / 2)


@pytest.mark.parametrize("metric", [ece, ece_mass, ece_classwise])
def test_all_right_and_all_wrong(metric) -> None:
    certain = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 2]]
    assert metric(certain, torch.tensor([0, 1, 2, 2])) == 0
    # in a class's first bin, the label's, and in its last, the predicted class's
    assert metric(certain, torch.tensor([1, 2, 0, 0])) == pytest.approx(2 / 3 if metric is ece_classwise else 1)


def test_the_temperature_is_where_the_nll_is_smallest() -> None:
    """Against a fine grid, on overconfident and underconfident predictions."""
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 5, generator=source, dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=logits).sample()
    for sharpness in (0.3, 4.0):
        p = (sharpness * logits).softmax(1)
        found = fit_temperature(p, labels)
        grid = torch.linspace(0.05, 20, 4001, dtype=torch.float64)
        best = grid[min(range(len(grid)), key=lambda i: nll(at_temperature(p, float(grid[i])), labels))]
        assert found == pytest.approx(float(best), abs=6e-3)
        assert torch.equal(at_temperature(p, found).argmax(1), p.argmax(1))
    assert torch.allclose(at_temperature(p, 1.0), p)


def test_a_temperature_that_has_no_optimum_stops_at_an_end_of_the_range() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    assert fit_temperature(p, torch.tensor([0, 1])) == TEMPERATURES[0]
    assert fit_temperature(p, torch.tensor([1, 0])) == TEMPERATURES[1]


def test_at_a_temperature_by_hand() -> None:
    """Logits 0 and log 9 are halved: probabilities 1 : 3 instead of 1 : 9."""
    found = at_temperature(torch.tensor([[0.1, 0.9]], dtype=torch.float64), 2.0)
    assert found[0].tolist() == pytest.approx([1 / 4, 3 / 4])
    assert math.isclose(found.sum().item(), 1)
