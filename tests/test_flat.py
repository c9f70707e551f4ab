"""The flat vectors of active weights against the layers that they stand for."""

import pytest
import torch
from torch.optim import SGD

from ssvi.flat import SLOPE, FlatPosterior, FlatWeights
from ssvi.layers import TO_SIGMA, VariationalLayer, gaussian_kl, gaussian_kl_gradient
from ssvi.methods.vi import VI
from ssvi.noise import NormalSource, generator
from ssvi.spec import make_spec


def layers(density: float = 0.4, layout=torch.contiguous_format, **options) -> list[VariationalLayer]:
    """A convolution and a matrix in float64, with random masks."""
    spec = make_spec({"method": "vi", "sigma_init": 0.3, "sigma_init_sd": 0.1, "mu_init_sd": 0.5, **options})
    make = VI(spec, NormalSource(0, "noise")).factory()
    found = [make.conv2d(3, 4, 3, padding=1), make.linear(6, 5)]
    source = generator(0, "weights")
    for layer in found:
        layer.reset(source)
        layer.double()
        if layer.mean.dim() == 4:
            layer.to(memory_format=layout)
        layer.mask.copy_(torch.rand(layer.mask.shape, generator=source) < density)
        layer.apply_mask()
    return found


def kl_gradient(mu, sigma) -> tuple[torch.Tensor, torch.Tensor]:
    return gaussian_kl_gradient(mu, sigma, 0.5)


def active(tensors, masks) -> torch.Tensor:
    return torch.cat([t[m] for t, m in zip(tensors, masks, strict=True)])


@pytest.mark.parametrize(
    ("layout", "density"),
    # a dense network's vectors are the layers' memory, in whatever order
    [(torch.contiguous_format, 0.4), (torch.channels_last, 0.4), (torch.contiguous_format, 1.1)],
)
def test_the_vectors_hold_the_active_weights_in_the_order_of_the_layers(layout, density) -> None:
    made = layers(density, layout)
    before = [x.mean.detach().clone() for x in made]
    flat = FlatPosterior(made)
    masks = [x.mask for x in made]
    assert all(torch.equal(a, x.mean) for a, x in zip(before, made, strict=True))
    assert torch.equal(flat.mean, active([x.mean for x in made], masks))
    assert torch.equal(flat.rho, active([x.rho for x in made], masks))
    with torch.no_grad():
        flat.mean.add_(1.0)
        flat.rho.mul_(2.0)
    flat.settle()
    assert torch.equal(flat.mean, active([x.mean for x in made], masks))
    assert torch.equal(flat.rho, active([x.rho for x in made], masks))
    assert not any(x.mean[~x.mask].any() or x.rho[~x.mask].any() for x in made)


@pytest.mark.parametrize("sampling", ["local", "weight"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("parameterisation", ["softplus", "exp", "abs"])
def test_gradients_are_autograds_through_rho(sampling, layout, parameterisation) -> None:
    """Closed forms against the same layers differentiated by autograd, without any flat vector."""
    options = {"sampling": sampling, "parameterisation": parameterisation}
    made, plain = layers(layout=layout, **options), layers(layout=layout, **options)
    flat = FlatPosterior(made)
    x, y = torch.randn(7, 3, 5, 5, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)
    state = made[0].noise.get_state()
    flat.spread()
    (made[0](x).square().sum() + made[1](y).square().sum()).backward()
    flat.gather()
    flat.add_kl(torch.tensor(0.0, dtype=torch.float64), kl_gradient)
    for layer in plain:
        layer.noise = made[0].noise
    plain[0].noise.set_state(state)
    if sampling == "weight":
        # one draw for all active weights there, so the plain layers are given it
        draw = plain[0].noise.normal(flat.rho)
        for layer, part in zip(plain, draw.split([int(x.mask.sum()) for x in plain]), strict=True):
            noise = torch.zeros_like(layer.mean)
            noise[layer.mask] = part
            layer.realised = layer.mean + layer.sigma * noise
    (plain[0](x).square().sum() + plain[1](y).square().sum()).backward()
    masks = [layer.mask for layer in plain]
    assert torch.allclose(flat.mean.grad, active([p.mean.grad for p in plain], masks))
    assert torch.allclose(flat.rho.grad, active([p.rho.grad for p in plain], masks))


@pytest.mark.parametrize("parameterisation", ["softplus", "exp", "abs"])
def test_kl_gradient_is_the_finite_difference(parameterisation) -> None:
    flat = FlatPosterior(layers(parameterisation=parameterisation))
    flat.spread()
    flat.mean.grad = torch.zeros_like(flat.mean)
    flat._sigma_gradient = torch.zeros_like(flat.rho)
    flat.add_kl(torch.tensor(0.3, dtype=torch.float64), kl_gradient)
    for vector in flat.parameters():
        for i in range(len(vector)):
            slopes = []
            for step in (1e-6, -2e-6):
                with torch.no_grad():
                    vector[i] += step
                slopes.append(0.3 * float(gaussian_kl(flat.mean.double(), flat.sigma.double(), 0.5)))
            with torch.no_grad():
                vector[i] += 1e-6
            assert float(vector.grad[i]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", TO_SIGMA)
def test_slope_of_sigma(name) -> None:
    rho = torch.tensor([-8.0, -0.7, 0.3, 5.0], dtype=torch.float64, requires_grad=True)
    sigma = TO_SIGMA[name](rho)
    sigma.sum().backward()
    assert torch.allclose(SLOPE[name](rho.detach(), sigma.detach()), rho.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [FlatWeights, FlatPosterior])
def test_values_and_momenta_move_with_their_weights_to_another_subspace(kind, layout) -> None:
    """Against dense bookkeeping; nothing moves in memory."""
    made = layers(layout=layout)
    flat = kind(made)
    optimizer = SGD(flat.parameters(), lr=0.1, momentum=0.9)
    for vector in flat.parameters():
        vector.grad = torch.randn_like(vector)
    optimizer.step()
    flat.settle()
    old = flat.active
    assert torch.equal(old, torch.cat([x.mask.flatten() for x in made]))
    new, starts = old.clone(), [torch.tensor([0.25, 0.5]) * (i + 1) for i in range(len(flat.parameters()))]
    new[old.nonzero().flatten()[::3]] = False
    new[(~old).nonzero().flatten()[: int(old.sum() - new.sum())]] = True

    def dense(vector: torch.Tensor, elsewhere: torch.Tensor) -> torch.Tensor:
        return elsewhere.double().masked_scatter(old, vector.detach())

    of_layer = torch.tensor([0] * made[0].mean.numel() + [1] * made[1].mean.numel())
    momenta = [optimizer.state[vector]["momentum_buffer"] for vector in flat.parameters()]
    expected = [dense(v, start[of_layer])[new] for v, start in zip(flat.parameters(), starts, strict=True)]
    expected += [dense(m, torch.zeros(len(new)))[new] for m in momenta]
    assert all(one.count_nonzero() for one in expected)
    places = [x.data_ptr() for x in (*flat.parameters(), *(x.mean for x in made), *(x.mask for x in made))]
    flat.move(new, [s.double() for s in starts], [optimizer])
    for vector, wanted in zip([*flat.parameters(), *momenta], expected, strict=True):
        assert torch.equal(vector, wanted)
    assert torch.equal(torch.cat([x.mask.flatten() for x in made]), new)
    assert torch.equal(torch.cat([x.mean.flatten() for x in made])[new], flat.mean)
    assert not torch.cat([x.mean.flatten() for x in made])[~new].any()
    assert [x.data_ptr() for x in (*flat.parameters(), *(x.mean for x in made), *(x.mask for x in made))] == places
    flat.follow()  # as after a checkpoint
    for vector, wanted in zip([*flat.parameters(), *momenta], expected, strict=True):
        assert torch.equal(vector, wanted)


@pytest.mark.parametrize("sampling", ["local", "weight"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_dense_gradient_stays_after_the_step(layout, sampling) -> None:
    made = layers(layout=layout, sampling=sampling)
    flat = FlatPosterior(made)
    flat.spread()
    x, y = torch.randn(7, 3, 5, 5, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)
    (made[0](x).square().sum() + made[1](y).square().sum()).backward()
    flat.gather()
    dense = torch.cat([layer.mean_gradient.flatten() for layer in made])
    flat.add_kl(torch.tensor(0.5, dtype=torch.float64), kl_gradient)
    assert torch.equal(flat.gradient, dense)
    assert dense[~flat.active].any()
