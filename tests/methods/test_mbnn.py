"""Births and deaths of nodes: detailed balance by enumeration, probabilities of sets by brute force."""

import itertools
import math

import pytest
import torch

from ssvi.methods.mbnn import (
    MOST_NODES,
    NodePrior,
    birth_weights,
    death_weights,
    draw_set,
    log_acceptance,
    log_chosen,
)

WIDTHS = (3, 2)
PRIOR = NodePrior(WIDTHS, 0.2, (1, 1))
P = sum(WIDTHS)


def states() -> list[torch.Tensor]:
    return [torch.tensor(bits) for bits in itertools.product([False, True], repeat=P)]


def likelihood(nodes: torch.Tensor) -> float:
    """Any function of the nodes serves."""
    return float((nodes * torch.tensor([1.3, -0.4, 0.2, 0.9, -1.1])).sum() + 0.5 * (nodes[0] & nodes[3]))


def gradient(nodes: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.7, -2.0, 0.1, 3.0, 1.0]) + nodes.sum()


def brute_chosen(weights: list[float], chosen: tuple[int, ...]) -> float:
    """Probability of a set drawn one after the other, over all orders, in plain numbers."""
    total = 0.0
    for order in itertools.permutations(chosen):
        left, p = dict(enumerate(weights)), 1.0
        for i in order:
            p *= left[i] / sum(left.values())
            del left[i]
        total += p
    return total


@pytest.mark.parametrize("count", [1, 2, 3])
def test_probability_of_a_set_is_that_of_all_its_orders(count) -> None:
    weights = [0.5, 2.0, 0.1, 0.0, 1.0]
    log_weights = torch.tensor(weights).log()
    sets = list(itertools.combinations([0, 1, 2, 4], count))
    found = [math.exp(log_chosen(log_weights, s)) for s in sets]
    assert found == pytest.approx([brute_chosen(weights, s) for s in sets])
    assert sum(found) == pytest.approx(1)


def test_sets_are_drawn_with_their_probability() -> None:
    log_weights, source = torch.tensor([0.5, 2.0, 0.1, 0.0, 1.0]).log(), torch.Generator().manual_seed(0)
    n = 20000
    drawn = [tuple(sorted(draw_set(log_weights, 2, source))) for _ in range(n)]
    for s in itertools.combinations([0, 1, 2, 4], 2):
        p = math.exp(log_chosen(log_weights, s))
        assert abs(drawn.count(s) / n - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert not any(3 in s for s in drawn)


def transition(before: torch.Tensor, after: torch.Tensor) -> float:
    """Probability of a move: the direction, the number of nodes, the set, the acceptance."""
    moved = (before != after).nonzero().flatten().tolist()
    born, died = bool((after & ~before).any()), bool((before & ~after).any())
    if born == died or len(moved) > MOST_NODES:
        return 0.0
    weights = birth_weights(before) if born else death_weights(before, gradient(before))
    change = likelihood(after) - likelihood(before)
    ratio = log_acceptance(before, after, gradient(before), gradient(after), change, PRIOR)
    return 0.5 / MOST_NODES * math.exp(log_chosen(weights, moved) + min(0.0, ratio))


def test_detailed_balance_by_enumeration() -> None:
    """pi(a) P(a -> b) = pi(b) P(b -> a) for all pairs of the states that the prior allows."""
    allowed = [s for s in states() if PRIOR.log(s) > -math.inf]
    assert len(allowed) == 7 * 3
    weight = [math.exp(PRIOR.log(s) + likelihood(s)) for s in allowed]
    moves = 0
    for (i, a), (j, b) in itertools.combinations(enumerate(allowed), 2):
        forth, back = weight[i] * transition(a, b), weight[j] * transition(b, a)
        assert forth == pytest.approx(back, rel=1e-9, abs=1e-15)
        moves += forth > 0
    assert moves > 50
    out = [sum(transition(a, b) for b in states() if not torch.equal(a, b)) for a in allowed]
    assert max(out) <= 1


def test_the_prior_is_the_formula_and_forbids_dead_layers() -> None:
    nodes = torch.tensor([True, False, True, True, False])
    expected = -0.2 * (2**2 + 1**2) - math.log(math.comb(3, 2)) - math.log(math.comb(2, 1))
    assert PRIOR.log(nodes) == pytest.approx(expected)
    assert PRIOR.log(torch.tensor([True, False, True, False, False])) == -math.inf


def test_wide_layers_do_not_overflow() -> None:
    """Three deaths in a layer of 512 change the log prior by more than float32's exponential holds."""
    prior = NodePrior((512,), 0.0463, (6,))
    before, after = torch.ones(512, dtype=torch.bool), torch.ones(512, dtype=torch.bool)
    after[:3] = False
    g = torch.full((512,), 4e4)
    ratio = log_acceptance(before, after, g, g, 0.0, prior)
    # all nodes alike: the binomial coefficients of prior and proposal cancel, and e^142 is left
    assert ratio == pytest.approx(0.0463 * (512**2 - 509**2), rel=1e-9)
    assert math.isfinite(log_acceptance(after, before, g, g, 0.0, prior))
