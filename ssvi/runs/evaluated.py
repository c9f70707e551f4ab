"""Whether a run was evaluated as its study says, on what its training left, told by the files of its folder.

Standard library only: the workflow asks before it plans, and the tables before they read.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ssvi.errors import UserError
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.records import anew, is_number, read_record, read_text
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import is_of_another_training, is_of_other_tests

# As far as the figure of the number of samples goes, where nothing else is said.
MOST_SAMPLES = 50


def evaluated_otherwise(metrics: Mapping[str, Any], spec: RunSpec, evaluation: Mapping[str, int]) -> str | None:
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


def sampled_otherwise(path: Path, spec: RunSpec, evaluation: Mapping[str, int]) -> str | None:
    """The same of a samples.csv, as far as it says: by its largest number of samples, and by its bins.

    Raises:
        UserError: if it cannot be read.
        ValueError: if there is something else than numbers in it.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {anew(path)}") from None
    used = max((float(row.get("samples") or 0) for row in rows), default=None)
    bins = float(rows[0].get("bins") or 0) if rows else None
    return _otherwise(None, used, bins or None, spec, (most_samples(evaluation), evaluation["bins"]))


def check_evaluated(path: Path, metrics: Mapping[str, Any], spec: RunSpec, evaluation: Mapping[str, int]) -> None:
    """Refuse a metrics.json that was made otherwise than the config says, with the command that makes it anew."""
    if cause := evaluated_otherwise(metrics, spec, evaluation):
        raise _anew(path, cause, "evaluate", evaluation["samples"], evaluation["bins"])


def check_sampled(path: Path, spec: RunSpec, evaluation: Mapping[str, int]) -> None:
    """The same of a samples.csv."""
    if cause := sampled_otherwise(path, spec, evaluation):
        raise _anew(path, cause, "samples", most_samples(evaluation), evaluation["bins"])


def _anew(path: Path, cause: str, command: str, samples: int, bins: int) -> UserError:
    words = ("ssvi", command, str(path.parent), "--samples", str(samples), "--bins", str(bins))
    return UserError(f"{path}: {cause}; evaluate it anew: {shlex.join(words)}")


def most_samples(evaluation: Mapping[str, int]) -> int:
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
    results: Path, runs: Mapping[str, RunSpec], sampled: Collection[str], evaluation: Mapping[str, int]
) -> dict[tuple[str, str], str]:
    """The files made of another training, or otherwise than the config says: by run path and name, each with its cause.

    One that cannot be read is left out: whatever needs it says so.

    Args:
        results: the results folder.
        runs: run paths and their specs.
        sampled: those of them whose samples.csv is needed.
        evaluation: `evaluation` of the config.
    """
    found = {}
    for run, spec in runs.items():
        folder = results / "runs" / run
        for name in (files.METRICS, files.SAMPLES) if run in sampled else (files.METRICS,):
            path = folder / name
            try:
                if name == files.METRICS:
                    cause = evaluated_otherwise(read_record(path, status=str), spec, evaluation)
                else:
                    cause = sampled_otherwise(path, spec, evaluation)
                    if is_of_other_tests(folder):
                        cause = f"was made of other test images than {files.METRICS}"
            except (UserError, ValueError):
                continue
            if is_of_another_training(folder, name):
                cause = "was made of another training than lies there now, or changed since"
            if cause:
                found[run, name] = cause
    return found
