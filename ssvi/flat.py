"""The active weights of a network as parameters of it: what a sparse training optimises.

A network whose layers were taken over has two parameters in their place, `subspace_mean` and (with a posterior)
`subspace_rho`: vectors of s numbers in the order of the layers and of the index within one, and a buffer
`subspace_index` that says which of the d weights they are. They are parameters like any other: `backward` fills their
`.grad`, and `deepcopy`, `.to`, `state_dict`, clipping and data parallelism know nothing special.

At the beginning of a forward pass of the network they are spread over dense tensors, all layers at once, by operations
that autograd knows; a layer that is called by itself does so for itself. Gradients with respect to dense weights pass
through on the way back and are kept where they are asked for (`watch`), which is when an update of the subspace is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssvi.errors import Misuse
from ssvi.layers import TO_SIGMA, MaskedLayer, VariationalLayer, gaussian_kl, gaussian_kl_gradient
from ssvi.noise import NormalSource
from ssvi.subspace import Groups, positions

MEAN, RHO, INDEX = "subspace_mean", "subspace_rho", "subspace_index"
ATTRIBUTE = "_active_weights"


class _GaussianKL(torch.autograd.Function):
    """`gaussian_kl` with its closed-form gradient, which takes a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
        ctx.save_for_backward(mu, sigma)
        ctx.prior_sigma = prior_sigma
        return gaussian_kl(mu, sigma, prior_sigma)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        to_mu, to_sigma = gaussian_kl_gradient(*ctx.saved_tensors, ctx.prior_sigma)
        return to_mu.mul_(grad), to_sigma.mul_(grad), None


class _Layout:
    """How a dense weight lies in memory: its dimensions from the outermost to the innermost (it has no gaps)."""

    def __init__(self, weight: Tensor) -> None:
        dims = range(weight.dim())
        # so that the strides of dimensions of size 1, by which kernels are chosen, come out as they were
        self._dims = sorted(dims, key=lambda d: (-weight.stride(d), -weight.shape[d], d))
        self._shape = [weight.shape[d] for d in self._dims]
        self._back = [self._dims.index(d) for d in dims]
        self.logical = weight.is_contiguous()
        self.size, self.shape, self.stride = weight.numel(), tuple(weight.shape), weight.stride()

    def shaped(self, part: Tensor) -> Tensor:
        """A vector in the order of memory as the weight's shape, a view."""
        return part.view(self._shape).permute(self._back)

    def flat(self, value: Tensor) -> Tensor:
        """A tensor of the weight's shape as a vector in the order of memory."""
        if value.stride() == self.stride:
            return value.as_strided((self.size,), (1,), value.storage_offset())
        return value.permute(self._dims).reshape(-1)


class _Parts(torch.autograd.Function):
    """A dense vector as the layers' weights, in one node: small networks notice several a layer."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, layouts: list[_Layout]) -> tuple[Tensor, ...]:
        ctx.layouts = layouts
        ctx.set_materialize_grads(False)
        first, found = dense.storage_offset(), []
        for layout in layouts:
            found.append(dense.as_strided(layout.shape, layout.stride, first))
            first += layout.size
        return tuple(found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        some = next((grad for grad in grads if grad is not None), None)
        if some is None:
            return None, None
        parts = zip(ctx.layouts, grads, strict=True)
        return torch.cat([some.new_zeros(x.size) if grad is None else x.flat(grad) for x, grad in parts]), None


class ActiveWeights:
    """The active means (or plain weights), and rho if there is a posterior, of some layers of a network.

    Attributes:
        network: whose parameters they are.
        layers: whose weights they are.
        prior_sigma: of the KL, where there is one.
        together: whether the network's weights are ranked as one (the constraint of eq. 3 read literally), not layer by
            layer.
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
        self.network, self.layers = network, list(layers)
        self.prior_sigma, self.together = prior_sigma, together
        first = self.layers[0]
        self._sizes = Groups.of([layer.size for layer in self.layers], first.mean.device)
        self._layouts = [_Layout(layer.mean) for layer in self.layers]
        self._kind = first if isinstance(first, VariationalLayer) else None
        self._starts = [0]
        for size in self._sizes.sizes:
            self._starts.append(self._starts[-1] + size)
        self._order = None if all(x.logical for x in self._layouts) else self._places(first.mean.device)
        self._memory: Tensor | None = None
        # which index was looked at last, and in which version
        self._seen: tuple[Tensor | None, int] = (None, -1)
        self._present: dict[str, Sequence[Tensor]] | None = None
        self._outer: list[dict[str, Sequence[Tensor]] | None] = []
        self.probe: Tensor | None = None
        self._take_over()
        setattr(network, ATTRIBUTE, self)
        self._hooks = [
            network.register_forward_pre_hook(self._enter),
            network.register_forward_hook(self._leave, always_call=True),
        ]
        if self._order is not None and self.index is None:
            self._hooks += [
                network.register_state_dict_post_hook(partial(ActiveWeights._to_logical, self)),
                network.register_load_state_dict_pre_hook(partial(ActiveWeights._from_logical, self)),
            ]

    def __getstate__(self) -> dict[str, Any]:
        """A copy is of no training that watches, in no forward pass, and has tensors of its own."""
        own = {"probe": None, "_present": None, "_outer": [], "_memory": None, "_seen": (None, -1)}
        return self.__dict__ | own

    @torch.no_grad()
    def _take_over(self) -> None:
        active = torch.cat([layer.mask.flatten() for layer in self.layers]).nonzero().flatten()
        # nothing to select where every weight is active: the vectors are what the layers have in memory
        whole = len(active) == self._starts[-1]
        for name, parameter in zip((MEAN, RHO) if self._kind else (MEAN,), ("mean", "rho"), strict=False):
            own = [getattr(layer, parameter).detach() for layer in self.layers]
            if whole:
                vector = torch.cat([x.flat(value) for x, value in zip(self._layouts, own, strict=True)])
            else:
                vector = torch.cat([value.flatten() for value in own])[active]
            self.network.register_parameter(name, nn.Parameter(vector))
        self.network.register_buffer(INDEX, None if whole else active)
        for number, layer in enumerate(self.layers):
            layer.home = (self, number)
            for parameter in ("mean", "rho"):
                layer._parameters.pop(parameter, None)
            if not whole:
                del layer._buffers["mask"]

    @torch.no_grad()
    def release(self) -> None:
        """Give the layers their weights back; the network is then as it was before, and this object of no use."""
        for layer in self.layers:
            own = {name: getattr(layer, name).clone() for name in layer.OWN}
            layer.home = None
            for name, value in own.items():
                if name == "mask":
                    layer.register_buffer(name, value)
                else:
                    layer.register_parameter(name, nn.Parameter(value))
        for hook in self._hooks:
            hook.remove()
        for name in (MEAN, RHO):
            self.network._parameters.pop(name, None)
        del self.network._buffers[INDEX]
        delattr(self.network, ATTRIBUTE)

    # The vectors --------------------------------------------------------------------------------

    @property
    def mean(self) -> nn.Parameter:
        """Means, or plain weights: [s]."""
        return getattr(self.network, MEAN)

    @property
    def rho(self) -> nn.Parameter:
        """What the standard deviations are functions of: [s]."""
        return getattr(self.network, RHO)

    @property
    def index(self) -> Tensor | None:
        """Which weights are active, int64 [s], ascending; None if all are."""
        return getattr(self.network, INDEX)

    @property
    def has_posterior(self) -> bool:
        """Whether there is a standard deviation for each mean."""
        return self._kind is not None

    @property
    def parameterisation(self) -> str:
        """What sigma is as a function of rho."""
        assert self._kind is not None
        return self._kind.parameterisation

    @property
    def settings(self) -> str:
        """What the vectors mean beside their numbers: their order, sigma's function, noise, prior, ranking."""
        order = "in the order of memory" if self.index is None and self._order is not None else "in order"
        ranked = "together" if self.together else "by layer"
        told = f"{len(self.mean)} of {self._starts[-1]} weights {order}, ranked {ranked}"
        if self._kind is None:
            return told
        sigma, sampling = self._kind.parameterisation, self._kind.sampling
        return f"{told}, parameterisation {sigma}, sampling {sampling}, prior_sigma {self.prior_sigma}"

    def parameters(self) -> list[nn.Parameter]:
        """The vectors."""
        return [self.mean, self.rho] if self._kind else [self.mean]

    @property
    def sigma(self) -> Tensor:
        """Standard deviations [s], differentiable with respect to rho."""
        return TO_SIGMA[self.parameterisation](self.rho)

    def kl(self) -> Tensor:
        """KL(q || p) in nats, summed over the weights (eq. 3): a scalar."""
        assert self.prior_sigma is not None
        return _GaussianKL.apply(self.mean, self.sigma, self.prior_sigma)

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

    # Dense tensors ------------------------------------------------------------------------------

    def _places(self, device: torch.device) -> Tensor:
        """Where in memory each weight lies, in the order of the layers and of the index within one: [d]."""
        every = torch.arange(self._starts[-1], device=device)
        return torch.cat([part.reshape(-1) for part in self.parts(every)])

    @property
    def sizes(self) -> Groups:
        """Numbers of weights of the layers, active or not."""
        if self._sizes.on_device.device != self.mean.device:
            self._sizes = Groups.of(self._sizes.sizes, self.mean.device)
        return self._sizes

    def parts(self, dense: Tensor) -> list[Tensor]:
        """A dense vector [d] in the order of the layers' memory as views, one a layer, in its shape."""
        pieces = dense.split(self._sizes.sizes)
        return [layout.shaped(piece) for layout, piece in zip(self._layouts, pieces, strict=True)]

    def ordered(self, dense: Tensor) -> Tensor:
        """A dense vector [d] from the order of the layers' memory to that of `active`."""
        return dense if self._order is None else dense[self._order_on(dense.device)]

    def laid(self, values: Tensor) -> Tensor:
        """A dense vector [d] from the order of `active` to that of the layers' memory."""
        if self._order is None:
            return values
        return torch.empty_like(values).index_copy_(0, self._order_on(values.device), values)

    def _order_on(self, device: torch.device) -> Tensor:
        assert self._order is not None
        if self._order.device != device:
            self._order = self._order.to(device)
        return self._order

    def _where(self, index: Tensor) -> Tensor:
        """Where in memory the active weights lie: [s].

        Raises:
            Misuse: if the index is none, as after an average of networks.
        """
        if torch.compiler.is_compiling():
            return index if self._order is None else self._order_on(index.device)[index]
        # what changes the index, if only a load, counts up its version or puts another tensor in its place
        if self._seen[0] is not index or self._seen[1] != index._version:
            self._look_at(index)
        return index if self._memory is None else self._memory

    def _look_at(self, index: Tensor) -> None:
        # an inference tensor could not be used in training later
        with torch.inference_mode(False):
            edges = index.new_tensor([-1]), index.new_tensor([self._starts[-1]])
            if not bool((torch.cat([edges[0], index, edges[1]]).diff() > 0).all()):
                raise Misuse(
                    f"{INDEX} holds no places of weights any more; buffers of whole numbers must not be averaged "
                    "(AveragedModel: use_buffers=False), and averages are taken after the last update."
                )
            self._follow(index)

    def _follow(self, index: Tensor) -> None:
        if self._order is not None:
            places = self._order_on(index.device)[index]
            if self._memory is None or self._memory.device != index.device:
                self._memory = places
            else:
                # in place, for the sake of captured graphs
                self._memory.copy_(places)
        self._seen = index, index._version

    def spread(self, vector: Tensor) -> Tensor:
        """A vector of the active weights [s] among zeros [d], in the order of the layers' memory; differentiable."""
        if self.index is None:
            return vector
        return vector.new_zeros(self._starts[-1]).index_copy_(0, self._where(self.index), vector)

    def dense(self, vector: Tensor) -> Tensor:
        """The same in the order of the layers and of the index within one."""
        return self.ordered(self.spread(vector))

    def _one(self, number: int, vector: Tensor) -> Tensor:
        """A layer's part of what `spread` gives, in its shape."""
        if self.index is None:
            return self.parts(vector)[number]
        first, size = self._starts[number], self._sizes.sizes[number]
        ends = torch.tensor([first, first + size], device=self.index.device)
        begin, end = torch.searchsorted(self.index, ends).tolist()
        part = vector.new_zeros(size).index_copy_(0, self.index[begin:end] - first, vector[begin:end])
        return part.view(self.layers[number].shape)

    def tensor_of(self, number: int, name: str) -> Tensor:
        """What a layer would store: `mean`, `rho` or `mask`, dense; of a network without zeros views of its vectors."""
        if name == "mask":
            assert self.index is not None
            return self._one(number, torch.ones_like(self.index, dtype=torch.bool))
        return self._one(number, getattr(self, name))

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
            one = self._one(number, self._values(name))
            return one if probe is None else one + self.parts(probe)[number]
        found = self._present.get(name)
        # a part of the pass without gradients must not take them from the rest
        if found is None or (torch.is_grad_enabled() and not found[0].requires_grad and self.mean.requires_grad):
            dense = self.spread(self._values(name))
            dense = dense if probe is None else dense + probe
            compiles = torch.compiler.is_compiling()
            found = self._present[name] = self.parts(dense) if compiles else _Parts.apply(dense, self._layouts)
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
        """Draw one set of weights, with which the layers compute until `forget`."""
        self._begin_anew()
        means = self.parts(self.spread(self.mean))
        sigmas = self.parts(self.spread(self.sigma))
        for layer, mean, sigma in zip(self.layers, means, sigmas, strict=True):
            layer.take_sample(torch.addcmul(mean, sigma, source.normal(mean)))

    def forget(self) -> None:
        """Compute as the network's mode says again."""
        for layer in self.layers:
            layer.forget()

    # The subspace -------------------------------------------------------------------------------

    def watch(self, on: bool) -> None:
        """Keep the dense gradient of the backward passes from here on, summed, or stop doing so.

        Where the mean's gradient begins anew, because `zero_grad` threw it away, this one does, too.
        """
        self._begin_anew()
        self.probe = self.mean.new_zeros(self._starts[-1]).requires_grad_() if on else None
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

    @property
    def active(self) -> Tensor:
        """Which weights are active, bool [d], in the order of the layers and of the index within one."""
        whole = torch.zeros(self._starts[-1], dtype=torch.bool, device=self.mean.device)
        return ~whole if self.index is None else whole.index_fill_(0, self.index, True)

    def counts(self) -> Groups:
        """How the active weights lie in layers; the host waits for the device."""
        if self.index is None:
            return self.sizes
        ends = torch.tensor(self._starts, device=self.index.device)
        numbers = torch.searchsorted(self.index, ends).diff()
        return Groups(tuple(numbers.tolist()), numbers)

    @torch.no_grad()
    def move(self, active: Tensor, starts: Iterable[Tensor], optimizers: Sequence[Optimizer] = ()) -> None:
        """Take another subspace of as many weights, vectors, momenta and all; no tensor moves in memory.

        Args:
            active: bool [d].
            starts: for each of `parameters`, what a weight that was not active starts with, by layer: [layers].
            optimizers: of the vectors; weights that were active keep their momenta, new ones have 0.
        """
        old = self.index
        if old is None:
            return
        index = positions(active, len(old))
        for vector, start in zip(self.parameters(), starts, strict=True):
            _carry(vector, self.sizes.spread(start), old, index)
            for optimizer in optimizers:
                for value in optimizer.state.get(vector, {}).values():
                    if isinstance(value, Tensor) and value.shape == vector.shape:
                        _carry(value, value.new_zeros(len(active)), old, index)
        old.copy_(index)
        # at once, because a captured graph does not ask
        self._follow(old)

    # Files --------------------------------------------------------------------------------------

    def _to_logical(self, network: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
        """What is stored does not depend on how weights lie in memory."""
        for name in (MEAN, RHO):
            if (value := state.get(prefix + name)) is not None:
                state[prefix + name] = self.ordered(value.detach())

    def _from_logical(self, network: nn.Module, state: dict[str, Any], prefix: str, *others: object) -> None:
        for name in (MEAN, RHO):
            if (value := state.get(prefix + name)) is not None and len(value) == self._starts[-1]:
                state[prefix + name] = self.laid(value)

    def dense_state(self, prefix: str = "") -> dict[str, Tensor]:
        """What the layers would store, by the names it would have there."""
        names = {id(module): f"{name}." if name else "" for name, module in self.network.named_modules()}
        found = {}
        for layer in self.layers:
            for own in (n for n in layer.OWN if n != "mask" or self.index is not None):
                found[f"{prefix}{names[id(layer)]}{own}"] = getattr(layer, own).detach()
        return found


def _carry(vector: Tensor, elsewhere: Tensor, old: Tensor, new: Tensor) -> None:
    """Bring a vector [s] to other places; what was at none of the old ones starts with what is `elsewhere` [d]."""
    vector.copy_(elsewhere.index_copy_(0, old, vector)[new])


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
