"""Tables, figures and the HTML report of a study, as files of one MLflow run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from ssvi.analysis.tracking.experiment import DIGEST, KIND, REPORTS, STUDY, Experiment
from ssvi.errors import UserError, told

SHOWN = (".csv", ".md", ".html", ".tex", ".png", ".svg", ".pdf")


def report_files(reports: Path) -> list[Path]:
    """The tables and figures of a study, and its HTML report, where they are there."""
    shown = [p for kind in ("tables", "figures") for p in sorted((reports / kind).glob("*.*")) if p.suffix in SHOWN]
    return [path for path in [*shown, reports / "report.html"] if path.is_file() and not path.name.startswith(".")]


def log_reports(experiment: Experiment, artifacts: Sequence[Path]) -> int:
    """Log tables, figures and report, each kind if a file of it changed; returns how many files were logged.

    Raises:
        UserError: if one of the files is not there.
    """
    client, logged = experiment.client, 0
    for kind, paths in itertools.groupby(sorted(artifacts, key=lambda p: (_kind(p), p)), key=_kind):
        ordered = list(paths)
        digest, tag = digest_of(ordered), f"{DIGEST}.{kind}"
        if experiment.report_tags.get(tag) == digest:
            continue
        if experiment.reports is None:
            experiment.reports = experiment.make_run(REPORTS, {KIND: REPORTS, STUDY: experiment.study}).run_id
            client.set_terminated(experiment.reports)
        for path in ordered:
            client.log_artifact(experiment.reports, str(path), kind)
        client.set_tag(experiment.reports, tag, digest)
        experiment.report_tags[tag] = digest
        logged += len(ordered)
    return logged


def digest_of(paths: Sequence[Path]) -> str:
    """SHA-256 over the files' names and contents.

    Raises:
        UserError: if one cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        except OSError as error:
            raise UserError(told(error)) from None
        total.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _kind(path: Path) -> str:
    """The folder of a report's file in MLflow: tables, figures, or report."""
    return path.parent.name if path.parent.name in ("tables", "figures") else "report"
