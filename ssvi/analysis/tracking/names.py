"""What a run is called in MLflow, whose table shows some thirty letters of a name: what tells it from the others."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ssvi.analysis.settings import option_text, split
from ssvi.runs.completion import idle
from ssvi.runs.options import FIELDS, FOLDER_PREFIX, NEEDS, PRESETS, options_of
from ssvi.runs.spec import RunSpec

LENGTH = 30
HASH = 6
# Said without their option, of which the value is a word of its own, or which every name has at this place.
BARE = ("dataset", "model", "density", "preset", "criterion")


def run_names(specs: Mapping[str, RunSpec]) -> dict[str, str]:
    """A name for each run of a study: its method, what differs from the method's usual options, and the seed.

    `ssvi 0.05 snr_exp s0`: all names are distinct and have at most `LENGTH` letters. Where the words are too many, the
    names of options are abbreviated and, where that does not do, a hash of the run path stands for the last words. The
    runs of one setting differ in the last word alone.

    Args:
        specs: all runs of the study, by run path.
    """
    places = [name for name in ("dataset", "model") if len({getattr(spec, name) for spec in specs.values()}) > 1]
    usual = {method: _usual(group) for method, group in split(specs.values(), lambda spec: spec.method).items()}
    words = {run: _words(spec, places, usual[spec.method]) for run, spec in specs.items()}
    names = {run: _fitted(run, spec, words[run]) for run, spec in specs.items()}
    times = Counter(names.values())
    return {run: _hashed(run, specs[run], name.split()) if times[name] > 1 else name for run, name in names.items()}


def _usual(specs: Iterable[RunSpec]) -> dict[str, Any]:
    """The most common value of each option of one method; of equally common ones the default, or the first."""
    found = list(specs)
    usual = {}
    for name in options_of(found[0].method):
        counts = Counter(getattr(spec, name) for spec in found)
        if name != "density" or len(counts) == 1:
            usual[name] = max(counts, key=lambda value: (counts[value], value == FIELDS[name].default))
    return usual


def _words(spec: RunSpec, places: Iterable[str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a name says, and their values."""
    sayable = options_of(spec.method) - {"method", "seed", "dataset", "model"} - idle(vars(spec))
    unusual = {name: value for name in sayable if (value := getattr(spec, name)) != usual.get(name)}
    # what alone lets another one have an effect goes without saying
    implied = {need.option for name in unusual for need in NEEDS.get(name, ()) if len(need.values) == 1}
    words = {name: value for name, value in unusual.items() if name not in implied}
    for preset, options in PRESETS.items():
        if len(options.keys() & words.keys()) > 1 and all(options.get(k, v) == v for k, v in words.items()):
            words = {"preset": preset} | {k: v for k, v in words.items() if k not in options}
    words |= {name: getattr(spec, name) for name in places}
    return {name: words[name] for name in sorted(words, key=_order)}


def _order(name: str) -> tuple[int, int]:
    return (BARE.index(name), 0) if name in BARE else (len(BARE), list(FIELDS).index(name))


def _fitted(run: str, spec: RunSpec, words: Mapping[str, Any]) -> str:
    for abbreviated in (False, True):
        said = [_word(name, value, abbreviated) for name, value in words.items()]
        name = " ".join([spec.method, *said, f"s{spec.seed}"])
        if len(name) <= LENGTH:
            return name
    return _hashed(run, spec, name.split())


def _hashed(run: str, spec: RunSpec, words: list[str]) -> str:
    """As many of the words as there is room for beside the seed and a hash of the run path without it."""
    path = run.rpartition("/seed=")[0]
    end = f"~{hashlib.sha256(path.encode()).hexdigest()[:HASH]} s{spec.seed}"
    head = list(itertools.accumulate(words[:-1], lambda before, word: f"{before} {word}"))
    return " ".join([*[one for one in head if len(one) < LENGTH - len(end)][-1:], end])


def _word(name: str, value: Any, abbreviated: bool) -> str:
    """One option without a space in it."""
    text = option_text(value).removeprefix(FOLDER_PREFIX) if name == "dataset" else option_text(value)
    text = "_".join(text.rstrip("/").rpartition("/")[2].split())
    label = _short(name) if abbreviated else name
    if name in BARE:
        return text
    if isinstance(value, bool):
        return label if value else f"no_{label}"
    return f"{label}={text}"


@cache
def _short(name: str) -> str:
    """The first letters of an option's words, as many as tell it from all other options."""
    length = 1
    while any(other != name and _initials(other, length) == _initials(name, length) for other in FIELDS):
        length += 1
    return _initials(name, length)


def _initials(name: str, length: int) -> str:
    return "".join(word[:length] for word in name.split("_"))
