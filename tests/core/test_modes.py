"""What a whole network computes with: noise, means, or one draw of it."""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ssvi.core.convert import sparsify
from ssvi.core.gates import NoisyGate
from ssvi.core.layers import Noisy, VariationalLayer
from ssvi.core.modes import as_in_training, at_mean, evaluating, frozen_batch_statistics, samples, use_mean, use_sample
from ssvi.core.noise import NormalSource, generator
from ssvi.core.operations import Operation

X = torch.randn(6, 4, generator=generator(0, "x"))


def own_weights() -> nn.Module:
    settings = {"parameterisation": "softplus", "sampling": "local", "epsilon": 1e-8, "start": (0.5, 0.3, 0.1)}
    layer = VariationalLayer((3, 4), True, Operation(), False, noise=NormalSource(0, "noise"), **settings)
    layer.reset(generator(1, "weights"))
    return nn.Sequential(layer)


def taken_over() -> nn.Module:
    return sparsify(nn.Sequential(nn.Linear(4, 3)), 0.5, sigma_init=0.3, mu_init_sd=0.5, seed=0)


def gated() -> nn.Module:
    gate = NoisyGate(4, True, NormalSource(0, "noise"))
    nn.init.zeros_(gate.log_sigma)
    return nn.Sequential(gate)


NETWORKS = pytest.mark.parametrize("make", [own_weights, taken_over, gated])


@NETWORKS
def test_noise_is_of_training_and_means_of_evaluation_until_told_otherwise(make: Callable[[], nn.Module]) -> None:
    net = make()
    assert not torch.equal(net(X), net(X))
    mean = net.eval()(X)
    assert torch.equal(net(X), mean)
    use_mean(net.train())
    assert torch.equal(net(X), mean)
    for training in (True, False):
        use_sample(net.train(training), NormalSource(1, "draw"))
        drawn = net(X)
        assert torch.equal(net(X), drawn)
        assert not torch.equal(drawn, mean)
        with at_mean(net):
            assert torch.equal(net(X), mean)
        assert torch.equal(net(X), drawn)
    as_in_training(net)
    assert torch.equal(net(X), mean)
    assert not torch.equal(net.train()(X), net(X))
    assert all(part.drawn is None for part in net.modules() if isinstance(part, Noisy))


@NETWORKS
def test_samples_are_draws_one_after_the_other(make: Callable[[], nn.Module]) -> None:
    one = make().eval()
    other = copy.deepcopy(one)
    found = [one(X) for _ in samples(one, 3, NormalSource(1, "draw"))]
    source = NormalSource(1, "draw")
    for each in found:
        use_sample(other, source)
        assert torch.equal(other(X), each)
    assert not torch.equal(found[0], found[1])


def test_a_network_without_noise_has_one_state() -> None:
    net = sparsify(nn.Sequential(nn.Linear(4, 3)), 0.5, posterior=False, seed=0)
    assert [*samples(net, 5, NormalSource(0, "draw"))] == [0]


def test_what_is_meanwhile_ends() -> None:
    """However it ends, and for each module by itself."""
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3).eval())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for meanwhile in (evaluating, frozen_batch_statistics):
        with contextlib.suppress(ZeroDivisionError), meanwhile(net):
            assert net(X).requires_grad == (meanwhile is frozen_batch_statistics)
            _ = 1 / 0
        assert [module.training for module in net] == [True, True, False]
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net(X)
    assert not torch.equal(net[0].running_mean, before["0.running_mean"])
