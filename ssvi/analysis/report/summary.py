"""What ran, where, how long, and the numbers that come first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ssvi.analysis import comparing, quantities
from ssvi.analysis.collect import COMPLETE, DIVERGED, REFUSED
from ssvi.analysis.made import one_machine
from ssvi.analysis.report.outputs import Experiments, paths_of, rows_of
from ssvi.analysis.settings import METHOD_NAMES, in_words, is_missing, mixed, option_text, settings
from ssvi.analysis.stats import Estimate, interval, with_interval
from ssvi.analysis.tables.published import is_papers, is_papers_network, published
from ssvi.registry import KINDS, VARIATIONAL
from ssvi.runs.changed import Changed
from ssvi.runs.config import output_experiments
from ssvi.runs.options import FIELDS, non_defaults, options_of
from ssvi.runs.spec import RunSpec

STATUSES = (COMPLETE, DIVERGED, REFUSED, "failed", "in training", "missing")
# Of a long list of troubles the first ones say enough; the list of runs has them all.
NAMED, HEADLINES = 12, 8
LEAST_IN_TABLE = "table1"


def summarise(
    runs: pd.DataFrame,
    content: Mapping[str, Any],
    experiments: Experiments,
    specs: Mapping[str, RunSpec],
    changed: Sequence[Changed] = (),
) -> dict[str, Any]:
    """The first section of the page, by its names in the template, of a study's runs, complete or not, with a warning
    for each data set that has `changed` since."""
    counts = Counter(runs["status"])
    complete = runs[runs["status"] == COMPLETE]
    ran = runs[runs["status"].isin([COMPLETE, DIVERGED])]
    started = sorted(runs["started"].dropna())
    return {
        "counts": {status: counts[status] for status in (*STATUSES, *sorted(set(counts) - set(STATUSES)))},
        "total": len(runs),
        "methods": _words(METHOD_NAMES[m] for m in KINDS if m in set(ran["method"])),
        "datasets": _words(dict.fromkeys(ran["dataset"])),
        "models": _words(dict.fromkeys(ran["model"])),
        "caution": _caution(complete),
        "warnings": (*mixed(complete), *(f"WARNING: {one}." for one in changed)),
        "hardware": _hardware(ran),
        "training": duration(_own_seconds(runs).sum()),
        "evaluation": duration(pd.to_numeric(runs["evaluation_seconds"]).sum()),
        "first": _moment(started[0]) if started else "",
        "last": _moment(started[-1]) if started else "",
        "headlines": _headlines(complete, content, experiments, specs),
        "troubles": _troubles(runs),
    }


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


def _troubles(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The runs of each status that is not complete, the first of them named with their cause."""
    found = []
    for status, group in runs[runs["status"] != COMPLETE].groupby("status", sort=True):
        named = [(r.run, cause_of(r)) for r in group.head(NAMED).itertuples()]
        found.append({"status": str(status), "runs": named, "more": len(group) - len(named)})
    return sorted(found, key=lambda t: (REFUSED, "failed", DIVERGED, "in training", "missing").index(t["status"]))


def cause_of(row: Any) -> str:
    """Why a run has no result, as far as it is known."""
    if not is_missing(row.cause):
        epoch = f" in epoch {row.diverged_epoch:.0f}" if not is_missing(row.diverged_epoch) else ""
        return f"{row.cause}{epoch}"
    return {"missing": "not begun", "in training": "has a folder of a training that has not ended"}.get(row.status, "")


def _headlines(
    complete: pd.DataFrame, content: Mapping[str, Any], experiments: Experiments, specs: Mapping[str, RunSpec]
) -> list[dict[str, Any]]:
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


def _oddity(setting: pd.DataFrame, specs: Mapping[str, RunSpec]) -> tuple[bool, int, float, float]:
    """How far a setting is from the published way of learning the posterior and from the defaults; of equal ones, those
    of the newest arithmetic come first."""
    first = setting.iloc[0]
    versions = [-float(first[name]) for name in ("numerics", "evaluation_numerics")]
    return (_is_natural(first), len(non_defaults(specs[first["run"]])), *versions)


def _is_natural(first: pd.Series) -> bool:
    return first["posterior_optimizer"] == "ivon"


def _headline(dataset: str, model: str, setting: pd.DataFrame, dense: pd.DataFrame | None) -> dict[str, Any]:
    """One setting's accuracy, and its difference and cost against the dense BNN."""
    first, estimate = setting.iloc[0], interval(comparing.by_seed(setting, quantities.ACCURACY))
    row = {"dataset": dataset, "model": model, "name": METHOD_NAMES[first["method"]], "n": estimate.n}
    row |= {"accuracy": with_interval(estimate), **dict.fromkeys(("difference", "verdict", "flops", "seconds"), "–")}
    if first["method"] != "vi":
        row["name"] += f" at {100 * (1 - first['density']):.6g} % sparsity"
    if _is_natural(first):
        row["name"] += f", {in_words('posterior_optimizer', first['posterior_optimizer'])}"
    if dense is not None and first["method"] != "vi":
        gap = comparing.compare(setting, dense, quantities.ACCURACY)
        row |= {"difference": with_interval(gap, signed=True), "verdict": _verdict(gap)}
    if dense is not None:
        row["flops"] = _ratio(setting["training_flops"], dense["training_flops"])
    if dense is not None and one_machine(pd.concat([setting, dense])):
        row["seconds"] = _ratio(setting["training_seconds"], dense["training_seconds"])
    return row


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
