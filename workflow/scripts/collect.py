"""Gather the runs of one experiment into runs.csv and history.csv."""

from pathlib import Path

from ssvi.analysis.collect import write_collected
from ssvi.analysis.job import logged
from ssvi.spec import RunSpec

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    specs = {run: RunSpec(**options) for run, options in job.params.specs.items()}
    write_collected(Path(job.params.results), specs, Path(job.output[0]).parent)
