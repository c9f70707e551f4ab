"""Runs that differ in the seed alone are one setting: grouping, ordering, naming, for tables and figures alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import pandas as pd

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.made import MADE, told
from ssvi.registry import CRITERIA, KINDS
from ssvi.runs.completion import idle
from ssvi.runs.options import FIELDS

Thing = TypeVar("Thing")


class _Titles(Mapping[str, str]):
    """What each method is called."""

    def __getitem__(self, method: str) -> str:
        return KINDS[method].title

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


METHOD_NAMES = _Titles()
# What a column of a setting is called, if not as in `config.yaml`.
HEADINGS = {
    "dataset": "data set",
    "evaluation_samples": "test samples",
    "evaluation_bins": "bins",
    "evaluation_numerics": "evaluated by numerics",
    "computed_precision": "computed in",
    "ood_set": "OOD set",
    "ood_distance": "distance",
    "learned_by": "learned by",
    "start_of_means": "start",
    "posterior_temperature": "T",
}
# Values of options that have words of their own; no epochs are only of a method that prunes what it is given.
SAID = {("epochs", 0): "not trained on", ("posterior_optimizer", "ivon"): "natural gradient (IVON)"}
# What makes up how the posterior is learned, wherever it starts: a learning rate is one of its optimiser.
RECIPE = (
    *("posterior_optimizer", "sigma_optimizer", "sigma_lr"),
    *("ivon_lr", "curvature_memory", "curvature_beta", "step_clip"),
)
SETTING = (*(name for name in FIELDS if name != "seed"), "evaluation_samples", "evaluation_bins", *MADE)
# More runs than these of one status and cause are counted, not listed.
LISTED = 10
FIRST_OF_MANY = 3
FIRST = ("dataset", "model", "method", "density", "lr")
# What a network is asked: only runs of one task, by networks of one kind, can be the best of each other.
TASK = ("dataset", "model", "image_size", "shrink", "training_images", "held_out_classes")


def setting_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that tell the frame's settings apart: data set, method, density, lr, and whatever else varies.

    An option varies if runs that use it differ in it; that a method has no criterion is no difference.
    """
    always = ("dataset", "method", "density", "lr")
    order = (*FIRST, *(name for name in SETTING if name not in FIRST))
    return [name for name in order if name in always or frame[name].dropna().nunique() > 1]


def without_effect(row: Mapping[str, Any]) -> set[str]:
    """The options that have no effect on a run, because of what another one is."""
    return idle({name: row[name] for name in FIELDS if name in row and not is_missing(row[name])})


def task(group: pd.DataFrame) -> tuple[Any, ...]:
    """The task of a setting's runs."""
    return tuple(None if is_missing(value) else value for value in group.iloc[0][list(TASK)])


def settings(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs of each distinct setting (all options but the seed, and `MADE`), in reading order."""
    rows = frame[list(SETTING)].itertuples(index=False, name=None)
    keys = [tuple(None if is_missing(v) else v for v in row) for row in rows]
    groups = split(range(len(keys)), keys.__getitem__)
    return [frame.iloc[groups[key]] for key in sorted(groups, key=_reading_order)]


def split(things: Iterable[Thing], key: Callable[[Thing], Hashable]) -> dict[Any, list[Thing]]:
    """Things by their key, both in the order in which they come first."""
    found: dict[Any, list[Thing]] = {}
    for thing in things:
        found.setdefault(key(thing), []).append(thing)
    return found


def _reading_order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    options = dict(zip(SETTING, key, strict=True))
    rest = [
        (0, 0.0, "") if v is None else (1, float(v), "") if isinstance(v, int | float) else (2, _rank(v), v)
        for v in key
    ]
    return (options["dataset"], options["model"], KINDS.place(options["method"]), -options["density"], rest)


def caveats(runs: pd.DataFrame) -> tuple[str, ...]:
    """What stands under every table and figure of runs: which are left out, and whether the others are alike.

    Runs that are not averaged are named by status and cause, or the first of many. Runs of which the same spec would
    have given other numbers are never put side by side without a word, nor are others that were made otherwise, or
    learned their posterior otherwise than published.
    """
    done = runs[runs["status"] == COMPLETE]
    left_out = runs[runs["status"] != COMPLETE]
    return (*mixed(done), *_natural(done), *_unverified(done), *told(done), *_left_out(left_out))


def _natural(done: pd.DataFrame) -> Iterator[str]:
    if (n := int(done["posterior_optimizer"].eq("ivon").sum())) > 0:
        yield f"The posterior of {n} of {len(done)} runs was learned by natural gradient (IVON), not as published."


def _unverified(done: pd.DataFrame) -> Iterator[str]:
    if (n := int(done["verified"].eq(False).sum())) > 0:
        yield (
            f"Not verified: {n} of {len(done)} runs, made by a version whose files do not say of each other that they "
            "belong together."
        )


def _left_out(runs: pd.DataFrame) -> Iterator[str]:
    """A line for runs of the same status and cause, the first of many named; of many causes the first."""
    for status, of_status in runs.groupby("status", sort=False):
        groups = split(of_status.itertuples(), lambda row: "" if is_missing(row.cause) else f" ({row.cause})")
        for cause, rows in list(groups.items())[:LISTED]:
            many = len(rows) > LISTED
            named = ", ".join(row.run for row in (rows[:FIRST_OF_MANY] if many else rows))
            rest = f" and {len(rows) - FIRST_OF_MANY} more" if many else ""
            yield f"Left out, {status}: {named}{rest}{cause}."
        if (rest := sum(map(len, list(groups.values())[LISTED:]))) > 0:
            yield f"Left out, {status}: {rest} more, each for a cause of its own."


# What has a version of its arithmetic, and its column.
VERSIONED = {"trained": "numerics", "evaluated": "evaluation_numerics"}


def mixed(done: pd.DataFrame, versioned: Mapping[str, str] = VERSIONED) -> Iterator[str]:
    """Warnings if finished runs of one data set were not all made by one version of the arithmetic."""
    for what, column in versioned.items():
        known = done[done[column].notna()]
        versions = known[column].astype(int)
        # of two data sets they may differ, since what changed in the reading of one does not concern another
        counts = versions[versions.groupby(known["dataset"]).transform("nunique") > 1].value_counts().sort_index()
        if len(counts) > 1:
            words = ", ".join(f"{n} by {version}" for version, n in counts.items())
            yield (
                f"WARNING: these runs were {what} by different versions of the arithmetic (numerics: {words}), which "
                "give other numbers for the same options; no mean is over both, but differences may be theirs."
            )


def _rank(word: str) -> float:
    return float(CRITERIA.place(word)) if word in CRITERIA else 0.0


def option_text(value: Any) -> str:
    """An option as it stands in a table or legend; empty where the method does not use it."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    return str(value)


def in_words(name: str, value: Any, *, spaced: bool = False) -> str:
    """An option and its value: `batch_size 64`, as it is typed; `batch size 64` where it is `spaced`, as in figures."""
    if not is_missing(value) and (name, value) in SAID:
        return SAID[name, value]
    label = name.replace("_", " ") if spaced else HEADINGS.get(name, name)
    return f"{label} {option_text(value)}"


def is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
