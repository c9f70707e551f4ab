"""Masked tensors as what they say: the active values, and where these are.

A layer's tensors `NAME.mean`, `NAME.rho`, ... of the shape of its `NAME.mask` are stored as vectors of the active
values, and the mask as positions, by whichever code takes fewer bytes:

    all     nothing: every weight is active
    gaps    a byte for each active weight and one for the end: how many inactive ones come before it; 255 stands for 255
            of them, and the next byte goes on. The end closes the stream, so that no few bytes stand for many weights.
    bits    a bit for each weight

What has anything but 0 outside its mask stays dense, so nothing is lost but the sign of a zero there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASK = ".mask"
ALL, GAPS, BITS = "all", "gaps", "bits"
CODES = (ALL, GAPS, BITS)
# A gap byte that stands for so many inactive weights, and for no active one.
MORE = 255
# Below that a tensor is not worth a record of its own.
SMALL = 4096
# More weights, and more sides of a tensor, than any layer has.
LARGEST, MOST_SIDES = 2**40, 8


# Positions ----------------------------------------------------------------------------------------


def encode(active: Tensor, size: int) -> tuple[str, Tensor]:
    """Positions as bytes, in the shorter of both codes.

    Args:
        active: int64 [s], ascending, from 0 to `size` - 1.
        size: of how many.

    Returns:
        the code, and the bytes: uint8 [n].
    """
    if len(active) == size:
        return ALL, torch.empty(0, dtype=torch.uint8)
    ends = np.concatenate([[-1], active.numpy(), [size]])
    gaps = np.diff(ends) - 1
    lengths = gaps // MORE + 1
    if lengths.sum() > -(-size // 8):
        flags = np.zeros(size, dtype=bool)
        flags[ends[1:-1]] = True
        return BITS, torch.from_numpy(np.packbits(flags))
    stream = np.full(lengths.sum(), MORE, dtype=np.uint8)
    stream[lengths.cumsum() - 1] = gaps % MORE
    return GAPS, torch.from_numpy(stream)


def decode(code: str, stream: Tensor, size: int) -> Tensor:
    """What `encode` was given: int64 [s], ascending.

    Raises:
        ValueError: if these are no positions among so many.
    """
    check_length(code, len(stream), size)
    if code == ALL:
        return torch.arange(size)
    if code == BITS:
        flags = np.unpackbits(stream.numpy())
        if flags[size:].any():
            raise ValueError(f"positions go beyond {size}")
        return torch.from_numpy(flags[:size].nonzero()[0])
    own = stream.numpy()
    closing = own != MORE
    places = np.where(closing, own.astype(np.int64) + 1, MORE).cumsum()[closing] - 1
    if not len(places) or places[-1] != size or not closing[-1]:
        raise ValueError(f"positions do not end at {size}")
    return torch.from_numpy(places[:-1])


def check_length(code: str, length: int, size: int) -> None:
    """Refuse so many bytes that cannot be the positions of some of `size` weights, without having read them.

    Raises:
        ValueError: if they cannot.
    """
    fits = {
        ALL: length == 0,
        BITS: length == -(-size // 8),
        GAPS: length > 0 and size < length * MORE and length <= size + 1 + size // MORE,
    }
    if not fits.get(code, False):
        raise ValueError(f"{length} bytes of code {code!r} are no positions among {size} weights")


# Layers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How a layer is stored.

    Attributes:
        shape: of its weight.
        code: of its positions.
        packed: the names of its tensors of which the active values alone are there.
    """

    shape: tuple[int, ...]
    code: str
    packed: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def to_json(self) -> list[Any]:
        """As lists and words."""
        return [list(self.shape), self.code, list(self.packed)]

    @classmethod
    def from_json(cls, value: Any) -> Form:
        """What `to_json` gave.

        Raises:
            ValueError: if that is something else.
        """
        match value:
            case [list(shape), str(code), list(packed)] if code in CODES and len(shape) <= MOST_SIDES:
                whole = all(type(side) is int and 0 < side < LARGEST for side in shape) and math.prod(shape) < LARGEST
                if whole and all(isinstance(name, str) for name in packed) and len({*packed}) == len(packed):
                    return cls(tuple(shape), code, tuple(packed))
        raise ValueError("is no form of a layer")


def pack(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Form]]:
    """The tensors of a network on the CPU, and the form of each layer that has a mask, by name."""
    found, forms = dict(state), {}
    for key in [key for key in state if key.endswith(MASK)]:
        name, mask = key.removesuffix(MASK), state[key]
        if mask.dtype != torch.bool or not mask.numel() or mask.dim() > MOST_SIDES:
            continue
        flat = mask.flatten()
        active = flat.nonzero().flatten()
        packed = []
        for other in [k for k in state if k.startswith(f"{name}.") and k != key and "." not in k[len(name) + 1 :]]:
            value = state[other]
            if value.shape == mask.shape and not bool(value.flatten()[~flat].count_nonzero()):
                found[other] = value.flatten()[active]
                packed.append(other.removeprefix(f"{name}."))
        code, stream = encode(active, mask.numel())
        if code == ALL and not _of_shape(found, name, mask.shape, packed):
            continue  # nothing else would say how many weights there are
        found[key] = stream
        forms[name] = Form(tuple(mask.shape), code, tuple(packed))
    return found, forms


def _of_shape(tensors: Mapping[str, Tensor], name: str, shape: Sequence[int], packed: Sequence[str]) -> bool:
    """Whether a layer has a tensor of so many numbers, packed or not, beside its mask."""
    own = (key for key in tensors if key.startswith(f"{name}.") and key != f"{name}{MASK}")
    return bool(packed) or any(tuple(tensors[key].shape) == tuple(shape) for key in own)


def unpack(tensors: Mapping[str, Tensor], forms: Mapping[str, Form]) -> dict[str, Tensor]:
    """What `pack` was given.

    Raises:
        ValueError: naming the layer whose tensors are none of its form.
    """
    found = dict(tensors)
    for name, form in forms.items():
        try:
            stream = found[f"{name}{MASK}"]
            if stream.dtype != torch.uint8 or stream.dim() != 1:
                raise ValueError(f"positions are {stream.dtype} {list(stream.shape)}")
            for other in form.packed if form.code == ALL else ():
                if found[f"{name}.{other}"].numel() != form.size:
                    raise ValueError(f"{other} has not the {form.size} values of its shape")
            if form.code == ALL and not _of_shape(found, name, form.shape, form.packed):
                raise ValueError(f"nothing has the {form.size} values of its shape")
            active = decode(form.code, stream, form.size)
            mask = torch.zeros(form.size, dtype=torch.bool).index_fill_(0, active, True)
            found[f"{name}{MASK}"] = mask.view(form.shape)
            for other in form.packed:
                value = found[f"{name}.{other}"]
                if value.shape != active.shape:
                    raise ValueError(f"{other} has {list(value.shape)} values for {len(active)} positions")
                whole = value.new_zeros(form.size).index_copy_(0, active, value)
                found[f"{name}.{other}"] = whole.view(form.shape)
        except (ValueError, KeyError) as error:
            raise ValueError(f"layer {name}: {error}") from None
    return found


# Any structure ------------------------------------------------------------------------------------

_PACKED, _PLACES = "packed tensors", "positions"


def shrunk(value: Any) -> Any:
    """A structure of dicts, lists and tensors, on the CPU, in which networks, masks and indices take few bytes."""
    if isinstance(value, dict):
        if any(isinstance(key, str) and key.endswith(MASK) for key in value):
            tensors, forms = pack({key: each.cpu() for key, each in value.items()})
            return {_PACKED: tensors, "forms": {name: form.to_json() for name, form in forms.items()}}
        return {key: shrunk(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(shrunk, value)) if type(value) in (list, tuple) else value
    if isinstance(value, Tensor) and value.numel() > SMALL:
        return _positions(value.cpu())
    return value.cpu() if isinstance(value, Tensor) else value


def _positions(value: Tensor) -> Any:
    """A mask, or ascending whole numbers from 0 on, as positions; anything else as it is."""
    if value.dtype == torch.bool:
        active, size = value.flatten().nonzero().flatten(), value.numel()
    elif value.dtype == torch.int64 and value.dim() == 1 and value[0] >= 0 and bool((value.diff() > 0).all()):
        active, size = value, int(value[-1]) + 1
        if size // MORE >= value.nbytes:  # so far apart that positions would take more
            return value
    else:
        return value
    code, stream = encode(active, size)
    if stream.numel() >= value.nbytes:
        return value
    return {_PLACES: stream, "code": code, "size": size, "shape": list(value.shape), "mask": value.dtype == torch.bool}


def restored(value: Any, device: torch.device) -> Any:
    """What `shrunk` was given, with its tensors on a device.

    Raises:
        ValueError: if it is not whole.
    """
    if isinstance(value, dict):
        if _PACKED in value:
            forms = {name: Form.from_json(form) for name, form in value["forms"].items()}
            return {key: each.to(device) for key, each in unpack(value[_PACKED], forms).items()}
        if _PLACES in value:
            active = decode(value["code"], value[_PLACES], value["size"])
            if value["mask"]:
                active = torch.zeros(value["size"], dtype=torch.bool).index_fill_(0, active, True).view(value["shape"])
            return active.to(device)
        return {key: restored(each, device) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(restored, value, itertools.repeat(device))) if type(value) in (list, tuple) else value
    return value.to(device) if isinstance(value, Tensor) else value
