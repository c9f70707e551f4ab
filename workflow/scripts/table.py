"""Render one table from the collected experiments as CSV, Markdown and LaTeX."""

from pathlib import Path

from ssvi.analysis.collect import read_collected
from ssvi.analysis.job import logged
from ssvi.analysis.tables import make_table, write_table

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    runs, _ = read_collected([Path(path).parent for path in job.input.collected])
    write_table(make_table(job.wildcards.table, runs), Path(job.output[0]).with_suffix(""))
