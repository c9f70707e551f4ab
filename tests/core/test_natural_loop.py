"""IVON in training loops: exchanges of weights, stopping and going on, what it refuses."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.layers import masked_layers
from ssvi.errors import Misuse
from tests.plain import SCHEDULE, converted, images, same


def loop(net: nn.Module, **options) -> tuple[list[torch.optim.Optimizer], ssvi.Subspace]:
    natural = ssvi.IVON(net, lr=0.03, n_train=40, total_steps=SCHEDULE["total_steps"], temperature=0.2)
    others = torch.optim.SGD(ssvi.parameter_groups(net, weight_decay=1e-3, posterior=False), lr=0.05, momentum=0.9)
    return [others, natural], ssvi.Subspace(net, [others, natural], **SCHEDULE, **options)


def advance(net: nn.Module, optimizers: list[torch.optim.Optimizer], subspace: ssvi.Subspace, steps: range) -> None:
    for step in steps:
        x, y = images(step)
        functional.cross_entropy(net(x), y).backward()
        subspace.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


@pytest.mark.parametrize("grow_sigma", ["mean", "constant"])
@pytest.mark.parametrize("kind", ["weight", "local"])
def test_an_update_forgets_what_goes_and_starts_what_comes(kind, grow_sigma) -> None:
    """After each of three updates: kept weights have what the step made, born ones no momentum and the mean's sigma."""
    net = converted(kind)
    (weights,) = active_weights(net)
    optimizers, subspace = loop(net, grow_sigma=grow_sigma, grow_sigma_value=0.02)
    natural, born_in_all = optimizers[1], 0
    seen = {}

    def look(*_: object) -> None:
        state = natural.state[weights.mean]
        # rho, because sigma at another place of the vector may be rounded otherwise
        vectors = {"mean": weights.mean, "rho": weights.rho, "momentum": state["momentum"]}
        seen.update({name: weights.dense(value.detach()).clone() for name, value in vectors.items()})
        seen["active"] = weights.active.clone()

    for step in range(SCHEDULE["total_steps"] - 1):
        due = subspace.update_is_due
        # before the subspace's own hook, which comes with the last optimiser's step
        handle = natural.register_step_post_hook(look)
        natural._optimizer_step_post_hooks.move_to_end(handle.id, last=False)
        advance(net, optimizers, subspace, range(step, step + 1))
        handle.remove()
        before = dict(seen)
        look()
        stays, born = before["active"] & seen["active"], seen["active"] & ~before["active"]
        for name in ("mean", "rho", "momentum"):
            assert torch.equal(seen[name][stays], before[name][stays])
            assert not seen[name][~seen["active"]].any()
        assert due or not born.any()
        born_in_all += int(born.sum())
        assert not seen["mean"][born].any()
        assert not seen["momentum"][born].any()
        sigma = {name: functional.softplus(each["rho"]) for name, each in (("now", seen), ("before", before))}
        if grow_sigma == "constant":
            np.testing.assert_allclose(sigma["now"][born], 0.02, rtol=1e-6)
        else:
            starts = weights.layout.starts
            for first, end in itertools.pairwise(starts):
                own = sigma["now"][first:end][born[first:end]]
                if len(own):
                    kept = sigma["before"][first:end][before["active"][first:end]]
                    assert own.max() - own.min() < 1e-12
                    assert kept.min() <= own[0] <= kept.max()
    assert born_in_all > 10
    state = natural.state[weights.mean]
    sizes = {name: tuple(value.shape) for name, value in state.items()}
    # with the Gaussian itself three numbers a weight
    assert sizes == {"momentum": (len(weights.mean),), "steps": (), "temperature": ()}


@pytest.mark.parametrize("kind", ["weight", "local"])
def test_a_training_that_goes_on_is_the_undisturbed_one_to_the_bit(kind) -> None:
    whole = converted(kind)
    optimizers, subspace = loop(whole)
    advance(whole, optimizers, subspace, range(5))
    optimizers[1].set_temperature(0.7)
    advance(whole, optimizers, subspace, range(5, 7))
    saved = copy.deepcopy([whole.state_dict(), *(o.state_dict() for o in optimizers), subspace.state_dict()])
    copied = copy.deepcopy((whole, optimizers))
    advance(whole, optimizers, subspace, range(7, 12))

    cut = converted(kind)
    others, again = loop(cut)
    cut.load_state_dict(saved[0])
    for optimizer, state in zip(others, saved[1:3], strict=True):
        optimizer.load_state_dict(state)
    again.load_state_dict(saved[3])
    assert others[1].param_groups[0]["temperature"] == 0.7
    advance(cut, others, again, range(7, 12))
    assert same(cut, whole)

    # a copy of network and optimisers is a training of its own
    net, (first, natural) = copied
    again = ssvi.Subspace(net, [first, natural], **SCHEDULE)
    again.load_state_dict(saved[3])
    advance(net, [first, natural], again, range(7, 12))
    assert same(net, whole)


def test_dense_networks_learn_and_sigma_follows_the_data() -> None:
    """At full density on data that some weights do not see: these keep the prior's sigma, the others shrink."""
    torch.manual_seed(0)
    net = ssvi.sparsify(nn.Sequential(nn.Linear(4, 3)), 1.0, sampling="weight", prior_sigma=0.5, sigma_init=0.3)
    x = torch.randn(64, 4) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    steps = 600
    natural = ssvi.IVON(net, lr=0.1, n_train=64, total_steps=steps, curvature_init=0.1)
    others = torch.optim.SGD(ssvi.parameter_groups(net, posterior=False), lr=0.1)
    first = None
    for _ in range(steps):
        loss = functional.cross_entropy(net(x), y)
        first = first or loss.item()
        loss.backward()
        for optimizer in (natural, others):
            optimizer.step()
            optimizer.zero_grad()
    assert loss.item() < 0.7 * first
    sigma = masked_layers(net)["0"].sigma.detach()
    assert (sigma[:, :2].max() < 0.4) & (sigma[:, 2:].min() > 0.45)
    assert ssvi.predict(net, x, samples=8).mutual_information.mean() > 0.01


# What it refuses --------------------------------------------------------------------------------------

REFUSED = {
    "curvature_memory is 1e+16, but must be <= 10.": {
        "curvature_beta": None,
        "curvature_memory": 1e16,
        "total_steps": 5,
    },
    "temperature / n_train is 1.11111e-46, but must be between 1e-30 and 1e+30.": {"temperature": 1e-45},
    "lr is 0, but must be > 0 and finite.": {"lr": 0},
    "n_train is 1.5, but must be a whole number >= 1.": {"n_train": 1.5},
    "temperature is nan, but must be > 0 and finite.": {"temperature": math.nan},
    "momentum is 1, but must be >= 0 and < 1.": {"momentum": 1},
    "curvature_beta is 1, but must be >= 0 and < 1.": {"curvature_beta": 1},
    "curvature_memory is 0, but must be > 0 and finite.": {
        "curvature_beta": None,
        "curvature_memory": 0,
        "total_steps": 5,
    },
    "curvature_init is -1, but must be >= 0 and finite.": {"curvature_init": -1},
    "step_clip is 0, but must be > 0 and finite.": {"step_clip": 0},
    "total_steps is missing: curvature_memory is a share of it; or give curvature_beta.": {"curvature_beta": None},
}


@pytest.mark.parametrize("said", REFUSED)
def test_options_that_are_none_are_named(said) -> None:
    with pytest.raises(Misuse) as error:
        ssvi.IVON(converted("weight"), **{"n_train": 9, "curvature_beta": 0.9, **REFUSED[said]})
    assert str(error.value) == said


def test_what_it_cannot_learn_is_refused() -> None:
    with pytest.raises(Misuse, match="posterior=False: there is no posterior to learn"):
        ssvi.IVON(converted("plain"), n_train=9, curvature_beta=0.9)
    wide = converted("weight", sigma_init=0.9, sigma_init_sd=0.0)
    with pytest.raises(Misuse, match=r"the median of sigma is 0\.9, but must be <= prior_sigma, 0\.3"):
        ssvi.IVON(wide, n_train=9, curvature_beta=0.9)
    ssvi.IVON(wide, n_train=9, curvature_beta=0.9, curvature_init=1.0)
    with pytest.raises(Misuse, match=r"of torch\.bfloat16, but must be float32; use torch\.autocast"):
        ssvi.IVON(converted("weight").bfloat16(), n_train=9, curvature_beta=0.9)


def test_a_pass_without_noise_has_nothing_to_learn_sigma_from() -> None:
    net = converted("weight")
    natural = ssvi.IVON(net, n_train=9, curvature_beta=0.9)
    x, y = images()
    functional.cross_entropy(net.eval()(x), y).backward()
    with pytest.raises(Misuse, match="sigma has no gradient: the network computed without noise"):
        natural.step()
    natural.zero_grad()
    before = copy.deepcopy(net.state_dict())
    natural.step()  # no gradients at all, as of any optimiser
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_kl_is_not_added_twice() -> None:
    net = converted("weight")
    ssvi.kl(net).backward()
    natural = ssvi.IVON(net, n_train=9, curvature_beta=0.9)
    with pytest.raises(Misuse, match=r"IVON adds the KL itself: leave ssvi\.kl out of the loss"):
        ssvi.kl(net)
    with torch.no_grad():
        assert ssvi.kl(net) > 0
    ssvi.kl(copy.deepcopy(net)).backward()  # which is of no training
    del natural
    ssvi.kl(net).backward()


def test_a_closure_is_called_with_gradients_and_its_loss_comes_back() -> None:
    net = converted("weight")
    natural = ssvi.IVON(net, n_train=9, curvature_beta=0.9)
    x, y = images()

    def closure() -> torch.Tensor:
        natural.zero_grad()
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        return loss

    (weights,) = active_weights(net)
    before = weights.mean.detach().clone()
    assert natural.step(closure).requires_grad
    assert not torch.equal(before, weights.mean)


def test_a_state_of_another_prior_is_refused() -> None:
    state = ssvi.IVON(converted("weight"), n_train=9, curvature_beta=0.9).state_dict()
    other = ssvi.IVON(converted("weight", prior_sigma=0.5), n_train=9, curvature_beta=0.9)
    with pytest.raises(Misuse, match=r"the state has prior_sigma 0\.3, but the network has 0\.5"):
        other.load_state_dict(state)


def test_a_posterior_that_two_optimisers_would_move_is_refused() -> None:
    net = converted("weight")
    natural = ssvi.IVON(net, n_train=9, curvature_beta=0.9)
    sgd = torch.optim.SGD(ssvi.parameter_groups(net), lr=0.1)
    with pytest.raises(
        Misuse, match=r"two optimisers train subspace_mean and subspace_rho; leave it out of one, as ssvi"
    ):
        ssvi.Subspace(net, [sgd, natural], **SCHEDULE)


def test_the_groups_of_the_other_optimiser_leave_the_posterior_out() -> None:
    net = converted("weight")
    (weights,) = active_weights(net)
    (group,) = ssvi.parameter_groups(net, weight_decay=0.1, posterior=False)
    ours = {id(p) for p in weights.parameters()}
    assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()} - ours
    with pytest.raises(Misuse, match="with posterior=False rho is left to another optimiser"):
        ssvi.parameter_groups(net, sigma_lr=0.1, posterior=False)
