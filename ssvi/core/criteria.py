"""Removal criteria: how important an active weight is under its posterior N(mu, sigma^2) (section 3.3.1).

Each is a pure function of mu and sigma, computed in float64 whatever comes in, because a float32
ranking needs differences that the printed formulas cancel: with a = |mu|/sigma and
L(a) = phi(a) - a Phi(-a), the unit normal loss,

    E|theta| = |mu| + 2 sigma L(a),    Var|theta| / sigma^2 = 1 - 4 L (a + L),

where nothing cancels, while sigma^2 + mu^2 - (E|theta|)^2 loses every digit once a is large.

What needs more than mu and sigma, such as a gradient, is no criterion by name but the `score` of a method's subspace
(`ssvi.methods.subspace.Moving`), which is given the active weights; their dense gradient is `weights.gradient`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ssvi.errors import Misuse
from ssvi.registry import ADDITIONS, CRITERIA, Registry

Criterion = Callable[[Tensor, Tensor, float], Tensor]

_SMALLEST_SIGMA = 1e-150  # keeps |mu|/sigma finite when a float32 sigma has underflowed to 0


def _prepare(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mu, sigma = mu.double().abs(), sigma.double().clamp_min(_SMALLEST_SIGMA)
    return mu, sigma, mu / sigma


def _phi(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _unit_loss(a: Tensor) -> Tensor:
    """E max(Z - a, 0) for a standard normal Z and a >= 0; at most ulp-level negative for large a."""
    return (_phi(a) - a * torch.special.ndtr(-a)).clamp_min(0.0)


def abs_mu(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 1: |mu|."""
    return mu.double().abs()


def snr(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 2: |mu| / sigma."""
    return _prepare(mu, sigma)[2]


def e_abs(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 3, eq. 6: E|theta|."""
    mu, sigma, a = _prepare(mu, sigma)
    return mu + 2 * sigma * _unit_loss(a)


def snr_abs(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 4, eq. 7: E|theta| / sd|theta|, a strictly increasing function of |mu|/sigma alone.

    It therefore ranks as criterion 2 does; sqrt(2/(pi - 2)) = 1.32 at mu = 0. The value is rounded to
    float32, so that float64's rounding noise inverts no order: it can tie two weights, never swap them.
    """
    _, _, a = _prepare(mu, sigma)
    loss = _unit_loss(a)
    value = (a + 2 * loss) / torch.sqrt(1 - 4 * loss * (a + loss))
    return torch.where(a < 1e30, value.float().double(), value)


def e_exp(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 5, eq. 8, as log(E exp(lambda |theta|) - 1).

    The expectation itself is 1 to seven digits for small weights and overflows for large ones; this
    monotone transform ranks both.
    """
    mu, sigma, a = _prepare(mu, sigma)
    s = exp_lambda * sigma
    log_mean = exp_lambda * mu + _log_moment(a, s)
    shift = torch.expm1(exp_lambda * mu)
    below = torch.log(shift + _moment_minus_1(a, s) * (1 + shift))
    above = log_mean + torch.log(-torch.expm1(-log_mean))
    return torch.where(log_mean < 1.0, below, above)


def snr_exp(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """Criterion 6, eq. 8, as log(E X / sd X) with X = exp(lambda |theta|).

    exp(lambda |mu|) cancels in the ratio, so the moments are those of exp(s Y) with s = lambda sigma
    and Y = (|theta| - |mu|)/sigma; for small s their variance is G(2s) - 2 G(s) - G(s)^2, G = moment - 1.
    """
    _, sigma, a = _prepare(mu, sigma)
    s = exp_lambda * sigma
    first, second = _moment_minus_1(a, s), _moment_minus_1(a, 2 * s)
    relative_variance = (second - 2 * first - first * first) / (1 + first) ** 2
    loss = _unit_loss(a)
    log_tiny = 2 * torch.log(s) + torch.log(1 - 4 * loss * (a + loss))  # below 1e-8 the variance is s^2 Var Y
    log_ratio = _log_moment(a, 2 * s) - 2 * _log_moment(a, s)
    log_large = log_ratio + torch.log(-torch.expm1(-log_ratio))
    log_variance = torch.where(s < 1e-8, log_tiny, torch.where(s < 0.5, torch.log(relative_variance), log_large))
    return -0.5 * log_variance


def _moment_minus_1(a: Tensor, t: Tensor) -> Tensor:
    """E exp(t Y) - 1 for Y = |a + Z| - a, accurate relative to t however small t is."""
    below = torch.special.ndtr(t - a)
    bracket = _mass_around(a, t) + torch.expm1(-2 * a * t) * below
    grown = torch.expm1(0.5 * t * t)
    return grown + bracket * (1 + grown)


def _mass_around(a: Tensor, t: Tensor) -> Tensor:
    """P(a - t < Z < a + t): for narrow intervals by the series of the integral, else by its ends."""
    b, u = a * a, t * t
    series = 1 + u * (b - 1) / 6 + u * u * (b * b - 6 * b + 3) / 120
    narrow = 2 * t * _phi(a) * torch.where(a < 40, series, 1.0)
    wide = torch.special.ndtr(t - a) - torch.special.ndtr(-a - t)
    return torch.where(t < 0.02, narrow, wide)


def _log_moment(a: Tensor, t: Tensor) -> Tensor:
    """log E exp(t Y), safe from overflow."""
    upper, lower = torch.special.log_ndtr(a + t), torch.special.log_ndtr(t - a) - 2 * a * t
    return 0.5 * t * t + torch.logaddexp(upper, lower)


def scores(name: str, mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0, arithmetic: str = "stable") -> Tensor:
    """Scores of active weights; the lowest go first.

    Args:
        name: a key of `CRITERIA`.
        mu: means [s].
        sigma: standard deviations, same shape, > 0.
        exp_lambda: lambda of eq. 8.
        arithmetic: `stable` (float64), or `naive`: the printed formulas in the input's own precision
            with NaN set to 0, as the published code has it; there a sure weight can go first. A criterion
            that code does not have has no naive form and keeps its own.

    Raises:
        UserError: as `_called`.
    """
    if arithmetic == "stable" or name not in NAIVE:
        return _called(CRITERIA, name, mu, sigma, exp_lambda)
    return torch.nan_to_num(NAIVE[name](mu, sigma, exp_lambda), nan=0.0, posinf=math.inf, neginf=-math.inf)


def compared(name: str) -> list[str]:
    """The criteria that records of a run by this one compare: what else is loaded makes no other files."""
    return [one for one in CRITERIA if one == name or one not in CRITERIA.sources]


def modulus(gradient: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Addition criterion: |gradient|."""
    return gradient.abs()


def addition_scores(name: str, gradient: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Scores [d] of all weights; of those that are not active the highest come in (section 3.3.2).

    Args:
        name: a key of `ADDITIONS`.
        gradient: with respect to the mean, signed [d].
        mean: [d], 0 where a weight is not active.
        sigma: the same.

    Raises:
        UserError: as `_called`.
    """
    return _called(ADDITIONS, name, gradient, mean, sigma)


def _called(registry: Registry, name: str, *given: Tensor | float) -> Tensor:
    """What a criterion or an addition rule makes of vectors. One of a plugin is shown copies, and what it gives back is
    checked.

    Raises:
        UserError: if that is no vector of numbers, one for each weight.
    """
    function = registry[name]
    if name not in registry.sources:
        return function(*given)
    return asked(function, f"{registry.kind} {name!r} ({registry.code(name)})", *given)


def asked(function: Callable[..., Tensor], who: str, *given: Tensor | float) -> Tensor:
    """What somebody's function makes of vectors: it is shown copies, and what it gives back is checked.

    Raises:
        Misuse: if that is no vector of numbers, one for each weight; `who` is at fault.
    """
    vectors = [part for part in given if isinstance(part, Tensor)]
    made = function(*(part.detach().clone() if isinstance(part, Tensor) else part for part in given))
    if not isinstance(made, Tensor) or made.is_complex():
        raise Misuse(f"{who}: gave {type(made).__name__}, but must give a tensor of scores, real numbers.")
    if made.shape != vectors[0].shape or made.device != vectors[0].device:
        shown = ", ".join(f"{list(part.shape)} on {part.device}" for part in (made, vectors[0]))
        raise Misuse(f"{who}: the shape of its scores is {shown.replace(', ', ', but must be ', 1)}, as its input.")
    # of what is no number itself nothing else can come, and the training has diverged
    if bool(made.isnan().any()) and all(bool(part.isfinite().all()) for part in vectors):
        raise Misuse(f"{who}: {int(made.isnan().sum())} of {made.numel()} scores are not a number (NaN).")
    return made.detach().double()


def _naive_cdf(x: Tensor) -> Tensor:
    """Phi by the error function, which loses the lower tail."""
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _naive_e_abs(mu: Tensor, sigma: Tensor, exp_lambda: float) -> Tensor:
    return mu * torch.erf(mu / (sigma * math.sqrt(2))) + 2 * sigma * _phi(mu / sigma)


def _naive_snr_abs(mu: Tensor, sigma: Tensor, exp_lambda: float) -> Tensor:
    mean = _naive_e_abs(mu, sigma, exp_lambda)
    return mean / torch.sqrt(sigma**2 + mu**2 - mean**2)


def _naive_e_exp(mu: Tensor, sigma: Tensor, exp_lambda: float) -> Tensor:
    half, shift = (exp_lambda * sigma) ** 2 / 2, exp_lambda * sigma
    right = _naive_cdf(mu / sigma + shift) * torch.exp(half + exp_lambda * mu)
    return right + _naive_cdf(-mu / sigma + shift) * torch.exp(half - exp_lambda * mu)


def _naive_snr_exp(mu: Tensor, sigma: Tensor, exp_lambda: float) -> Tensor:
    mean = _naive_e_exp(mu, sigma, exp_lambda)
    return mean / torch.sqrt(_naive_e_exp(mu, sigma, 2 * exp_lambda) - mean**2)


NAIVE: dict[str, Criterion] = {
    "abs_mu": lambda mu, sigma, exp_lambda: mu.abs(),
    "snr": lambda mu, sigma, exp_lambda: mu.abs() / sigma,
    "e_abs": _naive_e_abs,
    "snr_abs": _naive_snr_abs,
    "e_exp": _naive_e_exp,
    "snr_exp": _naive_snr_exp,
}
