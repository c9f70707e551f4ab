"""A trained network in one file: active means and standard deviations, where they are, and its card.

It is a file of safetensors whose metadata has one entry, `ssvi`: JSON with `card` (`ssvi.runs.card`), `forms` (how
layers are packed, `ssvi.core.packing`), `network` (the fingerprint of the run's own tensors) and `fingerprint` (of the
tensors in this file). With sigma in bfloat16, a layer has `NAME.sigma` in place of `NAME.rho`.

A file may come from anywhere. Nothing in it is carried out, and everything that its header says is held against the
network of its card before a tensor is read or the network made, so that it asks for no more memory than that takes;
and as positions are spelt out to their ends, a network takes at most 255 numbers for each byte of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssvi.core.gaussian import TO_RHO, TO_SIGMA
from ssvi.core.layers import VariationalLayer, masked_layers
from ssvi.core.noise import NormalSource
from ssvi.core.packing import ALL, MASK, Form, check_length, decode, pack, unpack
from ssvi.core.tensors import fingerprint
from ssvi.errors import UserError, quoted
from ssvi.machine.disk import write_bytes
from ssvi.methods import Method
from ssvi.methods.chain import PREFIX
from ssvi.runs import ties
from ssvi.runs.card import Card, card_of, check_licence, read_card
from ssvi.runs.files import ENTRY, MODEL
from ssvi.training.evaluate import STREAM
from ssvi.training.network import build, skeleton
from ssvi.training.stored import for_prediction, read_model, with_last

RHO, SIGMA = ".rho", ".sigma"
SIGMA_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What the names of a chain's networks begin with, which are all of the same layers.
SNAPSHOT = re.compile(rf"{PREFIX}\.\d+\.")
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool, "U8": torch.uint8}


# Writing ------------------------------------------------------------------------------------------


def write(folder: Path, path: Path, sigma: str = "float32", licence: str | None = None) -> int:
    """Export a run; returns the bytes of the file.

    Args:
        folder: of the run.
        path: of the file.
        sigma: the type of standard deviations, one of `SIGMA_TYPES`.
        licence: what others may do with it (default: what the run says).

    Raises:
        UserError: if the run is none that can be used, or what there is to be replaced is something else.
        OSError: if the file cannot be written; what was there is then as it was.
    """
    check_licence(licence)
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is no run folder' if folder.exists() else 'no such run folder'}.")
    card = read_card(folder)
    card = replace(card, licence=licence or card.licence)
    tensors, forms = pack(for_prediction(read_model(folder)))
    if SIGMA_TYPES[sigma] is not torch.float32:
        parameterisations = _parameterisations(build(card.spec, *_sizes(card), NormalSource(0, STREAM))[0])
        tensors, forms = _with_sigma(tensors, forms, parameterisations, SIGMA_TYPES[sigma])
    tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    told = {
        "card": card.to_json(),
        "forms": {name: form.to_json() for name, form in forms.items()},
        "network": ties.identity(folder / MODEL),
        "fingerprint": fingerprint(tensors),
    }
    content = save(tensors, {ENTRY: json.dumps(told)})
    write_bytes(path, content)
    return len(content)


def _with_sigma(
    tensors: dict[str, Tensor], forms: dict[str, Form], parameterisations: Mapping[str, str], kind: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Form]]:
    """The same with sigma of another type in place of rho, where that is packed."""
    found, changed = dict(tensors), dict(forms)
    for name, form in forms.items():
        if (known := parameterisations.get(_layer(name))) and "rho" in form.packed:
            sigma = TO_SIGMA[known](found.pop(name + RHO).double())
            found[name + SIGMA] = sigma.to(kind)
            changed[name] = replace(form, packed=tuple("sigma" if x == "rho" else x for x in form.packed))
    return found, changed


def _parameterisations(model: nn.Module) -> dict[str, str]:
    layers = masked_layers(model).items()
    return {name: layer.parameterisation for name, layer in layers if isinstance(layer, VariationalLayer)}


def _layer(name: str) -> str:
    """The layer of the network, also of a snapshot's."""
    return SNAPSHOT.sub("", name)


def _sizes(card: Card) -> tuple[int, int, int]:
    return card.inputs.channels, card.inputs.image_size, len(card.inputs.classes)


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a file says before its tensors are read.

    Attributes:
        card: of the network.
        forms: of its layers.
        shapes: of its tensors, with their types as safetensors names them.
        fingerprint: of its tensors.
        network: the fingerprint of the run's own.
        size: of the file in bytes.
    """

    card: Card
    forms: Mapping[str, Form]
    shapes: Mapping[str, tuple[tuple[int, ...], str]]
    fingerprint: str
    network: str
    size: int


def read_header(path: Path) -> Header:
    """What a file says of itself, checked by itself.

    Raises:
        UserError: if there is none, it is damaged, or not one that `ssvi export` wrote.
    """
    with _clear_errors(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: (tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    try:
        told = json.loads(metadata[ENTRY])
        card = told["card"]
        found = {name: Form.from_json(form) for name, form in told["forms"].items()}
        sums = [told["fingerprint"], told["network"]]
        if not all(isinstance(one, str) for one in sums):
            raise TypeError("no checksum")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        of_a_run = path.name == MODEL and (path.parent / "spec.json").is_file()
        hint = f"; give the run folder, {path.parent}" if of_a_run else ""
        raise UserError(f"{path}: is no network that `ssvi export` wrote{hint}.") from None
    return Header(card_of(card, str(path)), found, shapes, *sums, size=path.stat().st_size)


class _clear_errors:
    """What safetensors and the system say of a file, in one line that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if not self._path.exists():
            raise UserError(f"{self._path}: no such file or run folder.")
        if not self._path.is_file():
            raise UserError(f"{self._path}: is not a file.")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, SafetensorError):
            raise UserError(f"{self._path}: truncated, damaged, or no file of tensors ({error}).") from None
        if isinstance(error, OSError):
            raise UserError(f"{self._path}: cannot be read ({error}).") from None


def check_header(header: Header, path: Path) -> None:
    """Refuse a file whose header is not that of the network of its card; no tensor is read for that, nor made.

    Raises:
        UserError: naming the first difference.
    """
    try:
        _check(header, skeleton(header.card.spec, *_sizes(header.card)))
    except (ValueError, RuntimeError) as error:
        raise _not_its_network(path, error) from None


def _not_its_network(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged, or not the network that its card names ({error}).")


def read(path: Path, device: torch.device) -> tuple[Card, nn.Module, Method]:
    """The network in a file: its card, itself, and its method.

    Raises:
        UserError: as `read_header`, or if its tensors are not those of the network that its card names.
    """
    header = read_header(path)
    card = header.card
    check_header(header, path)
    try:
        with _clear_errors(path), safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(header.shapes)}
        if fingerprint(tensors) != header.fingerprint:
            raise ValueError("its checksum is wrong")
        model, method = build(card.spec, *_sizes(card), NormalSource(card.spec.seed, STREAM, device))
        state = _with_rho(unpack(tensors, header.forms), header.forms, _parameterisations(model))
        method.predictive.load(with_last(state))
    except (ValueError, KeyError, RuntimeError) as error:
        raise _not_its_network(path, error) from None
    return card, model, method


def _check(header: Header, network: Mapping[str, Tensor]) -> None:
    """Hold the header against the network that it is to be of.

    Raises:
        ValueError: naming the first difference.
    """
    needed = {*network}
    for name, (shape, kind) in header.shapes.items():
        stem, _, last = name.rpartition(".")
        form = header.forms.get(stem)
        packed = form is not None and last in form.packed
        own = f"{_layer(stem)}.{'rho' if packed and last == 'sigma' else last}"
        if own not in network:
            raise ValueError(f"it has no {quoted(name)}")
        there = network[own]
        needed.discard(own)
        if form is not None and f".{last}" == MASK:
            if form.shape != tuple(there.shape) or kind != "U8" or len(shape) != 1:
                raise ValueError(f"{quoted(name)} has positions {kind} {list(shape)} among {list(form.shape)}")
            check_length(form.code, shape[0], form.size)
        elif packed:
            allowed = ("F32", "BF16") if last == "sigma" else ("F32",)
            if kind not in allowed or len(shape) != 1 or shape[0] > there.numel() or tuple(there.shape) != form.shape:
                raise ValueError(f"{quoted(name)} is {kind} {list(shape)} of {list(there.shape)}")
        elif shape != tuple(there.shape) or TYPES.get(kind) != there.dtype:
            raise ValueError(f"{quoted(name)} is {kind} {list(shape)}, not {there.dtype} {list(there.shape)}")
    if needed:
        raise ValueError(f"{quoted(min(needed))} is missing")


def _with_rho(
    state: dict[str, Tensor], forms: Mapping[str, Form], parameterisations: Mapping[str, str]
) -> dict[str, Tensor]:
    """The tensors of a network with rho wherever there was sigma, 0 outside the masks."""
    for name, form in forms.items():
        if "sigma" in form.packed:
            rho = TO_RHO[parameterisations[_layer(name)]](state.pop(name + SIGMA).double()).float()
            state[name + RHO] = torch.where(state[name + MASK], rho, 0.0)
    return state


# Looking ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerSize:
    """A layer's weights, and the active ones among them."""

    name: str
    weights: int
    active: int

    @property
    def sparsity(self) -> float:
        """Share of weights that are not there."""
        return 1 - self.active / self.weights


def layer_sizes(path: Path) -> list[LayerSize]:
    """How many weights each masked layer has, in an exported file or in a run's, of whatever version.

    Raises:
        UserError: if the file cannot be read, or its positions are none.
    """
    found = []
    with _clear_errors(path), safe_open(path, framework="pt") as file:
        try:
            told = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
            keys = [key for key in file.keys() if key.endswith(MASK)]  # noqa: SIM118
            # of a chain the kept networks, which predict; the one beside them does not
            for key in [key for key in keys if SNAPSHOT.match(key)] or keys:
                name, stream = key.removesuffix(MASK), file.get_tensor(key)
                if stream.dtype == torch.bool:
                    found.append(LayerSize(name, stream.numel(), int(stream.sum())))
                else:
                    form = Form.from_json(told["forms"][name])
                    active = form.size if form.code == ALL else len(decode(form.code, stream, form.size))
                    found.append(LayerSize(name, form.size, active))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: damaged ({error}).") from None
    return found
