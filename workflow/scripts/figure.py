"""Draw one figure from its runs, as PNG, SVG and PDF, the numbers in it as CSV, its caption as text."""

from pathlib import Path

from ssvi.analysis.collect import load_frames
from ssvi.analysis.figures import make_figure, needs, write_figure
from ssvi.analysis.job import logged
from ssvi.runs.config import output_runs

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    name = job.wildcards.figure
    runs = output_runs(job.config, job.params.study, "figures", name)
    results, evaluation = Path(job.config["results"]), job.config["evaluation"]
    frames = load_frames(results, runs, needs(name), evaluation=evaluation)
    write_figure(make_figure(name, frames, job.params.content or None), Path(job.output[0]).with_suffix(""))
