"""Natural-gradient variational learning (IVON: Shen et al. 2024, arXiv 2402.17641) of the Gaussians of active weights.

q(theta_i) = N(m_i, sigma_i^2) on the active axes, prior N(0, prior_sigma^2), objective E_q[L] + T/N KL(q || p), L being
the mean loss of an example. With lambda = N/T and delta = 1/(lambda prior_sigma^2) the posterior's precision and the
curvature h_i that was learnt of L are one number, 1/sigma_i^2 = lambda (h_i + delta), so that nothing is stored but the
Gaussian itself and the momentum g: three numbers an active weight. A step, from the gradients of L alone:

    g <- beta1 g + (1 - beta1) dL/dm
    h <- beta2 h + (1 - beta2) H + 1/2 (1 - beta2)^2 (h - H)^2/(h + delta)
    m <- m - lr (g/(1 - beta1^t) + delta m)/(h + delta)

H = (dL/dsigma)/sigma is an unbiased estimate of E_q[d^2 L/d m^2] for both kinds of noise: from one weight sample
theta = m + sigma eps it is g_theta eps/sigma (the reparameterised form of Price's theorem), and from local
reparameterisation 2 dL/d(sigma^2). For convolutions the latter is that of other noise, independent in every pixel.

The last term of the second line keeps h + delta above 0, and adds to h what H scatters: with a weight sample h + delta
settles at E[H] + delta + (1 - beta2) lambda E[g_theta^2]/2. The colder, the shorter the memory and the smaller the
batch, the more of h is that second moment of the gradient, and the narrower the posterior is than the best one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.core import checks
from ssvi.core.active import ActiveWeights
from ssvi.core.gaussian import SLOPE, TO_RHO, TO_SIGMA
from ssvi.core.prediction import network_weights
from ssvi.errors import Misuse

TYPES = (torch.float32, torch.float64)
# In trainings. float32 loses steps of log sigma that are much smaller than its own.
LONGEST_MEMORY = 10.0
# Of T/N, with whose squares and roots float32 still counts.
SCALES = (1e-30, 1e30)
# Of the median of a start that is drawn around its prior's sigma.
SCATTER = 0.05


def memory_beta(memory: float, total_steps: int) -> float:
    """beta2 of a curvature that remembers a share of so many steps: 1 - 1/(memory total_steps), 0 at the least."""
    return 1 - 1 / max(memory * total_steps, 1.0)


def sigma_of(curvature: float, prior_sigma: float, temperature: float, n_train: int) -> float:
    """sigma = 1/sqrt(lambda (h + delta))."""
    return (n_train / temperature * curvature + prior_sigma**-2) ** -0.5


class IVON(Optimizer):
    """Learns the posterior of a converted network by its natural gradient; the rest of the network is another's.

    net = ssvi.sparsify(net, density=0.1, sampling="weight", prior_sigma=0.1)
    ivon = ssvi.IVON(net, lr=0.1, n_train=n_train, total_steps=steps, temperature=0.01)
    sgd = torch.optim.SGD(ssvi.parameter_groups(net, weight_decay=5e-4, posterior=False), lr=0.1, momentum=0.9)
    subspace = ssvi.Subspace(net, [sgd, ivon], total_steps=steps)
    for inputs, targets in loader:
        data_loss(net(inputs), targets).backward()  # the KL is in the equations: no ssvi.kl
        subspace.step()
        sgd.zero_grad(), ivon.zero_grad()

    Born weights start with no momentum and the sigma that the subspace gives them, which is their curvature, too;
    removed ones are forgotten. Weight decay is the prior's: delta. Gradients that are clipped by their norm make the
    curvature as much smaller: `step_clip` is for that.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 0.1,
        n_train: int,
        total_steps: int | None = None,
        temperature: float = 1.0,
        momentum: float = 0.9,
        curvature_memory: float = 0.25,
        curvature_beta: float | None = None,
        curvature_init: float | None = None,
        step_clip: float | None = None,
    ) -> None:
        """
        Args:
            net: a converted network with a posterior; whatever wraps it.
            lr: alpha, in units of a Newton step.
            n_train: N, number of training examples.
            total_steps: of the whole training, of which `curvature_memory` is a share.
            temperature: T, the weight of the KL; 1 is the ELBO, less a cold posterior (eq. 1).
            momentum: beta1.
            curvature_memory: share of the training that h remembers, 1/(1 - beta2) steps; above 1 it hardly forgets its
                start.
            curvature_beta: beta2 itself, in its place.
            curvature_init: h at the start, in place of the sigma that the network has.
            step_clip: the most by which lr times this a mean may move in a step; None is no limit.

        Raises:
            Misuse: if the network is not converted, has no posterior or is of half precision, an option is none, or
                the network's sigma is above its prior's, where h would be below 0.
        """
        found = _posteriors(net)
        if curvature_beta is None:
            if total_steps is None:
                raise Misuse("total_steps is missing: curvature_memory is a share of it; or give curvature_beta.")
            share = checks.number("curvature_memory", curvature_memory)
            if share > LONGEST_MEMORY:
                raise Misuse(f"curvature_memory is {curvature_memory!r}, but must be <= {LONGEST_MEMORY:g}.")
            curvature_beta = memory_beta(share, checks.whole("total_steps", total_steps))
        options = {
            "lr": checks.number("lr", lr),
            "momentum": below_one("momentum", momentum),
            "curvature_beta": below_one("curvature_beta", curvature_beta),
            "step_clip": None if step_clip is None else checks.number("step_clip", step_clip),
            "n_train": checks.whole("n_train", n_train),
            "temperature": checks.number("temperature", temperature),
        }
        if not SCALES[0] < (unit := options["temperature"] / options["n_train"]) < SCALES[1]:
            raise Misuse(f"temperature / n_train is {unit:g}, but must be between {SCALES[0]:g} and {SCALES[1]:g}.")
        groups = []
        for weights in found:
            own = {"prior_sigma": weights.prior_sigma, "parameterisation": weights.parameterisation}
            groups.append({"params": [weights.mean, weights.rho], **own})
        super().__init__(groups, options)
        if curvature_init is not None:
            self._start(checks.number("curvature_init", curvature_init, zero=True))
        for weights in found:
            # where it is drawn, some are wider
            if (typical := float(weights.sigma.detach().median())) > weights.prior_sigma * (1 + SCATTER):
                raise Misuse(
                    f"the median of sigma is {typical:g}, but must be <= prior_sigma, {weights.prior_sigma:g}: a "
                    "posterior wider than its prior would need curvature below 0."
                )
            weights.learner = weakref.ref(self)

    @torch.no_grad()
    def _start(self, curvature: float) -> None:
        for group in self.param_groups:
            sigma = sigma_of(curvature, group["prior_sigma"], group["temperature"], group["n_train"])
            rho = group["params"][1]
            rho.copy_(TO_RHO[group["parameterisation"]](torch.full_like(rho, sigma, dtype=torch.float64)))

    @torch.no_grad()
    def curvatures(self) -> list[Tensor]:
        """h [s] of each network's active weights, float64."""
        found = []
        for group in self.param_groups:
            unit, sigma = group["temperature"] / group["n_train"], _sigma(group).double()
            found.append(unit * (sigma**-2 - group["prior_sigma"] ** -2))
        return found

    # The temperature ----------------------------------------------------------------------------

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Learn at another temperature from here on: what was learnt of the loss stays, so sigma moves.

        h stays, and sigma^2 = 1/(lambda (h + delta)) with the new lambda and delta. Where h is below 0 it is delta's
        multiple that stays, with which h + delta > 0 at any temperature.
        """
        new = checks.number("temperature", temperature)
        for group in self.param_groups:
            mean, rho = group["params"]
            old, prior = group["temperature"], group["prior_sigma"]
            if old == new:
                continue
            ratio = (prior / _sigma(group).double()).square() - 1  # h/delta
            sigma = prior / (1 + torch.where(ratio > 0, ratio * (old / new), ratio)).sqrt()
            rho.copy_(TO_RHO[group["parameterisation"]](sigma))
            group["temperature"] = new
            if state := self.state.get(mean):
                state["temperature"].fill_(new)

    # A step -------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move means and sigma of every network that has gradients; returns the closure's loss.

        Raises:
            Misuse: if there is a gradient of means, but none of sigma, which a forward pass without noise leaves.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            mean, rho = group["params"]
            if mean.grad is None:
                continue
            if rho.grad is None:
                raise Misuse("sigma has no gradient: the network computed without noise; is it in evaluation mode?")
            _move(mean, rho, self._state(group), group)
        return loss

    def _state(self, group: dict[str, Any]) -> dict[str, Tensor]:
        """Momentum, and on the device what a captured graph reads: the steps that were taken, and T."""
        mean = group["params"][0]
        state = self.state[mean]
        if not state:
            state["momentum"] = torch.zeros_like(mean)
            state["steps"] = torch.zeros((), dtype=torch.float64, device=mean.device)
            state["temperature"] = torch.full_like(state["steps"], group["temperature"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the network's own state is loaded before.

        Raises:
            Misuse: if it is of posteriors with another prior, or with another function of rho.
        """
        for own, given in zip(self.param_groups, state_dict["param_groups"], strict=False):
            for name in ("prior_sigma", "parameterisation"):
                if own[name] != given.get(name):
                    raise Misuse(f"the state has {name} {given.get(name)!r}, but the network has {own[name]!r}.")
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if state := self.state.get(group["params"][0]):
                # which PyTorch has made the parameter's
                for name in ("steps", "temperature"):
                    state[name] = state[name].double()
                state["temperature"].fill_(group["temperature"])


def _posteriors(net: nn.Module) -> list[ActiveWeights]:
    """The weights of a converted network that have a posterior.

    Raises:
        Misuse: if there are none, or they are of half precision.
    """
    found = [x for x in network_weights(net) if x.has_posterior]
    if not found:
        raise Misuse(f"{type(net).__name__} was converted with posterior=False: there is no posterior to learn.")
    for weights in found:
        if weights.mean.dtype not in TYPES:
            raise Misuse(f"the posterior is of {weights.mean.dtype}, but must be float32; use torch.autocast.")
    return found


def below_one(name: str, value: object) -> float:
    """A number from 0 to below 1."""
    if checks.share(name, value) == 1:
        raise Misuse(f"{name} is {value!r}, but must be >= 0 and < 1.")
    return float(value)  # type: ignore[arg-type]


def _sigma(group: dict[str, Any]) -> Tensor:
    return TO_SIGMA[group["parameterisation"]](group["params"][1].detach())


def _move(mean: Tensor, rho: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """One step of the equations above, in terms of u = h + delta, which is never below 0 and cancels nowhere.

    u' = u (1 + a + a^2/2) with a = (1 - beta2) (H + delta - u)/u: at least half of u.
    """
    name, momentum = group["parameterisation"], state["momentum"]
    sigma = TO_SIGMA[name](rho)
    unit = (state["temperature"] / group["n_train"]).to(mean.dtype)  # 1/lambda
    decay = unit / group["prior_sigma"] ** 2
    u = unit / sigma.square()
    estimate = rho.grad / (SLOPE[name](rho) * sigma)
    a = (estimate + decay - u).div_(u).mul_(1 - group["curvature_beta"])
    growth = a.square().mul_(0.5).add_(a).add_(1)
    u.mul_(growth)

    state["steps"] += 1
    momentum.lerp_(mean.grad, 1 - group["momentum"])
    unbiased = (1 - group["momentum"] ** state["steps"]).to(mean.dtype)
    step = (momentum / unbiased).add_(mean * decay).div_(u)
    if group["step_clip"] is not None:
        step.clamp_(-group["step_clip"], group["step_clip"])
    mean.sub_(step.mul_(group["lr"]))
    rho.copy_(TO_RHO[name](sigma.div_(growth.sqrt_())))
