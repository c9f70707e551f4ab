"""What a run is: a frozen `RunSpec`, all options checked.

Standard library only, so that the workflow can plan hundreds of runs without importing torch. What options there are is
in `options.py`, what makes them valid in `values.py` and `completion.py`, where a run lies in `paths.py`, and what
it starts from in `parents.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssvi.errors import UserError
from ssvi.registry import KINDS
from ssvi.runs.completion import complete, parent_text
from ssvi.runs.options import DEFAULTS, Options
from ssvi.runs.values import plain, validate


@dataclass(frozen=True)
class RunSpec(Options):
    """One training, completely described. Everything else is derived from it."""

    def __post_init__(self) -> None:
        for name in DEFAULTS:
            object.__setattr__(self, name, plain(getattr(self, name), DEFAULTS[name]))
        validate(dataclasses.asdict(self), where="run spec")
        if self.parent != parent_text(dataclasses.asdict(self), "run spec"):
            raise UserError(f"run spec: parent is {self.parent!r}, which is not in its one canonical form.")

    @property
    def training_epochs(self) -> int:
        """Epochs of its own training: none for a method that only puts its parents together."""
        return self.epochs if "epochs" in KINDS[self.method].uses else 0


def make_spec(options: Mapping[str, Any], where: str = "options") -> RunSpec:
    """Build a `RunSpec` from plain options (with `preset`), refusing what the method does not use.

    Raises:
        UserError: for a bad name, type or value, or an option that has no effect on this run.
    """
    return RunSpec(**complete(options, where))
