"""Which channels of networks matter: groups of them, and constants, followed through a graph.

Channels belong together in groups: those that a layer gives, with all that they become on their way to the next layers;
a sum of two makes them one. A channel can be cut out of its group where every layer that sees it gives it no weight,
for outputs that stay, or sees a constant there, which its bias can take over. Constants start where a row of weights is
0, or a gate closed, and are followed through whatever treats channels apart. Where a convolution pads its input with
zeros, a channel is the same at all places only if it is 0, so another constant stays. What is not known here, and the
network's output, freezes the groups that it sees.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from ssvi.serving.plain import Scale

# What treats every number apart. None turns something that is not a number into one.
APART = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.Identity, _DropoutNd),
)
APART_FUNCTIONS = {
    *(torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu, functional.elu),
    *(functional.gelu, functional.silu, functional.mish, functional.hardtanh, functional.hardswish),
    *(functional.sigmoid, functional.tanh, functional.softplus),
}
APART_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone", "detach", "float"}
SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
MEANS = {torch.mean, "mean"}
FLATTENING = {torch.flatten, "flatten"}
# What makes fewer places of many, channel by channel; of one value everywhere it makes the same, or, of averages that
# may count padding, at least of 0.
POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
POOL_FUNCTIONS = {
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d),
    *(functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
}
AVERAGE_FUNCTIONS = {functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d}


class Groups:
    """Numbers that stand for groups of channels; some become one, and some are frozen."""

    def __init__(self) -> None:
        self._up: list[int] = []
        self._widths: list[int] = []
        self._frozen: list[bool] = []

    def new(self, width: int) -> int:
        self._up.append(len(self._up))
        self._widths.append(width)
        self._frozen.append(False)
        return self._up[-1]

    def of(self, group: int) -> int:
        """What a group has become a part of."""
        while self._up[group] != group:
            group = self._up[group]
        return group

    def unite(self, one: int, other: int) -> None:
        one, other = self.of(one), self.of(other)
        self._up[other] = one
        self._frozen[one] |= self._frozen[other]

    def freeze(self, group: int) -> None:
        self._frozen[self.of(group)] = True

    def free(self) -> dict[int, int]:
        """The groups of which something may be cut, and their widths."""
        return {g: self._widths[g] for g, up in enumerate(self._up) if up == g and not self._frozen[g]}

    def widths(self) -> list[int]:
        return [width for g, width in enumerate(self._widths) if self._up[g] == g]


@dataclass
class Flow:
    """Where a value of the graph has channels.

    Attributes:
        group: of channels.
        axis: along which they lie.
        repeat: numbers of each there, more than one once places were flattened.
        constant: [S, C] in each network the value of a channel that is the same for all images and at all places, nan
            of another.
    """

    group: int
    axis: int
    repeat: int
    constant: Tensor


@dataclass
class Edge:
    """A layer that sees a group and makes another.

    Attributes:
        touched: [outputs, inputs], whether a weight is there in any network.
        moved: [S, outputs, inputs], what constant inputs add to the outputs.
        constant: [inputs], whether that is all that an input does, in every network.
    """

    target: str
    seen: Flow | None
    made: Flow
    touched: Tensor
    moved: Tensor
    constant: Tensor


class Flows:
    """What flows through the graph of some networks of one form."""

    def __init__(self, modules: Sequence[fx.GraphModule]) -> None:
        self.modules, self.groups = modules, Groups()
        self.edges: list[Edge] = []
        self.sliced: list[tuple[str, Flow]] = []  # normalisation and scales, with their channels
        self.flows: dict[fx.Node, Flow] = {}
        graph = modules[0].graph
        called = Counter(id(modules[0].get_submodule(n.target)) for n in graph.nodes if n.op == "call_module")
        self._once = {key for key, count in called.items() if count == 1}
        for node in graph.nodes:
            flow = self._through(node)
            if flow is not None:
                self.flows[node] = flow
            else:
                self._freeze(node)

    def all(self, target: str) -> list[nn.Module]:
        """A module in each of the networks."""
        return [module.get_submodule(target) for module in self.modules]

    def sizes(self) -> int:
        """Weights of the layers of one network."""
        return sum(self.modules[0].get_submodule(edge.target).weight.numel() for edge in self.edges)

    def _freeze(self, node: fx.Node) -> None:
        for one in node.all_input_nodes:
            if one in self.flows:
                self.groups.freeze(self.flows[one].group)

    def _through(self, node: fx.Node) -> Flow | None:
        """What comes out of a node, None where that has no channels that are known."""
        if node.op == "call_module":
            return self._module(node)
        if node.op not in ("call_function", "call_method"):
            return None
        sources = [self.flows.get(arg) for arg in node.args if isinstance(arg, fx.Node)]
        first = sources[0] if sources else None
        if node.target in SUMS:
            return self._sum(node)
        if first is None or len(node.all_input_nodes) != 1:
            return None
        if node.target in APART_FUNCTIONS or node.target in APART_METHODS:
            rest = node.args[1:], {k: v for k, v in node.kwargs.items() if k != "inplace"}
            of = getattr(torch.Tensor, node.target) if isinstance(node.target, str) else node.target
            return self._apart(first, of(first.constant.clone(), *rest[0], **rest[1]))
        if node.target in MEANS:
            return self._mean(node, first)
        if node.target in FLATTENING:
            return self._flat(node, first)
        if node.target in POOL_FUNCTIONS and self._has_places(node, first):
            return first
        if node.target in AVERAGE_FUNCTIONS and self._has_places(node, first):
            return Flow(first.group, 1, 1, torch.where(first.constant == 0, 0.0, math.nan))
        return None

    def _module(self, node: fx.Node) -> Flow | None:
        module = self.modules[0].get_submodule(node.target)
        stateful = any(True for _ in (*module.parameters(), *module.buffers()))
        if len(node.args) != 1 or node.kwargs or (stateful and id(module) not in self._once):
            return None
        flow = self.flows.get(node.args[0])
        if type(module) is nn.Linear or (isinstance(module, _ConvNd) and not module.transposed and module.groups == 1):
            return self._layer(node, module, flow)
        if flow is None:
            return None
        if isinstance(module, APART):
            return self._apart(flow, module(flow.constant.clone()))
        if isinstance(module, POOLS) and self._has_places(node, flow):
            return None if getattr(module, "return_indices", False) else flow
        if isinstance(module, AVERAGES) and self._has_places(node, flow):
            return Flow(flow.group, 1, 1, torch.where(flow.constant == 0, 0.0, math.nan))
        if isinstance(module, nn.Flatten):
            return self._flat(node, flow)
        if flow.axis != 1 or flow.repeat != 1:
            return None
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            normal = [as_factors(one) for one in self.all(node.target)]
            factor, shift = (torch.stack(both) for both in zip(*normal, strict=True))
            self.sliced.append((node.target, flow))
            return Flow(flow.group, 1, 1, flow.constant * factor + shift)
        if isinstance(module, Scale):
            scale = torch.stack([one.scale.double() for one in self.all(node.target)])
            self.sliced.append((node.target, flow))
            return Flow(flow.group, 1, 1, torch.where(scale == 0, 0.0, flow.constant * scale))
        return None

    @staticmethod
    def _shape(node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape)

    def _has_places(self, node: fx.Node, flow: Flow) -> bool:
        return flow.axis == 1 and flow.repeat == 1 and len(self._shape(node)) > 2

    @staticmethod
    def _apart(flow: Flow, found: Tensor) -> Flow:
        return Flow(flow.group, flow.axis, flow.repeat, torch.where(flow.constant.isnan(), math.nan, found))

    def _sum(self, node: fx.Node) -> Flow | None:
        """Of two values of the same shape, whose groups become one."""
        two = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if len(two) != 2 or len(node.args) != 2 or node.kwargs or not all(arg in self.flows for arg in two):
            return None
        one, other = (self.flows[arg] for arg in two)
        if self._shape(two[0]) != self._shape(two[1]) or (one.axis, one.repeat) != (other.axis, other.repeat):
            return None
        self.groups.unite(one.group, other.group)
        return Flow(one.group, one.axis, one.repeat, one.constant + other.constant)

    def _mean(self, node: fx.Node, flow: Flow) -> Flow | None:
        """Over places, which come after the channels."""
        given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        before = self._shape(node.args[0])
        dims = [given] if isinstance(given, int) else given
        if not isinstance(dims, list | tuple) or {*node.kwargs} - {"dim", "keepdim"}:
            return None
        return flow if dims and all(dim % len(before) > flow.axis for dim in dims) else None

    def _flat(self, node: fx.Node, flow: Flow) -> Flow | None:
        """[n, c, ...] to [n, c ...]."""
        before, after = self._shape(node.args[0]), self._shape(node)
        if flow.axis != 1 or after != (before[0], math.prod(before[1:])):
            return None
        return Flow(flow.group, 1, flow.repeat * math.prod(before[2:]), flow.constant)

    def _layer(self, node: fx.Node, module: nn.Linear | _ConvNd, flow: Flow | None) -> Flow:
        """A layer sees a group, or something else whole, and makes one of its own."""
        ndim, is_linear = len(self._shape(node)), isinstance(module, nn.Linear)
        if flow is not None and (flow.axis != ndim - 1 if is_linear else flow.axis != 1 or flow.repeat != 1):
            self.groups.freeze(flow.group)
            flow = None
        repeat = 1 if flow is None else flow.repeat
        weights = torch.stack([one.weight.double() for one in self.all(node.target)])
        weights = weights.view(*weights.shape[:2], -1, repeat * math.prod(weights.shape[3:]))
        touched = (weights != 0).any(3)
        nothing = torch.full((len(self.modules), weights.shape[2]), math.nan, dtype=torch.float64)
        known = nothing if flow is None else flow.constant
        if not is_linear and module.padding_mode == "zeros" and module.padding != "valid" and _pads(module.padding):
            known = torch.where(known == 0, 0.0, math.nan)
        # of each network, an output that no input reaches but constant ones
        varies = (touched & known.isnan()[:, None]).any(2)
        moved = weights.sum(3) * known.nan_to_num(0.0)[:, None]
        made = moved.sum(2)
        if module.bias is not None:
            made += torch.stack([one.bias.double() for one in self.all(node.target)])
        group = self.groups.new(module.weight.shape[0])
        out = Flow(group, ndim - 1 if is_linear else 1, 1, torch.where(varies, math.nan, made))
        self.edges.append(Edge(node.target, flow, out, touched.any(0), moved, ~known.isnan().any(0)))
        return out

    # Cutting ------------------------------------------------------------------------------------

    def cut(self) -> dict[int, Tensor]:
        """Of each free group the channels that can be cut, all of them together: as many as possible."""
        cut = {group: torch.ones(width, dtype=torch.bool) for group, width in self.groups.free().items()}
        changed = True
        while changed:
            changed = False
            for edge in reversed(self.edges):
                group = None if edge.seen is None else self.groups.of(edge.seen.group)
                if group not in cut:
                    continue
                stays = ~cut.get(self.groups.of(edge.made.group), torch.zeros(len(edge.touched), dtype=torch.bool))
                needless = cut[group] & (edge.constant | ~edge.touched[stays].any(0))
                changed |= bool((needless != cut[group]).any())
                cut[group] = needless
            for channels in cut.values():
                # no layer is left without any
                if bool(channels.all()):
                    channels[0], changed = False, True
        return cut

    def kept(self, cut: dict[int, Tensor], flow: Flow) -> Tensor:
        group = self.groups.of(flow.group)
        return ~cut[group] if group in cut else torch.ones(flow.constant.shape[1], dtype=torch.bool)


def _pads(padding: object) -> bool:
    return padding == "same" or any(padding)


def as_factors(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a BatchNorm in evaluation multiplies channels by, and then adds, in float64."""
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.double()
