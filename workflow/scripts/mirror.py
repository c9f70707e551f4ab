"""Bring a study's MLflow experiment up to date and write down what was done, or why it could not be.

The second is no failure: the files are the truth, and the next call of the workflow tries again.
"""

import dataclasses
from pathlib import Path

from ssvi.analysis.job import logged
from ssvi.analysis.tracking import Unavailable, mirror
from ssvi.runs.config import study_runs
from ssvi.machine.disk import write_json

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    study = job.params.study
    runs = study_runs(job.config, study)
    artifacts = [Path(path) for path in job.input.artifacts]
    try:
        done = dataclasses.asdict(mirror(Path(job.config["results"]), study, runs, artifacts, models=job.params.models))
        for cause in done["refused"].values():
            print(f"ssvi: warning: left out: {cause}")
    except Unavailable as error:
        done = {"error": str(error)}
        print(f"ssvi: warning: the mirror is not up to date. {error}.")
    write_json(Path(job.output[0]), done)
