"""What a run starts from: other runs, of which its `parent` says how they are trained.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from ssvi.registry import INHERITED, KINDS
from ssvi.runs.completion import parse_parent
from ssvi.runs.paths import unique
from ssvi.runs.spec import RunSpec


def parents_of(spec: RunSpec) -> list[RunSpec]:
    """The runs that this one starts from, in order: none, one, or the members of an ensemble."""
    if not spec.parent:
        return []
    options = {name: getattr(spec, name) for name in INHERITED} | parse_parent(spec.parent, "run spec")
    if not KINDS[spec.method].of_members:
        return [RunSpec(**options)]
    # of the decimal number that was typed, so that members are the runs that others name
    options["density"] = float(Fraction(repr(spec.density)) / spec.members)
    seeds = range(spec.seed * spec.members, (spec.seed + 1) * spec.members)
    return [RunSpec(**options | {"seed": seed}) for seed in seeds]


def with_parents(runs: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
    """The runs and all that they start from, parents first."""

    def line(spec: RunSpec) -> Iterator[RunSpec]:
        for parent in parents_of(spec):
            yield from line(parent)
        yield spec

    return unique(one for spec in runs.values() for one in line(spec))
