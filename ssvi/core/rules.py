"""What updates of a loop's subspace go by, as its owner names or gives it: what ranks weights, what new ones get.

A criterion, an addition or a start of sigma is a name or a function; here it becomes what `ssvi.core.exchange` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.core import checks
from ssvi.core.active import ActiveWeights
from ssvi.core.criteria import ADDITIONS, CRITERIA, addition_scores, asked, scores
from ssvi.core.exchange import GROW_SIGMA, decide, exchange, gaussian_births, magnitude, plain_births
from ssvi.errors import Misuse

# Importance [s] of active weights from their means and standard deviations [s].
Criterion = Callable[[Tensor, Tensor], Tensor]
# How promising every weight is [d], the highest first: from the signed gradient of the data term, means and standard
# deviations, 0 where a weight is not active, all [d] in the order of the layers and of the index within one.
Addition = Callable[[Tensor, Tensor, Tensor], Tensor]
# Rules that take passes of their own over the network, which is the loop's owner's to make.
PASSES = ("mean", "mcK")


class Rules:
    """What leaves a subspace, what comes in its place, and with which sigma.

    Attributes:
        criterion: its name, or that of the function.
        addition: likewise.
        grow_sigma: what sigma of an added weight is.
    """

    def __init__(
        self,
        criterion: str | Criterion | None,
        exp_lambda: float,
        addition: str | Addition,
        grow_sigma: str,
        grow_sigma_value: float,
        posterior: bool,
    ) -> None:
        """As `ssvi.Subspace` takes them; `posterior`: whether all weights have one.

        Raises:
            Misuse: if one is none, or nothing that weights without a posterior could be ranked by.
        """
        self._sigma = checks.number("grow_sigma_value", grow_sigma_value)
        checks.number("exp_lambda", exp_lambda)
        checks.choice("grow_sigma", grow_sigma, GROW_SIGMA)
        self._score = _score(criterion, exp_lambda, posterior)
        self._promise = _promise(addition)
        self.criterion, self.addition, self.grow_sigma = _name(criterion), _name(addition), grow_sigma

    def update(
        self, weights: ActiveWeights, gradient: Tensor, fraction: float, step: int, optimizers: Sequence[Optimizer]
    ) -> None:
        """Exchange a fraction of the active weights, given the gradient [d] of the data term.

        Raises:
            Diverged: if a gradient, a parameter or a score is not finite.
        """
        sigma = weights.sigma if weights.has_posterior else torch.zeros_like(weights.mean)
        promise = self._promise(gradient, weights.dense(weights.mean), weights.dense(sigma))
        active = weights.counts()
        change = decide(weights, active, self._score(weights), promise, fraction, step)
        births = plain_births
        if weights.has_posterior:
            births = gaussian_births(weights.parameterisation, self.grow_sigma, self._sigma)
        exchange(weights, change, births, active, optimizers)


def _name(given: object) -> str:
    if given is None:
        return "by default"
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


def _score(criterion: str | Criterion | None, exp_lambda: float, posterior: bool) -> Callable[[ActiveWeights], Tensor]:
    if not posterior:
        if criterion is not None:
            raise Misuse(
                f"criterion is {criterion!r}, but without a posterior weights are ranked by |w|; leave it out."
            )
        return magnitude
    if criterion is None or isinstance(criterion, str):
        name = criterion or "snr_abs"
        if name not in CRITERIA:
            raise Misuse(f"criterion is {name!r}, but must be one of {', '.join(CRITERIA)}, or a function.")
        return lambda weights: scores(name, weights.mean.detach(), weights.sigma.detach(), exp_lambda)
    checks.function("criterion", criterion)
    return lambda weights: asked(criterion, "criterion", weights.mean.detach(), weights.sigma.detach())


def _promise(addition: str | Addition) -> Addition:
    if not isinstance(addition, str):
        checks.function("addition", addition)
        return partial(asked, addition, "addition")
    names = [name for name in ADDITIONS if name not in PASSES]
    if addition not in names:
        raise Misuse(f"addition is {addition!r}, but must be one of {', '.join(names)}, or a function.")
    return partial(addition_scores, addition)
