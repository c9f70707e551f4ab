"""Truncated log-normal gates against quadrature, also where the textbook formulas fail."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.special import ndtr

from ssvi.core import gates
from ssvi.core.noise import NormalSource
from ssvi.methods.sbp import SBP
from ssvi.runs.spec import make_spec

# Narrow, in the middle, at either end, wider than the support, and where exp(sigma^2) overflows.
CASES = [(0.0, 0.0067), (-3.0, 0.5), (-1.0, 1.5), (-10.0, 3.0), (0.0, 5.0), (-20.0, 2.0), (-7.0, 20.0), (-5.0, 120.0)]


def integrals(mu: float, sigma: float) -> tuple[float, float, float]:
    """Mass, E theta, E theta^2 of the cut normal on the log scale, relative to the density at its mode."""
    mode = min(max(mu, gates.LOW), gates.HIGH)

    def density(z: float) -> float:
        return math.exp(-0.5 * ((z - mu) / sigma) ** 2 + 0.5 * ((mode - mu) / sigma) ** 2)

    near = [p for k in (-30, -8, -3, 0, 3, 8, 30) if gates.LOW < (p := mode + k * sigma) < gates.HIGH]
    points = [gates.LOW, *near, gates.HIGH]

    def over(f) -> float:
        pieces = itertools.pairwise(points)
        return sum(integrate.quad(f, a, b, epsabs=0, epsrel=1e-10, limit=400)[0] for a, b in pieces)

    mass = over(density)
    return mass, over(lambda z: density(z) * math.exp(z)) / mass, over(lambda z: density(z) * math.exp(2 * z)) / mass


@pytest.mark.parametrize(("mu", "sigma"), CASES)
def test_moments_are_the_integrals(mu, sigma) -> None:
    _, first, second = integrals(mu, sigma)
    at = torch.tensor([mu], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
    assert float(gates.mean(*at)) == pytest.approx(first, rel=1e-8)
    assert float(gates.snr(*at)) == pytest.approx(first / math.sqrt(second - first**2), rel=1e-5)


@pytest.mark.parametrize(("mu", "sigma"), CASES)
def test_kl_is_the_integral(mu, sigma) -> None:
    mass, _, _ = integrals(mu, sigma)
    mode = min(max(mu, gates.LOW), gates.HIGH)

    def integrand(z: float) -> float:
        log = -0.5 * ((z - mu) / sigma) ** 2 + 0.5 * ((mode - mu) / sigma) ** 2
        return math.exp(log) * (log - math.log(mass) + math.log(gates.HIGH - gates.LOW))

    near = [p for k in (-30, -8, -3, 0, 3, 8, 30) if gates.LOW < (p := mode + k * sigma) < gates.HIGH]
    points = [gates.LOW, *near, gates.HIGH]
    whole = sum(integrate.quad(integrand, a, b, limit=400)[0] for a, b in itertools.pairwise(points)) / mass
    at = torch.tensor([mu], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
    assert float(gates.kl(*at)) == pytest.approx(whole, rel=1e-7, abs=1e-9)


def test_the_textbook_ratio_fails_where_ours_does_not() -> None:
    """The reason for logarithms: at mu = 0, sigma = 5 the formula with differences of Phi is far off in float64."""
    mu, sigma = 0.0, 5.0
    a, b = (gates.LOW - mu) / sigma, (gates.HIGH - mu) / sigma
    z = ndtr(b) - ndtr(a)
    g1, g2 = (ndtr(k * sigma - a) - ndtr(k * sigma - b) for k in (1, 2))
    with np.errstate(all="ignore"):
        textbook = g1 / np.sqrt(z * np.exp(sigma**2) * g2 - g1**2)
    _, first, second = integrals(mu, sigma)
    exact = first / math.sqrt(second - first**2)
    assert textbook != pytest.approx(exact, rel=0.1)
    ours = gates.snr(torch.tensor([mu], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64))
    assert float(ours) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("mu", "sigma"), CASES)
def test_gradients_of_the_kl_are_finite_differences(mu, sigma) -> None:
    log_sigma = math.log(sigma)

    def kl(m: float, s: float) -> float:
        return float(gates.kl(torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64).exp()))

    m = torch.tensor(mu, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(log_sigma, dtype=torch.float64, requires_grad=True)
    gates.kl(m, s.exp()).backward()
    h = 1e-5
    assert float(m.grad) == pytest.approx((kl(mu + h, log_sigma) - kl(mu - h, log_sigma)) / (2 * h), rel=1e-4, abs=1e-7)
    assert float(s.grad) == pytest.approx((kl(mu, log_sigma + h) - kl(mu, log_sigma - h)) / (2 * h), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("mu", "sigma"), [(-3.0, 0.5), (-1.0, 1.5), (0.0, 5.0), (-7.0, 20.0)])
def test_draws_have_the_distribution(mu, sigma) -> None:
    """The empirical distribution function of log theta against the normal one, cut."""
    gate = gates.NoisyGate(1, True, NormalSource(0, "noise"))
    with torch.no_grad():
        gate.mu.fill_(mu)
        gate.log_sigma.fill_(math.log(sigma))
    z = np.sort(np.log(gate(torch.ones(20000, 1, dtype=torch.float64)).detach().numpy().ravel()))
    low, high = ndtr((gates.LOW - mu) / sigma), ndtr((gates.HIGH - mu) / sigma)
    exact = (ndtr((z - mu) / sigma) - low) / (high - low)
    assert np.abs(exact - (np.arange(20000) + 0.5) / 20000).max() < 1.95 / math.sqrt(20000)


def test_noise_is_one_draw_an_image_or_a_batch() -> None:
    for each_image in (True, False):
        gate = gates.NoisyGate(3, each_image, NormalSource(0, "noise"))
        with torch.no_grad():
            gate.log_sigma.fill_(0.0)
        y = gate(torch.ones(4, 3, 2, 2))
        assert torch.equal(y[:, :, 0, 0], y[:, :, 1, 1])
        assert torch.equal(y[0], y[1]) != each_image
        gate.keep[1] = False
        assert not gate(torch.ones(4, 3, 2, 2))[:, 1].any()


def test_parameters_are_moved_back_into_their_range_and_gradients_never_stop() -> None:
    made = [gates.NoisyGate(channels, True, NormalSource(0, "noise")) for channels in (1, 2)]
    gate, sbp = made[1], SBP(make_spec({"method": "sbp", "parent": "dense"}), NormalSource(0, "noise"))
    sbp.gates = made
    sbp.keep_in_range()
    with torch.no_grad():
        gate.mu.copy_(torch.tensor([3.0, -25.0]))
        gate.log_sigma.copy_(torch.tensor([9.0, -30.0]))
    sbp.move_back()
    assert gate.mu.tolist() == [gates.HIGH, gates.LOW]
    assert gate.log_sigma.tolist() == [gates.LOG_SIGMA[1], gates.LOG_SIGMA[0]]
    # the KL of all gates in one is that of each
    assert float(sbp.kl()) == pytest.approx(sum(float(gates.kl(*g.parameters_of_theta()).sum()) for g in made))
    gates.kl(*gate.parameters_of_theta()).sum().backward()
    assert bool(gate.mu.grad.isfinite().all())
    assert bool((gate.log_sigma.grad != 0).all())
