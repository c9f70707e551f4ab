"""Data parallelism: several processes train what one would train on all their images together."""

import io
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from ssvi.core.active import active_weights
from ssvi.core.layers import masked_layers
from tests.plain import CLOSE, SCHEDULE, converted, held, images, masks, same, train, training

RANKS = 2
# Of a posterior one weight sample is shared, and held.
TRAININGS = {
    "plain": ("plain", {}),
    "dense": ("plain", {"density": 1.0}),
    "posterior": ("weight", {}),
    "global": ("weight", {"allocation": "global"}),
}

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="this PyTorch has no gloo"
)


def wrapped(net: nn.Module, sync: bool = False) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # of which newer versions of PyTorch want half to be said by another word
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(net, broadcast_buffers=sync)


def trained(net: nn.Module, part: slice, alone: bool = False) -> dict[str, object]:
    """Masks after each of three updates, and what the network is in the end.

    Args:
        net: converted, whatever wraps it.
        part: the images that this process sees.
        alone: whether candidates are ranked by this process's gradient, whatever the others have.
    """
    # not snr_abs, which may tie two weights
    optimizer, subspace = training(net, criterion="snr" if active_weights(net)[0].has_posterior else None)
    if alone:
        subspace._summed = lambda gradient: gradient
    found: list[list[Tensor]] = []
    with held(net):
        for step in range(SCHEDULE["total_steps"]):
            train(net, optimizer, subspace, 1, step, part)
            if subspace.updates > len(found):
                found.append(masks(net))
    state = {name.removeprefix("module."): value for name, value in net.state_dict().items()}
    return {"masks": found, "state": state}


def remembered(rank: int) -> list[Tensor]:
    """What a rank computes with the first one's subspace that knew before where its own weights lay in memory."""
    net, x = converted("plain", torch.channels_last, seed=rank), images()[0]
    with torch.no_grad():
        before = net(x)
        training(net)
        for layer in masked_layers(net).values():
            distributed.broadcast(layer.bias, 0)
        return [before, net(x)]


def stopped() -> tuple[Tensor, bool]:
    """What a rank draws that converted with the others' seed, and whether it goes on to the bit from its own state."""

    def kit() -> tuple:
        net = wrapped(converted("local"))
        return net, *training(net)

    first, file = kit(), io.BytesIO()
    drawn = first[0].module[0].noise.normal(torch.zeros(100))
    train(*first, 5)
    torch.save([each.state_dict() for each in first], file)
    train(*first, 5, first=5)
    file.seek(0)
    again = kit()
    for each, state in zip(again, torch.load(file, weights_only=True), strict=True):
        each.load_state_dict(state)
    train(*again, 5, first=5)
    return drawn, same(first[0], again[0])


def work(rank: int, folder: str) -> None:
    """All that the ranks are asked for, in one start of them."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=RANKS)
    part = slice(rank, None, RANKS)
    found: dict[str, object] = {
        f"{name} {sync}": trained(wrapped(converted(kind, seed=rank, **options), sync), part)
        for name, (kind, options) in TRAININGS.items()
        for sync in (False, True)
    }
    found["alone"] = trained(wrapped(converted("plain")), part, alone=True)
    found["remembered"], found["stopped"] = remembered(rank), stopped()
    torch.save(found, Path(folder, f"{rank}.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (str(folder),), RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("name", TRAININGS)
def test_ranks_train_what_one_process_trains_on_all_images(ranks, name, sync) -> None:
    """Each rank had converted with a seed of its own; the first one's counts."""
    kind, options = TRAININGS[name]
    one = trained(converted(kind, seed=0, **options), slice(None))
    assert len(one["masks"]) == 3
    assert name == "dense" or not equal(one["masks"][0], one["masks"][1])
    for rank in ranks:
        found = rank[f"{name} {sync}"]
        assert all(equal(*pair) for pair in zip(one["masks"], found["masks"], strict=True))
        assert one["state"].keys() == found["state"].keys()
        for key, value in one["state"].items():
            assert torch.allclose(value, found["state"][key], **CLOSE)
    assert (
        not equal(masks(converted(kind, seed=0, **options)), masks(converted(kind, seed=1, **options)))
        or name == "dense"
    )


def test_without_the_sum_over_ranks_their_masks_would_differ(ranks) -> None:
    alone = [rank["alone"]["masks"][0] for rank in ranks]
    right = ranks[0]["plain False"]["masks"][0]
    assert not equal(*alone)
    assert not any(equal(right, masks) for masks in alone)


def test_a_rank_that_knew_its_own_subspace_forgets_it(ranks) -> None:
    (first, wanted), (other, got) = (rank["remembered"] for rank in ranks)
    assert torch.equal(first, wanted)
    assert not torch.allclose(first, other)
    assert torch.allclose(wanted, got, **CLOSE)


def test_each_rank_has_its_own_noise_and_goes_on_with_it(ranks) -> None:
    (one, goes_on), (other, goes_on_too) = (rank["stopped"] for rank in ranks)
    assert not (one == other).any()
    assert goes_on
    assert goes_on_too
