"""Bring a study's MLflow experiment up to date and write down what was done."""

import dataclasses
from pathlib import Path

from ssvi.analysis.job import logged
from ssvi.analysis.tracking import mirror
from ssvi.config import study_runs
from ssvi.runs import write_json

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    study = job.params.study
    runs = study_runs(job.config, study)
    artifacts = [Path(path) for path in job.input.artifacts]
    done = mirror(Path(job.config["results"]), study, runs, artifacts)
    write_json(Path(job.output[0]), dataclasses.asdict(done))
