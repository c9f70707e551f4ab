"""From a spec to a network with its method: what training and evaluation both start from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ssvi.errors import UserError
from ssvi.layers import MaskedLayer
from ssvi.methods import METHODS, Method
from ssvi.models import MODELS
from ssvi.noise import NormalSource, generator
from ssvi.runs import MODEL, write_bytes
from ssvi.spec import RunSpec


def build(spec: RunSpec, channels: int, image_size: int, classes: int, noise: NormalSource) -> tuple[nn.Module, Method]:
    """The network of a spec, on the CPU, with start values drawn from its seed, and its method."""
    method = METHODS[spec.method](spec, noise)
    model = MODELS[spec.model](method.factory(), channels, image_size, classes, spec.width)
    source = generator(spec.seed, "weights")
    for module in model.modules():
        if isinstance(module, MaskedLayer):
            module.reset(source)
    method.bind(model)
    return model, method


def save_model(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Write parameters, masks and BatchNorm statistics to the run folder."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_bytes(folder / MODEL, save(tensors))


def load_model(folder: Path, model: nn.Module) -> None:
    """Read them back into a network of the same spec.

    Raises:
        UserError: if the file is missing, damaged, or of another network.
    """
    path = folder / MODEL
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run first.") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or damaged ({error}); delete the run folder to train it anew.") from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: does not fit the network of spec.json: {reason}") from None
