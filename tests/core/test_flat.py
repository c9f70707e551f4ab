"""The active weights as a network's parameters, against the layers that they stand for."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ssvi.core.active import ActiveWeights, active_weights, dense_state
from ssvi.core.exchange import move
from ssvi.core.gaussian import gaussian_kl, gaussian_kl_gradient
from ssvi.core.layers import VariationalLayer
from ssvi.core.noise import NormalSource, generator
from ssvi.methods.vi import VI
from ssvi.runs.spec import make_spec

LAYOUTS = [torch.contiguous_format, torch.channels_last]


class Two(nn.Module):
    """A convolution and a matrix, each applied to an input of its own."""

    def __init__(self, conv: VariationalLayer, linear: VariationalLayer) -> None:
        super().__init__()
        self.conv, self.linear = conv, linear

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.conv(x).square().sum() + self.linear(y).square().sum()


def made(density: float = 0.4, layout=torch.contiguous_format, **options) -> Two:
    """In float64, with random masks."""
    spec = make_spec({"method": "vi", "sigma_init": 0.3, "sigma_init_sd": 0.1, "mu_init_sd": 0.5, **options})
    make = VI(spec, NormalSource(0, "noise")).factory()
    net = Two(make.conv2d(3, 4, 3, padding=1), make.linear(6, 5))
    source = generator(0, "weights")
    for layer in (net.conv, net.linear):
        layer.reset(source)
        layer.double()
        if layer.mean.dim() == 4:
            layer.to(memory_format=layout)
        layer.mask.copy_(torch.rand(layer.mask.shape, generator=source) < density)
        layer.apply_mask()
    return net


def flat_of(net: Two) -> ActiveWeights:
    return ActiveWeights(net, [net.conv, net.linear], prior_sigma=0.5)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(1, "inputs")
    return (torch.randn(s, generator=source, dtype=torch.float64) for s in ((7, 3, 5, 5), (7, 6)))


def kl_gradient(mu, sigma) -> tuple[torch.Tensor, torch.Tensor]:
    return gaussian_kl_gradient(mu, sigma, 0.5)


def active(tensors, masks) -> torch.Tensor:
    return torch.cat([t[m] for t, m in zip(tensors, masks, strict=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("density", [0.4, 1.1])
def test_the_vectors_hold_the_active_weights_and_layers_read_them_there(layout, density) -> None:
    net = made(density, layout)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    masks = [before["conv.mask"], before["linear.mask"]]
    flat = flat_of(net)
    assert active_weights(nn.Sequential(net)) == [flat]
    assert {name for name, _ in net.named_parameters()} == {"subspace_mean", "subspace_rho", "linear.bias"}
    for name, value in dense_state(net).items():
        assert torch.equal(value, before[name])
    assert dense_state(net).keys() == before.keys()
    logical = net.state_dict()
    assert torch.equal(logical["subspace_mean"], active([before["conv.mean"], before["linear.mean"]], masks))
    assert torch.equal(logical["subspace_rho"], active([before["conv.rho"], before["linear.rho"]], masks))
    with torch.no_grad():
        flat.mean.add_(1.0)
    for layer, mask in zip(flat.layers, masks, strict=True):
        name = "conv" if layer is net.conv else "linear"
        assert torch.equal(layer.mean, (before[f"{name}.mean"] + 1) * mask)
        assert torch.equal(layer.mask, mask)
    assert torch.equal(flat.active, torch.cat([m.flatten() for m in masks]))
    assert flat.counts().sizes == tuple(int(m.sum()) for m in masks)


@pytest.mark.parametrize("density", [0.4, 1.1])
def test_what_is_stored_does_not_depend_on_the_memory_format(density) -> None:
    """A state goes from one format to the other and back, and computes the same."""
    one, other = made(density), made(density, torch.channels_last)
    flats = [flat_of(net) for net in (one, other)]
    state = one.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    with torch.no_grad():
        for flat in flats:
            flat.mean.normal_()
    other.load_state_dict(one.state_dict())
    expected = one.eval()(*inputs())
    assert torch.allclose(other.eval()(*inputs()), expected)
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("sampling", ["local", "weight"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parameterisation", ["softplus", "exp", "abs"])
def test_gradients_are_those_of_the_layers_own_parameters(within, sampling, layout, parameterisation) -> None:
    """Against the same layers before they are taken over, differentiated densely; called in the network or alone."""
    options = {"sampling": sampling, "parameterisation": parameterisation}
    net, plain = made(layout=layout, **options), made(layout=layout, **options)
    flat = flat_of(net)
    flat.watch(True)
    noise = plain.conv.noise = plain.linear.noise = net.conv.noise
    with noise.held():
        if sampling == "weight":
            # one draw for all active weights there, so the plain layers are given it
            draws = [noise.normal(flat.rho)] * 2 if not within else [noise.normal(flat.rho)]
            for number, layer in enumerate((plain.conv, plain.linear)):
                dense = flat.one(number, draws[0])
                layer.one_sample = lambda source, layer=layer, dense=dense: layer.mean + layer.sigma * dense
        x, y = inputs()
        (net(x, y) if within else Two.forward(net, x, y)).backward()
        plain(x, y).backward()
    layers = [plain.conv, plain.linear]
    masks = [layer.mask for layer in layers]
    found = (net.subspace_mean.grad, net.subspace_rho.grad)
    assert torch.allclose(found[0], active([p.mean.grad for p in layers], masks))
    assert torch.allclose(found[1], active([p.rho.grad for p in layers], masks))
    assert torch.allclose(flat.gradient, torch.cat([p.mean.grad.flatten() for p in layers]))
    assert flat.gradient[~flat.active].abs().min() > 0
    assert torch.allclose(net.linear.bias.grad, plain.linear.bias.grad)


@pytest.mark.parametrize("parameterisation", ["softplus", "exp", "abs"])
def test_kl_gradient_is_the_finite_difference(parameterisation) -> None:
    """Of the value that is differentiated, and of the closed form that is added without it."""
    flat = flat_of(made(parameterisation=parameterisation))
    (flat.kl() * 0.3).backward()
    gradients = [vector.grad.clone() for vector in flat.parameters()]
    for vector in flat.parameters():
        vector.grad.zero_()
    flat.add_kl(torch.tensor(0.3, dtype=torch.float64), kl_gradient)
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, flat.parameters(), strict=True))
    for vector in flat.parameters():
        for i in range(len(vector)):
            slopes = []
            for step in (1e-6, -2e-6):
                with torch.no_grad():
                    vector[i] += step
                slopes.append(0.3 * float(gaussian_kl(flat.mean.detach(), flat.sigma.detach(), 0.5)))
            with torch.no_grad():
                vector[i] += 1e-6
            assert float(vector.grad[i]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_momenta_move_with_their_weights_to_another_subspace(layout) -> None:
    """Against dense bookkeeping; nothing moves in memory, and the next pass computes with it."""
    net = made(layout=layout)
    flat = flat_of(net)
    optimizer = SGD(flat.parameters(), lr=0.1, momentum=0.9)
    for vector in flat.parameters():
        vector.grad = torch.randn_like(vector)
    optimizer.step()
    net.eval()(*inputs())
    old = flat.active
    new, starts = old.clone(), [torch.tensor([0.25, 0.5]).double() * (i + 1) for i in range(2)]
    new[old.nonzero().flatten()[::3]] = False
    new[(~old).nonzero().flatten()[: int(old.sum() - new.sum())]] = True

    def dense(vector: torch.Tensor, elsewhere: torch.Tensor) -> torch.Tensor:
        return elsewhere.double().masked_scatter(old, vector.detach())

    of_layer = torch.tensor([0] * net.conv.size + [1] * net.linear.size)
    momenta = [optimizer.state[vector]["momentum_buffer"] for vector in flat.parameters()]
    expected = [dense(v, start[of_layer])[new] for v, start in zip(flat.parameters(), starts, strict=True)]
    expected += [dense(m, torch.zeros(len(new)))[new] for m in momenta]
    assert all(one.count_nonzero() for one in expected)
    places = [x.data_ptr() for x in (*flat.parameters(), flat.index)]
    move(flat, new, starts, [optimizer])
    for vector, wanted in zip([*flat.parameters(), *momenta], expected, strict=True):
        assert torch.equal(vector, wanted)
    assert torch.equal(torch.cat([x.mask.flatten() for x in flat.layers]), new)
    assert torch.equal(torch.cat([x.mean.flatten() for x in flat.layers])[new], flat.mean)
    assert [x.data_ptr() for x in (*flat.parameters(), flat.index)] == places
    # what a captured graph reads is of the new subspace before the next pass
    if layout == torch.channels_last:
        assert torch.equal(flat.places.in_memory, flat.layout.order[flat.index])
    assert flat.places.seen[1] == flat.index._version
    other = made(layout=layout)
    for name, value in dense_state(net).items():
        other.state_dict()[name].copy_(value)
    assert torch.allclose(net(*inputs()), other.eval()(*inputs()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_follows_the_network_to_another_device(layout) -> None:
    """To one that every machine has; what was counted or looked at before the move is not left behind."""
    net = made(layout=layout)
    flat = flat_of(net)
    net(*inputs())
    net.to("meta")
    dense = flat.ordered(flat.laid(flat.sizes.spread(torch.ones(2, device="meta"))))
    assert {x.device.type for x in (*flat.parameters(), flat.active, flat.sizes.on_device, dense)} == {"meta"}
