"""Training methods: a file each, entered in `ssvi.registry.KINDS`."""

from __future__ import annotations

from ssvi.errors import UserError
from ssvi.methods.base import Method
from ssvi.registry import KINDS, found

__all__ = ["Method", "method_class"]

PREDICTIVE = "a Predictive of make_predictive (ssvi/methods/predictive.py)"
GROWTH = "a Growth of its subspace (ssvi/methods/growth.py)"
# What a method was asked for before, and where it belongs now: nobody would call it, and the run would be another.
ELSEWHERE = {
    **dict.fromkeys(("extra_loss", "on_data_gradient"), "on_gradient"),
    **dict.fromkeys(("samples", "set_mean", "set_train", "states", "tensors", "samples_are_parts"), PREDICTIVE),
    **dict.fromkeys(("take_tensors", "slim", "dead_numbers", "paired_numbers"), PREDICTIVE),
    **dict.fromkeys(("ranking", "growth_flops", "watches"), GROWTH),
    **dict.fromkeys(("moving", "updates", "start_masks", "score"), "make_subspace (ssvi/methods/subspace.py)"),
    "notes": "context.say",
    "passes": "what its layers compute (products)",
    "values_per_weight": "what its layers store (numbers)",
}


def method_class(name: str) -> type[Method]:
    """The class of a registered method.

    Raises:
        UserError: if there is none, or it was written for an earlier version.
    """
    code = KINDS.code(name)
    there = found(code, f"method {name!r}")
    if not (isinstance(there, type) and issubclass(there, Method)):
        raise UserError(f"method {name!r}: {code} is {there!r}, but must be a subclass of ssvi.methods.Method.")
    own = (base for base in there.__mro__ if not base.__module__.startswith(f"{__name__}."))
    if gone := [one for base in own for one in vars(base) if one in ELSEWHERE]:
        raise UserError(
            f"method {name!r}: {code} has {gone[0]!r}, which no method is asked for any more; it belongs to "
            f"{ELSEWHERE[gone[0]]}."
        )
    return there
