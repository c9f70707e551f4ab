"""How the weights of some layers lie in one dense vector: as each lies in memory, one layer after the other.

There are two orders of the d weights. *In memory* is that of dense vectors whose parts are views of the layers' shapes;
*in order* is by layer and by the index within one, which is what indices, masks and files are in. They differ where a
layer's weight is, say, channels-last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssvi.core.ranking import Groups
from ssvi.errors import Misuse


class Part:
    """How a dense weight lies in memory: its dimensions from the outermost to the innermost (it has no gaps)."""

    def __init__(self, weight: Tensor) -> None:
        dims = range(weight.dim())
        # so that the strides of dimensions of size 1, by which kernels are chosen, come out as they were
        self._dims = sorted(dims, key=lambda d: (-weight.stride(d), -weight.shape[d], d))
        self._shape = [weight.shape[d] for d in self._dims]
        self._back = [self._dims.index(d) for d in dims]
        self.in_order = weight.is_contiguous()
        self.size, self.shape, self.stride = weight.numel(), tuple(weight.shape), weight.stride()

    def shaped(self, part: Tensor) -> Tensor:
        """A vector in the order of memory as the weight's shape, a view."""
        return part.view(self._shape).permute(self._back)

    def flat(self, value: Tensor) -> Tensor:
        """A tensor of the weight's shape as a vector in the order of memory."""
        if value.stride() == self.stride:
            return value.as_strided((self.size,), (1,), value.storage_offset())
        return value.permute(self._dims).reshape(-1)


class _Split(torch.autograd.Function):
    """A dense vector as the layers' weights, in one node: small networks notice several a layer."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, layouts: list[Part]) -> tuple[Tensor, ...]:
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


class Layout:
    """The places of all layers' weights.

    Attributes:
        starts: where each layer begins, and d: [layers + 1].
        order: where in memory each weight lies, in order, int64 [d]; None where both orders are one.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._each = [Part(weight) for weight in weights]
        self._sizes = Groups.of([weight.numel() for weight in weights], weights[0].device)
        self.starts = [*itertools.accumulate(self._sizes.sizes, initial=0)]
        self.order: Tensor | None = None
        if not all(part.in_order for part in self._each):
            every = torch.arange(self.total, device=weights[0].device)
            self.order = torch.cat([part.reshape(-1) for part in self.parts(every)])

    @property
    def total(self) -> int:
        """Number of weights d."""
        return self.starts[-1]

    def sizes_on(self, device: torch.device) -> Groups:
        """Numbers of weights of the layers."""
        if self._sizes.on_device.device != device:
            self._sizes = Groups.of(self._sizes.sizes, device)
        return self._sizes

    def order_on(self, device: torch.device) -> Tensor:
        """`order` where it is needed, and from then on."""
        assert self.order is not None
        if self.order.device != device:
            self.order = self.order.to(device)
        return self.order

    def parts(self, dense: Tensor) -> list[Tensor]:
        """A dense vector [d] in memory as views, one a layer, in its shape."""
        pieces = dense.split(self._sizes.sizes)
        return [part.shaped(piece) for part, piece in zip(self._each, pieces, strict=True)]

    def split(self, dense: Tensor) -> Sequence[Tensor]:
        """The same for a vector that is differentiated, as one node of the graph."""
        return self.parts(dense) if torch.compiler.is_compiling() else _Split.apply(dense, self._each)

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """Tensors of the layers' shapes as a dense vector [d] in memory."""
        return torch.cat([part.flat(value) for part, value in zip(self._each, values, strict=True)])

    def ordered(self, dense: Tensor) -> Tensor:
        """A dense vector [d] from memory to in order."""
        return dense if self.order is None else dense[self.order_on(dense.device)]

    def laid(self, values: Tensor) -> Tensor:
        """A dense vector [d] from in order to memory."""
        if self.order is None:
            return values
        return torch.empty_like(values).index_copy_(0, self.order_on(values.device), values)


class Places:
    """Where in memory the weights of an index lie; looked up anew when the index has changed, which is checked then.

    Attributes:
        seen: which index was looked at last, and in which version.
        in_memory: where its weights lie, int64 [s]; None where that is the index itself.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.seen: tuple[Tensor | None, int] = (None, -1)
        self.in_memory: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has seen no index: a version says nothing of another tensor."""
        return self.__dict__ | {"seen": (None, -1), "in_memory": None}

    def of(self, index: Tensor) -> Tensor:
        """Where the weights of an ascending index [s] lie: [s].

        Raises:
            Misuse: if it is none, as after an average of networks.
        """
        if torch.compiler.is_compiling():
            return index if self.layout.order is None else self.layout.order_on(index.device)[index]
        # what changes the index, if only a load, counts up its version or puts another tensor in its place
        if self.seen[0] is not index or self.seen[1] != index._version:
            self._check(index)
        return index if self.in_memory is None else self.in_memory

    def _check(self, index: Tensor) -> None:
        # an inference tensor could not be used in training later
        with torch.inference_mode(False):
            ends = index.new_tensor([-1]), index.new_tensor([self.layout.total])
            if not bool((torch.cat([ends[0], index, ends[1]]).diff() > 0).all()):
                raise Misuse(
                    "subspace_index holds no places of weights any more; buffers of whole numbers must not be averaged "
                    "(AveragedModel: use_buffers=False), and averages are taken after the last update."
                )
            self.follow(index)

    def follow(self, index: Tensor) -> None:
        """Look an index up that is known to be one."""
        if self.layout.order is not None:
            places = self.layout.order_on(index.device)[index]
            if self.in_memory is None or self.in_memory.device != index.device:
                self.in_memory = places
            else:
                # in place, for the sake of captured graphs
                self.in_memory.copy_(places)
        self.seen = index, index._version
