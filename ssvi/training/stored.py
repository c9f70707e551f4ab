"""A network's tensors as files have them: masked ones packed (`ssvi.core.packing`), with a checksum of them all."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssvi.core.packing import MASK, Form, pack, unpack
from ssvi.core.tensors import fingerprint
from ssvi.errors import UserError
from ssvi.machine.disk import write_bytes
from ssvi.methods import Method
from ssvi.methods.chain import PREFIX
from ssvi.runs.files import ENTRY, MODEL
from ssvi.runs.records import ANEW, told_by_version


def save_model(folder: Path, state: dict[str, Tensor], file: str = MODEL) -> None:
    """Write parameters, masks and BatchNorm statistics to the run folder, packed, with their checksum."""
    tensors, told = packed({name: value.detach().cpu() for name, value in state.items()})
    write_bytes(folder / file, save(tensors, told))


def for_prediction(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What predictions need of a network's tensors: nothing outside masks, and of a chain its kept networks alone."""
    kept = {name: value for name, value in state.items() if name.startswith(f"{PREFIX}.")}
    found = dict(kept or state)
    for key in [key for key in found if key.endswith(MASK)]:
        for other in (f"{key.removesuffix(MASK)}.{own}" for own in ("mean", "rho")):
            if other in found and found[other].shape == found[key].shape:
                found[other] = torch.where(found[key], found[other], 0.0)
    return found


def with_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a chain that `for_prediction` left: the network beside the kept ones is the last of them."""
    kept = [name.split(".", 2) for name in state if name.startswith(f"{PREFIX}.")]
    if len(kept) < len(state) or not kept:
        return state
    last = max(kept, key=lambda parts: int(parts[1]))[1]
    return state | {name: state[f"{PREFIX}.{last}.{name}"] for _, number, name in kept if number == last}


def packed(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A network's tensors, on the CPU, as they are stored, and what a file says of them: how, and their checksum."""
    tensors, forms = pack({name: state[name].contiguous() for name in sorted(state)})
    # of what will be read: of zeros outside the masks the sign is lost
    checksum = fingerprint(unpack(tensors, forms))
    told = {"fingerprint": checksum, "forms": {name: form.to_json() for name, form in forms.items()}}
    # one entry, because safetensors writes several in any order, and the same network should give the same file
    return tensors, {ENTRY: json.dumps(told)}


def unpacked(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """A network's tensors from what is stored, and what the file says of them; versions before wrote less, or nothing.

    Raises:
        ValueError: if they are not what was once stored.
    """
    told = json.loads(metadata[ENTRY]) if ENTRY in metadata else metadata
    forms = {name: Form.from_json(form) for name, form in told.get("forms", {}).items()}
    found = unpack(tensors, forms)
    if "fingerprint" in told and told["fingerprint"] != fingerprint(found):
        raise ValueError("its checksum is wrong")
    return found


def predicting_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of a file that has all that predictions need, but for what is told of the network."""
    return len(save(*packed(for_prediction(state))))


def read_model(folder: Path, file: str = MODEL) -> dict[str, Tensor]:
    """The tensors of a trained run.

    Raises:
        UserError: if the file is missing or damaged.
    """
    path = folder / file
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
            metadata = opened.metadata() or {}
        return unpacked(tensors, metadata)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run first.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or damaged ({error}); {ANEW}") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); {ANEW}") from None


def load_model(folder: Path, method: Method, file: str = MODEL) -> dict[str, Tensor]:
    """Read a trained run back into a network and method of the same spec. Returns all that the file holds.

    Raises:
        UserError: if the file is missing, damaged, or of another network.
    """
    tensors = read_model(folder, file)
    try:
        method.predictive.load(tensors)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UserError(
            f"{folder / file}: does not fit the network of spec.json ({reason}); {told_by_version(folder)}"
        ) from None
    return tensors
