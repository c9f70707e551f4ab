"""Networks without the channels that do not matter (`ssvi.serving.channels` says which), and without BatchNorm where a
layer can do what it does; nothing that they compute changes by more than the rounding of float32."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ssvi.serving.channels import Flows, as_factors
from ssvi.serving.plain import Scale, Weight, values


@dataclass
class Compressed:
    """Networks that were compressed alike.

    Attributes:
        networks: in the order in which they were given.
        channels: how many there were, and how many are left, of groups and of single layers' outputs.
        weights: the same of weights of layers.
        folded: BatchNorms.
        whole: why nothing was tried, None if it was.
    """

    networks: list[nn.Module]
    channels: tuple[int, int] = (0, 0)
    weights: tuple[int, int] = (0, 0)
    folded: int = 0
    whole: str | None = None

    def __str__(self) -> str:
        if self.whole is not None:
            return f"not compressed: {self.whole}"
        (channels, left), (weights, kept) = self.channels, self.weights
        return (
            f"compressed: {channels - left} of {channels} channels and with them {weights - kept} of {weights} weights "
            f"cut out, {self.folded} BatchNorm folded"
        )


@torch.no_grad()
def compress(networks: Sequence[nn.Module], image: Tensor) -> Compressed:
    """Cut out the channels that matter in none of these networks, and fold BatchNorm.

    Args:
        networks: plain ones in evaluation, of one form (`ssvi.serving.plain`); they are left as they are.
        image: one that they take, [1, C, H, W].
    """
    try:
        graph = _Tracer().trace(networks[0])
    except Exception as error:  # whatever a network's code does with what is no number yet
        return Compressed(list(networks), whole=f"the network's code cannot be followed ({type(error).__name__})")
    modules = [fx.GraphModule(copy.deepcopy(net), graph) for net in networks]
    if any(_overwrites(node, modules[0]) for node in graph.nodes):
        return Compressed(list(networks), whole="the network writes over what it uses again")
    ShapeProp(modules[0]).propagate(torch.cat([image, image]))
    found = Flows(modules)
    before = found.sizes()
    channels = sum(found.groups.widths()), sum(found.groups.widths()) - sum(int(c.sum()) for c in found.cut().values())
    _cut(found)
    folded = _fold(modules, found)
    return Compressed(modules, channels, (before, found.sizes()), folded)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Scale | Weight) or super().is_leaf_module(m, module_qualified_name)


def _overwrites(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node changes in place what another one reads."""
    by_name = isinstance(node.target, str) and node.op == "call_method" and node.target.endswith("_")
    by_module = node.op == "call_module" and getattr(root.get_submodule(node.target), "inplace", False)
    name = getattr(node.target, "__name__", "")
    by_operator = (
        getattr(node.target, "__module__", None) == "_operator" and name[:1] == "i" and name[1:] in vars(operator)
    )
    asked = getattr(node.target, "__module__", None) == functional.__name__ and True in node.args[1:]
    in_place = by_name or by_module or by_operator or asked or bool(node.kwargs.get("inplace"))
    return in_place and any(len(one.users) > 1 for one in node.all_input_nodes[:1])


# Cutting, folding ---------------------------------------------------------------------------------


def _cut(found: Flows) -> None:
    """Cut out of the networks' modules what can be."""
    cut = found.cut()
    for edge in found.edges:
        rows, layers = found.kept(cut, edge.made), found.all(edge.target)
        columns = torch.ones(edge.touched.shape[1], dtype=torch.bool)
        if edge.seen is not None:
            columns = found.kept(cut, edge.seen)
        moved = edge.moved[:, :, ~columns].sum(2)
        has_bias = layers[0].bias is not None or bool(moved.any())
        for layer, constant in zip(layers, moved, strict=True):
            weight = layer.weight.unflatten(1, (len(columns), -1))[:, columns].flatten(1, 2)
            bias = (constant if layer.bias is None else layer.bias.double() + constant).to(weight.dtype)
            _become(layer, weight[rows], bias[rows] if has_bias else None)
    for target, flow in found.sliced:
        kept = found.kept(cut, flow)
        for module in found.all(target):
            _slice(module, kept)


def _become(layer: nn.Linear | _ConvNd, weight: Tensor, bias: Tensor | None) -> None:
    """Have another weight and bias."""
    layer._parameters.update(values(weight.contiguous(), bias))
    names = ("out_features", "in_features") if isinstance(layer, nn.Linear) else ("out_channels", "in_channels")
    for name, size in zip(names, weight.shape[:2], strict=True):
        setattr(layer, name, size)


def _slice(module: nn.Module, kept: Tensor) -> None:
    """Leave a normalisation or a scale the channels that stay."""
    for held in (module._parameters, module._buffers):
        for name, value in held.items():
            if value is not None and value.dim():
                part = value[kept]
                held[name] = nn.Parameter(part, False) if isinstance(value, nn.Parameter) else part
    if isinstance(module, _BatchNorm):
        module.num_features = int(kept.sum())


def _fold(modules: Sequence[fx.GraphModule], found: Flows) -> int:
    """Let layers do what the BatchNorm does that alone comes after them. Returns how many."""
    graph = modules[0].graph
    layers = {edge.target for edge in found.edges}
    norms = {target for target, _ in found.sliced if isinstance(modules[0].get_submodule(target), _BatchNorm)}
    folded = 0
    for node in list(graph.nodes):
        if node.op != "call_module" or node.target not in norms:
            continue
        (before,) = node.all_input_nodes
        if before.op != "call_module" or before.target not in layers or len(before.users) > 1:
            continue
        for layer, norm in zip(found.all(before.target), found.all(node.target), strict=True):
            factor, shift = as_factors(norm)
            weight = layer.weight.double() * factor.view(-1, *[1] * (layer.weight.dim() - 1))
            bias = shift if layer.bias is None else layer.bias.double() * factor + shift
            _become(layer, weight.to(layer.weight.dtype), bias.to(layer.weight.dtype))
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        folded += 1
    for module in modules:
        module.graph = graph
        module.delete_all_unused_submodules()
    return folded
