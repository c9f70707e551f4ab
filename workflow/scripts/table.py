"""Make one table from its runs, as CSV, Markdown, HTML and LaTeX."""

from pathlib import Path

from ssvi.analysis.collect import load_frames
from ssvi.analysis.job import logged
from ssvi.analysis.tables import TABLES, make_table, write_table
from ssvi.runs.config import output_runs

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    name = job.wildcards.table
    runs = output_runs(job.config, job.params.study, "tables", name)
    results, evaluation = Path(job.config["results"]), job.config["evaluation"]
    maker = TABLES[name]
    frames = load_frames(results, runs, maker.needs, maker.uses, evaluation=evaluation)
    write_table(make_table(name, frames), Path(job.output[0]).with_suffix(""))
