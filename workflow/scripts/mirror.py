"""Bring a study's MLflow experiment up to date and write down what was done."""

import dataclasses
import sys
from pathlib import Path

from ssvi.analysis.tracking import mirror
from ssvi.runs import write_json
from ssvi.spec import RunSpec

job = snakemake  # noqa: F821 (Snakemake defines it)
sys.stdout = sys.stderr = open(job.log[0], "w")

specs = {run: RunSpec(**options) for run, options in job.params.specs.items()}
artifacts = [Path(path) for path in job.params.artifacts]
write_json(
    Path(job.output[0]), dataclasses.asdict(mirror(Path(job.params.results), job.params.study, specs, artifacts))
)
