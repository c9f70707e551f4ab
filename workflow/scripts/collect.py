"""Gather the runs of one experiment into runs.csv and history.csv."""

import sys
from pathlib import Path

from ssvi.analysis.collect import write_collected
from ssvi.spec import RunSpec

job = snakemake  # noqa: F821 (Snakemake defines it)
sys.stdout = sys.stderr = open(job.log[0], "w")

specs = {run: RunSpec(**job.params.specs[run]) for run in job.params.runs}
write_collected(Path(job.params.results), specs, Path(job.output[0]).parent)
