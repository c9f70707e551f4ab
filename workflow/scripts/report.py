"""Put a study's tables, figures and runs into one HTML page."""

from pathlib import Path

from ssvi.analysis.collect import RunFolders
from ssvi.analysis.job import logged
from ssvi.analysis.report import write_report
from ssvi.runs.changed import changed_data_sets
from ssvi.runs.config import resolve, study_experiments, study_runs

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    study, results = job.params.study, Path(job.config["results"])
    write_report(
        RunFolders(results, partial=True, evaluation=job.config["evaluation"]),
        Path(job.output[0]).parent,
        study,
        resolve(job.config, study),
        study_experiments(job.config, study),
        changed=changed_data_sets(results, study_runs(job.config, study), Path(job.config["data_root"])),
    )
