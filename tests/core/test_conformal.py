"""Conformal sets against their definition in exact arithmetic, numbers worked out by hand, and what they promise."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssvi.core.conformal import RULES, aps, coverage, lac, sets, size, threshold

# Three classes, and the labels; a tenth each, so that probabilities tie.
ROWS = st.lists(
    st.tuples(st.sampled_from([(10, 0, 0), (5, 3, 2), (4, 4, 2), (3, 3, 4), (1, 2, 7), (0, 5, 5)]), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)
LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95])


def case(rows) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([row for row, _ in rows], dtype=torch.float64) / 10, torch.tensor([label for _, label in rows])


def test_scores_by_hand() -> None:
    probabilities, _ = case([((5, 3, 2), 0), ((2, 4, 4), 0), ((0, 10, 0), 0)])
    assert lac(probabilities).tolist() == [pytest.approx(row) for row in ([0.5, 0.7, 0.8], [0.8, 0.6, 0.6], [1, 0, 1])]
    # what is more probable: nothing, 0.5, 0.5 + 0.3; of a tie, none of the two is more probable than the other
    assert aps(probabilities).tolist() == [pytest.approx(row) for row in ([0, 0.5, 0.8], [0.8, 0, 0], [1, 0, 1])]


def test_four_held_out_images_by_hand() -> None:
    """Scores of the labels by LAC: 0.5, 0.7, 0.3, 1; at a level of 0.6 the third smallest of them, at 0.9 none."""
    probabilities, labels = case([((5, 3, 2), 0), ((5, 3, 2), 1), ((1, 2, 7), 2), ((10, 0, 0), 1)])
    limit = threshold(lac(probabilities), labels, 0.6)
    assert limit == pytest.approx(0.7)
    held = sets(lac(probabilities), limit)
    assert held.tolist() == [[True, True, False], [True, True, False], [False, False, True], [True, False, False]]
    assert (coverage(held, labels), size(held)) == (3 / 4, 6 / 4)
    assert threshold(lac(probabilities), labels, 0.8) == pytest.approx(1)
    assert threshold(lac(probabilities), labels, 0.81) == math.inf
    every = sets(lac(probabilities), threshold(lac(probabilities), labels, 0.9))
    assert (coverage(every, labels), size(every)) == (1, 3)


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (19, 0.95), (99, 0.95), (9, 0.1), (99, 0.07), (199, 0.29)])
def test_the_rank_is_exact(n, level) -> None:
    """(n + 1) level is a whole number here, though not as floating-point numbers go."""
    scores = torch.arange(1.0, n + 1)[:, None]
    assert threshold(scores, torch.zeros(n, dtype=torch.int64), level) == round((n + 1) * level)


@given(ROWS, LEVELS)
def test_by_definition(rows, level) -> None:
    """A class is in the set if no more than a share 1 - level of the scores, its own among them, is as high."""
    probabilities, labels = case(rows)
    exact = [[Fraction(p, 10) for p in row] for row, _ in rows]
    wanted = Fraction(str(level))
    by_definition = {
        "lac": [[1 - p for p in row] for row in exact],
        "aps": [[sum(q for q in row if q > p) for p in row] for row in exact],
    }
    for name, scores in by_definition.items():
        of_label = [row[label] for row, (_, label) in zip(scores, rows, strict=True)]
        alone = [[(sum(s >= score for s in of_label) + 1) for score in row] for row in scores]
        expected = [[count > (1 - wanted) * (len(rows) + 1) for count in row] for row in alone]
        found = RULES[name](probabilities)
        # tenths, without what they round by
        found = (found * 10).round() / 10
        assert sets(found, threshold(found, labels, level)).tolist() == expected


@given(ROWS, LEVELS, st.randoms(use_true_random=False))
def test_laws(rows, level, random) -> None:
    probabilities, labels = case(rows)
    for rule in RULES.values():
        limit = threshold(rule(probabilities), labels, level)
        held = sets(rule(probabilities), limit)
        assert coverage(held, labels) >= level
        assert 0 <= size(held) <= 3
        # more coverage, larger sets
        assert threshold(rule(probabilities), labels, 0.96) >= limit
        shuffled = random.sample(rows, len(rows))
        others, their = case(shuffled)
        assert threshold(rule(others), their, level) == limit
    assert sets(aps(probabilities), limit).gather(1, probabilities.argmax(1)[:, None]).all()


@pytest.mark.parametrize("rule", RULES.values())
def test_new_images_are_covered_as_promised(rule) -> None:
    """Exchangeable images: over 400 draws of 30 held-out ones, new ones are covered with the level at least."""
    source = torch.Generator().manual_seed(0)
    covered = []
    for _ in range(400):
        logits = 2 * torch.randn(130, 4, generator=source, dtype=torch.float64)
        labels = torch.multinomial(logits.softmax(1), 1, generator=source)[:, 0]
        # a network that is too sure
        scores = rule((3 * logits).softmax(1))
        limit = threshold(scores[:30], labels[:30], 0.8)
        covered.append(coverage(sets(scores[30:], limit), labels[30:]))
    found, error = torch.tensor(covered).mean().item(), torch.tensor(covered).std().item() / 20
    assert found >= 0.8 - 3 * error
    if rule is lac:  # without ties no more than 1 / (n + 1) above it
        assert found <= 0.8 + 1 / 31 + 3 * error


@pytest.mark.parametrize("rule", RULES.values())
def test_extremes(rule) -> None:
    one = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    assert threshold(rule(one), torch.tensor([0]), 0.5) == rule(one)[0, 0]
    assert threshold(rule(one), torch.tensor([0]), 0.9) == math.inf
    certain = torch.eye(3, dtype=torch.float64)[[0, 1, 2] * 4]
    right, wrong = torch.tensor([0, 1, 2] * 4), torch.tensor([1, 2, 0] * 4)
    all_right = sets(rule(certain), threshold(rule(certain), right, 0.9))
    assert (coverage(all_right, right), size(all_right)) == (1, 1)
    all_wrong = sets(rule(certain), threshold(rule(certain), wrong, 0.9))
    assert (coverage(all_wrong, wrong), size(all_wrong)) == (1, 3)
    # one class is always the label
    alone = rule(torch.ones(5, 1))
    assert size(sets(alone, threshold(alone, torch.zeros(5, dtype=torch.int64), 0.8))) == 1


@pytest.mark.parametrize(
    ("scores", "labels", "level", "message"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 0.9, "n >= 1"),
        (torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64), 0.9, "one an image"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), 0.9, "one an image"),
        (torch.zeros(2, 2), torch.zeros(2), 0.9, "int64"),
        (torch.zeros(2, 2), torch.full((2,), 2), 0.9, r"0\.\.1"),
        (torch.full((2, 2), math.nan), torch.zeros(2, dtype=torch.int64), 0.9, "finite"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), 0, "level is 0"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), 1.5, "level is 1.5"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), math.nan, "level is nan"),
    ],
)
def test_bad_inputs_are_refused(scores, labels, level, message) -> None:
    with pytest.raises(ValueError, match=message):
        threshold(scores, labels, level)


@pytest.mark.parametrize("rule", RULES.values())
@pytest.mark.parametrize(
    "probabilities", [torch.zeros(0, 2), torch.full((2, 2), 0.6), torch.full((2, 2), math.nan), torch.ones(2)]
)
def test_what_is_no_probability_is_refused(rule, probabilities) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        rule(probabilities)
