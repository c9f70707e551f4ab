"""Packed tensors are what they were, take no more bytes than promised, and what is no packing is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssvi.core.packing import ALL, BITS, GAPS, Form, decode, encode, pack, restored, shrunk, unpack

CPU = torch.device("cpu")


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_positions_come_back_whatever_they_are(case) -> None:
    size, places = case
    active = torch.tensor(sorted(places), dtype=torch.int64)
    code, stream = encode(active, size)
    assert decode(code, stream, size).tolist() == active.tolist()
    # a byte a weight, one for the end, and one for each 255 that are skipped; never more than a bit for each
    gaps = len(active) + 1 + (size - len(active)) // 255
    assert len(stream) <= min(gaps, math.ceil(size / 8)) or code == ALL


@pytest.mark.parametrize(
    ("places", "size", "code", "stream"),
    [
        ([0, 3], 700, GAPS, [0, 2, 255, 255, 186]),
        ([255], 511, GAPS, [255, 0, 255, 0]),
        ([], 510, GAPS, [255, 255, 0]),
        ([1, 2, 7], 9, BITS, [0b01100001, 0]),
        ([0, 1], 2, ALL, []),
    ],
)
def test_positions_as_documented(places, size, code, stream) -> None:
    assert (code, stream) == ((found := encode(torch.tensor(places, dtype=torch.int64), size))[0], found[1].tolist())


@pytest.mark.parametrize(
    ("code", "stream", "size"),
    [
        (GAPS, [], 5),
        (GAPS, [1, 255], 300),
        (GAPS, [1, 3], 10**9),  # few bytes that would ask for much memory
        (GAPS, [0, 5], 5),  # beyond the end
        (GAPS, [0, 2], 5),  # short of it
        (BITS, [0b10000001], 5),
        (BITS, [0, 0], 5),
        (ALL, [1], 5),
        ("other", [1], 5),
    ],
)
def test_what_are_no_positions_is_refused(code, stream, size) -> None:
    with pytest.raises(ValueError, match="positions"):
        decode(code, torch.tensor(stream, dtype=torch.uint8), size)


def network(density: float, shape=(7, 5, 3, 3)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < density
    mean, rho = (torch.randn(shape, generator=generator) * mask for _ in range(2))
    return {"a.mean": mean, "a.rho": rho, "a.mask": mask, "a.bias": torch.ones(7), "bn.weight": torch.ones(7)}


@pytest.mark.parametrize("density", [0.0, 0.004, 0.05, 0.3, 1.0])
def test_a_network_comes_back_and_takes_what_is_active(density) -> None:
    state = network(density)
    tensors, forms = pack(state)
    back = unpack(tensors, {name: Form.from_json(form.to_json()) for name, form in forms.items()})
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in state.items())
    active = int(state["a.mask"].sum())
    assert tensors["a.mean"].shape == tensors["a.rho"].shape == (active,)


def test_what_is_not_zero_outside_its_mask_is_kept() -> None:
    state = network(0.1)
    outside = (~state["a.mask"]).nonzero()[0]
    state["a.rho"][tuple(outside)] = float("nan")
    tensors, forms = pack(state)
    assert forms["a"].packed == ("mean",)
    assert torch.equal(unpack(tensors, forms)["a.rho"].nan_to_num(7.0), state["a.rho"].nan_to_num(7.0))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t, f: t.pop("a.mask"),
        lambda t, f: t.update({"a.mean": t["a.mean"][1:]}),
        lambda t, f: t.update({"a.mask": t["a.mask"].float()}),
        lambda t, f: f.update(a=Form((7, 5, 3, 4), f["a"].code, f["a"].packed)),
        lambda t, f: f.update(a=Form((2**39, 2**39), GAPS, ("mean",))),
        lambda t, f: f.update(a=Form((7, 5, 3, 3), f["a"].code, ("mean", "other"))),
    ],
)
def test_what_is_not_of_its_form_is_named(spoil) -> None:
    tensors, forms = pack(network(0.05))
    spoil(tensors, forms)
    with pytest.raises(ValueError, match="layer a"):
        unpack(tensors, forms)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], [[2], "gaps"], [[-1], "gaps", []], [[2], "zip", []], [[True], "all", []]),
        *([[2], "all", ["mean", "mean"]], [["2"], "all", []], [[2] * 9, "all", []]),
    ],
)
def test_what_is_no_form_is_refused(value) -> None:
    with pytest.raises(ValueError, match="no form"):
        Form.from_json(value)


def test_any_structure_comes_back_smaller() -> None:
    index = (torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < 0.05).nonzero().flatten()
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[3, 4] = True
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(2))
    state = {
        "model": {"index": index, "betas": (0.9, 0.99), "none": None},
        "good": network(0.05, (40, 40, 3, 3)),
        "first": mask,
        "order": order,
        "empty": [torch.empty(0), "word", 3],
    }
    small = shrunk(state)
    back = restored(small, CPU)
    assert torch.equal(back["model"].pop("index"), index)
    assert torch.equal(back["first"], mask)
    assert torch.equal(back["order"], order)
    assert all(torch.equal(back["good"][name], value) for name, value in state["good"].items())
    assert back["model"] == {"betas": (0.9, 0.99), "none": None}
    assert back["empty"][1:] == ["word", 3]

    def count(value) -> int:
        if isinstance(value, dict | list | tuple):
            return sum(map(count, value.values() if isinstance(value, dict) else value))
        return value.nbytes if isinstance(value, torch.Tensor) else 0

    assert count(small["model"]) < 1.2 * len(index)
    assert count(small["first"]) < 100
    assert count(small["good"]) < 0.2 * count(state["good"])


def test_what_would_not_be_read_again_is_not_packed() -> None:
    state = {
        "a.mask": torch.ones(3, dtype=torch.bool),  # nothing beside it says how many
        "b.mean": torch.ones([1] * 9),
        "b.mask": torch.ones([1] * 9, dtype=torch.bool),
    }
    tensors, forms = pack(state)
    assert forms == {}
    assert all(tensors[name] is value for name, value in state.items())
    with pytest.raises(ValueError, match="nothing has the 1099511627775 values of its shape"):
        unpack({"a.mask": torch.empty(0, dtype=torch.uint8)}, {"a": Form((2**40 - 1,), ALL, ())})


def test_whole_numbers_that_are_far_apart_stay_as_they_are() -> None:
    numbers = torch.cat([torch.arange(4999), torch.tensor([2**50])])
    assert shrunk({"ids": numbers})["ids"] is numbers
