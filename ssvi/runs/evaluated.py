"""Whether a run was evaluated as its study says, on what its training left, told by the files of its folder.

Standard library only: the workflow asks before it plans, and the tables before they read.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssvi.errors import UserError
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.records import csv_rows, is_number, read_record
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import is_of_another_training, is_of_other_tests
from ssvi.runs.versions import SUITE

# A posterior that makes less of the predictive entropy than this is practically a point: its samples say the same.
POINT_SHARE = 0.01
# A figure of metrics.json since as much is kept of the predictions as uncertainty.csv is made of.
KEPT = "logit_sd"
# In uncertainty.csv: which folder a set from outside is of.
PLACE = "place"
# As far as the figure of the number of samples goes, where nothing else is said.
MOST_SAMPLES = 50


def is_practically_a_point(share: float | None) -> bool | None:
    """Whether a posterior is, by the share of the predictive entropy that is mutual information; None without one."""
    return None if share is None else share < POINT_SHARE


def evaluated_otherwise(metrics: Mapping[str, Any], spec: RunSpec, evaluation: Mapping[str, Any]) -> str | None:
    """How a run was evaluated, where its study says something else; None where it was evaluated so.

    What metrics.json of an older version does not say counts as right.

    Args:
        metrics: what metrics.json holds.
        spec: the run's.
        evaluation: `evaluation` of the config.
    """
    found = metrics.get("evaluation")
    if not isinstance(found, Mapping):
        return None
    said = (found.get(name) for name in ("asked", "samples", "bins"))
    asked, used, bins = (value if is_number(value) else None for value in said)
    return _otherwise(asked, used, bins, spec, (evaluation["samples"], evaluation["bins"]))


def measured_otherwise(path: Path, spec: RunSpec, evaluation: Mapping[str, Any]) -> str | None:
    """The same of one of `SEALED`, as far as it says: by its largest number of samples, and by its bins.

    Raises:
        UserError: if it cannot be read.
        ValueError: if there is something else than numbers in it.
    """
    rows = csv_rows(path)
    used = max((float(row.get("samples") or 0) for row in rows), default=None)
    bins = float(rows[0].get("bins") or 0) if rows else None
    if path.name == files.UNCERTAINTY and rows and (cause := _shown_otherwise(rows, evaluation)):
        return cause
    return _otherwise(None, used, bins or None, spec, (_samples_of(path, evaluation), evaluation["bins"]))


def _shown_otherwise(rows: Sequence[Mapping[str, str]], evaluation: Mapping[str, Any]) -> str | None:
    """Why a suite did not show what it would show now: another version of it, or other folders from outside."""
    if (version := rows[0].get("version")) not in (f"{SUITE}", f"{SUITE:.1f}"):
        return f"was made by version {version or 'none'} of the suite, which is {SUITE} now"
    named = {(row.get("name"), float(row.get("value") or 0)) for row in rows if row.get("metric") == PLACE}
    wanted = {(files.outside_name(one), float(files.place_of(one))): one for one in evaluation.get("outside", ())}
    if missing := wanted.keys() - named:
        return f"was made without {wanted[min(missing)]}, which the config names"
    if more := named - wanted.keys():
        return f"was made with {min(more)[0]}, which the config does not name"
    return None


def check_evaluated(path: Path, metrics: Mapping[str, Any], spec: RunSpec, evaluation: Mapping[str, Any]) -> None:
    """Refuse a metrics.json that was made otherwise than the config says, with the command that makes it anew."""
    if cause := evaluated_otherwise(metrics, spec, evaluation):
        flags = _flags(evaluation["samples"], evaluation)
        raise UserError(
            f"{path}: {cause}; evaluate it anew: {shlex.join(('ssvi', 'evaluate', str(path.parent), *flags))}"
        )


def check_measured(path: Path, spec: RunSpec, evaluation: Mapping[str, Any]) -> None:
    """The same of one of `SEALED`."""
    if cause := measured_otherwise(path, spec, evaluation):
        flags = _flags(most_samples(evaluation), evaluation) if path.name == files.SAMPLES else ()
        raise UserError(f"{path}: {cause}; evaluate it anew: {files.measuring(path, *flags)}")


def _flags(samples: int, evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    return "--samples", str(samples), "--bins", str(evaluation["bins"])


def _samples_of(path: Path, evaluation: Mapping[str, Any]) -> int:
    """The weight samples that one of `SEALED` is measured with."""
    return most_samples(evaluation) if path.name == files.SAMPLES else evaluation["samples"]


def most_samples(evaluation: Mapping[str, Any]) -> int:
    """As far as the figure of the number of samples goes."""
    return evaluation.get("most_samples", MOST_SAMPLES)


def _otherwise(
    asked: float | None, used: float | None, bins: float | None, spec: RunSpec, wanted: tuple[int, int]
) -> str | None:
    """Of the samples that were asked for and used, and of the bins; None where that was not written down."""
    # a training that diverged has nothing that could be evaluated
    if not used:
        return None
    kind = KINDS[spec.method]
    right = used == wanted[0] or (kind.chain and used < wanted[0]) if asked is None else asked == wanted[0]
    if (right or not kind.posterior) and bins in (None, wanted[1]):
        return None
    words = [f"{asked or used:g} weight samples"] if kind.posterior else []
    words += [] if bins is None else [f"{bins:g} bins"]
    return f"was evaluated with {' and '.join(words)}, but the config says {wanted[0]} samples and {wanted[1]} bins"


def to_evaluate(
    results: Path,
    runs: Mapping[str, RunSpec],
    measured: Mapping[str, Collection[str]],
    evaluation: Mapping[str, Any],
) -> dict[tuple[str, str], str]:
    """The files made of another training, or otherwise than the config says: by run path and name, each with its cause.

    One that cannot be read is left out: whatever needs it says so.

    Args:
        results: the results folder.
        runs: run paths and their specs.
        measured: those of them of which one of `SEALED` is needed, by its name.
        evaluation: `evaluation` of the config.
    """
    found = {}
    for run, spec in runs.items():
        folder = results / "runs" / run
        for name in (files.METRICS, *(name for name, mine in measured.items() if run in mine)):
            path = folder / name
            try:
                if name == files.UNCERTAINTY and (run, files.METRICS) in found:
                    cause = f"is of a {files.METRICS} that is made anew"
                elif name == files.METRICS:
                    metrics = read_record(path, status=str)
                    cause = evaluated_otherwise(metrics, spec, evaluation)
                    if run in measured.get(files.UNCERTAINTY, ()) and KEPT not in metrics:
                        cause = "was made by a version that kept less of the predictions"
                else:
                    cause = measured_otherwise(path, spec, evaluation)
                    if is_of_other_tests(folder, name):
                        cause = f"was made of other test images than {files.METRICS}"
            except (UserError, ValueError):
                continue
            if is_of_another_training(folder, name):
                cause = "was made of another training than lies there now, or changed since"
            if cause:
                found[run, name] = cause
    return found
