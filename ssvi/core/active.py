"""The active weights of a network as parameters of it, and what its forward passes make of them.

At the beginning of a forward pass of the network its vectors are spread over dense tensors, all layers at once, by
operations that autograd knows; a layer that is called by itself does so for itself. Gradients with respect to dense
weights pass through on the way back and are kept where they are asked for (`watch`), which is when an update of the
subspace is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn

from ssvi.core.gaussian import GaussianKL
from ssvi.core.layers import MaskedLayer
from ssvi.core.noise import NormalSource
from ssvi.core.vectors import ATTRIBUTE, INDEX, MEAN, RHO, Vectors
from ssvi.errors import Misuse


class ActiveWeights(Vectors):
    """What is trained of some layers of a network: vectors that its forward passes spread over dense weights.

    Attributes:
        prior_sigma: of the KL, where there is one.
        together: whether the network's weights are ranked as one (the constraint of eq. 3 read literally), not layer by
            layer.
        learner: the optimiser that has the KL in its own equations, where there is one (`ssvi.core.natural`).
        probe: while the dense gradient is watched, zeros [d] that are added to the weights, for the sake of `.grad`.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Iterable[MaskedLayer],
        *,
        prior_sigma: float | None = None,
        together: bool = False,
    ) -> None:
        """The masks must be drawn already; from here on the layers' weights are the network's vectors."""
        super().__init__(network, layers)
        self.prior_sigma, self.together = prior_sigma, together
        self.learner: ReferenceType[object] | None = None
        self.probe: Tensor | None = None
        self._present: dict[str, Sequence[Tensor]] | None = None
        self._outer: list[dict[str, Sequence[Tensor]] | None] = []
        self._hooks += [
            network.register_forward_pre_hook(self._enter),
            network.register_forward_hook(self._leave, always_call=True),
        ]

    def __getstate__(self) -> dict[str, Any]:
        """A copy is of no training that watches, and in no forward pass."""
        return self.__dict__ | {"learner": None, "probe": None, "_present": None, "_outer": []}

    @property
    def settings(self) -> str:
        """What the vectors mean beside their numbers: their order, sigma's function, noise, prior, ranking."""
        order = "in the order of memory" if self.index is None and self.layout.order is not None else "in order"
        ranked = "together" if self.together else "by layer"
        told = f"{len(self.mean)} of {self.layout.total} weights {order}, ranked {ranked}"
        if self._kind is None:
            return told
        sigma, sampling = self._kind.parameterisation, self._kind.sampling
        return f"{told}, parameterisation {sigma}, sampling {sampling}, prior_sigma {self.prior_sigma}"

    # The KL to the prior ------------------------------------------------------------------------

    def kl(self) -> Tensor:
        """KL(q || p) in nats, summed over the weights (eq. 3): a scalar."""
        assert self.prior_sigma is not None
        return GaussianKL.apply(self.mean, self.sigma, self.prior_sigma)

    def add_kl(self, weight: Tensor, gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        """Add the gradient of a weighted KL to that of the data term, without the KL's value.

        Args:
            weight: of the KL, a scalar.
            gradient: d KL/d mu and d KL/d sigma [s] each, new tensors, from mu and sigma [s].
        """
        with torch.enable_grad():
            sigma = self.sigma
        with torch.no_grad():
            to_mean, to_sigma = gradient(self.mean, sigma)
            self.mean.grad.add_(to_mean.mul_(weight))
        sigma.backward(to_sigma.mul_(weight))

    # A forward pass -----------------------------------------------------------------------------

    def _enter(self, network: nn.Module, inputs: object) -> None:
        self._outer.append(self._present)
        self._present = {}

    def _leave(self, network: nn.Module, inputs: object, output: object) -> None:
        self._present = self._outer.pop() if self._outer else None

    def _begin_anew(self) -> None:
        """Forget passes that were broken off in a way that PyTorch tells no hook of, as by Ctrl-C."""
        self._present = None
        self._outer.clear()

    def present_of(self, number: int, name: str) -> Tensor:
        """What the present forward pass uses of a layer: `mean`, `variance` or `sample`, dense.

        Raises:
            Misuse: if a backward pass asks for noise.
        """
        probe = None if name == "variance" or self.probe is None else self.probe.to(self.mean.dtype)
        if self._present is None:
            if name != "mean" and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
                raise Misuse(
                    "a layer was called inside a backward pass (activation checkpointing?), where it would compute "
                    "with other noise than before; leave that out."
                )
            one = self.one(number, self._values(name))
            return one if probe is None else one + self.layout.parts(probe)[number]
        found = self._present.get(name)
        # a part of the pass without gradients must not take them from the rest
        if found is None or (torch.is_grad_enabled() and not found[0].requires_grad and self.mean.requires_grad):
            dense = self.spread(self._values(name))
            dense = dense if probe is None else dense + probe
            found = self._present[name] = self.layout.split(dense)
        return found[number]

    def _values(self, name: str) -> Tensor:
        if name == "mean":
            return self.mean
        sigma = self.sigma
        if name == "variance":
            return sigma.square()
        assert self._kind is not None
        if self._present is None:
            return torch.addcmul(self.mean, sigma, self._kind.noise.normal(sigma))
        if "noise" not in self._present:
            # one sample a pass
            self._present["noise"] = [self._kind.noise.normal(sigma.detach())]
        return torch.addcmul(self.mean, sigma, self._present["noise"][0])

    @torch.no_grad()
    def draw(self, source: NormalSource) -> None:
        """Draw one set of weights, with which the layers compute until they `forget` it."""
        self._begin_anew()
        means = self.layout.parts(self.spread(self.mean))
        sigmas = self.layout.parts(self.spread(self.sigma))
        for layer, mean, sigma in zip(self.layers, means, sigmas, strict=True):
            layer.take_sample(torch.addcmul(mean, sigma, source.normal(mean)))

    # The gradient of all weights ----------------------------------------------------------------

    def watch(self, on: bool) -> None:
        """Keep the dense gradient of the backward passes from here on, summed, or stop doing so.

        Where the mean's gradient begins anew, because `zero_grad` threw it away, this one does, too.
        """
        self._begin_anew()
        self.probe = self.mean.new_zeros(self.layout.total).requires_grad_() if on else None
        if self.probe is not None:
            self.probe.register_hook(self._begin_with_mean)

    def _begin_with_mean(self, gradient: Tensor) -> None:
        # called before this gradient is added; the mean's is further up the graph, so it comes after
        thrown_away = self.mean.grad is None or not bool(self.mean.grad.any())
        if thrown_away and self.probe is not None:
            self.probe.grad = None

    @property
    def gradient(self) -> Tensor:
        """Dense gradient [d] with respect to the mean since `watch(True)`, in the order of `active`.

        Of what was differentiated through the network's passes: the data term, not the KL.
        """
        assert self.probe is not None
        assert self.probe.grad is not None
        return self.ordered(self.probe.grad)


def active_weights(network: nn.Module) -> list[ActiveWeights]:
    """Those of a network and of the modules in it, whatever wraps it."""
    return [m.__dict__[ATTRIBUTE] for m in network.modules() if ATTRIBUTE in m.__dict__]


def dense_state(network: nn.Module) -> dict[str, Tensor]:
    """The network's state as if its layers held their own weights: `NAME.mean`, `NAME.rho`, `NAME.mask`."""
    state = network.state_dict()
    for name, module in network.named_modules():
        if ATTRIBUTE in module.__dict__:
            prefix = f"{name}." if name else ""
            for own in (MEAN, RHO, INDEX):
                state.pop(prefix + own, None)
            state |= module.__dict__[ATTRIBUTE].dense_state(prefix)
    return state
