"""Training loops of anybody's: a converted network is trained as a plain one, and only in its subspace."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.convert import sparsify
from ssvi.core.layers import masked_layers
from ssvi.errors import Diverged, Misuse
from tests.plain import (
    CLOSE,
    MAKERS,
    POSTERIORS,
    SCHEDULE,
    PlainTraining,
    converted,
    dense_gradient,
    halves,
    held,
    images,
    loss_of,
    masks,
    same,
    train,
    training,
    unconverted,
)

# Against a plain loop ------------------------------------------------------------------------------


# Of noise that is each image's own, two halves are not the whole.
LOOPS = [
    (kind, *how)
    for how in (("uniform", None, False), ("global", 0.3, False), ("uniform", 0.3, True))
    for kind in POSTERIORS
    if (kind, how[-1]) != ("local", True)
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("kind", "allocation", "clip", "accumulate"), LOOPS)
def test_losses_masks_and_weights_are_those_of_a_plain_dense_loop(kind, maker, allocation, clip, accumulate) -> None:
    """Three updates; clipped gradients and two half batches a step, where they are asked for, in both loops."""
    net = converted(kind, allocation=allocation)
    with held(net):
        plain = PlainTraining(net, maker, together=allocation == "global")
        # not snr_abs, which may tie two weights
        optimizer, subspace = training(net, maker, criterion=None if kind == "plain" else "snr")
        before = masks(net)
        for step in range(SCHEDULE["total_steps"]):
            parts = list(halves(images(step))) if accumulate else [images(step)]
            loss = sum(_backward(net, part, len(parts)) for part in parts)
            assert torch.allclose(loss, plain.backward(images(step)), **CLOSE)
            if subspace.update_is_due:
                for ours, theirs, mask in zip(dense_gradient(net), plain.dense, masks(net), strict=True):
                    assert torch.allclose(ours, theirs, **CLOSE)
                    assert theirs[~mask].any()
            if clip:
                norm = clip_grad_norm_(net.parameters(), clip)
                assert norm > clip
                assert torch.allclose(norm, clip_grad_norm_(plain.net.parameters(), clip), **CLOSE)
            assert subspace.step() == ((step + 1) % 3 == 0 and step < 11)
            optimizer.zero_grad()
            plain.step()
            for ours, theirs in zip(masked_layers(net).values(), plain.layers, strict=True):
                assert torch.equal(ours.mask, theirs.mask)
                assert torch.allclose(ours.mean, theirs.mean, **CLOSE)
        if kind != "plain":
            for ours, theirs in zip(masked_layers(net).values(), plain.layers, strict=True):
                assert torch.allclose(ours.sigma, theirs.sigma, **CLOSE)
    assert subspace.updates == 3
    assert not any(torch.equal(a, b) for a, b in zip(before, masks(net), strict=True))
    assert subspace.n_active == {name: int(x.mask.sum()) for name, x in masked_layers(net).items()}
    if allocation == "uniform":
        assert [int(m.sum()) for m in before] == list(subspace.n_active.values())
    assert sum(int(m.sum()) for m in before) == sum(subspace.n_active.values())


def _backward(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], parts: int) -> torch.Tensor:
    loss = loss_of(net, batch) / parts
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("maker", MAKERS)
def test_momenta_stay_with_weights_that_stay_and_are_0_for_those_born(maker) -> None:
    net = converted()
    optimizer, subspace = training(net, maker, update_step="skip")
    train(net, optimizer, subspace, 2)
    (weights,) = active_weights(net)

    def momenta() -> list[torch.Tensor]:
        vectors = [v for p in weights.parameters() for v in optimizer.state[p].values() if v.shape == p.shape]
        return [weights.dense(v) for v in vectors]

    old, before = weights.active, momenta()
    train(net, optimizer, subspace, 1, first=2)
    new = weights.active
    assert subspace.updates == 1
    assert (new & ~old).any()
    assert len(before) == 2 * (1 if maker == "sgd" else 2)
    for was, now in zip(before, momenta(), strict=True):
        assert was[old].all()
        assert torch.equal(now[old & new], was[old & new])
        assert not now[new & ~old].any()


@pytest.mark.parametrize("kind", POSTERIORS)
def test_an_optimiser_that_steps_by_itself_updates_just_the_same(kind) -> None:
    """As a framework has it: with gradients at hand, or computed by a closure."""
    nets = [converted(kind) for _ in range(3)]
    for way, net in zip(("subspace", "optimizer", "closure"), nets, strict=True):
        optimizer, subspace = training(net)

        def closure(net=net, optimizer=optimizer, step=0) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(net, images(step))
            loss.backward()
            return loss

        for step in range(12):
            if way == "closure":
                optimizer.step(partial(closure, step=step))
            else:
                closure(step=step)
                (subspace if way == "subspace" else optimizer).step()
        assert (subspace.steps, subspace.updates) == (12, 3)
    assert same(nets[0], nets[1])
    assert same(nets[0], nets[2])


def test_gradients_thrown_away_do_not_rank_candidates() -> None:
    """As where a loss is not finite, or a scaler of half precision skips a step: before the loss, or after it."""
    nets = [converted() for _ in range(3)]
    for way, net in zip(("never", "before", "after"), nets, strict=True):
        optimizer, subspace = training(net)
        with held(net):
            train(net, optimizer, subspace, 2)
            assert subspace.update_is_due
            if way != "never":
                (loss_of(net, images(90)) * float("nan")).backward()
            if way == "before":
                optimizer.zero_grad()
            loss = loss_of(net, images(2))
            optimizer.zero_grad()
            loss.backward()
            subspace.step()
    assert same(nets[0], nets[1])
    assert same(nets[0], nets[2])


def test_skip_leaves_the_optimisers_step_out_at_an_update() -> None:
    net = converted()
    optimizer, subspace = training(net, update_step="skip")
    train(net, optimizer, subspace, 2)
    loss_of(net, images(2)).backward()
    with pytest.raises(Misuse, match=r"update_step is 'skip', which only subspace.step\(\) can do"):
        optimizer.step()
    before = copy.deepcopy(net)
    assert subspace.step()
    assert (subspace.steps, subspace.updates) == (3, 1)
    (was,), (now,) = active_weights(before), active_weights(net)
    stayed = was.active & now.active
    assert not torch.equal(was.active, now.active)
    for vector in ("mean", "rho"):
        old, new = was.dense(getattr(was, vector)), now.dense(getattr(now, vector))
        assert torch.equal(old[stayed], new[stayed])
    assert all(torch.equal(a, b) for a, b in zip(before[1].parameters(), net[1].parameters(), strict=True))
    optimizer.zero_grad()
    train(net, optimizer, subspace, 2, first=3)
    assert not torch.equal(before[1].weight, net[1].weight)


# Misuse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"total_steps": 0}, "total_steps is 0, but must be a whole number >= 1"),
        ({"total_steps": 2.5}, "total_steps is 2.5, but must be a whole number >= 1"),
        ({"update_every": 0}, "update_every is 0, but must be a whole number >= 1"),
        ({"drop_fraction": 1.5}, "drop_fraction is 1.5, but must be >= 0 and <= 1"),
        ({"update_until": float("nan")}, "update_until is nan, but must be >= 0 and <= 1"),
        ({"update_step": "leave"}, "update_step is 'leave', but must be one of take, skip"),
        ({"grow_sigma": "median"}, "grow_sigma is 'median', but must be one of mean, mean_rho, constant"),
        ({"criterion": "srn"}, "criterion is 'srn', but must be one of abs_mu, snr, .*, or a function"),
        ({"addition": "mc2"}, "addition is 'mc2', but must be one of mc1, or a function"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(options, line) -> None:
    with pytest.raises(Misuse, match=line):
        training(converted(), **options)


def test_what_is_not_trained_or_not_converted_is_one_line() -> None:
    net, plain = converted(), unconverted()
    with pytest.raises(Misuse, match=r"Sequential has no subspace: ssvi.sparsify\(net, density=...\) comes first"):
        ssvi.parameter_groups(plain)
    for call in (ssvi.kl, ssvi.sample, partial(ssvi.Subspace, optimizer=None, total_steps=1)):
        with pytest.raises(Misuse, match="Sequential has no subspace"):
            call(plain)
    with pytest.raises(Misuse, match="converted with posterior=False: it has no KL"):
        ssvi.kl(converted("plain"))
    with pytest.raises(Misuse, match=r"criterion is 'snr', but without a posterior weights are ranked by \|w\|"):
        training(converted("plain"), criterion="snr")
    with pytest.raises(Misuse, match="samples is 0, but must be a whole number >= 1"):
        ssvi.sample(net, images()[0], samples=0)
    early = torch.optim.SGD(plain.parameters(), lr=0.1)
    net = sparsify(plain, 0.3)
    with pytest.raises(Misuse, match="does not train subspace_mean and subspace_rho; make it after sparsify"):
        ssvi.Subspace(net, early, total_steps=5)


def test_one_subspace_follows_an_optimiser() -> None:
    net = converted()
    optimizer, _ = training(net)
    with pytest.raises(Misuse, match="the optimiser's steps update a subspace already"):
        ssvi.Subspace(net, optimizer, total_steps=5)
    _, subspace = training(net)  # another optimiser's may follow
    assert subspace.steps == 0


def test_a_step_without_gradients_is_one_line() -> None:
    net = converted()
    optimizer, subspace = training(net)
    for step in (subspace.step, optimizer.step):
        with pytest.raises(Misuse, match="a step without gradients of the converted weights"):
            step()
    assert subspace.steps == 0
    train(net, optimizer, subspace, 2)
    # gradients that did not come through the network's passes know no candidates
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(Misuse, match="a step without gradients of the converted weights"):
        subspace.step()


@pytest.mark.parametrize(
    ("spoil", "options", "cause"),
    [
        (lambda net: net.subspace_mean.grad.fill_(torch.nan), {}, "a gradient or a parameter is not finite"),
        (lambda net: active_weights(net)[0].probe.grad[3:4].fill_(torch.inf), {}, "a gradient or a parameter"),
        (lambda net: net[4].bias.grad.fill_(torch.inf), {}, "a gradient or a parameter is not finite"),
    ],
)
def test_what_cannot_be_ranked_has_diverged(spoil, options, cause) -> None:
    net = converted()
    optimizer, subspace = training(net, **options)
    train(net, optimizer, subspace, 2)
    before = net.subspace_index.clone()
    loss_of(net, images(2)).backward()
    spoil(net)
    with pytest.raises(Diverged, match=rf"{cause}.* at the subspace update of step 3"):
        optimizer.step()
    assert torch.equal(before, net.subspace_index)


@pytest.mark.parametrize("kind", ["local", "weight"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_noise_is_not_drawn_again_in_a_backward_pass(kind, reentrant) -> None:
    """Activation checkpointing restores PyTorch's generator, not the network's."""
    net = converted(kind)
    x = images()[0].requires_grad_()
    checkpoint(net[0], x, use_reentrant=reentrant).sum()
    with pytest.raises(Misuse, match="a layer was called inside a backward pass"):
        checkpoint(net[0], x, use_reentrant=reentrant).sum().backward()
    net.eval()
    checkpoint(net[0], x, use_reentrant=reentrant).sum().backward()
    assert net.subspace_mean.grad.any()


def test_rules_of_ones_own() -> None:
    """A criterion and an addition given as functions take the places of those with names."""
    seen = []

    def addition(gradient, mean, sigma) -> torch.Tensor:
        seen.append((gradient.shape, mean.count_nonzero().item(), sigma.count_nonzero().item()))
        return gradient.abs()

    nets = [converted() for _ in range(2)]
    own = {"criterion": lambda mu, sigma: mu.abs() / sigma, "addition": addition}
    for net, options in zip(nets, ({}, own), strict=True):
        train(net, *training(net, **options), 6)
    assert same(*nets)
    active = len(nets[0].subspace_mean)
    assert [shape for shape, *_ in seen] == [(588,), (588,)]
    assert all(sigma == active and active // 2 < mean <= active for _, mean, sigma in seen)


def test_two_converted_networks_in_one_module() -> None:
    """Counted by the names in what was given, trained by one optimiser, updated together."""
    pair = nn.ModuleDict({"a": converted(), "b": converted("plain", density=0.5)})
    groups = ssvi.parameter_groups(pair)
    optimizer = torch.optim.SGD(groups, lr=0.05)
    assert sum(len(g["params"]) for g in groups) == len(list(pair.parameters()))
    subspace = ssvi.Subspace(pair, optimizer, **SCHEDULE)
    assert list(subspace.n_active) == ["a.0", "a.4", "b.0", "b.4"]
    before = [net.subspace_index.clone() for net in pair.values()]
    for step in range(3):
        x, y = images(step)
        (functional.cross_entropy(pair["a"](x) + pair["b"](x), y) + ssvi.kl(pair) / 500).backward()
        subspace.step()
        optimizer.zero_grad()
    assert subspace.n_active == {name: int(x.mask.sum()) for name, x in masked_layers(pair).items()}
    assert not any(torch.equal(index, net.subspace_index) for index, net in zip(before, pair.values(), strict=True))
