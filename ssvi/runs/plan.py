"""How much of what Snakemake was asked for it still has to do, and how long that will take, before anything starts."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.parents import with_parents
from ssvi.runs.records import is_number, read_record
from ssvi.runs.spec import RunSpec

# What the time of an epoch depends on; the first rule for which finished runs are known is used.
ALIKE = (("dataset", "model", "width", "method", "batch_size", "sampling"), ("dataset", "model", "width"))


@dataclass(frozen=True)
class Item:
    """A line of the plan: an output, or the whole study.

    Attributes:
        name: of the output.
        runs: runs it is made from.
        done: of these, runs of which nothing is to be trained or evaluated.
        hours: estimated training time of the others, one after another; None where no finished run is like them.
    """

    name: str
    runs: int
    done: int
    hours: float | None

    @property
    def to_do(self) -> int:
        """Runs still to be trained or evaluated."""
        return self.runs - self.done


def make_plan(
    results: Path,
    outputs: Mapping[str, Iterable[str]],
    runs: Mapping[str, RunSpec],
    to_train: Collection[str],
    to_evaluate: Collection[str],
    to_measure: Mapping[str, Collection[str]] | None = None,
) -> list[Item]:
    """All runs, then those of each output.

    Args:
        results: the results folder.
        outputs: the run paths of each output; what they start from is needed too.
        runs: all runs, by their paths.
        to_train: those of them that will be trained.
        to_evaluate: those that will be evaluated, whether they are trained or not.
        to_measure: those of which more than metrics will be measured for an output, by its name.
    """
    to_measure = to_measure or {}
    costs = _costs(results, runs)

    def item(name: str, mine: Iterable[str], measured: Iterable[str]) -> Item:
        due = {*to_train, *to_evaluate, *measured}
        mine = list(with_parents({run: runs[run] for run in mine}))
        hours = [_estimate(runs[run], costs) if run in to_train else 0.0 for run in mine if run in due]
        known = [h for h in hours if h is not None]
        return Item(name, len(mine), len(mine) - len(hours), sum(known) if len(known) == len(hours) else None)

    whole = item("in all", runs, itertools.chain(*to_measure.values()))
    return [whole, *(item(name, mine, to_measure.get(name, ())) for name, mine in outputs.items())]


def _key(spec: RunSpec, names: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(getattr(spec, name) for name in names)


def _costs(results: Path, runs: Mapping[str, RunSpec]) -> dict[tuple[object, ...], float]:
    """Median seconds an epoch of the finished runs, by what they have in common."""
    found: dict[tuple[object, ...], list[float]] = {}
    for run, spec in runs.items():
        folder = results / "runs" / run
        try:
            record = read_record(folder / files.TRAINING, training_seconds=float, epochs_done=float)
        except UserError:
            # Not trained, or damaged, which is said where its results are used; a plan only leaves it out.
            continue
        parents = record.get("parent_seconds", 0.0)
        if record["epochs_done"] and is_number(parents):
            own = record["training_seconds"] - parents
            for names in ALIKE:
                found.setdefault(_key(spec, names), []).append(own / record["epochs_done"])
    return {key: statistics.median(values) for key, values in found.items()}


def _estimate(spec: RunSpec, costs: Mapping[tuple[object, ...], float]) -> float | None:
    if not spec.training_epochs:
        return 0.0
    for names in ALIKE:
        if (seconds := costs.get(_key(spec, names))) is not None:
            return seconds * spec.training_epochs / 3600
    return None


def to_text(study: str, items: list[Item]) -> str:
    """The plan as a table for a terminal."""
    rows = [("output", "runs", "done", "to do", "hours")]
    rows += [(i.name, str(i.runs), str(i.done), str(i.to_do), _hours(i)) for i in items]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    whole = items[0]
    about = (
        "No finished run tells yet how long they take."
        if whole.to_do and whole.hours is None
        else "Hours are estimated from finished runs, wherever those ran, one training after another; divide by how "
        "many run at once."
    )
    return "\n".join([f"Plan of study {study}", *(f"  {line}" for line in lines), about])


def _hours(item: Item) -> str:
    if not item.to_do:
        return "0"
    return "?" if item.hours is None else f"{item.hours:.2f}" if item.hours < 10 else f"{item.hours:.0f}"
