"""From a spec to a network with its method: what training and evaluation both start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ssvi.core.active import dense_state
from ssvi.core.convert import take_over
from ssvi.core.counting import Positions, positions
from ssvi.core.layers import LayerFactory, MaskedLayer, masked_layers
from ssvi.core.models import MODELS
from ssvi.core.noise import NormalSource, derived_seed, generator
from ssvi.errors import UserError
from ssvi.methods import Method, method_class
from ssvi.methods.context import Network
from ssvi.runs.spec import RunSpec


def build(spec: RunSpec, channels: int, image_size: int, classes: int, noise: NormalSource) -> tuple[nn.Module, Method]:
    """The network of a spec, on the CPU, with start values drawn from its seed, and its method.

    Raises:
        UserError: if the network has weights that its method cannot know of, or lacks what its method needs.
    """
    method = method_class(spec.method)(spec, noise)
    with _seeded(derived_seed(spec.seed, "plain")):
        model = method.build(_network(spec, channels, image_size, classes))
    _check(model, spec.model)
    source = generator(spec.seed, "weights")
    for module in model.modules():
        if isinstance(module, MaskedLayer):
            module.reset(source)
    method.bind(model)
    return model, method


def _network(spec: RunSpec, channels: int, image_size: int, classes: int) -> Network:
    """The network that a spec names, of any factory's layers: those it asks for, and plain ones that it has."""

    def make(factory: LayerFactory, widening: float) -> nn.Module:
        model = MODELS[spec.model](factory, channels, image_size, classes, widening * spec.width)
        _check_sizes(model, spec.model)
        # start values are drawn later, for all layers alike
        take_over(model, factory.layer)
        return model

    return Network(make, (channels, image_size, image_size))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What a network draws for itself, for parameters that no factory makes, is the spec's as well."""
    # networks are made on the CPU
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


# Modules of PyTorch's whose own parameters are no weights of a linear map.
NORMALISING = ("torch.nn.modules.batchnorm", "torch.nn.modules.instancenorm", "torch.nn.modules.normalization")
PLAIN = {nn.Module.__module__, nn.Sequential.__module__, *NORMALISING}


def _check_sizes(model: nn.Module, name: str) -> None:
    """Refuse modules that learn their sizes from the first input, as `_check` does."""
    for path, module in model.named_modules():
        if any(map(is_lazy, module.parameters(recurse=False))):
            kind = type(module).__name__
            raise UserError(
                f"network {name!r}: {kind} {path or 'at the top'} does not know its sizes when it is made; give them."
            )


def _check(model: nn.Module, name: str) -> None:
    """Refuse weights outside the density, those of PyTorch's own layers, and what cannot be stored.

    Raises:
        UserError: naming the layer, or if there is none of the factory's.
    """
    for path, module in model.named_modules():
        where, kind = path or "at the top", type(module).__name__
        own = list(module.parameters(recurse=False))
        bases = {base.__module__ for base in type(module).__mro__}
        if any(base.startswith("torch.nn.") for base in bases - PLAIN) and any(p.dim() > 1 for p in own):
            raise UserError(
                f"network {name!r}: layer {where} is a {kind} that cannot be taken over, so its weights would be "
                "outside the density and the posterior; what can are Linear, Conv1d, Conv2d and Conv3d with weights of "
                "their own."
            )
    seen: dict[nn.Module, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, MaskedLayer) and seen.setdefault(module, path) != path:
            raise UserError(f"network {name!r}: layer {seen[module]} is also called {path}; it needs one name.")
    if not seen:
        raise UserError(f"network {name!r}: has neither Linear, Conv1d, Conv2d or Conv3d nor a layer of the factory's.")


def places_of(model: nn.Module, image: torch.Tensor, name: str) -> Positions:
    """Places at which each layer of the network `name` applies its weights to one image [1, C, H, W].

    Raises:
        UserError: naming a layer that is never called.
    """
    places = positions(model, image)
    if unused := sorted(masked_layers(model).keys() - places.keys()):
        raise UserError(
            f"network {name!r}: layer {unused[0]} is not called by its forward, so what it costs is not known; leave "
            "it out, or call it."
        )
    return places


def skeleton(spec: RunSpec, channels: int, image_size: int, classes: int) -> dict[str, torch.Tensor]:
    """The names, shapes and types of what a network of the spec is stored as, without its memory.

    Raises:
        UserError: as `build`.
    """
    method = method_class(spec.method)(spec, NormalSource(0, "skeleton"))
    with torch.device("meta"):
        return dense_state(method.build(_network(spec, channels, image_size, classes)))


def reference_weights(spec: RunSpec, channels: int, image_size: int, classes: int) -> dict[str, int]:
    """Weights per layer of the plain network that the spec names: what densities are fractions of."""
    with torch.device("meta"):
        model = _network(spec, channels, image_size, classes)(LayerFactory(MaskedLayer))
    return {name: layer.size for name, layer in masked_layers(model).items()}
