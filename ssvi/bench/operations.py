"""How many operations a piece of work asks of torch, and how many of them make the host wait for their result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Their result, or its size, is read by the host.
READ = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}


class Operations(TorchDispatchMode):
    """A context in which operations are counted, on whatever device: views and allocations too.

    Attributes:
        by_name: how many of each.
        reads: how many of them a host must wait for, lists of numbers fetched from a device among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self.reads = 0

    @property
    def count(self) -> int:
        """How many in all."""
        return sum(self.by_name.values())

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = func.__name__.split(".")[0], kwargs or {}
        self.by_name[name] += 1
        self.reads += name in READ or _selects_by_mask(name, args) or _fetches(name, args, kwargs)
        return func(*args, **kwargs)


def _selects_by_mask(name: str, args: Sequence[Any]) -> bool:
    places = args[1] if name in ("index", "index_put", "index_put_") else ()
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in places)


def _fetches(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    to = kwargs.get("device")
    return name == "_to_copy" and to is not None and args[0].device.type != "cpu" and torch.device(to).type == "cpu"
