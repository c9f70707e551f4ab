"""From any network to one whose weights lie in a sparse subspace, with a posterior or without: `sparsify`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, Literal

import torch
from torch import nn

from ssvi.core import checks
from ssvi.core.active import ActiveWeights, active_weights
from ssvi.core.allocation import ALLOCATIONS
from ssvi.core.convertible import NAMES, READERS, Found, Pick, check_alike, look_through
from ssvi.core.gaussian import TO_RHO
from ssvi.core.layers import MaskedLayer, VariationalLayer, choose_masks
from ssvi.core.noise import NormalSource, generator
from ssvi.core.operations import Convolution, Operation
from ssvi.errors import Misuse, quoted

# A layer of a shape, with or without a bias, of an operation, which is the stem or not.
Make = Callable[[tuple[int, ...], bool, Operation | None, bool], MaskedLayer]

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
CHOICES: dict[str, tuple[str, ...]] = {
    "start": ("published", "keep"),
    "subspace": ("random", "largest"),
    "allocation": (*ALLOCATIONS, "global"),
    "sampling": ("local", "weight"),
    "parameterisation": tuple(TO_RHO),
}


def sparsify(
    net: nn.Module,
    density: float,
    *,
    posterior: bool = True,
    start: Literal["published", "keep"] = "published",
    subspace: Literal["random", "largest"] = "random",
    allocation: Literal["uniform", "erk", "global"] = "uniform",
    dense_stem: bool = True,
    include: Pick | Iterable[Pick] = "*",
    exclude: Pick | Iterable[Pick] = (),
    sampling: Literal["local", "weight"] = "local",
    parameterisation: Literal["softplus", "exp", "abs"] = "softplus",
    mu_init_sd: float = 0.01,
    sigma_init: float = 0.0006,
    sigma_init_sd: float = 0.0005,
    prior_sigma: float = 0.005,
    lrt_epsilon: float = 1e-8,
    seed: int | None = None,
) -> nn.Module:
    """Confine the weights of a network to a sparse subspace, and give each of them a Gaussian posterior (eq. 2-3).

    `Linear`, `Conv1d`, `Conv2d`, `Conv3d` and the weights of `MultiheadAttention` are converted, however they are
    nested, a shared one once; their biases, normalisation and everything else stay as they are. The network is changed
    in place, and whatever refers to one of its modules still does: its active weights are two parameters of its own,
    `subspace_mean` and `subspace_rho`. What has matrices and stays dense is named in a warning: weights that are frozen
    or shared by modules, parametrised ones (as by `weight_norm`) and those of modules with hooks, of subclasses with a
    `forward` of their own, of recurrent layers, embeddings, transposed convolutions and any other module.

    A weight that is read instead of applied, in an attention or as `child.weight` by its parent, is one weight sample a
    forward pass in training, whatever `sampling` is. What a layer computes with is made anew in each pass: writing to
    `child.weight` changes nothing. Load and move the network, give it its type and memory format, and only then convert
    it. A layer that is never called keeps its share of the subspace. Parts with a posterior cannot be computed again in
    the backward pass (activation checkpointing), or be differentiated twice.

    Args:
        net: any module.
        density: kept fraction s/d of the weights.
        posterior: False gives plain weights, as RigL has them, to which what is said of means and sigma does not apply.
        start: `published` draws means from N(0, mu_init_sd^2); `keep` makes the present weights the means, which those
            without a posterior always are.
        subspace: `random`, or the weights that are the largest at the start.
        allocation: how the density is shared: every layer the same, Erdos-Renyi-Kernel, or over the whole network.
        dense_stem: whether `uniform` keeps the network's first layer dense where that is a convolution, as published.
        include: which modules, by name with wildcards or by type, with all that is in them; or those a function of name
            and module holds for.
        exclude: which of these are left as they are.
        sampling: noise of a training step: local reparameterisation (eq. 4), or one weight sample a forward pass.
        parameterisation: sigma as a function of rho.
        mu_init_sd: sd of the means at the start.
        sigma_init: mean of sigma at the start.
        sigma_init_sd: its sd.
        prior_sigma: sd of the prior N(0, prior_sigma^2).
        lrt_epsilon: added to the variance under the root of eq. 4.
        seed: of start values, subspace and the training's noise; None takes one from PyTorch's.

    Returns:
        the network.

    Raises:
        Misuse: if there is nothing to convert, something was converted before, or a layer would have no weight. The
            network is as it was then.
    """
    _check_network(net)
    named = {"start": start, "subspace": subspace, "allocation": allocation, "sampling": sampling}
    for name, value in (named | {"parameterisation": parameterisation}).items():
        checks.choice(name, value, CHOICES[name])
    density, prior_sigma = _fraction("density", density), checks.number("prior_sigma", prior_sigma)
    mu_sd, sigma_sd = checks.number("mu_init_sd", mu_init_sd, True), checks.number("sigma_init_sd", sigma_init_sd, True)
    settings: dict[str, Any] = {
        "parameterisation": parameterisation,
        "sampling": sampling,
        "start": (mu_sd, checks.number("sigma_init", sigma_init), sigma_sd),
        "epsilon": checks.number("lrt_epsilon", lrt_epsilon),
    }
    found, dense = _found(net, include, exclude)
    seed = _seed(seed)
    make = _variational(settings, seed, found[0].weight.device) if posterior else MaskedLayer
    layers = [_layer(one, make, dense_stem, start == "keep" or not posterior) for one in found]
    _choose(found, layers, density, allocation, subspace == "largest", generator(seed, "masks"))
    layers = _put_all(net, found, layers)
    ActiveWeights(net, layers, prior_sigma=prior_sigma if posterior else None, together=allocation == "global")
    if dense:
        warnings.warn(f"these weights stay dense and without a posterior: {_told(dense)}", stacklevel=2)
    return net


def take_over(net: nn.Module, make: Make) -> None:
    """Put the layers that `make` gives in the place of plain ones which apply their weights, with these as the means.

    Args:
        net: any module; it may have layers with a mask already.
        make: gives a layer of a shape, with or without a bias, of an operation, which is the stem or not.
    """
    for one in look_through(net)[0]:
        if one.operation is not None:
            _put(one, _layer(one, make, True, True))


def _check_network(net: nn.Module) -> None:
    if not isinstance(net, nn.Module):
        raise Misuse(f"net is {quoted(net)}, but must be a torch.nn.Module.")
    if active_weights(net):
        raise Misuse(f"{type(net).__name__} is converted already; sparsify comes once, before anything else.")
    if wrapped := [type(m).__name__ for m in net.modules() if isinstance(m, PARALLEL)]:
        raise Misuse(f"the network is in a {wrapped[0]} already; sparsify comes before that.")
    if any(hasattr(module, "_orig_mod") for module in net.modules()):
        raise Misuse("the network is compiled already; sparsify comes before torch.compile.")


def _fraction(name: str, value: object) -> float:
    if (number := checks.number(name, value)) > 1:
        raise Misuse(f"{name} is {number!r}, but must be > 0 and <= 1.")
    return number


def _seed(given: object) -> int:
    """The seed that was given, or one from PyTorch's."""
    if not (given is None or isinstance(given, Integral)):
        raise Misuse(f"seed is {quoted(given)}, but must be a whole number or None.")
    return int(torch.randint(2**63 - 1, ()) if given is None else given)


def _found(
    net: nn.Module, include: Pick | Iterable[Pick], exclude: Pick | Iterable[Pick]
) -> tuple[list[Found], list[str]]:
    """What is converted, at least one weight, and what else has matrices, in words."""
    found, dense = look_through(net, include, exclude)
    if not found:
        rest = f"; what stays dense: {_told(dense)}" if dense else ""
        raise Misuse(f"{type(net).__name__} has nothing to convert, no {NAMES} that is included{rest}.")
    check_alike(found)
    return found, dense


def _told(dense: list[str]) -> str:
    return ", ".join(dense[:8]) + (f" and {len(dense) - 8} more" if len(dense) > 8 else "")


# What takes a weight's place ---------------------------------------------------------------------


def _variational(settings: dict[str, Any], seed: int, device: torch.device) -> Make:
    """Layers with a posterior and start values drawn, which share the training's noise."""
    noise, source = NormalSource(seed, "noise", device), generator(seed, "weights")

    def make(shape: tuple[int, ...], bias: bool, operation: Operation | None, stem: bool) -> VariationalLayer:
        layer = VariationalLayer(shape, bias, operation, stem, noise=noise, **settings)
        layer.reset(source)
        return layer

    return make


def _layer(found: Found, make: Make, dense_stem: bool, keep: bool) -> MaskedLayer:
    """The layer in place of a module, or of a weight that its module reads: on its device, in its type and layout."""
    weight, module = found.weight.detach(), found.module
    bias = module._parameters.get("bias") if found.operation is not None else None
    stem = dense_stem and found.first and isinstance(found.operation, Convolution)
    layer = make(tuple(weight.shape), bias is not None, found.operation, stem).to(weight)
    for parameter in ("mean", "rho"):
        if (value := layer._parameters.get(parameter)) is not None:
            own = torch.empty_like(weight).copy_(weight if keep and parameter == "mean" else value.detach())
            setattr(layer, parameter, nn.Parameter(own))
    if bias is not None:
        layer.bias = bias
    return layer.train(module.training)


def _choose(
    found: list[Found],
    layers: list[MaskedLayer],
    density: float,
    allocation: str,
    largest: bool,
    source: torch.Generator,
) -> None:
    """Draw the masks, or take the largest weights.

    Raises:
        Misuse: if a layer would have no weight, or weights cannot be ranked.
    """
    sizes = [layer.mean.detach().abs().cpu() for layer in layers] if largest else None
    for one, size in zip(found, sizes or [], strict=False):
        if bool(size.isnan().any()):
            raise Misuse(f"{one.where} has weights that are not a number, of which none is the largest.")
    choose_masks(layers, density, allocation, source, sizes)
    for one, layer in zip(found, layers, strict=True):
        if not bool(layer.mask.any()):
            raise Misuse(
                f"density is {density:g}, which leaves {one.where} without a weight; choose a larger one, or "
                "allocation='uniform'."
            )


def _put_all(net: nn.Module, found: list[Found], layers: list[MaskedLayer]) -> list[MaskedLayer]:
    """Put the layers where the weights are; returns them as they are from here on, in the order of the modules."""
    placed = {_put(one, layer) for one, layer in zip(found, layers, strict=True)}
    return [module for module in net.modules() if module in placed]


def _put(found: Found, layer: MaskedLayer) -> MaskedLayer:
    """Put a layer where the weight is; returns the object that it is from here on.

    A module becomes the layer itself, so that whoever has the module has the layer; what it says of itself, as
    `in_features`, stays.
    """
    module = found.module
    if found.operation is not None:
        module.__class__, module.__dict__ = type(layer), vars(module) | vars(layer)
        return module
    (module.__class__,) = (reader for kind, reader in READERS.items() if isinstance(module, kind))
    del module._parameters[found.name]
    module._modules[found.name] = layer
    return layer
