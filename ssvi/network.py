"""From a spec to a network with its method: what training and evaluation both start from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ssvi.errors import UserError
from ssvi.layers import LayerFactory, MaskedLayer, masked_layers
from ssvi.methods import Method, method_class
from ssvi.methods.base import Network
from ssvi.models import MODELS
from ssvi.noise import NormalSource, generator
from ssvi.runs import MODEL, write_bytes
from ssvi.spec import RunSpec


def build(spec: RunSpec, channels: int, image_size: int, classes: int, noise: NormalSource) -> tuple[nn.Module, Method]:
    """The network of a spec, on the CPU, with start values drawn from its seed, and its method."""
    method = method_class(spec.method)(spec, noise)

    def make(factory: LayerFactory, widening: float) -> nn.Module:
        return MODELS[spec.model](factory, channels, image_size, classes, widening * spec.width)

    model = method.build(Network(make, (channels, image_size, image_size)))
    source = generator(spec.seed, "weights")
    for module in model.modules():
        if isinstance(module, MaskedLayer):
            module.reset(source)
    method.bind(model)
    return model, method


def reference_weights(spec: RunSpec, channels: int, image_size: int, classes: int) -> dict[str, int]:
    """Weights per layer of the plain network that the spec names: what densities are fractions of."""
    with torch.device("meta"):
        model = MODELS[spec.model](LayerFactory(MaskedLayer), channels, image_size, classes, spec.width)
    return {name: layer.mean.numel() for name, layer in masked_layers(model).items()}


def save_model(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Write parameters, masks and BatchNorm statistics to the run folder."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_bytes(folder / MODEL, save(tensors))


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a trained run.

    Raises:
        UserError: if the file is missing or damaged.
    """
    path = folder / MODEL
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run first.") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or damaged ({error}); delete the run folder to train it anew.") from None


def load_model(folder: Path, model: nn.Module, method: Method) -> None:
    """Read a trained run back into a network and method of the same spec.

    Raises:
        UserError: if the file is missing, damaged, or of another network.
    """
    state = read_model(folder)
    try:
        model.load_state_dict(method.take_tensors(state))
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / MODEL}: does not fit the network of spec.json: {reason}") from None
