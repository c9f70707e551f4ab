"""Allocations, schedule and updates against brute force and published counts."""

import math
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssvi.core.allocation import LayerShape, erk, random_masks, uniform
from ssvi.core.criteria import CRITERIA
from ssvi.core.exchange import UpdateSchedule, choose
from ssvi.core.noise import generator
from ssvi.core.overlap import _spearman, overlap_matrices
from ssvi.core.ranking import Groups, largest, places_without_counting
from ssvi.core.tensors import fetched
from ssvi.errors import Diverged
from ssvi.runs.spec import make_spec
from ssvi.training.network import build

CPU = torch.device("cpu")


def resnet18_shapes(classes: int = 10) -> list[LayerShape]:
    _, method = build(make_spec({"method": "dense"}), 3, 32, classes, generator(0, "noise"))
    return [LayerShape(tuple(x.mean.shape), x.dense_stem) for x in method.layers.values()]


def test_uniform_keeps_the_published_number_of_weights() -> None:
    """What the published code was seen to keep of ResNet-18's 11,164,352 weights."""
    shapes = resnet18_shapes()
    assert sum(s.size for s in shapes) == 11_164_352
    assert sum(uniform(shapes, 0.1)) == 1_118_000
    assert sum(uniform(shapes, 0.05)) == 559_869
    assert uniform(shapes, 0.1)[0] == shapes[0].size == 1728


@given(st.floats(0.005, 1.0), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6))
def test_erk_meets_the_density_and_its_proportions(density: float, shapes: list[tuple[int, int]]) -> None:
    layers = [LayerShape(s, False) for s in shapes]
    counts = erk(layers, density)
    assert all(1 <= n <= x.size for n, x in zip(counts, layers, strict=True))
    total = sum(x.size for x in layers)
    wanted = total - math.floor((1 - density) * total)
    assert abs(sum(counts) - wanted) <= 2 * len(layers)
    sparse = [(n / x.size) / (sum(x.shape) / x.size) for n, x in zip(counts, layers, strict=True) if 20 < n < x.size]
    assert not sparse or max(sparse) / min(sparse) < 1.2


@given(st.integers(1, 300), st.floats(0.01, 1.0), st.integers(0, 5))
def test_random_masks_have_exactly_the_counts(size: int, density: float, seed: int) -> None:
    layers = [LayerShape((size, 3), False), LayerShape((7, 2, 3, 3), True)]
    masks = random_masks(layers, density, "uniform", generator(seed, "masks"))
    assert [int(m.sum()) for m in masks] == uniform(layers, density)
    whole = random_masks(layers, density, "global", generator(seed, "masks"))
    total = sum(x.size for x in layers)
    assert abs(sum(int(m.sum()) for m in whole) - density * total) <= 1


def test_the_official_schedule_has_586_updates() -> None:
    schedule = UpdateSchedule(100, 0.3, int(0.75 * 78_200))
    steps = [t for t in range(1, 78_201) if schedule.is_due(t)]
    assert len(steps) == schedule.n_updates == 586
    assert (steps[0], steps[-1]) == (100, 58_600)
    assert schedule.drop_fraction(100) == pytest.approx(0.3, abs=1e-5)
    assert schedule.drop_fraction(58_600) == pytest.approx(5e-7, rel=0.1)


def test_largest_prefers_the_lower_index_among_equals() -> None:
    values = torch.tensor([2.0, 1.0, 2.0, 3.0, 2.0])
    assert largest(values, 3).tolist() == [True, False, True, True, False]
    assert not largest(values, 0).any()
    assert largest(torch.tensor([math.inf, math.inf, 1.0]), 1).tolist() == [True, False, False]
    with pytest.raises(Diverged, match="not a number"):
        largest(torch.tensor([1.0, math.nan]), 1)


def brute_force(active: list[bool], score: list[float], gradient: list[float], n_drop: int) -> tuple[set, set, set]:
    """Kept, removed and added sets straight from the definition, by sorting (index as tie-break)."""
    indices = [i for i, a in enumerate(active) if a]
    of = dict(zip(indices, score, strict=True))
    kept = set(sorted(indices, key=lambda i: (-of[i], i))[: len(indices) - n_drop])
    removed = set(indices) - kept
    candidates = [i for i in range(len(active)) if i not in kept]
    added = set(sorted(candidates, key=lambda i: (-gradient[i], i))[:n_drop])
    return kept, removed, added


def true_of(mask: torch.Tensor) -> set[int]:
    return set(mask.nonzero().flatten().tolist())


@settings(max_examples=300)
@given(st.data())
def test_update_equals_brute_force_in_each_group(data: st.DataObject) -> None:
    few = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf])  # many ties
    groups, start, expected = [], 0, [set(), set(), set()]
    for _ in range(data.draw(st.integers(1, 4))):
        active = data.draw(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
        n, k = len(active), sum(active)
        score = data.draw(st.lists(few | st.floats(0, 10), min_size=k, max_size=k))
        gradient = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 10), min_size=n, max_size=n))
        n_drop = data.draw(st.integers(0, k))
        for whole, part in zip(expected, brute_force(active, score, gradient, n_drop), strict=True):
            whole |= {start + i for i in part}
        groups.append((active, score, gradient, n_drop))
        start += n
    actives, scores, gradients, drops = zip(*groups, strict=True)
    active = torch.tensor(list(chain(*actives)))
    change = choose(
        active,
        torch.tensor(list(chain(*scores)), dtype=torch.float64),
        torch.tensor(list(chain(*gradients)), dtype=torch.float64),
        (Groups.of(map(sum, actives), CPU), Groups.of(map(len, actives), CPU)),
        drops,
    )
    kept, removed, added = expected
    assert true_of(change.removed) == removed
    assert true_of(change.added) == added
    assert true_of(change.active) == kept | added
    assert true_of(change.born) == added - removed
    places = active.nonzero().flatten()
    assert set(places[change.kept].tolist()) == kept
    assert set(places[change.still].tolist()) == kept | (added & removed)


def test_positions_are_found_without_counting() -> None:
    """What CUDA does, against `nonzero`."""
    mask = torch.rand(1000, generator=generator(0, "s")) < 0.3
    for one in (mask, torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        assert torch.equal(places_without_counting(one, int(one.sum())), one.nonzero().flatten())


def test_spearman_is_scipys() -> None:
    from scipy.stats import spearmanr

    scores = torch.randint(0, 12, (4, 50), generator=generator(0, "s")).double()
    expected = torch.from_numpy(spearmanr(scores.numpy(), axis=1).statistic)
    assert torch.allclose(_spearman(scores), expected)


def test_overlap_of_a_hand_made_case() -> None:
    names = tuple(CRITERIA)
    up, down = torch.arange(10.0).double(), torch.arange(10.0).double().flip(0)
    table = dict.fromkeys(names, up) | {"snr_exp": down, "snr": torch.roll(up, 1)}
    record = fetched(overlap_matrices(table, Groups.of([10], CPU)))
    assert record["criteria"] == list(names)
    of_abs_mu = dict(zip(names, record["iou"][names.index("abs_mu")], strict=True))
    assert of_abs_mu["abs_mu"] == 1.0  # removes 0 1 2
    assert of_abs_mu["snr_exp"] == 0.0  # against 7 8 9
    assert of_abs_mu["snr"] == pytest.approx(2 / 4)  # against 1 2 3
