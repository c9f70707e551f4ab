"""The linear maps that layers apply with whatever weights they are given: a matrix product, convolutions.

Forward and, because local reparameterisation is one node of the graph, backward by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_EVERY = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
# What PyTorch's modules call the ways of padding, and what its function does.
PADDINGS = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class Operation:
    """A matrix product: [..., inputs] to [..., outputs], as PyTorch's own layer does.

    Attributes:
        kind: in words.
        channels: the dimension of the channels, from the end.
        groups: parts of the channels that are mapped each by itself.
    """

    kind = "matrix product"
    channels = -1
    groups = 1

    def __str__(self) -> str:
        return self.kind

    def seen(self, x: Tensor) -> Tensor:
        """The part of the input that the weights are applied to; comes before everything else."""
        return x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    def rows(self, x: Tensor) -> Tensor:
        """The input as `backward` takes it: [n, inputs]."""
        return x.reshape(-1, x.shape[-1])

    def like(self, out: Tensor, x: Tensor) -> Tensor:
        """The output of `rows(x)` in the shape that x gives."""
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def layer(self, inputs: int, outputs: int, bias: bool) -> nn.Module:
        """PyTorch's own layer that does the same, with values of its own."""
        return nn.Linear(inputs, outputs, bias)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_bias: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients with respect to x (if wanted), the weight and the bias (if wanted), from that of the output.

        `x` is as `rows` gives it, and so is what belongs to it.
        """
        return grad @ weight if wants_x else None, grad.T @ x, grad.sum(0) if wants_bias else None


class Convolution(Operation):
    """A convolution in 1, 2 or 3 dimensions: [n, inputs, ...] or [inputs, ...], as PyTorch's own layers do."""

    kind = "convolution"

    def __init__(
        self,
        kernel: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        """All as PyTorch's layers take them; a number stands for one in each dimension."""
        dims = len(kernel)
        self._asked = {"stride": stride, "padding": padding, "dilation": dilation, "padding_mode": padding_mode}
        self.kernel = tuple(kernel)
        self.stride, self.dilation = _each(stride, dims), _each(dilation, dims)
        self.groups = groups
        self.channels = -1 - dims
        self._function = CONVOLUTIONS[dims]
        before, after = _around(padding, self.kernel, self.dilation)
        # A strided 1x1 convolution is one with stride 1 of what it looks at. PyTorch's backward pass of the former
        # writes outside its memory on a CPU: channels-last, under 16 channels, an odd batch, two threads.
        pointwise = max(self.kernel) == 1 and max(self.stride) > 1
        self._every, steps = (self.stride, (1,) * dims) if pointwise else (None, self.stride)
        self._steps = steps
        self._mode = PADDINGS[padding_mode]
        apart = pointwise or padding_mode != "zeros" or before != after
        # as torch.nn.functional.pad has it: from the last dimension on
        pairs = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        self._around = pairs if apart and any(pairs) else None
        self.padding = (0,) * dims if apart else before

    def __str__(self) -> str:
        text = f"{self.kind}, stride {'x'.join(map(str, self.stride))}"
        return text if self.groups == 1 else f"{text}, {self.groups} groups"

    def seen(self, x: Tensor) -> Tensor:
        """The input with its padding, where the convolution has not the usual one, and only what it looks at."""
        if self._around is not None:
            x = functional.pad(x, self._around, self._mode)
        if self._every is None:
            return x
        # averages of one pixel each, because that keeps the layout in memory, backwards too
        return _EVERY[len(self.kernel)](x, 1, self._every)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._function(x, weight, bias, self._steps, self.padding, self.dilation, self.groups)

    def rows(self, x: Tensor) -> Tensor:
        """The input with a dimension of images: [n, inputs, ...]."""
        return x if self._has_images(x) else x[None]

    def like(self, out: Tensor, x: Tensor) -> Tensor:
        return out if self._has_images(x) else out[0]

    def layer(self, inputs: int, outputs: int, bias: bool) -> nn.Module:
        kind = _LAYERS[len(self.kernel)]
        return kind(inputs * self.groups, outputs, self.kernel, groups=self.groups, bias=bias, **self._asked)

    def _has_images(self, x: Tensor) -> bool:
        return x.dim() == len(self.kernel) + 2

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_bias: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [weight.shape[0]] if wants_bias else None,
            self._steps,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.kernel),
            self.groups,
            [wants_x, True, wants_bias],
        )


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _around(
    padding: int | str | Sequence[int], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many pixels are added before and after, in each dimension."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        before = tuple(n // 2 for n in whole)
        return before, tuple(n - b for n, b in zip(whole, before, strict=True))
    assert not isinstance(padding, str)
    both = _each(padding, len(kernel))
    return both, both
