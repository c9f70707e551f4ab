"""Stochastic-gradient Markov chain Monte Carlo as an optimiser: SGHMC, of which SGLD is the case without momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.core.noise import NormalSource


class SGHMC(Optimizer):
    """Stochastic-gradient Hamiltonian Monte Carlo (Chen et al. 2014) for the potential U = n L, L the mean loss.

        v <- (1 - friction) v - eta grad U + N(0, 2 eta friction temperature),   theta <- theta + v

    with eta = lr/n, so that `lr` is the learning rate on the mean loss. With friction 1 there is no momentum, and this
    is stochastic-gradient Langevin dynamics (Welling and Teh 2011): the noise follows the present learning rate. The
    estimate of the gradient's own noise is taken as 0. For small eta the chain's stationary distribution is
    exp(-U/temperature).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        friction: float,
        temperature: Tensor,
        n: int,
        noise: NormalSource,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            parameters: tensors, or groups of them with settings of their own.
            lr: learning rate on the mean loss.
            friction: in (0, 1]; 1 - momentum.
            temperature: a scalar on the parameters' device, which the caller may change.
            n: number of training examples.
            noise: of the chain.
            weight_decay: a Gaussian prior of precision n weight_decay.
        """
        self._temperature, self._n, self._noise = temperature, n, noise
        super().__init__(parameters, {"lr": lr, "friction": friction, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            lr, friction = torch.as_tensor(group["lr"]).to(self._temperature), group["friction"]
            scale = (2 * lr * friction * self._temperature / self._n).sqrt()
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, self.state[p], lr, scale, friction, group["weight_decay"])

    def _move(self, p: Tensor, state: dict[str, Any], lr: Tensor, scale: Tensor, friction: float, decay: float) -> None:
        gradient = p.grad.add(p, alpha=decay) if decay else p.grad
        moved = torch.addcmul(self._noise.normal(p) * scale, gradient, lr, value=-1)
        if friction == 1:
            p.add_(moved)
            return
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        p.add_(state["velocity"].mul_(1 - friction).add_(moved))
