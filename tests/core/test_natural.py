"""IVON against independent truth: closed forms, quadrature, a plain transcription of its equations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.gaussian import TO_SIGMA
from ssvi.core.natural import memory_beta, sigma_of
from tests.plain import CLOSE, PRIOR, converted, images

ESTIMATORS = {"price": "weight", "variance": "local"}


def posterior(net: nn.Module, estimator: str, density: float = 1.0, **options) -> nn.Module:
    options = {"prior_sigma": 1.0, "sigma_init": 0.3, "sigma_init_sd": 0.0, "mu_init_sd": 0.5, "seed": 0, **options}
    return ssvi.sparsify(net.double(), density, sampling=ESTIMATORS[estimator], **options)


def curvature_estimate(net: nn.Module) -> torch.Tensor:
    """(dL/dsigma)/sigma of the active weights, by the function of rho."""
    (weights,) = active_weights(net)
    rho = weights.rho.detach().requires_grad_()
    sigma = functional.softplus(rho)
    (slope,) = torch.autograd.grad(sigma.sum(), rho)
    return (weights.rho.grad / slope / sigma).detach()


# Closed forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "temperature"), [("price", 0.1), ("variance", 1.0)])
def test_on_a_quadratic_the_posterior_is_the_closed_form(estimator, temperature) -> None:
    """L = 1/2 sum a (theta - b)^2: m = a b/(a + delta), sigma^2 = 1/(lambda (a + delta)), for four curvatures."""
    copies, n, prior = 100, 50, 0.5
    a = torch.tensor([0.02, 0.1, 0.5, 2.0], dtype=torch.float64).repeat_interleave(copies)
    b = torch.linspace(-1, 1, len(a), dtype=torch.float64)
    net = posterior(nn.Sequential(nn.Linear(len(a), 1, bias=False)), estimator, prior_sigma=prior)
    optimizer = ssvi.IVON(net, lr=0.05, n_train=n, temperature=temperature, curvature_beta=0.995, curvature_init=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
    # an output of its own for each weight
    x = torch.eye(len(a), dtype=torch.float64)
    for _ in range(2000):
        theta = net(x).flatten()
        (0.5 * a * (theta - b).square()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    delta, rate = temperature / (n * prior**2), n / temperature
    (weights,) = active_weights(net)
    sigma, mean = weights.sigma.detach().view(4, copies), weights.mean.detach().view(4, copies)
    wanted = (rate * (a + delta)).rsqrt().view(4, copies)
    np.testing.assert_allclose(sigma.square().mean(1), wanted.square().mean(1), rtol=0.05)
    target = (a * b / (a + delta)).view(4, copies)
    # sigma is what the mean may still scatter by
    assert ((mean - target).square().mean(1).sqrt() < 0.25 * wanted.mean(1)).all()
    (h,) = optimizer.curvatures()
    assert torch.allclose(h, 1 / (rate * weights.sigma.detach().square()) - delta)


def test_of_noisy_gradients_the_curvature_has_what_the_docs_say() -> None:
    """A quadratic with gradients of sd s, as of small batches: h + delta is a + delta + (1 - beta2) lambda E[g^2]/2."""
    weights_, n, temperature, beta, a, s = 400, 1000, 0.02, 0.98, 0.4, 0.05
    net = posterior(nn.Sequential(nn.Linear(weights_, 1, bias=False)), "price", prior_sigma=0.5)
    options = {"n_train": n, "temperature": temperature, "curvature_beta": beta, "curvature_init": a}
    optimizer = ssvi.IVON(net, lr=0.02, **options)
    x, source = torch.eye(weights_, dtype=torch.float64), torch.Generator().manual_seed(0)
    settled, squares = [], []
    for step in range(1200):
        theta = net(x).flatten()
        noise = s * torch.randn(weights_, generator=source, dtype=torch.float64)
        (0.5 * a * theta.square() + noise * theta).sum().backward()
        if step >= 400:
            settled.append(float(optimizer.curvatures()[0].mean()))
            squares.append(float(active_weights(net)[0].mean.grad.square().mean()))
        optimizer.step()
        optimizer.zero_grad()
    excess = 0.5 * (1 - beta) * n / temperature * float(np.mean(squares))
    assert excess > 2 * a
    assert float(np.mean(settled)) == pytest.approx(a + excess, rel=0.1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bayesian_linear_regression_is_the_best_diagonal_posterior(estimator) -> None:
    """y = x theta + noise: the means are the exact posterior's, the variances 1/diag(precision)."""
    source = torch.Generator().manual_seed(3)
    n, d, noise, prior = 60, 6, 0.7, 0.8
    x = torch.randn(n, d, generator=source, dtype=torch.float64)
    x[:, 1] += x[:, 0]  # correlated, so that the exact posterior is not diagonal
    y = x @ torch.randn(d, generator=source, dtype=torch.float64) + noise * torch.randn(n, generator=source).double()
    precision = x.T @ x / noise**2 + torch.eye(d, dtype=torch.float64) / prior**2
    net = posterior(nn.Sequential(nn.Linear(d, 1, bias=False)), estimator, prior_sigma=prior)
    optimizer = ssvi.IVON(net, lr=0.05, n_train=n, curvature_beta=0.9995, curvature_init=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6000)
    for _ in range(6000):
        loss = (net(x)[:, 0] - y).square().mean() / (2 * noise**2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    (weights,) = active_weights(net)
    sigma = weights.sigma.detach()
    np.testing.assert_allclose(sigma.square(), 1 / precision.diag(), rtol=0.08)
    exact = torch.linalg.solve(precision, x.T @ y / noise**2)
    assert ((weights.mean.detach() - exact).abs() < 0.15 * sigma).all()


# The estimates of the curvature -----------------------------------------------------------------------

NETS = {
    "linear": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()), (3, 2)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.Tanh(), nn.Flatten()), (3, 1, 3, 3)),
    "conv2d batchnorm": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1), nn.Tanh(), nn.Flatten()),
        (4, 1, 3, 3),
    ),
    "two layers": (lambda: nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh()), (3, 1)),
}


def loss_on(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = net(x)
    return (out.exp() * torch.linspace(0.3, 1, out[0].numel(), dtype=out.dtype)).mean()


def expectation(net: nn.Module, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E_q[L] under shared weights by Gauss-Hermite quadrature, 7 nodes a weight, differentiable in sigma [s]."""
    (weights,) = active_weights(net)
    nodes, shares = np.polynomial.hermite_e.hermegauss(7)
    total = 0.0
    for places in itertools.product(range(7), repeat=len(sigma)):
        theta = weights.mean.detach() + sigma * torch.tensor(nodes[list(places)])
        share = float(np.prod(shares[list(places)] / math.sqrt(2 * math.pi)))
        parts = weights.layout.parts(theta)
        for layer, part in zip(weights.layers, parts, strict=True):
            layer.take_sample(part)
        total = total + share * loss_on(net, x)
    for layer in weights.layers:
        layer.forget()
    return total


def mean_estimate(net: nn.Module, x: torch.Tensor, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard error of the curvature's estimate over draws."""
    found = []
    for _ in range(draws):
        net.zero_grad()
        loss_on(net, x).backward()
        found.append(curvature_estimate(net))
    stacked = torch.stack(found)
    return stacked.mean(0), stacked.std(0) / math.sqrt(draws)


@pytest.mark.parametrize("kind", NETS)
def test_a_weight_sample_estimates_the_curvature_without_bias(kind) -> None:
    """Against the exact derivative of E_q[L] by sigma, over sigma, on losses that are not quadratic."""
    make, shape = NETS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = posterior(make(), "price", dense_stem=False)
    (weights,) = active_weights(net)
    sigma = weights.sigma.detach().requires_grad_()
    (slope,) = torch.autograd.grad(expectation(net, x, sigma), sigma)
    exact = slope / sigma.detach()
    found, error = mean_estimate(net, x, 1500)
    assert ((found - exact).abs() < 4.5 * error).all()
    assert (error < 0.6 * exact.abs().max()).all()


def test_local_reparameterisation_estimates_it_without_bias_for_a_matrix() -> None:
    """Each image of a batch has noise of its own, and the mean over images is linear: E_q[L] is the same."""
    net = posterior(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "variance")
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (weights,) = active_weights(net)
    sigma = weights.sigma.detach().requires_grad_()
    (slope,) = torch.autograd.grad(expectation(net, x, sigma), sigma)
    found, error = mean_estimate(net, x, 2000)
    assert ((found - slope / sigma.detach()).abs() < 4.5 * error).all()


def test_of_a_convolution_local_reparameterisation_estimates_another_curvature() -> None:
    """One weight seen at two pixels, L = o1^2 o2^2: 12 (m^2 + v) under shared noise, 4 (m^2 + v) under each its own."""
    x = torch.ones(1, 1, 2, dtype=torch.float64)
    exact, estimates = {}, {}
    for estimator in ESTIMATORS:
        net = posterior(nn.Sequential(nn.Conv1d(1, 1, 1, bias=False)), estimator, mu_init_sd=1.0)
        (weights,) = active_weights(net)
        m, v = float(weights.mean.detach()), float(weights.sigma.detach()) ** 2
        exact[estimator] = {"price": 12, "variance": 4}[estimator] * (m * m + v)
        found = []
        for _ in range(1500):
            net.zero_grad()
            net(x).square().prod().backward()
            found.append(curvature_estimate(net))
        found = torch.stack(found)
        estimates[estimator] = float(found.mean())
        assert abs(estimates[estimator] - exact[estimator]) < 4.5 * float(found.std()) / math.sqrt(len(found))
    assert estimates["variance"] < 0.5 * estimates["price"]


# The equations -----------------------------------------------------------------------------------------


class Transcription:
    """The equations as they stand in the paper, with h itself, for vectors of one network."""

    def __init__(self, mean: torch.Tensor, sigma: torch.Tensor, temperature: float, **options: float) -> None:
        self.m, self.g, self.t, self.options = mean.clone(), torch.zeros_like(mean), 0, options
        self.delta = math.nan
        self.set_temperature(temperature)
        self.h = 1 / (self.rate * sigma**2) - self.delta

    def set_temperature(self, temperature: float) -> None:
        self.rate, before = self.options["n"] / temperature, self.delta
        self.delta = 1 / (self.rate * PRIOR**2)
        if self.t:
            self.h = torch.where(self.h < 0, self.h * self.delta / before, self.h)

    @property
    def sigma(self) -> torch.Tensor:
        return 1 / (self.rate * (self.h + self.delta)).sqrt()

    def step(self, gradient: torch.Tensor, estimate: torch.Tensor) -> None:
        beta_1, beta_2, lr, clip = (self.options[name] for name in ("beta_1", "beta_2", "lr", "clip"))
        self.t += 1
        self.g = beta_1 * self.g + (1 - beta_1) * gradient
        off = self.h - estimate
        correction = 0.5 * (1 - beta_2) ** 2 * off**2 / (self.h + self.delta)
        self.h = beta_2 * self.h + (1 - beta_2) * estimate + correction
        step = (self.g / (1 - beta_1**self.t) + self.delta * self.m) / (self.h + self.delta)
        self.m = self.m - lr * step.clamp(-clip, clip)


@pytest.mark.parametrize("parameterisation", TO_SIGMA)
@pytest.mark.parametrize("kind", ["weight", "local"])
def test_steps_are_those_of_the_equations(kind, parameterisation) -> None:
    """Twelve steps of a network, with the temperature of a warm-up, against the paper's equations in h."""
    net = converted(kind, parameterisation=parameterisation)
    (weights,) = active_weights(net)
    optimizer = ssvi.IVON(net, lr=0.03, n_train=40, temperature=0.2, curvature_beta=0.9, step_clip=0.6)
    options = {"n": 40, "lr": 0.03, "beta_1": 0.9, "beta_2": 0.9, "clip": 0.6}
    plain = Transcription(weights.mean.detach(), weights.sigma.detach(), 0.2, **options)
    clipped = 0
    for step in range(12):
        if step in (4, 8):
            plain.set_temperature(0.1 * step)
            optimizer.set_temperature(0.1 * step)
            np.testing.assert_allclose(weights.sigma.detach(), plain.sigma, rtol=1e-8)
        x, y = images(step)
        functional.cross_entropy(net(x), y).backward()
        rho = weights.rho.detach().clone().requires_grad_()
        sigma = TO_SIGMA[parameterisation](rho)
        (slope,) = torch.autograd.grad(sigma.sum(), rho)
        before = plain.m
        plain.step(weights.mean.grad.clone(), weights.rho.grad / slope / sigma.detach())
        clipped += int(((plain.m - before).abs() > 0.03 * 0.6 * (1 - 1e-12)).sum())
        optimizer.step()
        optimizer.zero_grad()
        np.testing.assert_allclose(weights.mean.detach(), plain.m, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(weights.sigma.detach(), plain.sigma, rtol=1e-8)
    assert 0 < clipped < 12 * len(plain.m)


@settings(deadline=None, max_examples=200)
@given(
    sigma=st.floats(1e-6, 10),
    gradient=st.floats(-1e6, 1e6),
    beta=st.floats(0, 0.99999),
    temperature=st.floats(1e-3, 1),
    cooled=st.floats(1e-3, 1),
    wide=st.booleans(),
)
def test_h_plus_delta_stays_above_0(sigma, gradient, beta, temperature, cooled, wide) -> None:
    """Whatever the estimate of the curvature and however it is heated or cooled; and sigma^2 at most doubles a step."""
    net = ssvi.sparsify(nn.Linear(1, 1).double(), 1.0, prior_sigma=1.0, sigma_init=1e-3, parameterisation="exp")
    optimizer = ssvi.IVON(net, n_train=10, temperature=temperature, curvature_beta=beta)
    (weights,) = active_weights(net)
    with torch.no_grad():
        weights.rho.fill_(math.log(sigma if wide else min(sigma, 1.0)))
    before = float(weights.sigma)
    weights.mean.grad, weights.rho.grad = torch.zeros_like(weights.mean), torch.full_like(weights.rho, gradient)
    optimizer.step()
    after = float(weights.sigma)
    assert 0 < after <= before * math.sqrt(2) * (1 + 1e-9)
    optimizer.set_temperature(cooled)
    assert 0 < float(weights.sigma) < math.inf
    (h,) = optimizer.curvatures()
    assert h + cooled / 10 > 0


def test_heating_and_cooling_again_changes_nothing_and_h_stays() -> None:
    net = converted("weight")
    (weights,) = active_weights(net)
    optimizer = ssvi.IVON(net, n_train=100, temperature=0.01, curvature_beta=0.9)
    (h,), sigma = optimizer.curvatures(), weights.sigma.detach().clone()
    assert (h > 0).all()
    optimizer.set_temperature(0.7)
    np.testing.assert_allclose(optimizer.curvatures()[0], h, **CLOSE)
    assert (weights.sigma.detach() > sigma).all()
    assert weights.sigma.mean() > 1.5 * sigma.mean()
    optimizer.set_temperature(0.01)
    np.testing.assert_allclose(weights.sigma.detach(), sigma, **CLOSE)


def test_a_start_by_curvature_and_by_sigma_are_each_others() -> None:
    net = converted("weight")
    (weights,) = active_weights(net)
    optimizer = ssvi.IVON(net, n_train=100, temperature=0.5, curvature_beta=0.9, curvature_init=0.3)
    (h,) = optimizer.curvatures()
    np.testing.assert_allclose(h, 0.3, rtol=1e-9)
    wanted = 1 / math.sqrt(100 / 0.5 * 0.3 + 1 / PRIOR**2)
    np.testing.assert_allclose(weights.sigma.detach(), wanted, rtol=1e-9)
    assert sigma_of(0.3, PRIOR, 0.5, 100) == pytest.approx(wanted)
    # no curvature at all: the prior's own sigma
    ssvi.IVON(net, n_train=100, curvature_beta=0.9, curvature_init=0.0)
    np.testing.assert_allclose(weights.sigma.detach(), PRIOR, rtol=1e-9)


def test_beta_2_remembers_a_share_of_the_training() -> None:
    assert memory_beta(0.25, 1000) == 1 - 1 / 250
    assert memory_beta(0.25, 2) == memory_beta(1e-9, 0) == 0
    net = converted("weight")
    assert ssvi.IVON(net, n_train=9, total_steps=200).param_groups[0]["curvature_beta"] == 1 - 1 / 50


def test_bfloat16_passes_estimate_the_same_curvature_where_sigma_is_not_lost_in_rounding() -> None:
    """theta is rounded to 8 bits in the pass: with sigma a tenth of |m| the mean estimate stays within a tenth."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    y = torch.arange(64) % 3
    found = {}
    for precision in (torch.float32, torch.bfloat16):
        net = ssvi.sparsify(
            nn.Linear(8, 3), 1.0, sampling="weight", prior_sigma=1.0, sigma_init=0.05, mu_init_sd=0.5, seed=0
        )
        (weights,) = active_weights(net)
        total = torch.zeros_like(weights.mean)
        for _ in range(400):
            net.zero_grad()
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                out = net(x)
            functional.cross_entropy(out.float(), y).backward()
            total += curvature_estimate(net)
        found[precision] = total / 400
    assert found[torch.float32].mean() > 0.02
    assert (found[torch.bfloat16] - found[torch.float32]).abs().mean() < 0.1 * found[torch.float32].mean()
