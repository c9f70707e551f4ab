"""What is cut out of networks, and that they compute the same without it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ssvi.core.layers import LayerFactory, MaskedLayer
from ssvi.core.models import MODELS
from ssvi.core.structure import Probe
from ssvi.serving.compress import compress
from ssvi.serving.plain import Scale, plain, together

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


class Random(nn.Module):
    """A network of random parts, from a seed: convolutions with and without padding and bias, sums, gates, pools."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(seed)
        self.parts = nn.ModuleDict()
        self.kinds: list[str] = []
        x = torch.zeros(1, 2, 8, 8)
        for i in range(self.pick(3, 9)):
            kind = ("conv", "block", "act", "norm", "gate", "pool", "sum")[self.pick(0, 6)]
            if kind in ("conv", "pool") and x.shape[-1] < 4:
                continue
            self.kinds.append(kind)
            self.parts[f"{i}"] = self.part(kind, x.shape[1]).eval()
            x = self.features(torch.zeros(1, 2, 8, 8))
        self.flat = self.flip()
        self.hidden = nn.Linear(x[0].numel() if self.flat else x.shape[1], 5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)
        self.double().eval().requires_grad_(False)

    def part(self, kind: str, channels: int) -> nn.Module:
        if kind == "conv":
            kernel, padding = [(1, 0), (3, 1), (3, 0)][self.pick(0, 2)]
            mode = ("zeros", "circular")[self.pick(0, 5) // 5]
            out = self.pick(2, 6)
            return nn.Conv2d(channels, out, kernel, padding=padding, bias=self.flip(), padding_mode=mode)
        if kind in ("block", "sum"):
            return nn.Conv2d(channels, channels, 3, padding=1, bias=self.flip())
        if kind == "act":
            return (nn.ReLU(), nn.Sigmoid(), nn.Hardswish())[self.pick(0, 2)]
        if kind == "pool":
            return (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1))[self.pick(0, 2)]
        return nn.BatchNorm2d(channels) if kind == "norm" else Scale(torch.ones(channels))

    def pick(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.source))

    def flip(self) -> bool:
        return bool(self.pick(0, 1))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        for kind, part in zip(self.kinds, self.parts.values(), strict=True):
            if kind == "block":
                x = functional.relu(x + part(x))
            elif kind == "sum":
                x = part(x) + x
            else:
                x = part(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = x.flatten(1) if self.flat else x.mean((2, 3))
        return self.head(torch.relu(self.norm(self.hidden(x))))


def spoilt(net: nn.Module, source: torch.Generator, dead: float, structure: torch.Generator | None = None) -> nn.Module:
    """Random values, with rows, columns and gates that are 0; the latter from a source of their own where states of
    one network have them alike."""
    structure = structure or source
    for module in net.modules():
        for name, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is None or not value.is_floating_point():
                continue
            value.normal_(generator=source)
            if name == "running_var":
                value.abs_().add_(0.1)
            if name in ("weight", "scale") and not isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                value[torch.rand(len(value), generator=structure) < dead] = 0
                if value.dim() > 1:
                    value[:, torch.rand(value.shape[1], generator=structure) < dead] = 0
            # constants that ReLU makes 0
            if name == "bias":
                value[torch.rand(len(value), generator=structure) < 0.3] = 0
    return net


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), dead=st.sampled_from([0.0, 0.3, 0.6, 0.9]), alike=st.booleans())
def test_a_compressed_network_computes_the_same(seed, dead, alike) -> None:
    net = Random(seed)
    source = torch.Generator().manual_seed(seed)
    own = [torch.Generator().manual_seed(seed) if alike else None for _ in range(3)]
    nets = [spoilt(copy.deepcopy(net), source, dead, structure) for structure in own]
    x = torch.randn(3, 2, 8, 8, generator=source, dtype=torch.float64)
    expected = torch.stack([one(x) for one in nets])
    found = compress(nets, x[:1])
    assert found.whole is None
    torch.testing.assert_close(torch.stack([one(x) for one in found.networks]), expected, **CLOSE)
    torch.testing.assert_close(together(found.networks)(x), expected, **CLOSE)
    # what was given is as it was, and what came out cannot be compressed any more
    torch.testing.assert_close(torch.stack([one(x) for one in nets]), expected, rtol=0, atol=0)
    assert found.weights[1] <= found.weights[0]
    assert compress(found.networks, x[:1]).folded == 0


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


def zero(layer: nn.Module, rows=(), columns=()) -> nn.Module:
    with torch.no_grad():
        layer.weight[list(rows)] = 0
        layer.weight[:, list(columns)] = 0
    return layer


def test_what_is_cut_is_what_does_not_matter() -> None:
    """Unused: 1 of the first layer (a column of zeros), then what only that needs; constant: 0 (a row of zeros)."""
    first, second, third = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
    net = chain(zero(first, rows=[0]), nn.ReLU(), zero(second, columns=[1]), nn.Tanh(), zero(third, columns=[2, 3]))
    with torch.no_grad():
        second.weight[[0, 1, 4], 5] = 0  # of 5 only the outputs 2 and 3 know, which nobody needs
    x = torch.randn(2, 4, dtype=torch.float64)
    found = compress([net], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), **CLOSE)
    sizes = [tuple(m.weight.shape) for m in found.networks[0].modules() if isinstance(m, nn.Linear)]
    assert sizes == [(3, 4), (3, 3), (3, 3)]
    assert found.channels == (14, 9)
    assert found.weights == (69, 30)
    assert str(found) == "compressed: 5 of 14 channels and with them 39 of 69 weights cut out, 0 BatchNorm folded"


@pytest.mark.parametrize(
    ("bias", "pool", "padding", "mode", "left"),
    [
        (-1.0, nn.Identity(), 1, "zeros", 3),
        (1.0, nn.Identity(), 1, "zeros", 4),
        (1.0, nn.Identity(), 0, "zeros", 3),
        (1.0, nn.Identity(), 1, "circular", 3),
        (1.0, nn.MaxPool2d(3, 1, 1), 0, "zeros", 3),
        (1.0, nn.AvgPool2d(3, 1, 1), 0, "zeros", 4),
        (-1.0, nn.AvgPool2d(3, 1, 1), 0, "zeros", 3),
    ],
)
def test_a_constant_is_cut_unless_padding_makes_it_none(bias, pool, padding, mode, left) -> None:
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=padding, padding_mode=mode)
    net = chain(zero(first, rows=[2]), nn.ReLU(), pool, second)
    with torch.no_grad():
        first.bias[2] = bias
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found = compress([net], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), **CLOSE)
    assert found.networks[0].get_submodule("0").out_channels == left


def test_no_layer_is_left_without_channels() -> None:
    net = chain(zero(nn.Conv2d(2, 4, 3), rows=range(4)), nn.ReLU(), zero(nn.Conv2d(4, 3, 1), rows=range(3)))
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found = compress([net], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), **CLOSE)
    assert found.networks[0].get_submodule("0").out_channels == 1


def gated(name: str, sites: tuple[str, ...], share: float, image: tuple[int, ...]) -> tuple[nn.Module, int]:
    """A built-in network with closed gates, and how many of its weights matter."""
    source = torch.Generator().manual_seed(0)

    def made(factory: LayerFactory) -> nn.Module:
        return MODELS[name](factory, image[0], image[1], 10, 0.25)

    gates: list[Scale] = []

    def gate(channels: int, site: str) -> nn.Module | None:
        if site in sites:
            gates.append(Scale((torch.rand(channels, generator=source) > share).float()))
            gates[-1].scale[0] = 1
            return gates[-1]
        return None

    net = made(LayerFactory(MaskedLayer, gate)).eval()
    for module in net.modules():
        if isinstance(module, MaskedLayer):
            module.reset(source)
    living = Probe(made, lambda site: site in sites, image).living([gate.scale != 0 for gate in gates])
    return net, sum(int(mask.sum()) for mask in living.masks.values())


@pytest.mark.parametrize(("name", "sites"), [("mlp", ("hidden",)), ("resnet8", ("hidden",))])
def test_of_closed_gates_nothing_is_left_but_what_matters(name, sites) -> None:
    net, matters = gated(name, sites, 0.6, (1, 8, 8))
    x = torch.randn(4, 1, 8, 8)
    found = compress([plain(net)], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), rtol=1e-5, atol=1e-5)
    assert found.weights[1] == matters
    assert found.folded == (0 if name == "mlp" else 9)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.networks[0].modules()) or name == "mlp"


@pytest.mark.parametrize("sites", [("hidden", "branch"), ("hidden", "stream")])
def test_what_a_residual_stream_carries_is_cut_where_all_agree(sites) -> None:
    net, matters = gated("resnet8", sites, 0.6, (1, 8, 8))
    x = torch.randn(4, 1, 8, 8)
    found = compress([plain(net)], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), rtol=1e-5, atol=1e-5)
    assert matters <= found.weights[1] < found.weights[0]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) if x.sum() > 0 else self.layer(-x.flatten(1))


class Overwriting(Branching):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x.flatten(1))
        return functional.relu(y, inplace=True) + y


@pytest.mark.parametrize(
    ("net", "why"),
    [(Branching(), "cannot be followed (TraceError)"), (Overwriting(), "writes over what it uses")],
)
def test_what_cannot_be_followed_is_left_whole_and_that_is_said(net, why) -> None:
    net = net.eval()
    found = compress([net], torch.ones(1, 1, 2, 2))
    assert found.networks == [net]
    assert str(found).startswith("not compressed: ")
    assert why in str(found)


class Unknown(nn.Module):
    """Its first layer's outputs are mixed by something that is not known; its last hidden ones are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cumsum(self.first(x), 1)
        return self.last(torch.relu(self.second(x)))


def test_only_what_an_unknown_part_sees_is_left() -> None:
    net = Unknown().double().eval().requires_grad_(False)
    zero(net.first, rows=[1])
    zero(net.second, rows=[1])
    x = torch.randn(3, 4, dtype=torch.float64)
    found = compress([net], x[:1])
    torch.testing.assert_close(found.networks[0](x), net(x), **CLOSE)
    assert [found.networks[0].get_submodule(n).out_features for n in ("first", "second")] == [4, 3]


def test_of_several_networks_only_what_matters_in_none_is_cut() -> None:
    nets = [chain(zero(nn.Linear(4, 6), rows=rows), nn.ReLU(), nn.Linear(6, 2)) for rows in ([0, 1, 2], [1, 2, 3])]
    x = torch.randn(3, 4, dtype=torch.float64)
    found = compress(nets, x[:1])
    for one, net in zip(found.networks, nets, strict=True):
        torch.testing.assert_close(one(x), net(x), **CLOSE)
    assert {one.get_submodule("0").out_features for one in found.networks} == {4}
    assert found.weights[1] == 4 * 4 + 4 * 2


def test_a_constant_of_one_network_gives_all_of_them_a_bias() -> None:
    """So that they are of one form still."""
    nets = [chain(zero(nn.Linear(4, 3), rows=[1]), nn.ReLU(), nn.Linear(3, 2, bias=False)) for _ in range(2)]
    for net, bias in zip(nets, (-1.0, 1.0), strict=True):
        net[0].bias[1] = bias
    x = torch.randn(3, 4, dtype=torch.float64)
    found = compress(nets, x[:1])
    assert [one.get_submodule("2").bias is None for one in found.networks] == [False, False]
    expected = torch.stack([net(x) for net in nets])
    torch.testing.assert_close(together(found.networks)(x), expected, **CLOSE)
