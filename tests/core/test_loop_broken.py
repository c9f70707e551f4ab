"""Passes that are broken off, parts without gradients, copies: what is left behind is right, or said."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.exchange import move
from ssvi.errors import Misuse
from tests.plain import converted, held, images, loss_of, train, training


class Halting(nn.Module):
    """A network in which something happens on the way."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.happens = net, lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        self.happens()
        return y


def interrupt() -> None:
    raise KeyboardInterrupt


def small(**options) -> Halting:
    options = {"density": 0.5, "sigma_init": 0.1, "mu_init_sd": 0.5, "seed": 0, **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return ssvi.sparsify(Halting(layers).to(memory_format=torch.channels_last), **options)


def inputs() -> torch.Tensor:
    return torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_an_interrupted_pass_leaves_nothing_behind(training) -> None:
    """PyTorch tells no hook of Ctrl-C."""
    net, other = small(), small(seed=1)
    net.train(training).happens = interrupt
    with pytest.raises(KeyboardInterrupt):
        net(inputs())
    net.happens = lambda: None
    net.load_state_dict(other.state_dict())
    with held(net), held(other):
        assert torch.equal(net(inputs()), other.train(training)(inputs()))
        net(inputs()).sum().backward()


def test_a_hook_that_fails_before_the_pass_leaves_one_sample_a_pass() -> None:
    net = small(sampling="weight")
    handle = net.register_forward_pre_hook(lambda *_: interrupt(), prepend=True)
    with pytest.raises(KeyboardInterrupt):
        net(inputs())
    handle.remove()
    assert active_weights(net)[0]._present is None
    net.net[3].register_forward_hook(lambda layer, x, y: y - nn.functional.linear(x[0], layer.weight, layer.bias))
    assert torch.equal(net(inputs()), torch.zeros(5, 3))


@pytest.mark.parametrize("options", [{}, {"sampling": "weight"}, {"posterior": False}], ids=str)
def test_a_part_without_gradients_takes_none_from_the_rest(options) -> None:
    """Against the same function of a constant."""
    net = small(**options)
    with held(net):
        with torch.no_grad():
            constant = net(inputs())
        (net(inputs()) + constant).square().sum().backward()
        expected, net.subspace_mean.grad = net.subspace_mean.grad, None

        def forward(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                before = net.net(x)
            return net.net(x) + before

        net.forward = forward
        net(inputs()).square().sum().backward()
    assert torch.allclose(net.subspace_mean.grad, expected)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: AveragedModel(net).module])
@pytest.mark.parametrize("assign", [False, True])
def test_a_copy_follows_what_is_loaded_into_it(make, assign) -> None:
    """However often each index was changed before."""
    net = small()
    weights = active_weights(net)[0]
    net(inputs())
    for step in range(6):
        other = make(net)
        other(inputs())
        with torch.no_grad():
            moved = weights.active.roll(1 + step)
        move(weights, moved, [torch.full((2,), 0.1), torch.full((2,), -3.0)])
        state = {name: value.clone() for name, value in net.state_dict().items()}
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other.eval()(inputs()), net.eval()(inputs())), step
        net.train()


def test_an_index_that_is_none_any_more_is_refused() -> None:
    """As by an average of buffers, whose whole numbers are cut off."""
    net = small()
    net(inputs())
    net.subspace_index[1:2].copy_(net.subspace_index[:1])
    with pytest.raises(Misuse, match="subspace_index holds no places of weights any more"):
        net(inputs())


def test_a_copied_training_says_that_its_optimiser_does_not_know_it() -> None:
    net = converted()
    optimizer, subspace = training(net)
    net, optimizer, subspace = copy.deepcopy((net, optimizer, subspace))
    loss_of(net, images(0)).backward()
    with pytest.raises(Misuse, match="it is a copy; make a new Subspace"):
        subspace.step()


def test_a_pass_in_inference_mode_spoils_no_training() -> None:
    net = small()
    with torch.inference_mode():
        net(inputs())
        net.eval()(inputs())
    net.train()(inputs()).sum().backward()
    assert net.subspace_mean.grad.abs().sum() > 0


def test_gradients_that_were_set_to_zero_rank_nothing() -> None:
    found = []
    for discarded in (True, False):
        net = converted("plain")
        optimizer, subspace = training(net)
        train(net, optimizer, subspace, 2)
        assert subspace.update_is_due
        if discarded:
            (loss_of(net, images(0)) * 1e6).backward()
            optimizer.zero_grad(set_to_none=False)
        loss_of(net, images(2)).backward()
        found.append(active_weights(net)[0].gradient)
    assert torch.allclose(*found)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"criterion": lambda mu, sigma: mu[:5]}, r"criterion: the shape of its scores is \[5\] on cpu, but must be"),
        ({"criterion": lambda mu, sigma: None}, "criterion: gave NoneType, but must give a tensor of scores"),
        ({"criterion": lambda mu, sigma: mu * torch.nan}, "criterion: 177 of 177 scores are not a number"),
        ({"addition": lambda g, mu, sigma: g[:7]}, r"addition: the shape of its scores is \[7\] on cpu"),
    ],
)
def test_a_function_that_gives_no_scores_is_at_fault(option, message) -> None:
    net = converted()
    optimizer, subspace = training(net, **option)
    with pytest.raises(ValueError, match=message):
        train(net, optimizer, subspace, 3)


def test_a_criterion_cannot_change_the_network() -> None:
    net, plain = converted(), converted()
    for one, criterion in ((net, lambda mu, sigma: mu.abs_()), (plain, lambda mu, sigma: mu.abs())):
        with held(one):
            train(one, *training(one, criterion=criterion), 3)
    assert torch.equal(net.subspace_mean, plain.subspace_mean)


@pytest.mark.parametrize("option", [{"criterion": 5}, {"addition": None}, {"grow_sigma_value": 0}, {"exp_lambda": "a"}])
def test_what_is_no_option_is_said_at_once(option) -> None:
    with pytest.raises(Misuse, match=rf"{next(iter(option))} is .*, but must be"):
        training(converted(), **option)


def test_a_subspace_that_will_never_be_updated_is_said() -> None:
    net = converted()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="the subspace will never be updated: total_steps 99, update_every 100"):
        ssvi.Subspace(net, optimizer, total_steps=99)


def test_samples_of_any_outputs_by_any_arguments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, *, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": self.fc(x), "b": self.fc(x).sum(1)}

    net = ssvi.sparsify(Two(), 1.0, sigma_init=0.3, seed=0)
    found = ssvi.sample(net, x=torch.ones(4, 3), samples=3)
    assert {name: value.shape for name, value in found.items()} == {"a": (3, 4, 2), "b": (3, 4)}
    assert torch.allclose(found["a"].sum(2), found["b"])
    for bad, message in ((2.5, "samples is 2.5"), (0, "samples is 0")):
        with pytest.raises(Misuse, match=message):
            ssvi.sample(net, x=torch.ones(4, 3), samples=bad)
    with pytest.raises(Misuse, match="the network returns dict, but predict takes logits"):
        ssvi.predict(net, x=torch.ones(4, 3))


def test_a_compiled_network_is_refused() -> None:
    with pytest.raises(Misuse, match=r"the network is compiled already; sparsify comes before torch.compile"):
        ssvi.sparsify(torch.compile(nn.Linear(3, 3)), 0.5)
