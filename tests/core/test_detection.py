"""Detection of foreign images against pairs counted, thresholds scanned, numbers worked out by hand, and laws."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssvi.core.detection import DETECTION, aupr_in, aupr_out, auroc, fpr95

# few values, so that many tie
SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


def tensors(*each) -> list[torch.Tensor]:
    return [torch.tensor(one, dtype=torch.float64) for one in each]


def figures(known, foreign) -> dict[str, float]:
    return {name: figure(*tensors(known, foreign)) for name, figure in DETECTION.items()}


def test_by_hand() -> None:
    """Four known, three foreign: of the twelve pairs nine are in order and one ties."""
    found = figures([1, 2, 3, 6], [3, 5, 7])
    assert found["auroc"] == pytest.approx((2.5 + 3 + 4) / 12)
    # Found in turn: 7; 6; 5; the two 3 together. Precision where a foreign one is found: 1/1, 2/3, 3/5.
    assert found["aupr_out"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # From below: 1; 2; both 3; 5; 6. Precision where a known one is found: 1, 1, 3/4, 4/6.
    assert found["aupr_in"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    # 95 % of four are all of them: 3 and 5 are accepted up to 6
    assert found["fpr95"] == pytest.approx(2 / 3)


def test_the_threshold_accepts_nineteen_of_twenty() -> None:
    known, foreign = list(range(20)), [17.5, 18, 18.5, 19]
    assert figures(known, foreign)["fpr95"] == 2 / 4
    # of 21, twenty: nineteen are 90.5 %
    assert figures([*known, 20], foreign)["fpr95"] == 4 / 4
    # those that tie with the threshold are accepted on both sides
    assert figures([0] * 18 + [1, 1], [1, 1, 2])["fpr95"] == pytest.approx(2 / 3)


@settings(max_examples=60)
@given(SCORES, SCORES)
def test_brute_force(known, foreign) -> None:
    found = figures(known, foreign)
    pairs = [Fraction(1 if f > k else 0) + Fraction(f == k, 2) for k in known for f in foreign]
    assert found["auroc"] == pytest.approx(float(sum(pairs) / len(pairs)))
    accepting = [t for t in {*known, *foreign} if sum(k <= t for k in known) * 100 >= 95 * len(known)]
    assert found["fpr95"] == pytest.approx(min(sum(f <= t for f in foreign) for t in accepting) / len(foreign))
    assert found["aupr_out"] == pytest.approx(average_precision(foreign, known))
    assert found["aupr_in"] == pytest.approx(average_precision([-k for k in known], [-f for f in foreign]))


def average_precision(positive, negative) -> float:
    """Over the positive images, the precision of all that score at least as high."""
    precise = []
    for score in positive:
        true, false = sum(p >= score for p in positive), sum(n >= score for n in negative)
        precise.append(true / (true + false))
    return sum(precise) / len(positive)


@settings(max_examples=40)
@given(SCORES, SCORES, st.randoms(use_true_random=False))
def test_laws(known, foreign, random) -> None:
    found = figures(known, foreign)
    assert all(0 <= value <= 1 for value in found.values())
    a, b = tensors(known, foreign)
    assert auroc(b, a) == pytest.approx(1 - found["auroc"])
    assert auroc(-b, -a) == pytest.approx(found["auroc"])
    assert aupr_in(a, b) == aupr_out(-b, -a)
    # the order of the images, and a rising function of the scores, change nothing
    others = [[math.exp(score) for score in random.sample(one, len(one))] for one in (known, foreign)]
    assert figures(*others) == pytest.approx(found)
    # how many there are of each kind is not in these two
    assert [figures(known, foreign * 3)[name] for name in ("auroc", "fpr95")] == pytest.approx(
        [found[name] for name in ("auroc", "fpr95")]
    )


def test_apart_and_alike() -> None:
    assert figures([0, 1], [2, 3]) == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0}
    wrong_way = figures([2, 3], [0, 1])
    assert (wrong_way["auroc"], wrong_way["fpr95"]) == (0, 1)
    # all alike: chance, which of precision is the share of what is looked for
    assert figures([1, 1, 1], [1]) == {"auroc": 0.5, "aupr_in": 0.75, "aupr_out": 0.25, "fpr95": 1}
    assert figures([0], [1])["auroc"] == figures([0], [1])["aupr_out"] == 1


@pytest.mark.parametrize("figure", DETECTION.values())
@pytest.mark.parametrize(
    ("known", "foreign", "message"),
    [
        ([], [1.0], "known must be"),
        ([1.0], [], "foreign must be"),
        ([1.0, math.nan], [1.0], "known must be finite"),
        ([1.0], [math.nan], "foreign must be finite"),
        ([1.0], [math.inf], "foreign must be finite"),
        ([[1.0]], [1.0], "known must be"),
    ],
)
def test_bad_inputs_are_refused(figure, known, foreign, message) -> None:
    with pytest.raises(ValueError, match=message):
        figure(*tensors(known, foreign))


def test_scores_may_be_of_any_kind() -> None:
    for kind in (torch.float32, torch.float16, torch.int64):
        assert fpr95(torch.tensor([0, 1], dtype=kind), torch.tensor([1, 2], dtype=kind)) == 0.5
