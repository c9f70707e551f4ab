"""The chain's stationary distribution on a posterior whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from ssvi.core.noise import NormalSource
from ssvi.core.samplers import SGHMC

N, H, T = 50, 3.0, 0.7  # examples, curvature of the mean loss, temperature


def chain(friction: float, lr: float, steps: int, width: int = 4000, decay: float = 0.0) -> torch.Tensor:
    """The end of `width` chains on the mean loss H theta^2/2, in float64."""
    theta = torch.nn.Parameter(torch.zeros(width, dtype=torch.float64))
    sampler = SGHMC(
        [theta],
        lr=lr,
        friction=friction,
        temperature=torch.tensor(T, dtype=torch.float64),
        n=N,
        noise=NormalSource(0, "noise"),
        weight_decay=decay,
    )
    for _ in range(steps):
        theta.grad = H * theta.detach()
        sampler.step()
    return theta.detach()


def stationary(friction: float, lr: float, curvature: float = H) -> float:
    """The variance that the linear recursion itself has, its step size included, by the Lyapunov equation."""
    m = 1 - friction
    # (theta, v) -> (theta + v', v'), v' = m v - lr curvature theta + noise
    step = np.array([[1 - lr * curvature, m], [-lr * curvature, m]])
    q = 2 * lr * friction * T / N
    return solve_discrete_lyapunov(step, q * np.ones((2, 2)))[0, 0]


@pytest.mark.parametrize(("friction", "lr"), [(1.0, 0.05), (0.1, 0.01), (0.3, 0.1)])
def test_stationary_variance_is_that_of_the_recursion(friction, lr) -> None:
    theta = chain(friction, lr, 600)
    expected = stationary(friction, lr)
    assert float(theta.var()) == pytest.approx(expected, rel=5 * (2 / len(theta)) ** 0.5)
    assert abs(float(theta.mean())) < 5 * (expected / len(theta)) ** 0.5


@pytest.mark.parametrize("friction", [1.0, 0.2])
def test_for_small_steps_it_is_the_tempered_posterior(friction) -> None:
    """U = N H theta^2/2 at temperature T: variance T/(N H). The recursion's own variance tends to it."""
    assert stationary(friction, 1e-4) == pytest.approx(T / (N * H), rel=1e-2)


def test_weight_decay_is_a_gaussian_prior() -> None:
    theta = chain(1.0, 0.02, 600, decay=2.0)
    assert float(theta.var()) == pytest.approx(stationary(1.0, 0.02, H + 2.0), rel=0.12)


def test_a_change_of_temperature_reaches_the_noise() -> None:
    temperature, theta = torch.tensor(0.0), torch.nn.Parameter(torch.zeros(3))
    sampler = SGHMC([theta], lr=0.1, friction=1.0, temperature=temperature, n=1, noise=NormalSource(0, "noise"))
    theta.grad = torch.zeros(3)
    sampler.step()
    assert not theta.any()
    temperature.fill_(1.0)
    sampler.step()
    assert bool(theta.all())
