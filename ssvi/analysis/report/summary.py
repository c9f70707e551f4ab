"""What ran, where, how long, and the numbers that come first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE, DIVERGED, REFUSED
from ssvi.analysis.made import one_machine
from ssvi.analysis.report.outputs import paths_of, rows_of
from ssvi.analysis.settings import METHOD_NAMES, is_missing, mixed, option_text, settings
from ssvi.analysis.stats import Estimate, interval
from ssvi.analysis.tables.published import is_papers, is_papers_network, published
from ssvi.analysis.tables.rows import by_seed, compare
from ssvi.changed import Changed
from ssvi.config import output_experiments
from ssvi.registry import KINDS, VARIATIONAL
from ssvi.spec import FIELDS, RunSpec, non_defaults, options_of

STATUSES = (COMPLETE, DIVERGED, REFUSED, "failed", "in training", "missing")
# Of a long list of troubles the first ones say enough; the list of runs has them all.
NAMED, HEADLINES = 12, 8
LEAST_IN_TABLE = "table1"


@dataclass(frozen=True)
class Trouble:
    """Runs of one status that is not complete, the first of them named with their cause."""

    status: str
    runs: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True)
class Headline:
    """One setting's accuracy, and its difference and cost against the dense BNN."""

    dataset: str
    model: str
    name: str
    n: int
    accuracy: str
    difference: str
    verdict: str
    flops: str
    seconds: str


@dataclass(frozen=True)
class Summary:
    """The first section of the page."""

    counts: dict[str, int]
    total: int
    methods: str
    datasets: str
    models: str
    caution: str
    warnings: tuple[str, ...]
    hardware: tuple[tuple[str, int], ...]
    training: str
    evaluation: str
    first: str
    last: str
    headlines: tuple[Headline, ...]
    troubles: tuple[Trouble, ...]


def summarise(
    runs: pd.DataFrame,
    content: Mapping[str, Any],
    experiments: Mapping[str, Mapping[str, RunSpec]],
    specs: Mapping[str, RunSpec],
    changed: Sequence[Changed] = (),
) -> Summary:
    """The summary of a study's runs, complete or not, with a warning for each data set that has `changed` since."""
    counts = Counter(runs["status"])
    complete = runs[runs["status"] == COMPLETE]
    ran = runs[runs["status"].isin([COMPLETE, DIVERGED])]
    started = sorted(runs["started"].dropna())
    return Summary(
        counts={status: counts[status] for status in (*STATUSES, *sorted(set(counts) - set(STATUSES)))},
        total=len(runs),
        methods=_words(METHOD_NAMES[m] for m in KINDS if m in set(ran["method"])),
        datasets=_words(dict.fromkeys(ran["dataset"])),
        models=_words(dict.fromkeys(ran["model"])),
        caution=_caution(complete),
        warnings=(*mixed(complete), *(f"WARNING: {one}." for one in changed)),
        hardware=_hardware(ran),
        training=duration(_own_seconds(runs).sum()),
        evaluation=duration(pd.to_numeric(runs["evaluation_seconds"]).sum()),
        first=_moment(started[0]) if started else "",
        last=_moment(started[-1]) if started else "",
        headlines=tuple(_headlines(complete, content, experiments, specs)),
        troubles=tuple(_troubles(runs)),
    )


def _own_seconds(runs: pd.DataFrame) -> pd.Series:
    """Training times without those of the parents, which are runs themselves and would count twice."""
    return pd.to_numeric(runs["training_seconds"]) - pd.to_numeric(runs["parent_seconds"]).fillna(0.0)


def _words(names: Any) -> str:
    return ", ".join(map(str, names)) or "none yet"


def _caution(complete: pd.DataFrame) -> str:
    """What must be said before any number, if these are not runs like the paper's."""
    paper = published()
    alike = complete[complete["dataset"].isin(paper["datasets"]) & is_papers_network(complete)]
    if alike.empty:
        return "Nothing here ran on CIFAR-10 or CIFAR-100 with the paper's network (ResNet-18)."
    if not (alike["epochs"] == paper["epochs"]).any():
        return f"Nothing here was trained for the paper's {paper['epochs']} epochs."
    if not alike.apply(is_papers, axis=1).any():
        return f"Nothing here was trained for {paper['epochs']} epochs on all training images, as in the paper."
    return ""


def _hardware(ran: pd.DataFrame) -> tuple[tuple[str, int], ...]:
    """The machines in words, and how many runs each trained."""
    counts: Counter[str] = Counter()
    columns = ["device", "cpu", "host_cpus", "threads"]
    for device, cpu, cpus, threads in ran[columns].itertuples(index=False, name=None):
        parts = [str(device)] if not is_missing(device) else ["a device that was not recorded"]
        parts += [str(cpu)] if not is_missing(cpu) else []
        parts += [f"{cpus:.0f} CPUs"] if not is_missing(cpus) else []
        parts += [f"{threads:.0f} thread{'' if threads == 1 else 's'} a run"] if not is_missing(threads) else []
        counts[", ".join(parts)] += 1
    return tuple(counts.most_common())


def _moment(iso: str) -> str:
    return str(iso).replace("T", " ").replace("+00:00", " UTC")


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: `3 d 4 h`, `1 h 23 min`, `2 min 5 s`, `0.4 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, length, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(round(seconds / part), length // part)
            return f"{whole} {unit} {rest} {smaller}"
    raise AssertionError(seconds)


def _troubles(runs: pd.DataFrame) -> list[Trouble]:
    found = []
    for status, group in runs[runs["status"] != COMPLETE].groupby("status", sort=True):
        named = [(r.run, cause_of(r)) for r in group.head(NAMED).itertuples()]
        found.append(Trouble(str(status), tuple(named), len(group) - len(named)))
    return sorted(found, key=lambda t: (REFUSED, "failed", DIVERGED, "in training", "missing").index(t.status))


def cause_of(row: Any) -> str:
    """Why a run has no result, as far as it is known."""
    if not is_missing(row.cause):
        epoch = f" in epoch {row.diverged_epoch:.0f}" if not is_missing(row.diverged_epoch) else ""
        return f"{row.cause}{epoch}"
    return {"missing": "not begun", "in training": "has a folder of a training that has not ended"}.get(row.status, "")


def _headlines(
    complete: pd.DataFrame,
    content: Mapping[str, Any],
    experiments: Mapping[str, Mapping[str, RunSpec]],
    specs: Mapping[str, RunSpec],
) -> list[Headline]:
    """The dense BNN and SSVI as in table1 or, without it, in the whole study, each in its plainest setting."""
    table = content["tables"].get(LEAST_IN_TABLE)
    named = paths_of(output_experiments(table) if table is not None else list(experiments), experiments)
    frame = rows_of(complete, named)
    frame = frame[frame["method"].isin(VARIATIONAL)]
    found = []
    for (dataset, model), group in frame.groupby(["dataset", "model"], sort=False):
        plainest: dict[tuple[str, float], pd.DataFrame] = {}
        for setting in settings(group):
            key = (setting.iloc[0]["method"], setting.iloc[0]["density"])
            if key not in plainest or _oddity(setting, specs) < _oddity(plainest[key], specs):
                plainest[key] = setting
        dense = plainest.get(("vi", 1.0))
        order = sorted(plainest, key=lambda k: (k[0] != "vi", -k[1]))
        found += [_headline(str(dataset), str(model), plainest[key], dense) for key in order[:HEADLINES]]
    return found


def _oddity(setting: pd.DataFrame, specs: Mapping[str, RunSpec]) -> tuple[int, float, float]:
    """How far a setting is from the defaults; of equal ones, those of the newest arithmetic come first."""
    first = setting.iloc[0]
    versions = [-float(first[name]) for name in ("numerics", "evaluation_numerics")]
    return (len(non_defaults(specs[first["run"]])), *versions)


def _headline(dataset: str, model: str, setting: pd.DataFrame, dense: pd.DataFrame | None) -> Headline:
    first = setting.iloc[0]
    name = METHOD_NAMES[first["method"]]
    if first["method"] != "vi":
        name += f" at {100 * (1 - first['density']):.6g} % sparsity"
    gap, verdict, flops, seconds = "", "", "–", "–"
    if dense is not None and first["method"] != "vi":
        gap_estimate = compare(setting, dense, "accuracy", 100)
        gap, verdict = _with_interval(gap_estimate, signed=True), _verdict(gap_estimate)
    if dense is not None:
        flops = _ratio(setting["training_flops"], dense["training_flops"])
        alike = one_machine(pd.concat([setting, dense]))
        seconds = _ratio(setting["training_seconds"], dense["training_seconds"]) if alike else "–"
    estimate = interval(by_seed(setting, "accuracy", 100))
    return Headline(
        dataset, model, name, estimate.n, _with_interval(estimate), gap or "–", verdict or "–", flops, seconds
    )


def _with_interval(value: Estimate, *, signed: bool = False) -> str:
    if math.isnan(value.mean):
        return "–"
    sign = "+" if signed else ""
    text = f"{value.mean:{sign}.2f}"
    text += "" if math.isnan(value.low) else f" [{value.low:{sign}.2f}, {value.high:{sign}.2f}]"
    return text.replace("-", "−")


def _verdict(value: Estimate) -> str:
    side = value.above(0.0)
    if math.isnan(value.low):
        return "one seed says nothing of the noise"
    return "within the noise" if side is None else "above" if side else "below"


def _ratio(values: pd.Series, against: pd.Series) -> str:
    above, below = pd.to_numeric(values).mean(), pd.to_numeric(against).mean()
    return f"{above / below:.3g}" if below and above == above else "–"


def constant_options(specs: Mapping[str, RunSpec]) -> dict[str, str]:
    """The options that all runs of the study that use them share, as text."""
    values = {name: {getattr(s, name) for s in specs.values() if name in options_of(s.method)} for name in FIELDS}
    return {name: option_text(next(iter(found))) for name, found in values.items() if len(found) == 1}
