"""Which weights matter when channels close, against changing them one by one."""

import itertools

import pytest
import torch
from torch import nn

from ssvi.core.layers import LayerFactory, MaskedLayer, masked_layers
from ssvi.core.models import MODELS
from ssvi.core.structure import Probe

IMAGE = (1, 8, 8)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.open = torch.ones(channels)

    def forward(self, x):
        return x * self.open.view(-1, *[1] * (x.dim() - 2))


def network(model: str, factory: LayerFactory) -> nn.Module:
    return MODELS[model](factory, 1, 8, 3, {"mlp": 4 / 256, "resnet8": 3 / 16}[model])


def gated(model: str, sites: tuple[str, ...], seed: int) -> tuple[nn.Module, list[Gate]]:
    """A network of positive weights whose gates are open at random."""
    gates: list[Gate] = []

    def gate(channels, site):
        if site not in sites:
            return None
        gates.append(Gate(channels))
        return gates[-1]

    net = network(model, LayerFactory(MaskedLayer, gate)).double().eval()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in masked_layers(net).values():
            layer.mean.uniform_(0.1, 1.0, generator=source)
            layer.mean.div_(layer.fan_in)
            if layer.bias is not None:
                layer.bias.zero_()
    for g in gates:
        g.open = (torch.rand(len(g.open), generator=source) < 0.6).double()
    return net, gates


@pytest.mark.parametrize(
    ("model", "sites"), [("resnet8", ("hidden", "branch")), ("resnet8", ("hidden", "stream")), ("mlp", ("hidden",))]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_alive_where_changing_it_changes_an_output(model, sites, seed) -> None:
    net, gates = gated(model, sites, seed)
    living = Probe(lambda f: network(model, f), lambda site: site in sites, IMAGE).living(
        [g.open.bool() for g in gates]
    )
    x = torch.ones(1, *IMAGE, dtype=torch.float64)
    source = torch.Generator().manual_seed(9)
    with torch.no_grad():
        before = net(x)
        for name, layer in masked_layers(net).items():
            # the middle of a kernel sees every position but the edge's padding
            middle = [s // 2 for s in layer.mean.shape[2:]]
            pairs = list(itertools.product(*map(range, layer.mean.shape[:2])))
            for i in torch.randperm(len(pairs), generator=source)[:25].tolist():
                at = (*pairs[i], *middle)
                layer.mean[at] *= 3
                changed = not torch.allclose(net(x), before, rtol=1e-13, atol=0)
                layer.mean[at] /= 3
                assert changed == bool(living.masks[name][at]), (name, at)


def test_open_gates_leave_everything_and_closed_ones_count() -> None:
    probe = Probe(lambda f: network("resnet8", f), lambda site: site == "hidden", IMAGE)
    channels = [3, 6, 12]
    everything = probe.living([torch.ones(c, dtype=torch.bool) for c in channels])
    assert all(bool(m.all()) for m in everything.masks.values())
    assert everything.dead_numbers == 0
    closed = [torch.arange(c) > 0 for c in channels]
    some = probe.living(closed)
    # conv1 loses an output, conv2 an input, bn1 two numbers in each of the three blocks
    assert some.dead_numbers == 2 * 3
    assert some.masks["blocks.1.conv1"].sum() == 5 * 3 * 9
    assert some.masks["blocks.1.conv2"].sum() == 6 * 5 * 9
    assert bool(some.masks["blocks.1.shortcut.0"].all())


@pytest.mark.parametrize("model", ["resnet8", "mlp"])
def test_slim_layers_predict_the_same(model) -> None:
    sites = ("hidden", "stream")
    net, gates = gated(model, sites, 1)
    living = Probe(lambda f: network(model, f), lambda site: site in sites, IMAGE).living(
        [g.open.bool() for g in gates]
    )
    x = torch.rand(5, *IMAGE, dtype=torch.float64)
    with torch.no_grad():
        before = net(x)
        shrunk = 0
        for name, layer in masked_layers(net).items():
            layer.mask.copy_(living.masks[name])
            layer.slim()
            shrunk += layer._slim is not None
        assert shrunk > 1
        assert torch.allclose(net(x), before, rtol=1e-12)


def test_a_layer_that_is_used_twice_matters_where_it_does_once() -> None:
    """Its inputs are the open channels of either use, its outputs those that either use needs."""

    class Twice(nn.Module):
        def __init__(self, make: LayerFactory) -> None:
            super().__init__()
            self.layer, self.head = make.linear(4, 4), make.linear(4, 2)
            self.first, self.second = make.gate(4, "hidden"), make.gate(4, "hidden")

        def forward(self, x):
            return self.head(self.second(self.layer(self.first(self.layer(x.flatten(1))))))

    open_ = [torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 1, 1, 0]).bool()]
    living = Probe(lambda make: Twice(make), lambda site: True, (1, 2, 2)).living(open_)
    needed = open_[0] | open_[1]
    assert torch.equal(living.masks["layer"], needed[:, None].expand(4, 4))
