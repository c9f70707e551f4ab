"""Layers against the mathematics they implement."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ssvi.core.counting import positions, training_flops
from ssvi.core.layers import LayerFactory, MaskedLayer
from ssvi.core.models import MODELS
from ssvi.core.noise import NormalSource, generator
from ssvi.core.operations import Convolution, Operation
from ssvi.methods.vi import VI
from ssvi.runs.spec import make_spec
from ssvi.training.network import build


def variational(sampling: str = "local", **options):
    spec = make_spec({"method": "vi", "sampling": sampling, **options})
    method = VI(spec, NormalSource(0, "noise"))
    layer = method.factory().conv2d(3, 4, 3, stride=2, padding=1)
    layer.reset(generator(0, "weights"))
    with torch.no_grad():
        layer.rho.fill_(-1.0)
        layer.mask.copy_(torch.rand(layer.mask.shape, generator=generator(1, "masks")) < 0.5)
    layer.apply_mask()
    return layer


def test_local_reparameterisation_has_the_mean_and_variance_of_weight_sampling() -> None:
    """Eq. 4 against the definition: per output, mean and variance over independent weight samples."""
    layer = variational()
    x = torch.randn(1, 3, 6, 6, generator=generator(2, "x")).expand(20000, -1, -1, -1)
    with torch.no_grad():
        y = layer(x)
        mean = functional.conv2d(x[:1], layer.mu, stride=2, padding=1)[0]
        variance = functional.conv2d(x[:1] ** 2, layer.sigma**2, stride=2, padding=1)[0] + layer.epsilon
    error = variance.sqrt() / math.sqrt(len(x))
    assert ((y.mean(0) - mean).abs() < 5 * error).all()
    assert ((y.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / len(x))).all()


def test_weight_samples_have_the_posterior_mean_and_sd_and_are_zero_outside_the_mask() -> None:
    layer, source = variational("weight"), NormalSource(3, "draw")
    draws = []
    for _ in range(4000):
        layer.draw(source)
        draws.append(layer.drawn.detach())
    stack = torch.stack(draws)
    sigma = layer.sigma.detach()
    assert not stack[:, ~layer.mask].any()
    assert ((stack.mean(0) - layer.mu).abs() <= 5 * sigma / math.sqrt(len(stack))).all()
    ratio = stack.std(0)[layer.mask] / sigma[layer.mask]
    assert ((ratio - 1).abs() < 5 / math.sqrt(2 * len(stack))).all()


@pytest.mark.parametrize("kind", ["plain", "weight", "local"])
def test_training_flops_are_what_pytorch_counts_of_a_step(kind: str) -> None:
    """Of a layer whose input has a gradient too, by the operations that forward and backward call."""
    plain = MaskedLayer((4, 3, 3, 3), False, Convolution((3, 3), 2, 1), False)
    plain.reset(generator(0, "weights"))
    layer = plain if kind == "plain" else variational(kind)
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    flops = training_flops({"": layer}, positions(layer, x.detach()[:1]), {"": layer.size})
    assert counter.get_total_flops() == 2 * flops


def test_one_weight_sample_is_shared_by_the_batch() -> None:
    layer = variational("weight")
    x = torch.randn(1, 3, 6, 6).expand(2, -1, -1, -1)
    y = layer(x)
    assert torch.equal(y[0], y[1])
    local = variational("local")(x)
    assert not torch.equal(local[0], local[1])


@pytest.mark.parametrize("shape", [(6,), (5, 6), (3, 4, 6)])
def test_a_slim_matrix_product_takes_inputs_of_any_rank(shape) -> None:
    layer = LayerFactory(MaskedLayer).linear(6, 4)
    layer.reset(generator(0, "weights"))
    with torch.no_grad():
        layer.bias.zero_()
        layer.mask[:, [0, 3]] = False
        layer.mask[2] = False
    layer.apply_mask()
    x = torch.randn(shape)
    before = layer(x)
    layer.slim()
    assert torch.allclose(layer(x), before, atol=1e-6)


def test_gradient_of_the_mean_is_dense_and_that_of_rho_is_masked() -> None:
    layer = variational()
    layer(torch.randn(8, 3, 6, 6)).square().sum().backward()
    assert layer.mean.grad[~layer.mask].abs().min() > 0
    assert not layer.rho.grad[~layer.mask].any()


def test_mean_mode_is_the_plain_operation() -> None:
    layer = variational()
    layer.take_mean()
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(layer(x), functional.conv2d(x, layer.mu, stride=2, padding=1))


@pytest.mark.parametrize(("classes", "parameters"), [(10, 11_173_962), (100, 11_220_132)])
def test_resnet18_is_the_papers(classes: int, parameters: int) -> None:
    spec = make_spec({"method": "dense", "model": "resnet18"})
    model, _ = build(spec, 3, 32, classes, NormalSource(0, "noise"))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_networks_give_logits_for_their_images(name: str) -> None:
    spec = make_spec({"method": "vi", "model": name, "width": 0.25})
    model, _ = build(spec, 1, 8, 7, NormalSource(0, "noise"))
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 7)


def test_start_values_follow_the_spec() -> None:
    spec = make_spec({"method": "vi", "model": "mlp", "sigma_init": 0.01, "sigma_init_sd": 0.0005})
    _, method = build(spec, 1, 8, 10, NormalSource(0, "noise"))
    layer = next(iter(method.layers.values()))
    assert layer.mu.std().item() == pytest.approx(0.01, rel=0.05)
    assert layer.sigma.mean().item() == pytest.approx(0.01, rel=0.01)
    assert layer.sigma.std().item() == pytest.approx(0.0005, rel=0.05)


@pytest.mark.parametrize(("rows", "columns"), [((0, 3), (1,)), ((1,), ()), (range(5), range(4))])
@torch.no_grad()
def test_what_a_layer_applies_is_what_it_computes_with(rows, columns) -> None:
    """A slim one too, whose masked outputs are 0 whatever their bias is."""
    layer = MaskedLayer((5, 4), True, Operation(), False)
    layer.reset(generator(0, "weights"))
    layer.mask[list(rows)] = False
    layer.mask[:, list(columns)] = False
    layer.apply_mask()
    x = torch.randn(3, 4, generator=generator(2, "x"))
    for make_slim in (lambda: None, layer.slim):
        make_slim()
        plain = layer.operation.layer(4, 5, bias=True)
        weight, bias = layer.applied()
        plain.load_state_dict({"weight": weight, "bias": bias})
        torch.testing.assert_close(plain(x), layer(x))
