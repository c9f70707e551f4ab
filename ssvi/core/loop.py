"""What a training loop of one's own needs of a converted network: parameter groups, the KL, the subspace's updates.

net = ssvi.sparsify(net, density=0.1)
optimizer = torch.optim.SGD(ssvi.parameter_groups(net, weight_decay=5e-4), lr=0.01, momentum=0.9)
subspace = ssvi.Subspace(net, optimizer, total_steps=steps)
for inputs, targets in loader:
    loss = data_loss(net(inputs), targets) + ssvi.kl(net) * kl_scale / n_train
    loss.backward()
    subspace.step()
    optimizer.zero_grad()
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ssvi.core import checks
from ssvi.core.exchange import UpdateSchedule
from ssvi.core.layers import VariationalLayer
from ssvi.core.noise import NormalSource
from ssvi.core.prediction import network_weights
from ssvi.core.rules import Addition, Criterion, Rules
from ssvi.errors import Misuse

# Optimisers whose steps update a subspace.
_followed: WeakSet[Optimizer] = WeakSet()


def kl(net: nn.Module) -> Tensor:
    """KL(q || p) of a converted network in nats, summed over its active weights (eq. 3): a scalar to be differentiated.

    The loss is the mean over a batch of the negative log-likelihood plus `kl(net) / n_train` (times a scale below 1 for
    a cold posterior, eq. 1). Under data parallelism every rank adds it, since gradients are averaged.

    Raises:
        Misuse: if the network is not converted, has no posterior, or is trained by an optimiser that adds the KL itself
            (`ssvi.IVON`), unless gradients are off.
    """
    weights = [x for x in network_weights(net) if x.has_posterior]
    if not weights:
        raise Misuse(f"{type(net).__name__} was converted with posterior=False: it has no KL.")
    if torch.is_grad_enabled() and any(x.learner is not None and x.learner() is not None for x in weights):
        raise Misuse(
            "IVON adds the KL itself: leave ssvi.kl out of the loss; to look at it, ask under torch.no_grad()."
        )
    return torch.stack([x.kl() for x in weights]).sum()


def parameter_groups(
    net: nn.Module, *, weight_decay: float = 0.0, sigma_lr: float | None = None, posterior: bool = True
) -> list[dict[str, Any]]:
    """The network's parameters for an optimiser: all but rho with the weight decay, rho without any.

    Args:
        net: a converted network.
        weight_decay: of means (or plain weights), biases, normalisation.
        sigma_lr: learning rate of rho; None is the optimiser's.
        posterior: also means and rho of weights with a posterior; False leaves them to another, as `ssvi.IVON`.

    Raises:
        Misuse: if the network is not converted, or sigma_lr is given for a rho that is left out.
    """
    found = [x for x in network_weights(net) if x.has_posterior]
    rhos = [x.rho for x in found]
    if not posterior and sigma_lr is not None:
        raise Misuse(f"sigma_lr is {sigma_lr!r}, but with posterior=False rho is left to another optimiser.")
    ids = {id(p) for x in found for p in (x.parameters() if not posterior else [x.rho])}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in net.parameters() if id(p) not in ids], "weight_decay": weight_decay}
    ]
    if rhos and posterior:
        groups.append({"params": rhos, "weight_decay": 0.0} | ({} if sigma_lr is None else {"lr": sigma_lr}))
    return groups


class Subspace:
    """Keeps a network's subspace up to date (algorithm 1): every so many steps the least important active weights are
    removed, and as many are added whose gradient is largest.

    `step` takes the optimiser's step. Where something else takes it (as Lightning does) nothing more is needed: the
    optimiser tells this object when it has. Between `backward` and then the gradients may be clipped, and several
    backward passes may add up. Position i of `subspace_mean` is another weight after an update, so averages of
    parameters over steps (EMA, SWA) begin after the last one.

    Under DistributedDataParallel every rank makes one of these, once the process group is there. All begin with the
    first rank's subspace and rank candidates by the gradient of all ranks, so that masks stay equal. Each rank has a
    noise stream of its own, so that the average of gradients is over independent draws; to go on, each rank loads its
    own `state_dict`. `broadcast_buffers=False` is advisable unless another buffer needs it: otherwise every forward
    pass sends `subspace_index`, 8 bytes an active weight that are equal on all ranks already.

    Attributes:
        steps: taken so far.
        updates: of the subspace so far.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        total_steps: int,
        update_every: int = 100,
        drop_fraction: float = 0.3,
        update_until: float = 0.75,
        update_step: Literal["take", "skip"] = "take",
        criterion: str | Criterion | None = None,
        exp_lambda: float = 1.0,
        addition: str | Addition = "mc1",
        grow_sigma: Literal["mean", "mean_rho", "constant"] = "mean",
        grow_sigma_value: float = 1e-6,
    ) -> None:
        """
        Args:
            net: a converted network, on the device where it is trained; whatever wraps it.
            optimizer: of its parameters; of several the last that steps is the last of these.
            total_steps: of the whole training, which the schedule is a function of.
            update_every: steps between two updates (the paper's M).
            drop_fraction: alpha; at step t alpha/2 (1 + cos(pi t/t_end)) of the active weights are exchanged.
            update_until: fraction of the training at which t_end is.
            update_step: at an update, take the optimiser's step first, or skip it as the published code does.
            criterion: a name of `ssvi.registry.CRITERIA` (None is snr_abs), or a function; without a posterior |w|.
            exp_lambda: lambda of the criteria e_exp and snr_exp (eq. 8).
            addition: `mc1`, or a function.
            grow_sigma: sigma of an added weight: mean of the layer's active sigma, softplus of the mean rho, or a
                constant.
            grow_sigma_value: the constant.

        Raises:
            Misuse: if the network is not converted, the optimiser misses what it should train, or an option is none.
        """
        self._weights = network_weights(net)
        self._optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self._check_optimizers()
        checks.whole("total_steps", total_steps)
        checks.share("drop_fraction", drop_fraction)
        checks.share("update_until", update_until)
        checks.choice("update_step", update_step, ("take", "skip"))
        self.schedule = UpdateSchedule(
            checks.whole("update_every", update_every), drop_fraction, int(update_until * total_steps)
        )
        posterior = all(weights.has_posterior for weights in self._weights)
        self._rules = Rules(criterion, exp_lambda, addition, grow_sigma, grow_sigma_value, posterior)
        if not self.schedule.n_updates:
            warnings.warn(
                f"the subspace will never be updated: total_steps {total_steps}, update_every {update_every}, "
                f"update_until {update_until:g}",
                stacklevel=2,
            )
        self.steps = self.updates = 0
        self._skips, self._own_step = update_step == "skip", False
        names = {id(module): name for name, module in net.named_modules()}
        self._names = [[names[id(layer)] for layer in weights.layers] for weights in self._weights]
        self._follow_other_ranks()
        self._follow_optimizers()
        self._watch()

    def _check_optimizers(self) -> None:
        each = [id(p) for o in self._optimizers for group in o.param_groups for p in group["params"]]
        trained = set(each)
        names = {id(p): name for x in self._weights for name, p in x.network.named_parameters()}
        for weights in self._weights:
            if missing := [names[id(p)] for p in weights.parameters() if id(p) not in trained]:
                raise Misuse(
                    f"the optimiser does not train {' and '.join(missing)}; make it after sparsify, of "
                    "ssvi.parameter_groups(net) or net.parameters()."
                )
        twice = {one for one in trained if each.count(one) > 1}
        if shared := [names[id(p)] for x in self._weights for p in x.parameters() if id(p) in twice]:
            raise Misuse(
                f"two optimisers train {' and '.join(shared)}; leave it out of one, as "
                "ssvi.parameter_groups(net, posterior=False) does."
            )
        if any(optimizer in _followed for optimizer in self._optimizers):
            raise Misuse(
                "the optimiser's steps update a subspace already; make a new optimiser too, or one Subspace of a "
                "module that holds all networks."
            )

    def _follow_optimizers(self) -> None:
        for each in self._optimizers:
            _followed.add(each)
            each.register_step_pre_hook(self._before_step)
        self._optimizers[-1].register_step_post_hook(self._after_step)

    @property
    def n_active(self) -> dict[str, int]:
        """Active weights per layer, by the layers' names in the network that was given."""
        counted = zip(self._names, self._weights, strict=True)
        return {n: k for names, weights in counted for n, k in zip(names, weights.counts().sizes, strict=True)}

    # Steps --------------------------------------------------------------------------------------

    @property
    def update_is_due(self) -> bool:
        """Whether the subspace is updated after the step that comes next."""
        return self.schedule.is_due(self.steps + 1)

    def step(self) -> bool:
        """Take the optimisers' step, and update the subspace where that is due; returns whether it was.

        Raises:
            Misuse: if there are no gradients.
            Diverged: if the subspace is to be updated and a gradient, a parameter or a score is not finite.
        """
        due, before = self.update_is_due, self.steps
        if due and self._skips:
            self._done()
            return True
        self._own_step = True
        try:
            for optimizer in self._optimizers:
                optimizer.step()
        finally:
            self._own_step = False
        if self.steps == before:
            raise Misuse(
                "the optimiser did not tell this Subspace of its step: it is a copy; make a new Subspace with it, and "
                "load this one's state_dict()."
            )
        return due

    def _before_step(self, *_: object) -> None:
        if self._skips and not self._own_step and self.update_is_due:
            raise Misuse(
                "update_step is 'skip', which only subspace.step() can do; call it in place of optimizer.step()."
            )

    def _check_gradients(self) -> None:
        for weights in self._weights:
            wanted = [*weights.parameters(), *([weights.probe] if weights.probe is not None else [])]
            if any(p.grad is None for p in wanted):
                raise Misuse(
                    "a step without gradients of the converted weights: net(inputs) and loss.backward() come first."
                )

    def _after_step(self, *_: object) -> None:
        self._done()

    @torch.no_grad()
    def _done(self) -> None:
        # not before the step, whose closure may be what computes them (as Lightning has it)
        self._check_gradients()
        due = self.update_is_due
        self.steps += 1
        if due:
            self._update()
        self._watch()

    def _watch(self) -> None:
        for weights in self._weights:
            weights.watch(self.update_is_due)

    def _update(self) -> None:
        fraction = self.schedule.drop_fraction(self.steps)
        for weights in self._weights:
            self._rules.update(weights, self._summed(weights.gradient), fraction, self.steps, self._optimizers)
        self.updates += 1

    # Several processes --------------------------------------------------------------------------

    @staticmethod
    def _ranks() -> int:
        return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1

    def _summed(self, gradient: Tensor) -> Tensor:
        """Of all ranks, each of which saw other data; their sum ranks as their mean does."""
        if self._ranks() > 1:
            distributed.all_reduce(gradient := gradient.clone())
        return gradient

    @torch.no_grad()
    def _follow_other_ranks(self) -> None:
        """Begin with the first rank's subspace, and with noise of one's own."""
        if self._ranks() == 1:
            return
        for weights in self._weights:
            for tensor in (*weights.parameters(), *([weights.index] if weights.index is not None else [])):
                distributed.broadcast(first := tensor.detach().clone(), 0)
                tensor.copy_(first)  # which, unlike a broadcast, counts up its version
        for source in self._noise():
            source.begin(f"noise of rank {distributed.get_rank()}")

    # Stopping and going on ----------------------------------------------------------------------

    def _noise(self) -> list[NormalSource]:
        layers = (layer for weights in self._weights for layer in weights.layers)
        found = {id(x.noise): x.noise for x in layers if isinstance(x, VariationalLayer)}
        return list(found.values())

    def state_dict(self) -> dict[str, Any]:
        """What, beside the network's and the optimisers' states, a training needs to go on to the bit.

        To be taken between steps, after `zero_grad` or before the next `backward`.
        """
        noise = [source.get_state() for source in self._noise()]
        return {"steps": self.steps, "updates": self.updates, "noise": noise, "settings": self._settings()}

    def _settings(self) -> list[str]:
        """What a training that goes on has in common with how it began, beside its tensors."""
        rules, schedule = self._rules, (self.schedule.delta_t, self.schedule.alpha, self.schedule.t_end)
        own = f"updates every {schedule[0]} steps until {schedule[2]}, drop_fraction {schedule[1]:g}"
        own += f", criterion {rules.criterion}, addition {rules.addition}"
        own += f", update_step {'skip' if self._skips else 'take'}, grow_sigma {rules.grow_sigma}"
        return [own, *(weights.settings for weights in self._weights)]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the network's own state is loaded before.

        Raises:
            Misuse: if it is of another network, of other settings, or of another kind of device.
        """
        if not isinstance(state, dict) or state.keys() != self.state_dict().keys():
            raise Misuse("this is no state of a Subspace.")
        if state["settings"] != (now := self._settings()):
            before = next((a for a, b in zip(state["settings"], now, strict=False) if a != b), "other parts")
            here = next((b for a, b in zip(state["settings"], now, strict=False) if a != b), "these")
            raise Misuse(f"the state is of a training with {before}, but this one has {here}.")
        sources = self._noise()
        for source in sources:
            source.follow(self._weights[0].mean)
        if [own.shape for own in state["noise"]] != [source.get_state().shape for source in sources]:
            raise Misuse("the state's noise is of another kind of device; a training goes on where it began.")
        self.steps, self.updates = state["steps"], state["updates"]
        for source, own in zip(sources, state["noise"], strict=True):
            source.set_state(own)
        self._watch()
