"""Ways of learning, in words: by which optimiser, from which start, at which temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ssvi.analysis.settings import SETTING, in_words, is_missing

# The columns that a way of learning is told by beside its method, and their headings.
LEARNED, START, TEMPERATURE = "learned_by", "start_of_means", "posterior_temperature"
WAY = (LEARNED, START, TEMPERATURE)
# Options that these, and a place in a table or figure, tell already.
TOLD = (
    *("dataset", "model", "method", "density"),
    *("mean_init", "mu_init_sd", "kl_scale", "optimizer", "posterior_optimizer"),
)
OPTIMISERS = {"sgd": "SGD", "adam": "AdamW"}
NATURAL = "natural gradient"
STARTS = {"published": "published", "fan_in": "fan-in", "active_fan_in": "active fan-in"}


def learned_by(row: Mapping[str, Any]) -> str:
    """What moves means or weights; empty where a method has an optimiser of its own."""
    if row["posterior_optimizer"] == "ivon":
        return NATURAL
    return "" if is_missing(row["optimizer"]) else OPTIMISERS[row["optimizer"]]


def start(row: Mapping[str, Any]) -> str:
    """How means or weights start; that of a plain network is as published by its fan-in."""
    if is_missing(row["mean_init"]):
        return ""
    plain = is_missing(row["mu_init_sd"])
    return STARTS["fan_in" if plain and row["mean_init"] == "published" else row["mean_init"]]


def with_ways(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the columns of `WAY`."""
    rows = runs.to_dict("records")
    columns = {LEARNED: [learned_by(row) for row in rows], START: [start(row) for row in rows]}
    return runs.assign(**columns, **{TEMPERATURE: runs["kl_scale"]})


Way = tuple[Any, ...]  # the method, and the values of `WAY`


def varied(runs: pd.DataFrame) -> list[str]:
    """The options, beside those of a way and the density, in which settings differ.

    Args:
        runs: with the columns of `WAY`.
    """
    return [name for name in SETTING if name not in TOLD and runs[name].dropna().nunique() > 1]


def telling(runs: pd.DataFrame) -> dict[Way, list[str]]:
    """For each way that is of several settings at one density, a few options that tell these apart.

    Args:
        runs: with the columns of `WAY`.
    """
    options, found = varied(runs), dict[Way, list[str]]()
    for key, own in runs.groupby(["dataset", "model", "density", "method", *WAY], dropna=False, sort=False):
        if apart := _few(own[options].drop_duplicates()):
            way = tuple(None if is_missing(value) else value for value in key[3:])
            found[way] = list(dict.fromkeys([*found.get(way, []), *apart]))
    return found


def _few(settings: pd.DataFrame) -> list[str]:
    """Columns that tell all rows apart, each taken because it tells more of them than any other would."""
    found: list[str] = []
    while len(settings[found].drop_duplicates() if found else settings.iloc[:1]) < len(settings):
        rest = [name for name in settings if name not in found]
        found.append(max(rest, key=lambda name: len(settings[[*found, name]].drop_duplicates())))
    return found


def way_text(method: str, learned: str, start: str, temperature: float | None, **more: Any) -> str:
    """A way of learning in words, as in `SSVI, natural gradient, active fan-in, T 0.1`, and more options of it."""
    heat = "" if is_missing(temperature) else f"T {temperature:g}"
    options = (in_words(name, value) for name, value in more.items() if not is_missing(value))
    return ", ".join(filter(None, [method, learned, start, heat, *options]))
