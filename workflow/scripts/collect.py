"""Gather all runs of a study and their histories into two CSV files, for one's own analysis."""

from pathlib import Path

from ssvi.analysis.collect import load_frames, write_collected
from ssvi.analysis.job import logged
from ssvi.runs.config import study_runs

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    runs = study_runs(job.config, job.params.study)
    frames = load_frames(Path(job.config["results"]), runs, ["history"], evaluation=job.config["evaluation"])
    write_collected(frames, Path(job.output[0]).parent)
