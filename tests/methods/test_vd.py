"""Sparse variational dropout: its KL against numerical integration, its gradient, its pruning."""

import itertools
import math

import pytest
import torch
from scipy import integrate

from ssvi.core.noise import NormalSource
from ssvi.methods.vd import LOG_ALPHA, TINY, VD, log_alpha, log_uniform_kl, log_uniform_kl_slope
from ssvi.runs.spec import make_spec
from ssvi.training.network import build
from ssvi.training.passes import recalibrate
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer


def exact_kl(log_alpha: float) -> float:
    """KL(N(1, alpha) || log-uniform) = E log|w| - 1/2 log(2 pi e alpha), shifted so that it vanishes as alpha grows.

    With w = sd (u + m), m = 1/sd: the KL is log sd + E log|u + m| - log sd - 1/2 log(2 pi e); the shift is its limit
    for m = 0, E log|u| = -(gamma + log 2)/2.
    """
    m = math.exp(-log_alpha / 2)

    def integrand(u: float) -> float:
        return math.log(abs(u + m)) * math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi) if u != -m else 0.0

    low, high = -40.0, 40.0
    points = sorted({low, high, *([-m] if low < -m < high else []), 0.0})
    mean = sum(integrate.quad(integrand, a, b, limit=400)[0] for a, b in itertools.pairwise(points))
    return mean + 0.5 * (math.log(2) + 0.5772156649015329)


@pytest.mark.parametrize("at", [-8.0, -5.0, -2.0, -0.5, 0.0, 1.0, 2.0, 4.0, 8.0])
def test_the_fit_is_within_a_hundredth_of_a_nat_of_the_integral(at) -> None:
    assert float(log_uniform_kl(torch.tensor(at, dtype=torch.float64))) == pytest.approx(exact_kl(at), abs=0.01)


def test_slope_is_the_finite_difference_inside_and_never_zero_outside() -> None:
    a = torch.linspace(-9.5, 9.5, 77, dtype=torch.float64)
    difference = (log_uniform_kl(a + 1e-6) - log_uniform_kl(a - 1e-6)) / 2e-6
    assert torch.allclose(log_uniform_kl_slope(a), difference, atol=1e-8)
    outside = torch.tensor([-50.0, -11.0, 11.0, 50.0], dtype=torch.float64)
    ends = log_uniform_kl_slope(torch.tensor(LOG_ALPHA, dtype=torch.float64))
    assert torch.equal(log_uniform_kl_slope(outside), ends[[0, 0, 1, 1]])
    assert bool((ends < 0).all())


def test_gradients_are_those_of_the_kl() -> None:
    method = VD(make_spec({"method": "vd"}), NormalSource(0, "noise"))
    theta = torch.tensor([0.3, -0.02, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.1, 0.05, 0.02, 3.0], dtype=torch.float64, requires_grad=True)
    method.kl(theta, sigma).backward()
    to_theta, to_sigma = method.kl_gradient(theta.detach(), sigma.detach())
    assert torch.allclose(to_theta, theta.grad)
    assert torch.allclose(to_sigma, sigma.grad)


def test_a_weight_that_is_zero_has_a_finite_ratio_and_gradient() -> None:
    a = log_alpha(torch.zeros(1), torch.tensor([0.01]))
    assert float(a) == pytest.approx(math.log(1e-4 / TINY), rel=1e-6)
    assert torch.isfinite(log_uniform_kl(a)).all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_are_taken_anew_without_the_noise_of_what_is_pruned(tmp_path, digits, channels_last) -> None:
    """They are those of the published network, in which a pruned weight is 0 and has no variance."""
    spec = make_spec({"method": "vd", "model": "resnet8", "width": 0.25, "epochs": 1, "log_variance_init": -4.0})
    machine = Machine(torch.device("cpu"), channels_last=channels_last)
    trainer = Trainer(spec, digits, tmp_path / "run", Settings(machine), Lines())
    trainer._open()
    with trainer.streams.noise.held():
        trainer._finish()
        published = trainer.method.predictive.tensors()
        assert sum(int((~value).sum()) for name, value in published.items() if name.endswith("mask")) > 1000
        fresh, _ = build(spec, 1, 8, 10, trainer.streams.noise)
        fresh.load_state_dict(published)
        trainer.take_step.model = fresh.to(memory_format=machine.memory_format)
        recalibrate(trainer.take_step)
    for name, value in fresh.state_dict().items():
        assert torch.allclose(value.double(), published[name].double(), rtol=1e-4, atol=1e-6), name
