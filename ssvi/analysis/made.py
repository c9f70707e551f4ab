"""How runs were made: what must be equal where numbers are averaged, what is only said, and which times compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from ssvi.runs.spec import RunSpec

# What a run was computed with and its spec does not say, but other numbers come of: as much of a setting as an option.
MADE = ("computed_precision", "numerics", "evaluation_numerics")
# What only one kind of machine spends so much of: never averaged, and no ratio made, over several machines.
SPENT = (
    *("training_seconds", "step_seconds", "parent_seconds", "evaluation_seconds", "images_per_second"),
    "peak_memory_bytes",
)
# A training is held up that took so much more than its steps did, as a factor and in seconds: validation and
# checkpoints take some per cent of a training, its start and end some seconds.
HELD_UP, HELD_UP_SECONDS = 1.5, 3.0
# Of more values than these, the first ones are named.
NAMED = 4


def completed(origin: Mapping[str, Any], sessions: Any, spec: RunSpec) -> dict[str, Any]:
    """A provenance with what versions that did not say it are known to have done, and the machines that it speaks of.

    They computed by numerics 1, in bf16 on a GPU and in fp32 on a CPU where the spec leaves that open, and said whose
    processor it was if not which. `machines` counts those that the sessions of training.json worked on.
    """
    device = origin.get("device")
    automatic = None if device is None else "fp32" if device == "cpu" else "bf16"
    precision = automatic if spec.precision == "auto" else spec.precision
    listed = [one for one in sessions if isinstance(one, dict)] if isinstance(sessions, list) else []
    host = listed[0].get("host") if listed else None
    known = {"numerics": 1, "computed_precision": precision} | dict(origin)
    if known.get("cpu") is None and isinstance(host, str):
        known["cpu"] = f"of host {host}"
    return known | {"machines": len({_session_machine(origin, session) for session in listed}) or 1}


def plugin_files(plugins: Iterable[Mapping[str, Any]]) -> str | None:
    """The files of the plugins that a run was trained with, as one word each: `module:file=SHA-256`, cut."""
    return (
        " ".join(f"{one['module']}:{file}={sha[:12]}" for one in plugins for file, sha in one["files"].items()) or None
    )


def _of_plugins(done: pd.DataFrame) -> Iterator[str]:
    """A line for each file of a plugin of which some runs had one version, others another."""
    versions: dict[str, list[str]] = {}
    for words in done["plugins"].dropna():
        for file, _, sha in (word.rpartition("=") for word in words.split(" ")):
            versions.setdefault(file, []).append(f"SHA-256 {sha}")
    for file, found in sorted(versions.items()):
        yield from _counted(f"WARNING: trained by different versions of the plugin {file}", found)


def _session_machine(origin: Mapping[str, Any], session: Mapping[str, Any]) -> tuple[str, ...]:
    device = session.get("device", origin.get("device"))
    names = ("cpu", "threads") if "cpu" in session else ("host",)
    return tuple(repr(value) for value in (device, *(session.get(name) for name in names if device == "cpu")))


def machines(runs: pd.DataFrame) -> list[str]:
    """The machines that runs were computed on, in words; on a GPU its name, since the host only feeds it.

    What a run does not say is unlike what another one says.
    """
    found = []
    for run in runs[["device", "cpu", "threads", "machines"]].to_dict("records"):
        if run["machines"] > 1:
            found.append(f"{run['machines']:.0f} machines in turn")
        elif run["device"] != "cpu":
            found.append(_word(run["device"]))
        else:
            found.append(f"cpu ({_word(run['cpu'])}, {_threads(run['threads'])})")
    return sorted(set(found))


def one_machine(runs: pd.DataFrame) -> bool:
    """Whether times and memory of these runs may be averaged and compared."""
    return len(machines(runs)) < 2 and not (runs["machines"] > 1).any()


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, without what they took where they were not all computed on one machine."""
    return runs if one_machine(runs) else runs.assign(**dict.fromkeys(SPENT, math.nan))


def told(done: pd.DataFrame) -> Iterator[str]:
    """A line for each thing that finished runs may differ in without being other settings, where they do.

    The version of Python is not among them: nothing is computed by it.
    """
    commits = [_commit(commit, dirty) for commit, dirty in done[["commit", "dirty"]].itertuples(index=False)]
    changed = any(dirty is True for dirty in done["dirty"])
    yield from _counted("Made from different commits", commits, even_one=changed)
    for package in ("ssvi", "torch"):
        yield from _counted(f"Made by different versions of {package}", done[package].map(_word))
    yield from _of_plugins(done)
    yield from _counted("Computed in different precision", done["computed_precision"].map(_word))
    yield from _counted("Computed on different devices", done["device"].map(_word))
    on_cpu = done[done["device"] == "cpu"]
    yield from _counted("Computed on different processors", on_cpu["cpu"].map(_word))
    yield from _counted("Computed with different numbers of threads", on_cpu["threads"].map(_threads))
    if several := int((done["machines"] > 1).sum()):
        yield (
            f"{_runs(several)} gone on with on another processor or number of threads than begun with, "
            "which changes last digits and times."
        )
    if held := int(held_up(done).sum()):
        yield (
            f"{_runs(held)} held up (paused, waiting, compiling, writing): the training took over {HELD_UP:g} times as "
            "long as its steps. The median step does not see that."
        )


def held_up(runs: pd.DataFrame) -> pd.Series:
    """Which runs took much longer than their steps; none where the time of a step is not known."""
    parents = pd.to_numeric(runs["parent_seconds"], errors="coerce").fillna(0.0)
    own = pd.to_numeric(runs["training_seconds"], errors="coerce") - parents
    steps = pd.to_numeric(runs["steps"], errors="coerce") * pd.to_numeric(runs["step_seconds"], errors="coerce")
    return (own > HELD_UP * steps) & (own > steps + HELD_UP_SECONDS)


def _counted(what: str, words: Iterable[str], *, even_one: bool = False) -> Iterator[str]:
    """`what: one value (5 runs), another (1).`, the most frequent first; nothing if there is only one."""
    counts = sorted(Counter(words).items(), key=lambda found: (-found[1], found[0]))
    if len(counts) > 1 or (counts and even_one):
        (first, n), *others = counts
        shown = [f"{first} ({n} run{'' if n == 1 else 's'})", *(f"{word} ({n})" for word, n in others[: NAMED - 1])]
        more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
        yield f"{what}: {', '.join(shown)}{more}."


def _commit(commit: Any, dirty: Any) -> str:
    return _word(commit)[:12] + (" with changes that were not committed" if dirty is True else "")


def _word(value: Any) -> str:
    return value if isinstance(value, str) else "not recorded"


def _threads(count: Any) -> str:
    return "threads not recorded" if pd.isna(count) else f"{count:.0f} thread{'' if count == 1 else 's'}"


def _runs(n: int) -> str:
    return "1 run was" if n == 1 else f"{n} runs were"
