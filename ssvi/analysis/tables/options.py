"""What a setting is called: the options in which it departs from the usual ones, or the preset they make up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.made import MADE
from ssvi.analysis.settings import SETTING, in_words, is_missing, without_effect
from ssvi.registry import COMMON, POINT, TRAINING
from ssvi.runs.options import FIELDS, NEEDS, PRESETS

# What stands in columns of its own.
IDENTITY = ("dataset", "model", "method", "density")
# What every training has.
SHARED = (*COMMON, *TRAINING)
EVALUATION = ("evaluation_samples", "evaluation_bins")
# Options whose values are ways of doing something: of one that departs, usual numbers go without saying.
WAYS = ("sampling", "mean_init", "posterior_optimizer")


def with_evaluation(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, unfinished ones with the evaluation and the arithmetic that their method's finished ones had.

    Nobody evaluated an unfinished run, and it should not be a setting of its own for that; nor should one that
    diverged, whose evaluation took no sample.
    """
    filled = runs.copy()
    for name in (*EVALUATION, *MADE):
        values = filled[name].where((filled["status"] == COMPLETE) | (name not in EVALUATION))
        modes = {method: own.mode() for method, own in values.groupby(filled["method"])}
        usual = {method: mode.iloc[0] for method, mode in modes.items() if len(mode)}
        filled[name] = values.where(values.notna(), filled["method"].map(usual))
    return filled


def usual_options(settings: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """The most common value of each option over the settings that use it.

    Of equally common ones it is the option's default or, where that is none of them, the one that most runs have.
    """
    usual: dict[str, Any] = {}
    rows = [(dict(group.iloc[0]), len(group)) for group in settings]
    sampled = [(row, n) for row, n in rows if row["method"] not in POINT]
    for name in SETTING:
        counts: Counter[Any] = Counter()
        runs: Counter[Any] = Counter()
        for row, n in sampled if name in EVALUATION else rows:
            if not is_missing(row[name]):
                counts[row[name]] += 1
                runs[row[name]] += n
        if counts:
            default = FIELDS[name].default if name in FIELDS else None
            usual[name] = max(counts, key=lambda v: (counts[v], v == default, runs[v]))
    return usual


def unsaid_options(settings: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """What a row of a table of these settings need not say: the usual options, and the published way of learning the
    posterior, so that what learned it otherwise says so even where nothing else is shown."""
    usual, name = usual_options(settings), "posterior_optimizer"
    return usual | ({name: FIELDS[name].default} if name in usual else {})


def departures(row: pd.Series, usual: Mapping[str, Any], ignored: Collection[str] = IDENTITY) -> dict[str, Any]:
    """The options in which a setting departs from the usual ones and that have an effect on it.

    A number that only matters because of another option that departs is among them even at its usual value: a
    constant is not described without saying which.
    """
    left_out = {*ignored, *without_effect(row), *(EVALUATION if row["method"] in POINT else ())}
    told = {n: row[n] for n in SETTING if n in usual and n not in left_out and not is_missing(row[n])}
    found = {name for name, value in told.items() if value != usual[name]}

    def depends(name: str) -> bool:
        needed = {need.option for need in NEEDS.get(name, ())}.difference(WAYS)
        return not isinstance(told[name], str) and bool(needed & found)

    return {name: value for name, value in told.items() if name in found or depends(name)}


def describe(row: pd.Series, usual: Mapping[str, Any], ignored: Collection[str] = IDENTITY) -> str:
    """The departures of a setting in words: `alpha 0.5`, `preset official`; empty for a usual one.

    A preset is named where all of its options that only some methods have are there. What every training has, such
    as the images held out, may have been set otherwise beside it: then it is said, unless it is the usual value.
    """
    found = departures(row, usual, ignored)
    words, idle = [], without_effect(row)
    for preset, options in PRESETS.items():
        made = {
            name: value
            for name, value in options.items()
            if name not in idle and not is_missing(row[name]) and usual.get(name, value) != value
        }
        there = {name for name, value in made.items() if found.get(name) == value}
        if len(there) > 1 and all(name in there for name in made if name not in SHARED):
            words.append(f"preset {preset}")
            found = {name: value for name, value in found.items() if name not in there}
    return ", ".join([*words, *(in_words(name, value) for name, value in found.items())])


def usual_note(usual: Mapping[str, Any]) -> str:
    """Which options all settings have where nothing else is said, as far as they are not the defaults."""
    named = {n: v for n, v in usual.items() if n in FIELDS and n not in IDENTITY and v != FIELDS[n].default}
    words = ", ".join(in_words(name, value) for name, value in named.items())
    return f"Where a row says nothing else: {f'{words}, and ' if words else ''}the defaults of ssvi train."
