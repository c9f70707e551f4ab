"""A converted network called in all kinds of ways, beside others, and asked for predictions."""

import random

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.convert import sparsify
from ssvi.core.layers import masked_layers
from tests.plain import (
    CLOSE,
    POSTERIORS,
    PlainTraining,
    converted,
    held,
    images,
    loss_of,
    masks,
    same,
    train,
    training,
    unconverted,
)

# Nothing is disturbed -------------------------------------------------------------------------------


def test_networks_in_one_process_do_not_disturb_each_other() -> None:
    alone = [converted(seed=seed) for seed in (0, 1)]
    for net in alone:
        train(net, *training(net), 12)
    both = [converted(seed=seed) for seed in (0, 1)]
    kits = [training(net) for net in both]
    for step in range(12):
        for net, kit in zip(both, kits, strict=True):
            train(net, *kit, 1, first=step)
    assert all(same(*pair) for pair in zip(alone, both, strict=True))
    assert not same(*both)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_nobodys_random_numbers_are_touched(kind) -> None:
    def states() -> list[object]:
        return [torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()]

    net, before = unconverted(), states()
    net = sparsify(net, 0.3, seed=3, **POSTERIORS[kind])
    kit = training(net)
    train(net, *kit, 6)
    ssvi.sample(net, images()[0], samples=2)
    assert kit[1].updates == 2
    assert states() == before


def test_without_a_seed_the_global_one_counts() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(converted(seed=None))
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])


# Calls of all kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_layers_called_by_themselves_compute_as_inside(kind, layout, watched, density) -> None:
    net = converted(kind, layout, density=density)
    (weights,) = active_weights(net)
    x, found = images()[0], []
    with held(net):
        for call in (net, lambda x: net[4](net[3](net[2](net[1](net[0](x)))))):
            weights.watch(watched)
            net.zero_grad()
            out = call(x)
            out.square().sum().backward()
            net.eval()
            found.append([out, call(x), *(p.grad for p in net.parameters()), *([weights.gradient] if watched else [])])
            net.train()
    assert len(found[0]) == 2 + 5 + (kind != "plain") + watched
    for inside, alone in zip(*found, strict=True):
        assert torch.allclose(inside, alone, **CLOSE)
        assert inside.any()


def test_in_evaluation_the_weights_are_the_posterior_means() -> None:
    net = converted().eval()
    x = images()[0]
    first, last = net[0], net[4]
    hidden = net[1](functional.conv2d(x, first.mu, first.bias, padding=1)).relu().flatten(1)
    assert torch.allclose(net(x), functional.linear(hidden, last.mu, last.bias), **CLOSE)
    # and those of a network that keeps its weights are what they were
    kept = converted(start="keep", density=1.0).eval()
    assert torch.allclose(kept(x), unconverted()(x), **CLOSE)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_a_network_called_twice_before_backward(kind) -> None:
    """As a siamese one is: gradients, the candidates' too, are the sums of those of the calls."""
    net = converted(kind)
    (weights,) = active_weights(net)
    found = []
    for together in (True, False):
        weights.watch(True)
        net.zero_grad()
        with held(net):
            losses = [functional.cross_entropy(net(x), y) for x, y in map(images, (0, 1))]
        if together:
            sum(losses).backward()
        else:
            for loss in losses:
                loss.backward()
        found.append([weights.gradient, *(p.grad for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, **CLOSE)


def test_a_block_in_evaluation_computes_with_its_means_and_is_trained() -> None:
    net = converted()
    net[0].eval()
    x = images()[0]
    expected = functional.conv2d(x, net[0].mu, net[0].bias, padding=1)
    assert torch.allclose(net[0](x), expected, **CLOSE)
    assert not torch.equal(net(x), net(x))  # the other layer draws noise
    optimizer, subspace = training(net)
    train(net, optimizer, subspace, 4)
    assert not net[0].training
    assert subspace.updates == 1
    net[4].eval()
    assert torch.equal(net(x), net(x))


@settings(max_examples=25)
@given(kind=st.sampled_from(list(POSTERIORS)), seed=st.integers(0, 2**31), density=st.floats(0.05, 0.95))
def test_weights_that_are_not_active_influence_nothing(kind, seed, density) -> None:
    """Outputs and gradients are those of a dense network whose weight is 0 there, whatever the masks."""
    net = converted(kind, density=density, seed=seed)
    with held(net):
        plain = PlainTraining(net, "sgd")
        batch = images(seed % 1000)
        with torch.no_grad():
            for layer in plain.layers:
                if layer.rho is not None:
                    # a value off the mask that would show
                    layer.rho[~layer.mask] = 7.0
        loss = loss_of(net, batch)
        loss.backward()
        assert torch.allclose(loss, plain.backward(batch), **CLOSE)
        for ours, theirs in zip(masked_layers(net).values(), plain.layers, strict=True):
            assert torch.allclose(ours.bias.grad, theirs.bias.grad, **CLOSE)
        theirs = torch.cat([layer.mean.grad[layer.mask] for layer in plain.layers])
        assert torch.allclose(net.subspace_mean.grad, theirs, **CLOSE)
    assert len(net.subspace_mean) == sum(int(m.sum()) for m in masks(net))


# Predictions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POSTERIORS)
def test_a_prediction_follows_its_seed_and_leaves_a_training_alone(kind) -> None:
    x = images()[0]
    nets = [converted(kind) for _ in range(2)]
    for disturbed, net in zip((False, True), nets, strict=True):
        optimizer, subspace = training(net)
        net[1].eval()
        for step in range(12):
            loss = loss_of(net, images(step))
            if disturbed:
                first = ssvi.predict(net, x, samples=3, seed=step)
                assert [m.training for m in net] == [True, False, True, True, True]
                assert torch.equal(first.probabilities, ssvi.predict(net, x, samples=3, seed=step).probabilities)
                other = ssvi.predict(net, x, samples=3, seed=step + 1)
                assert torch.equal(first.probabilities, other.probabilities) == (kind == "plain")
            loss.backward()
            subspace.step()
            optimizer.zero_grad()
    assert same(*nets)


def test_samples_are_means_and_deviations_of_the_posterior() -> None:
    """Of a linear network: outputs are normal with moments in closed form."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = sparsify(nn.Linear(6, 2).double(), 0.5, seed=0, **POSTERIORS["local"])
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = ssvi.sample(net, x, samples=4000)
    sd = (x.square() @ net.sigma.detach().square().T).sqrt()
    mean = functional.linear(x, net.mu, net.bias).detach()
    assert drawn.shape == (4000, 3, 2)
    assert ((drawn.mean(0) - mean).abs() < 5 * sd / 4000**0.5).all()
    assert ((drawn.std(0) / sd - 1).abs() < 5 / 8000**0.5).all()
