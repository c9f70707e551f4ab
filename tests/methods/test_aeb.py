"""Adaptive empirical Bayes: inclusion probabilities, step sizes, and pruning, against plain arithmetic."""

import math

import pytest
import torch
from scipy import stats

from ssvi.methods.aeb import PRIORS, PUBLISHED_ITERATIONS, SA_A, SA_ALPHA, SA_C, inclusion, step_size


@pytest.mark.parametrize("name", PRIORS)
def test_inclusion_is_bayes_rule(name) -> None:
    prior, delta = PRIORS[name], 0.3
    for beta in (0.0, 0.003, 0.0075, 0.02, 0.1):
        slab = delta * stats.norm.pdf(beta, scale=math.sqrt(prior.slab))
        spike = (1 - delta) * stats.laplace.pdf(beta, scale=prior.spike)
        found = inclusion(torch.tensor([beta, -beta], dtype=torch.float64), delta, prior)
        assert found.tolist() == pytest.approx([slab / (slab + spike)] * 2, rel=1e-6)


def test_the_published_slab_is_the_narrow_one() -> None:
    """At 0 the published settings include a weight, at 0.02 they do not; as described it is the other way round."""
    published, described = (
        inclusion(torch.tensor([0.0, 0.02, 0.2]), 0.5, PRIORS[n]) for n in ("published", "described")
    )
    assert published.tolist() == pytest.approx([0.558, 0.0, 0.0], abs=5e-3)
    assert float(described[0]) < 0.1
    assert float(described[2]) > 0.99


def test_a_run_of_any_length_forgets_as_much_as_the_published_one() -> None:
    """What is left of the start after all steps: 0.471 after 50,000 published ones."""
    exact = math.prod(1 - SA_C / (SA_A + t) ** SA_ALPHA for t in range(PUBLISHED_ITERATIONS))
    assert exact == pytest.approx(0.471, abs=2e-3)
    for steps in (240, 5000, 50_000):
        worth = PUBLISHED_ITERATIONS / steps
        left = math.prod(1 - step_size(worth * t, worth) for t in range(steps))
        assert left == pytest.approx(exact, rel=1e-3)
    assert step_size(500.0, 1.0) == pytest.approx(SA_C / (SA_A + 500) ** SA_ALPHA, rel=1e-3)
