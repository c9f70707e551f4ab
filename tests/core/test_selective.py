"""Risk by coverage against numbers worked out by hand, all orders of ties, thresholds counted, and laws."""

import itertools
import math
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ssvi.core import selective
from ssvi.core.metrics import METRICS
from ssvi.core.selective import accuracy_at_coverage, augrc, aurc, coverage_at_risk, curve, eaurc, risk_coverage


def images(*each: tuple[float, bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences and whether they are wrong."""
    confidence, wrong = zip(*each, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(wrong)


MANY = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)
# few enough for all their orders
FEW = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)

# The most confident is right, the next wrong, then two right: risks 0, 1/2, 1/3, 1/4.
FOUR = images((0.9, False), (0.7, False), (0.8, True), (0.6, False))


def test_four_images_by_hand() -> None:
    assert aurc(*FOUR) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    # an oracle keeps the wrong one last
    assert eaurc(*FOUR) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4 - 1 / 16)
    # wrong and kept, of all: 0, 1/4, 1/4, 1/4 from 0, by trapezoids
    assert augrc(*FOUR) == pytest.approx((0 + 1 / 8 + 1 / 4 + 1 / 4) / 4)
    assert curve(*FOUR, 4) == [(1 / 4, 0), (1 / 2, pytest.approx(1 / 2)), (3 / 4, pytest.approx(1 / 3)), (1, 1 / 4)]
    assert [accuracy_at_coverage(*FOUR, c) for c in (0.25, 0.5, 1)] == [1, 1 / 2, 3 / 4]
    # three images are 75 %; 60 % of four are three too
    assert accuracy_at_coverage(*FOUR, 0.75) == accuracy_at_coverage(*FOUR, 0.6) == pytest.approx(2 / 3)
    # the risk is not monotonic: of all coverages where it is low enough, the largest
    assert [coverage_at_risk(*FOUR, r) for r in (0, 0.05, 0.25, 1 / 3, 0.5)] == [1 / 4, 1 / 4, 1, 1, 1]


def test_a_tie_by_hand() -> None:
    """Of three that tie, one wrong: kept one by one, each order equally likely."""
    tied = images((0.9, False), (0.5, True), (0.5, False), (0.5, False))
    assert aurc(*tied) == pytest.approx((0 + (1 / 3) / 2 + (2 / 3) / 3 + 1 / 4) / 4)
    assert accuracy_at_coverage(*tied, 0.5) == pytest.approx(1 - 1 / 6)


@settings(max_examples=40)
@given(FEW)
def test_ties_are_expectations_over_all_orders(each) -> None:
    """Every order of the images that goes down in confidence, counted out."""
    orders = [
        order for order in itertools.permutations(each) if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]
    n = len(each)
    wrong = [mean(sum(one[1] for one in order[:k]) for order in orders) for k in range(n + 1)]
    found = images(*each)
    assert aurc(*found) == pytest.approx(mean(wrong[k] / k for k in range(1, n + 1)))
    assert augrc(*found) == pytest.approx(sum((wrong[k - 1] + wrong[k]) / 2 for k in range(1, n + 1)) / n**2)
    assert [risk for _, risk in curve(*found, n)] == pytest.approx([wrong[k] / k for k in range(1, n + 1)])
    for level in (0.05, 0.25, 0.5):
        kept = [k for k in range(1, n + 1) if wrong[k] / k <= level + 1e-9]
        assert coverage_at_risk(*found, level) == (max(kept) / n if kept else 0)


@given(MANY)
def test_augrc_is_what_auroc_says(each) -> None:
    """Traub et al. 2024: (1 - AUROC) acc (1 - acc) + (1 - acc)²/2."""
    confidence, wrong = images(*each)
    r = wrong.double().mean().item()
    ranked = roc_auc_score(~wrong, confidence) if 0 < r < 1 else 0.5
    assert augrc(confidence, wrong) == pytest.approx((1 - ranked) * r * (1 - r) + r * r / 2)


@settings(max_examples=40)
@given(MANY, st.randoms(use_true_random=False))
def test_laws(each, random) -> None:
    found = images(*each)
    r = found[1].double().mean().item()
    assert 0 <= augrc(*found) <= min(1 / 2, aurc(*found))
    assert 0 <= eaurc(*found) <= aurc(*found) <= 1
    assert accuracy_at_coverage(*found, 1) == pytest.approx(1 - r)
    assert coverage_at_risk(*found, r) == coverage_at_risk(*found, 1) == 1
    # the order of the images, and a rising function of the confidence, change nothing
    shuffled = [*each]
    random.shuffle(shuffled)
    other = images(*((math.exp(c), w) for c, w in shuffled))
    for figure in (aurc, augrc, eaurc):
        assert figure(*other) == pytest.approx(figure(*found))
    assert dict(curve(*other, 7)) == pytest.approx(dict(curve(*found, 7)))


@pytest.mark.parametrize("n", [1, 7])
def test_all_right_and_all_wrong(n) -> None:
    confidence, right = torch.arange(n), torch.zeros(n, dtype=torch.bool)
    assert (aurc(confidence, right), eaurc(confidence, right), augrc(confidence, right)) == (0, 0, 0)
    assert coverage_at_risk(confidence, right, 0) == accuracy_at_coverage(confidence, right, 0.5) == 1
    assert (aurc(confidence, ~right), eaurc(confidence, ~right), augrc(confidence, ~right)) == (1, 0, 0.5)
    assert coverage_at_risk(confidence, ~right, 0.05) == accuracy_at_coverage(confidence, ~right, 0.5) == 0


def test_a_whole_number_of_images_is_kept_as_it_is() -> None:
    """0.07 times 100 is more than 7 as floating-point numbers go."""
    confidence = torch.arange(100.0)
    for percent in range(1, 101):
        wrong = confidence < 100 - percent
        assert accuracy_at_coverage(confidence, wrong, percent / 100) == 1
        assert curve(confidence, wrong)[percent - 1] == (percent / 100, 0)
        assert coverage_at_risk(confidence, wrong, 0) == percent / 100


def test_a_risk_that_is_just_met_counts() -> None:
    """One wrong of twenty is 5 %, as are 3 of 60 that tie and are summed as shares."""
    for n in (20, 60):
        assert coverage_at_risk(torch.zeros(n), torch.arange(n) % 20 == 0, 0.05) == 1


def test_aurc_of_predictions_is_by_their_largest_probability() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    confidence, wrong = selective.judged(probabilities, labels)
    assert (confidence.tolist(), wrong.tolist()) == ([0.9, 0.8, 0.7, 0.6], [False, True, False, False])
    assert METRICS["aurc"](probabilities, labels) == aurc(*FOUR)


@given(st.integers(2, 4).flatmap(lambda k: st.lists(st.tuples(st.integers(0, 9), st.integers(0, k - 1)), min_size=1)))
def test_risk_by_coverage_is_counted(each) -> None:
    """Every threshold by brute force: what is at least as confident is kept."""
    confidence = torch.tensor([0.5 + i / 20 for i, _ in each], dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    probabilities = torch.cat([probabilities, torch.zeros(len(each), 2, dtype=torch.float64)], 1)
    labels = torch.tensor([label for _, label in each])
    found = risk_coverage(probabilities, labels)
    assert [step[0] for step in found] == sorted({step[0] for step in found}, reverse=True)
    assert found[-1][1] == 1.0
    for threshold, coverage, risk in found:
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.double().mean().item())
        assert risk == pytest.approx((labels[kept] != probabilities[kept].argmax(1)).double().mean().item())
    if len({i for i, _ in each}) == len(each) <= 100:
        assert len(found) == len(each)


NONE = torch.zeros(0)


@pytest.mark.parametrize("figure", [aurc, eaurc, augrc, curve])
@pytest.mark.parametrize(
    ("confidence", "wrong", "message"),
    [
        (NONE, NONE.bool(), "n >= 1"),
        (torch.zeros(2, 2), torch.zeros(2, 2).bool(), "n >= 1"),
        (torch.tensor([0.5, math.nan]), torch.zeros(2).bool(), "finite, but 1 of its 2"),
        (torch.tensor([0.5, math.inf]), torch.zeros(2).bool(), "finite"),
        (torch.zeros(2), torch.zeros(3).bool(), "wrong must be"),
        (torch.zeros(2), torch.zeros(2), "torch.bool"),
    ],
)
def test_bad_inputs_are_refused(figure, confidence, wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        figure(confidence, wrong)


@pytest.mark.parametrize("value", [0, -0.1, 1.1, math.nan])
def test_what_is_no_share_is_refused(value) -> None:
    with pytest.raises(ValueError, match=r"coverage is .* > 0 and <= 1"):
        accuracy_at_coverage(*FOUR, value)
    if value != 0:
        with pytest.raises(ValueError, match=r"risk is .* >= 0 and <= 1"):
            coverage_at_risk(*FOUR, value)
    with pytest.raises(ValueError, match="levels"):
        curve(*FOUR, value)
