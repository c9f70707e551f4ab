"""Networks as PyTorch alone knows them, in one predictive state: no masks, no posterior, no gates of ours; and several
of one form as one network that runs them all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ssvi.core.gates import NoisyGate
from ssvi.core.layers import MaskedLayer
from ssvi.methods.ensemble import Members
from ssvi.methods.mbnn import NodeGate


class Weight(nn.Module):
    """A weight that another module reads, and its bias where there is one."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)


class Scale(nn.Module):
    """Multiplies channels [n, c, ...] by fixed numbers [c]."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, *[1] * (x.dim() - 2))


def replaced(net: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A copy of a network with other modules in the place of some, wherever they are referred to."""
    return copy.deepcopy(net, {id(old): module for old, module in new.items()})


def values(weight: Tensor, bias: Tensor | None) -> dict[str, nn.Parameter | None]:
    """As the parameters of a layer of PyTorch's that is not trained."""
    fixed = nn.Parameter(weight, requires_grad=False)
    return {"weight": fixed, "bias": None if bias is None else nn.Parameter(bias, requires_grad=False)}


@torch.no_grad()
def plain(net: nn.Module) -> nn.Module:
    """A copy of a network in evaluation, in its present predictive state, with nothing that is trained.

    Its masked layers are PyTorch's own with the weight that they compute with, mean or draw, its gates are a `Scale`,
    and of an ensemble it is the member that was chosen. Whatever else it has is copied as it is.
    """
    if isinstance(net, Members) and net.chosen is not None:
        return plain(net.members[net.chosen])
    new: dict[nn.Module, nn.Module] = {}
    for module in net.modules():
        if isinstance(module, MaskedLayer):
            new[module] = _layer(module)
        elif isinstance(module, NoisyGate | NodeGate):
            new[module] = Scale(module.scale().flatten().to(torch.float32))
    return replaced(net, new).eval().requires_grad_(False)


def _layer(layer: MaskedLayer) -> nn.Module:
    weight, bias = layer.applied()
    if layer.operation is None:
        return Weight(weight, bias)
    with torch.device("meta"):
        made = layer.operation.layer(layer.shape[1], layer.shape[0], bias is not None)
    made._parameters.update(values(weight, bias))
    return made


# Several networks as one ---------------------------------------------------------------------------
#
# Image i under state s is row i S + s of what the network computes with. So [n S, c, ...] and [n, S c, ...] are the
# same memory: a layer that differs between the states is one of S c channels in S groups, and everything that treats
# images alike and apart is as it was.


class Grouped(nn.Module):
    """A convolution, normalisation or scale of channels that each state has its own of, by one module of them all."""

    def __init__(self, states: int, module: nn.Module) -> None:
        super().__init__()
        self.states, self.module = states, module

    def forward(self, x: Tensor) -> Tensor:
        x = self.module(x.reshape(-1, self.states * x.shape[1], *x.shape[2:]))
        return x.reshape(-1, x.shape[1] // self.states, *x.shape[2:])


class Matrices(nn.Module):
    """A matrix product that each state has its own of: [n S, ..., inputs] to [n S, ..., outputs]."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        # [S, inputs, outputs] and [S, 1, outputs]
        self.register_buffer("weight", torch.stack([layer.weight.T for layer in layers]).contiguous())
        biases = [layer.bias for layer in layers]
        self.register_buffer("bias", None if biases[0] is None else torch.stack(biases)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        states, inputs, outputs = self.weight.shape
        rows = x.reshape(-1, states, *x.shape[1:]).transpose(0, 1).reshape(states, -1, inputs)
        out = rows @ self.weight if self.bias is None else rows @ self.weight + self.bias
        return out.reshape(states, -1, *x.shape[1:-1], outputs).transpose(0, 1).reshape(*x.shape[:-1], outputs)


class Together(nn.Module):
    """States of one network as one: images [n, ...] to the outputs of each, [S, n, K]."""

    def __init__(self, net: nn.Module, states: int) -> None:
        super().__init__()
        self.net, self.states = net, states

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unsqueeze(1).expand(-1, self.states, *x.shape[1:]).reshape(-1, *x.shape[1:])
        out = self.net(rows)
        return out.reshape(-1, self.states, *out.shape[1:]).transpose(0, 1)


class OneByOne(nn.Module):
    """The same by one network after the other."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets])


def together(nets: Sequence[nn.Module]) -> Together | OneByOne:
    """Plain networks of one form as one, [n, ...] to [S, n, K]; one after the other where they differ in something
    else than layers, normalisation and scales of channels."""
    new: dict[nn.Module, nn.Module] = {}
    for modules in zip(*(net.modules() for net in nets), strict=True):
        own = [{**m._parameters, **m._buffers} for m in modules]
        if all(_equal(own[0], other) for other in own[1:]):
            continue
        joined = _joined(modules) if all(_form(own[0]) == _form(other) for other in own[1:]) else None
        if joined is None:
            return OneByOne(nets)
        new[modules[0]] = joined
    return Together(replaced(nets[0], new).eval().requires_grad_(False), len(nets))


Own = Mapping[str, Tensor | None]


def _form(own: Own) -> dict[str, torch.Size | None]:
    return {name: None if value is None else value.shape for name, value in own.items()}


def _equal(one: Own, other: Own) -> bool:
    if _form(one) != _form(other):
        return False
    return all(value is None or torch.equal(value, other[name]) for name, value in one.items())


def _joined(modules: Sequence[nn.Module]) -> nn.Module | None:
    """One module that does what each of these does for its own state, if there is such a one."""
    first, states = modules[0], len(modules)
    if type(first) is nn.Linear:
        return Matrices(modules)
    if type(first) is Scale:
        return Grouped(states, Scale(torch.cat([m.scale for m in modules])))
    if isinstance(first, _ConvNd) and not first.transposed:
        joined = copy.copy(first)
        joined.groups = states * first.groups
    elif isinstance(first, _BatchNorm):
        joined = copy.copy(first)
        joined.num_features = states * first.num_features
    else:
        return None
    joined._parameters = {
        name: None if value is None else nn.Parameter(torch.cat([m._parameters[name] for m in modules]), False)
        for name, value in first._parameters.items()
    }
    joined._buffers = {
        name: value if value is None or not value.dim() else torch.cat([m._buffers[name] for m in modules])
        for name, value in first._buffers.items()
    }
    return Grouped(states, joined)
