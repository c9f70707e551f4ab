"""Put a study's tables, figures and runs into one HTML page."""

from pathlib import Path

from ssvi.analysis.job import logged
from ssvi.analysis.report import write_report
from ssvi.config import resolve, study_experiments

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    study = job.params.study
    write_report(
        Path(job.config["results"]),
        Path(job.output[0]).parent,
        study,
        resolve(job.config, study),
        study_experiments(job.config, study),
        evaluation=job.config["evaluation"],
    )
