"""A converted network in the midst of a training: copied, stored, going on, of another type, compiled."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.layers import masked_layers
from ssvi.errors import Misuse
from tests.plain import (
    CLOSE,
    MAKERS,
    POSTERIORS,
    converted,
    held,
    images,
    loss_of,
    masks,
    same,
    train,
    training,
)

# Copies, files, going on ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["deepcopy", "save"])
@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("steps", [1, 2])  # the second is the one before an update
def test_a_copy_is_a_network_of_its_own(kind, way, steps) -> None:
    net = converted(kind)
    optimizer, subspace = training(net)
    train(net, optimizer, subspace, steps)
    twin = copy.deepcopy(net) if way == "deepcopy" else _saved(net)
    watching = [active_weights(each)[0].probe is not None for each in (net, twin)]
    assert watching == [steps == 2, False]  # the twin has no subspace's updates to come
    x = images(50)[0]
    with torch.no_grad():
        assert torch.equal(net(x), twin(x))  # the noise, too, is where it was
        assert torch.equal(net.eval()(x), twin.eval()(x))
    net.train()
    twin.train()
    before = copy.deepcopy(twin.state_dict())
    train(net, optimizer, subspace, 4, first=steps)
    assert all(torch.equal(before[n], v) for n, v in twin.state_dict().items())
    before = copy.deepcopy(net.state_dict())
    train(twin, *training(twin), 4)
    assert all(torch.equal(before[n], v) for n, v in net.state_dict().items())
    assert not same(net, twin)


def _saved(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("other", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["plain", "local"])
def test_a_state_loads_into_a_network_freshly_converted(kind, other, layout, density, inside) -> None:
    x = images()[0]

    def make(memory_format: torch.memory_format, seed: int) -> nn.Module:
        net = converted(kind, memory_format, density=density, seed=seed)
        return nn.Sequential(nn.Identity(), net, nn.Tanh()) if inside else net

    net, fresh = make(layout, 0), make(other, 1)
    train(net, *training(net), 4)
    net.eval()
    fresh.eval()
    with torch.no_grad():
        before, wanted = fresh(x), net(x)  # which remembers where the weights lay
        fresh.load_state_dict(net.state_dict(), strict=True)
        assert not torch.allclose(before, wanted)
        assert torch.allclose(fresh(x), wanted, **CLOSE)
    if kind == "local":
        drawn = [ssvi.sample(each, x, samples=2) for each in (net, fresh)]
        assert drawn[0].shape == (2, 8, 5)
        assert layout != other or torch.allclose(*drawn, **CLOSE)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("at", [5, 6, 7])  # an update comes after the sixth step
def test_a_training_that_was_stopped_goes_on_to_the_bit(kind, maker, density, at) -> None:
    net = converted(kind, density=density)
    optimizer, subspace = training(net, maker)
    losses = train(net, optimizer, subspace, at)
    file = io.BytesIO()
    torch.save([each.state_dict() for each in (net, optimizer, subspace)], file)
    losses += train(net, optimizer, subspace, 12 - at, first=at)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    again = converted(kind, density=density, seed=5)
    others = training(again, maker)
    for each, state in zip((again, *others), states, strict=True):
        each.load_state_dict(state)
    assert losses[at:] == train(again, *others, 12 - at, first=at)
    assert same(net, again)
    assert (others[1].steps, others[1].updates) == (12, 3)


def test_a_state_of_another_network_is_refused() -> None:
    state = training(converted())[1].state_dict()
    for other in (converted(density=0.5), converted("plain")):
        with pytest.raises(Misuse, match=r"the state is of a training with 177 of 588 weights .*, but this one has"):
            training(other)[1].load_state_dict(state)
    dense = training(converted(density=1.0))[1].state_dict()
    with pytest.raises(Misuse, match="but this one has 588 of 588 weights in the order of memory"):
        training(converted(density=1.0, memory_format=torch.channels_last))[1].load_state_dict(dense)


def test_an_update_counts_what_was_loaded_meanwhile() -> None:
    """Where layers are ranked together a state loaded may have its active weights in other layers."""
    source = converted(allocation="global", seed=7)
    train(source, *training(source), 6)
    with held(source):
        wanted = copy.deepcopy(source)
        late = converted(allocation="global")
        after = training(late)
        assert after[1].n_active != {n: int(x.mask.sum()) for n, x in masked_layers(source).items()}
        late.load_state_dict(source.state_dict())
        with held(late), held(wanted):
            assert train(wanted, *training(wanted), 6) == train(late, *after, 6)
    assert same(wanted, late)


# Precision, devices of computing, compilers ----------------------------------------------------------


@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_may_change_its_type_in_the_midst(kind, dtype) -> None:
    net = converted(kind).float()
    optimizer, subspace = training(net, update_every=1)
    net.to(dtype)
    assert net.subspace_mean.dtype == dtype
    for step in range(4):
        x, y = images(step)
        functional.cross_entropy(net(x.to(dtype)).double(), y).backward()
        subspace.step()
        optimizer.zero_grad()
    assert subspace.updates == 4
    assert all(p.dtype == dtype and p.isfinite().all() for p in net.parameters())
    assert net.eval()(images()[0].to(dtype)).dtype == dtype


@pytest.mark.parametrize("kind", POSTERIORS)
def test_training_in_bfloat16_autocast_is_close_to_float32(kind) -> None:
    """Until masks differ, which in the end they may."""
    nets, losses, gradients = [converted(kind).float() for _ in range(2)], [], []
    for autocast, net in zip((False, True), nets, strict=True):
        optimizer, subspace = training(net)
        with held(net):
            for step in range(12):
                x, y = images(step)
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    out = net(x.float())
                assert (out.dtype == torch.bfloat16) == autocast
                loss = functional.cross_entropy(out.float(), y)
                loss.backward()
                if step < 3:
                    losses.append(loss.item())
                    gradients.append(torch.cat([p.grad for p in active_weights(net)[0].parameters()]))
                subspace.step()
                optimizer.zero_grad()
        assert subspace.updates == 3
        assert loss.isfinite()
    assert losses[:3] != losses[3:]
    assert losses[:3] == pytest.approx(losses[3:], rel=0.01)
    for exact, rounded in zip(gradients[:3], gradients[3:], strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() < 0.1 * exact.norm()


def _compiled(kind: str, layout: torch.memory_format, backend: str) -> None:
    nets = [converted(kind, layout) for _ in range(2)]
    torch._dynamo.reset()
    losses = []
    for net, call in zip(nets, (nets[0], torch.compile(nets[1], backend=backend, fullgraph=True)), strict=True):
        optimizer, subspace = training(net, total_steps=10)
        with held(net):
            for step in range(8):
                loss = loss_of(net, images(step), call)
                loss.backward()
                subspace.step()
                optimizer.zero_grad()
                losses.append(loss.item())
        assert subspace.updates == 2
    assert losses[:8] == pytest.approx(losses[8:], rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(*map(masks, nets), strict=True))
    # one with the candidates' gradient, one without
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch._dynamo.reset()


@pytest.mark.filterwarnings("error:ssvi")
@pytest.mark.parametrize(
    ("kind", "layout"),
    [("local", torch.channels_last), ("weight", torch.contiguous_format), ("plain", torch.contiguous_format)],
)
def test_a_compiled_network_trains_as_a_plain_one(kind, layout) -> None:
    torch._dynamo.utils.counters.clear()
    _compiled(kind, layout, "aot_eager")


@pytest.mark.fault("a loop's network compiled to machine code", quick=0)
@pytest.mark.parametrize("kind", ["local", "weight"])
def test_a_network_compiled_to_machine_code_trains_as_a_plain_one(kind) -> None:
    torch._dynamo.utils.counters.clear()
    _compiled(kind, torch.contiguous_format, "inductor")
