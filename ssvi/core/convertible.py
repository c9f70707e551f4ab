"""What of a network can be converted: weights that are applied, or read, by modules that are known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from ssvi.core.layers import MaskedLayer
from ssvi.core.operations import Convolution, Operation
from ssvi.errors import Misuse, quoted

# Modules by name with wildcards or by type, each with all that is in it; or those a function of name and module holds
# for.
Pick = str | type[nn.Module] | Callable[[str, nn.Module], bool]


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


def check_alike(found: list[Found]) -> None:
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
