"""From any network to one whose weights lie in a sparse subspace, with a posterior or without: `sparsify`."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from ssvi.errors import Misuse, quoted
from ssvi.flat import ActiveWeights, active_weights
from ssvi.layers import TO_RHO, MaskedLayer, VariationalLayer
from ssvi.noise import NormalSource, generator
from ssvi.operations import Convolution, Operation
from ssvi.subspace import ALLOCATIONS, LayerShape, best_masks, random_masks

# Modules by name with wildcards or by type, each with all that is in it; or those a function of name and module holds
# for.
Pick = str | type[nn.Module] | Callable[[str, nn.Module], bool]
# A layer of a shape, with or without a bias, of an operation, which is the stem or not.
Make = Callable[[tuple[int, ...], bool, Operation | None, bool], MaskedLayer]


def _read(name: str) -> property:
    """A weight that is a layer in its module: reading it gives what the present forward pass computes with."""

    def weight(self: nn.Module) -> Tensor | None:
        layer = self._modules.get(name)
        return self._parameters.get(name) if layer is None else layer.weight

    return property(weight)


class ReadingAttention(nn.MultiheadAttention):
    """`MultiheadAttention` whose weights, which it reads in functions of PyTorch's, are layers of the same names."""

    in_proj_weight = _read("in_proj_weight")
    q_proj_weight = _read("q_proj_weight")
    k_proj_weight = _read("k_proj_weight")
    v_proj_weight = _read("v_proj_weight")


# What applies its weight once to what it is called with, by an operation that is known here.
LINEAR = (nn.Linear,)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Modules that read their own parameters in functions of PyTorch's: those that do it with layers instead.
READERS: dict[type[nn.Module], type[nn.Module]] = {nn.MultiheadAttention: ReadingAttention}
CONVERTED = (*LINEAR, *CONVOLUTIONS, *READERS)
NAMES = f"{', '.join(kind.__name__ for kind in CONVERTED[:-1])} or {CONVERTED[-1].__name__}"
# By any of these a subclass, or a module by itself, would compute something else.
COMPUTING = ("forward", "_conv_forward", "__call__", "__getattr__", "__getattribute__", "weight", "bias")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
CHOICES: dict[str, tuple[str, ...]] = {
    "start": ("published", "keep"),
    "subspace": ("random", "largest"),
    "allocation": (*ALLOCATIONS, "global"),
    "sampling": ("local", "weight"),
    "parameterisation": tuple(TO_RHO),
}


@dataclass(frozen=True)
class Found:
    """A weight that is to be converted.

    Attributes:
        module: whose it is.
        name: of the weight in the module.
        where: the name of both in the network.
        operation: None where the module goes on reading the weight itself.
        first: whether it is the network's first layer.
    """

    module: nn.Module
    name: str
    where: str
    operation: Operation | None
    first: bool

    @property
    def weight(self) -> nn.Parameter:
        return self.module._parameters[self.name]


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
    chosen = {"start": start, "subspace": subspace, "allocation": allocation}
    for name, value in (chosen | {"sampling": sampling, "parameterisation": parameterisation}).items():
        if value not in CHOICES[name]:
            raise Misuse(f"{name} is {quoted(value)}, but must be one of {', '.join(CHOICES[name])}.")
    if (density := _number("density", density)) > 1:
        raise Misuse(f"density is {density!r}, but must be > 0 and <= 1.")
    mu_init_sd, sigma_init_sd = _number("mu_init_sd", mu_init_sd, True), _number("sigma_init_sd", sigma_init_sd, True)
    sigma_init, prior_sigma = _number("sigma_init", sigma_init), _number("prior_sigma", prior_sigma)
    lrt_epsilon = _number("lrt_epsilon", lrt_epsilon)
    if not (seed is None or isinstance(seed, Integral)):
        raise Misuse(f"seed is {quoted(seed)}, but must be a whole number or None.")
    found, dense = look_through(net, include, exclude)
    if not found:
        rest = f"; what stays dense: {_told(dense)}" if dense else ""
        raise Misuse(f"{type(net).__name__} has nothing to convert, no {NAMES} that is included{rest}.")
    _check_alike(found)
    seed = int(torch.randint(2**63 - 1, ()) if seed is None else seed)
    settings: dict[str, Any] = {
        "parameterisation": parameterisation,
        "sampling": sampling,
        "epsilon": lrt_epsilon,
        "start": (mu_init_sd, sigma_init, sigma_init_sd),
        "noise": NormalSource(seed, "noise", found[0].weight.device),
    }
    source = generator(seed, "weights")

    def make(shape: tuple[int, ...], bias: bool, operation: Operation | None, stem: bool) -> MaskedLayer:
        if not posterior:
            return MaskedLayer(shape, bias, operation, stem)
        layer = VariationalLayer(shape, bias, operation, stem, **settings)
        layer.reset(source)
        return layer

    keep = start == "keep" or not posterior
    layers = [_layer(one, make, dense_stem, keep) for one in found]
    _choose(found, layers, density, allocation, subspace, generator(seed, "masks"))
    placed = {_put(one, layer) for one, layer in zip(found, layers, strict=True)}
    layers = [module for module in net.modules() if module in placed]
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


def _number(name: str, value: object, zero: bool = False) -> float:
    """An option as a plain float, whatever kind of number it was given as."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise Misuse(f"{name} is {quoted(value)}, but must be {'>=' if zero else '>'} 0 and finite.")
    return float(value)


def _told(dense: list[str]) -> str:
    return ", ".join(dense[:8]) + (f" and {len(dense) - 8} more" if len(dense) > 8 else "")


# What is there ------------------------------------------------------------------------------------


def _picked(option: str, given: Pick | Iterable[Pick], names: dict[nn.Module, list[str]]) -> set[nn.Module]:
    """The modules that an option speaks of, by all the names that each has.

    Raises:
        Misuse: if it is none of the allowed things, or the name of nothing.
    """
    single = isinstance(given, str) or callable(given) or not isinstance(given, Iterable)
    found: set[nn.Module] = set()
    for pick in [given] if single else given:
        if isinstance(pick, str):
            whole = [module for module, own in names.items() if any(fnmatchcase(name, pick) for name in own)]
            if not whole:
                raise Misuse(f"{option} is {pick!r}, which is the name of no module in the network.")
        elif isinstance(pick, type) and issubclass(pick, nn.Module):
            whole = [module for module in names if isinstance(module, pick)]
        elif callable(pick) and not isinstance(pick, type | nn.Module):
            found |= {module for module, own in names.items() if any(pick(name, module) for name in own)}
            continue
        else:
            raise Misuse(
                f"{option} is {quoted(pick)}, but must be a module's name, a type of module, a function of both, or a "
                "list of such."
            )
        found |= {inner for module in whole for inner in module.modules()}
    return found


def look_through(
    net: nn.Module, include: Pick | Iterable[Pick] = "*", exclude: Pick | Iterable[Pick] = ()
) -> tuple[list[Found], list[str]]:
    """What can be converted, in the order of the modules, and what else has matrices, in words.

    Raises:
        Misuse: if a module does not know its sizes yet.
    """
    names: dict[nn.Module, list[str]] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    picked = _picked("include", include, names) - _picked("exclude", exclude, names)
    owners = Counter(id(p) for module in names for p in module._parameters.values())
    found: list[Found] = []
    dense: list[str] = []
    first: nn.Module | None = None
    for module, (name, *_) in names.items():
        own = {n: p for n, p in module._parameters.items() if p is not None}
        _check_sizes(name, module, own)
        weights = {n: p for n, p in own.items() if p.dim() > 1}
        if first is None and weights and not module._modules:
            first = module
        if module not in picked or isinstance(module, MaskedLayer):
            continue
        for one in _of_module(module, name, module is first):
            if owners[id(one.weight)] == 1 and _is_free(one.weight):
                found.append(one)
                del weights[one.name]
        dense += [f"{_joined(name, n)} ({type(module).__name__})" for n in weights]
    return found, dense


def _joined(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own


def _check_sizes(name: str, module: nn.Module, own: dict[str, nn.Parameter]) -> None:
    where = f"{name or 'the network'} ({type(module).__name__})"
    if any(map(is_lazy, own.values())):
        raise Misuse(f"{where} does not know its sizes yet; call the network once before.")


def _check_alike(found: list[Found]) -> None:
    """The weights become one vector."""
    first = found[0]
    for one in found:
        if one.weight.is_meta:
            raise Misuse(f"{one.where} has no values yet, it is on the device 'meta'; load or move the network before.")
        if (one.weight.dtype, one.weight.device) != (first.weight.dtype, first.weight.device):
            told = [f"{x.where} is {x.weight.dtype} on {x.weight.device}" for x in (first, one)]
            raise Misuse(f"{' and '.join(told)}; weights of one subspace have one type and device, so exclude some.")


def _of_module(module: nn.Module, name: str, first: bool) -> Iterator[Found]:
    """The weights of a module that can be converted, nothing of which is lost by that."""
    if parametrize.is_parametrized(module) or any(getattr(module, hooks, None) for hooks in HOOKS):
        return
    if _computes_as(module, LINEAR):
        yield Found(module, "weight", _joined(name, "weight"), Operation(), first)
    elif _computes_as(module, CONVOLUTIONS):
        operation = Convolution(
            module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode
        )
        yield Found(module, "weight", _joined(name, "weight"), operation, first)
    for kind, reader in READERS.items():
        if _computes_as(module, (kind,)):
            weights = [n for n, value in vars(reader).items() if isinstance(value, property)]
            yield from (
                Found(module, n, _joined(name, n), None, first) for n in weights if module._parameters[n] is not None
            )


def _computes_as(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of these types, and nothing that it computes is a subclass's or its own."""
    for kind in kinds:
        if isinstance(module, kind):
            inherited = all(getattr(type(module), n, None) is getattr(kind, n, None) for n in COMPUTING)
            return inherited and not any(n in vars(module) for n in COMPUTING)
    return False


def _is_free(weight: nn.Parameter) -> bool:
    """Whether a weight is trained, by a gradient that nobody changes."""
    hooks = (getattr(weight, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks"))
    return weight.requires_grad and weight.is_floating_point() and weight.numel() > 0 and not any(hooks)


# What takes its place -----------------------------------------------------------------------------


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
    subspace: str,
    source: torch.Generator,
) -> None:
    """Draw the masks.

    Raises:
        Misuse: if a layer would have no weight, or weights cannot be ranked.
    """
    shapes = [LayerShape(layer.shape, layer.dense_stem) for layer in layers]
    if subspace == "random":
        masks = random_masks(shapes, density, allocation, source)
    else:
        sizes = [layer.mean.detach().abs().cpu() for layer in layers]
        if wrong := [one.where for one, size in zip(found, sizes, strict=True) if bool(size.isnan().any())]:
            raise Misuse(f"{wrong[0]} has weights that are not a number, of which none is the largest.")
        masks = best_masks(shapes, density, allocation, sizes)
    for one, mask in zip(found, masks, strict=True):
        if not bool(mask.any()):
            raise Misuse(
                f"density is {density:g}, which leaves {one.where} without a weight; choose a larger one, or "
                "allocation='uniform'."
            )
    for layer, mask in zip(layers, masks, strict=True):
        layer.mask.copy_(mask)
        layer.apply_mask()


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
