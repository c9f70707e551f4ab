"""A setting's means over its seeds, as an MLflow run whose children are the seeds' runs: MLflow makes none itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from mlflow.entities import Metric, RunTag

from ssvi.analysis import settings, stats
from ssvi.analysis.collect import COMPLETE, load_frames
from ssvi.analysis.made import MADE
from ssvi.analysis.tracking import experiment as experiments
from ssvi.analysis.tracking.experiment import COUNT, HIGH, LOW, MEAN, Experiment, Known
from ssvi.analysis.tracking.options import numbers_of, params_of, tags_of
from ssvi.analysis.uncertain import with_figures
from ssvi.errors import one_line
from ssvi.runs import files
from ssvi.runs.spec import RunSpec

PARENT = "mlflow.parentRunId"
# What of the finished runs is averaged, and what it is called in metrics.json: nothing that another machine would have
# spent less of.
AVERAGED = {
    **{name: name for name in (*files.MEASURED, "temperature", *(f"{name}_scaled" for name in files.CALIBRATED))},
    **{name: name for name in ("predictive_entropy", "mutual_information", "mutual_information_share")},
    **{name: name for name in ("expected_entropy", "disagreement", "logit_sd")},
    **{"density_actual": "density", "sparsity": "sparsity", "active_weights": "active_weights"},
    **{name: name for name in ("stored_bytes", "file_bytes", "training_flops", "inference_flops")},
}
# Of the uncertainty suite, where runs were evaluated so.
SUITE = (
    *("shift_accuracy", "shift_nll", "shift_ece", "shift_brier", "shift_nll_scaled", "shift_ece_scaled"),
    *("corruption_error", "ood_auroc", "ood_auroc_scaled", "eaurc", "augrc", "coverage_at_risk_5"),
    *(f"accuracy_at_coverage_{percent}" for percent in (80, 90, 95)),
    *("lac_coverage_90", "lac_size_90", "aps_coverage_90", "aps_size_90"),
)


def settle(experiment: Experiment, results: Path, specs: Mapping[str, RunSpec]) -> None:
    """See to it that each setting has its means, over the finished seeds that MLflow holds, and that runs have names.

    A setting is what it is in tables: runs that differ in the seed alone and were made alike. Its means are made anew,
    as a run of their own with the notes and tags that people gave the former one, where a seed is new or made anew.
    """
    groups = settings.split([run for run in specs if _whole(experiment, run)], lambda run: run.rpartition("/seed=")[0])
    for path, runs in groups.items():
        digests = [(run, _whole(experiment, run).digest) for run in runs]
        digest = hashlib.sha256(json.dumps([experiments.FORM, digests]).encode()).hexdigest()
        there = [known for known in experiment.settings.get(path, []) if known.digest == digest]
        if not there or len(experiment.settings[path]) > len(there):
            _make(experiment, results, path, {run: specs[run] for run in runs}, digest)
    experiment.rename()


def _whole(experiment: Experiment, run: str) -> Known | None:
    return next((known for known in experiment.runs.get(run, []) if known.digest is not None), None)


def _make(experiment: Experiment, results: Path, path: str, specs: Mapping[str, RunSpec], digest: str) -> None:
    """Make the means of the settings under `path`, several where seeds were made by different arithmetic."""
    client, former = experiment.client, experiment.settings.pop(path, [])
    kept = {name: value for old in former for name, value in experiment.foreign_tags(old.run_id).items()}
    runs = with_figures(load_frames(results, specs, uses=["uncertainty"]))
    made = []
    for group in settings.settings(runs[runs["status"] == COMPLETE]) or [runs.iloc[:0]]:
        own = set(group["run"])
        left_out = "; ".join(_left_out(runs[~runs["run"].isin(own)]))
        made.append(_log(experiment, path, group, specs, {**kept, **({"ssvi.left_out": left_out} if left_out else {})}))
        for run in own or set(specs):
            client.set_tag(_whole(experiment, run).run_id, PARENT, made[-1].run_id)
    for known in made:
        client.set_tag(known.run_id, experiments.DIGEST, digest)
        known.digest = digest
    for old in former:
        client.delete_run(old.run_id)
    experiment.settings[path] = made


def _log(
    experiment: Experiment, path: str, group: pd.DataFrame, specs: Mapping[str, RunSpec], tags: Mapping[str, str]
) -> Known:
    first = next(iter(specs))
    spec = specs[first]
    name = f"{experiment.names[first].rpartition(' ')[0]} mean"
    made = {f"ssvi.{column}": settings.option_text(group[column].iloc[0]) for column in MADE if len(group)}
    said = {experiments.KIND: experiments.SETTING, experiments.SETTING_PATH: path, experiments.NAMED: name}
    said |= {experiments.STUDY: experiment.study, **tags_of(spec), **made}
    info = experiment.make_run(name, {**tags, **said})
    metrics = [Metric(key, value, info.start_time, 0) for key, value in _numbers(group)]
    metrics += [number for number in numbers_of(spec, info.start_time) if not number.key.endswith("/seed")]
    params = [param for param in params_of(spec) if param.key != "seed"]
    experiment.client.log_batch(info.run_id, metrics=metrics, params=params, tags=[RunTag("ssvi.seeds", _seeds(group))])
    experiment.client.set_terminated(info.run_id, status="FINISHED" if len(group) else "FAILED")
    return Known(info.run_id, name=name, named=name)


def _numbers(group: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Mean, ends of the 95 % interval, and number of seeds of each final metric."""
    measured = {name: name for name in SUITE if group[name].notna().any()}
    for column, name in (AVERAGED | measured).items():
        estimate = stats.interval(group[column])
        found = {MEAN: estimate.mean, LOW: estimate.low, HIGH: estimate.high, COUNT: float(estimate.n)}
        yield from ((f"{kind}/{name}", value) for kind, value in found.items() if not math.isnan(value))


def _seeds(group: pd.DataFrame) -> str:
    return ", ".join(str(seed) for seed in sorted(group["seed"]))


def _left_out(others: pd.DataFrame) -> Iterator[str]:
    """Which seeds are not averaged, and why."""
    for row in others.to_dict("records"):
        why = "made by another arithmetic" if row["status"] == COMPLETE else row["status"]
        because = "" if settings.is_missing(row["cause"]) else f" ({row['cause']})"
        yield one_line(f"seed {row['seed']}: {why}{because}")
