"""Adaptive empirical Bayes (Deng et al. 2019): a spike-and-slab prior learned beside the weights, and a chain of those.

The weights are sampled by SGHMC, the prior's latent variables follow by stochastic approximation, and the smallest
weights are pruned gradually.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvi.core.active import ActiveWeights
from ssvi.core.ranking import largest_of_each
from ssvi.core.samplers import SGHMC
from ssvi.core.tensors import fetched
from ssvi.errors import Diverged, UserError
from ssvi.methods.base import Batch, Clock, Record
from ssvi.methods.chain import Chain

# The published run is 1,000 epochs of 50 iterations. A run of any length passes through the same schedules: its steps
# are worth as many published iterations as make it 50,000 in all.
PUBLISHED_ITERATIONS, PUBLISHED_PER_EPOCH = 50_000, 50
# Step size C/(A + t)^alpha of the stochastic approximation.
SA_C, SA_A, SA_ALPHA = 0.02, 1000.0, 0.75
# Sparsity S' (1 - cut^epoch), cut such that this share of it is missing at the end (0.99^1000).
MISSING = 4.3e-5
# Inverse temperature, from the first epoch to the last (1000 x 1.005^epoch).
TAU = (1000.0, 1.47e5)
BETA_A = BETA_B = 2.7e5  # delta ~ Beta(a, b)
NU = LAMBDA = 1000.0  # sigma^2 ~ InvGamma(nu/2, nu lambda/2)
SNAPSHOTS = 5


@dataclass(frozen=True)
class Prior:
    """Laplace(0, spike) with probability 1 - delta, N(0, slab) with probability delta.

    Attributes:
        spike: scale of the Laplace distribution (v0).
        slab: variance of the normal distribution (v1).
        adapts: whether delta and sigma follow too; else they stay at 1/2 and 1.
        start: of the inclusion probabilities and of both penalties; None starts at what the weights say.
    """

    spike: float
    slab: float
    adapts: bool
    start: tuple[float, float] | None


# With the published v0 and v1 the Laplace component (sd 0.007) is wider than the normal one (sd 0.003), so what is
# called the slab is the spike; as described, the slab is far wider than the spike.
PRIORS = {
    "described": Prior(0.005, 0.01, False, None),
    "published": Prior(0.005, 1e-5, True, (0.5, 5e-4)),
}


def inclusion(beta: Tensor, delta: Tensor | float, prior: Prior) -> Tensor:
    """Probability that each weight is of the slab: delta N / (delta N + (1 - delta) Laplace), in logarithms."""
    delta = torch.as_tensor(delta, dtype=beta.dtype, device=beta.device)
    slab = -0.5 * beta.square() / prior.slab - 0.5 * math.log(2 * math.pi * prior.slab)
    spike = -beta.abs() / prior.spike - math.log(2 * prior.spike)
    return torch.sigmoid(torch.logit(delta) + slab - spike)


def step_size(iteration: float, worth: float) -> float:
    """What a step worth several published iterations moves a latent variable by, from `iteration` on.

    1 - exp(-integral of C/(A + t)^alpha): to a thousandth C/(A + t)^alpha for a single iteration.
    """
    power = 1 - SA_ALPHA
    return -math.expm1(SA_C / power * ((SA_A + iteration) ** power - (SA_A + iteration + worth) ** power))


class AEB(Chain):
    """Samples exp(-U/T), U = N L + sum d1 beta^2/(2 sigma^2) + d0 |beta|/sigma, with adaptive d0 and d1.

    The penalties concern every layer but a convolutional stem; what else there is has a Gaussian prior
    (weight_decay). A pruned weight stays pruned.
    """

    def prepare(self) -> None:
        self.prior = PRIORS[self.spec.aeb_prior]
        self.sparse = {name: layer for name, layer in self.layers.items() if not layer.dense_stem}
        total, own = (sum(x.size for x in xs.values()) for xs in (self.layers, self.sparse))
        self.target = (1 - self.spec.density) * total / max(own, 1)
        if self.target >= 1 or not own:
            raise UserError(
                f"density is {self.spec.density:g}, but the stem alone, which method aeb does not prune, is "
                f"{1 - own / total:.3g} of the weights; choose a larger density or another network."
            )
        self.flat = ActiveWeights(self.model, self.sparse.values())
        beta = self.flat.mean
        self.temperature = torch.ones((), device=beta.device)
        self.delta = torch.full((len(self.sparse),), 0.5, device=beta.device)
        self.sigma = torch.ones((), device=beta.device)
        start = self.prior.start
        with torch.no_grad():
            self.rho = inclusion(beta, 0.5, self.prior) if start is None else torch.full_like(beta, start[0])
            if start is None:
                self.d0, self.d1 = self._penalties()
            else:
                self.d0, self.d1 = torch.full_like(beta, start[1]), torch.full_like(beta, start[1])
        self._mask = torch.ones_like(beta)
        self._counts = {name: layer.size for name, layer in self.layers.items()}

    def make_optimizers(self) -> list[Optimizer]:
        spec = self.spec
        groups = [{"params": [self.flat.mean], "weight_decay": 0.0}, {"params": self.unmasked()}]
        return [
            SGHMC(
                groups,
                lr=spec.aeb_lr,
                friction=1 - spec.momentum,
                temperature=self.temperature,
                n=self.context.n_train,
                noise=self.context.streams.noise,
                weight_decay=spec.weight_decay,
            )
        ]

    # A step -------------------------------------------------------------------------------------

    def lr_factor(self, clock: Clock) -> float:
        done = (clock.epoch - 1) / clock.epochs
        return 1.0 if done < 0.7 else 0.1 if done < 0.9 else 0.01

    def begin_epoch(self, clock: Clock) -> None:
        cold, colder = TAU
        self.temperature.fill_(1 / (cold * (colder / cold) ** (clock.epoch / clock.epochs)))

    @torch.no_grad()
    def on_gradient(self, clock: Clock, batch: Batch) -> bool:
        beta = self.flat.mean
        penalty = self.d1 * beta / self.sigma.square() + self.d0 * beta.sign() / self.sigma
        self.flat.mean.grad.add_(penalty, alpha=1 / self.context.n_train)
        return True

    @torch.no_grad()
    def after_step(self, clock: Clock, batch: Batch) -> Record | None:
        super().after_step(clock, batch)
        self._hold()
        self._approximate(clock)
        last = clock.step == clock.total_steps
        if last or clock.step % max(1, clock.steps_per_epoch // PUBLISHED_PER_EPOCH) == 0:
            self._prune(1.0 if last else clock.step / clock.total_steps)
        return None

    def _hold(self) -> None:
        """Pruned weights stay at 0, at rest."""
        self.flat.mean.mul_(self._mask)
        velocity = self.optimizers[0].state[self.flat.mean].get("velocity")
        if velocity is not None:
            velocity.mul_(self._mask)

    def _penalties(self) -> tuple[Tensor, Tensor]:
        """What the penalties d0 and d1 tend to at the present inclusion probabilities."""
        return (1 - self.rho) / self.prior.spike, self.rho / self.prior.slab

    def _approximate(self, clock: Clock) -> None:
        """One step of the latent variables towards what the present weights say."""
        worth = PUBLISHED_ITERATIONS / clock.total_steps
        omega = step_size(worth * (clock.step - 1), worth)
        beta = self.flat.mean.detach()
        delta = self.flat.sizes.spread(self.delta)
        self.rho.lerp_(inclusion(beta, delta, self.prior), omega)
        d0, d1 = self._penalties()
        self.d0.lerp_(d0, omega)
        self.d1.lerp_(d1, omega)
        if not self.prior.adapts:
            return
        sums = torch.stack([part.sum() for part in self.rho.split(self.flat.sizes.sizes)])
        self.delta.lerp_((sums + BETA_A - 1) / (BETA_A + BETA_B + self.flat.sizes.on_device - 2), omega)
        r, w, q = (beta.abs() * self.d0).sum(), (beta.square() * self.d1).sum(), len(beta) + NU + 2
        sigma = (r + (r.square() + 4 * q * (w + NU * LAMBDA)).sqrt()) / (2 * q)
        self.sigma.copy_(self.sigma.square().lerp(sigma.square(), omega).sqrt())

    def _prune(self, progress: float) -> None:
        """Zero the smallest weights of each layer up to the present target, S' (1 - cut^epoch).

        Raises:
            Diverged: if a weight is not a number.
        """
        share = self.target * (1 - MISSING**progress if progress < 1 else 1.0)
        sizes, values = self.flat.sizes, self.flat.ordered(self.flat.mean.detach()).abs()
        n_keep = [size - math.floor(share * size) for size in sizes.sizes]
        keep = largest_of_each(values, sizes, n_keep, torch.tensor(n_keep, device=values.device)) & self._masks()
        found = fetched({"counts": sizes.counts(keep), "lost": values.isnan().any().long()})
        if found["lost"]:
            raise Diverged("a weight that is to be ranked is not a number")
        self._counts |= dict(zip(self.sparse, found["counts"], strict=True))
        for layer, part in zip(self.sparse.values(), keep.split(sizes.sizes), strict=True):
            layer.mask.copy_(part.view(layer.shape))
        self._mask.copy_(self.flat.laid(keep))
        self._hold()

    def _masks(self) -> Tensor:
        """Which weights are not pruned, bool, in the order of the layers and of the index within one."""
        return torch.cat([layer.mask.flatten() for layer in self.sparse.values()])

    # Figures ------------------------------------------------------------------------------------

    def n_active(self) -> dict[str, int]:
        return self._counts

    def n_computed(self) -> dict[str, int]:
        """The published training is dense: a pruned weight is multiplied like any other."""
        return {name: layer.size for name, layer in self.layers.items()}

    def kept_epochs(self, epochs: int) -> set[int]:
        return set(range(max(1, epochs - SNAPSHOTS + 1), epochs + 1))

    # Resuming -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        latent = {name: getattr(self, name) for name in ("rho", "d0", "d1", "delta", "sigma")}
        return super().state_dict() | {"latent": latent, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, value in state["latent"].items():
            getattr(self, name).copy_(value)
        self._counts = state["counts"]
        self._mask.copy_(self.flat.laid(self._masks()))
