"""Bring a study's MLflow experiment up to date and write down what was done."""

import dataclasses
from pathlib import Path

from ssvi.analysis.job import logged
from ssvi.analysis.tracking import mirror
from ssvi.runs import write_json
from ssvi.spec import RunSpec

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    specs = {run: RunSpec(**options) for run, options in job.params.specs.items()}
    done = mirror(Path(job.params.results), job.params.study, specs, [Path(path) for path in job.input.artifacts])
    write_json(Path(job.output[0]), dataclasses.asdict(done))
