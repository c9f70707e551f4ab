"""Draw one figure from the collected experiments as PNG, SVG and the numbers in it as CSV."""

from pathlib import Path

from ssvi.analysis.collect import read_collected
from ssvi.analysis.figures import make_figure, write_figure
from ssvi.analysis.job import logged

job = snakemake  # noqa: F821 (Snakemake defines it)

with logged(job.log[0]):
    runs, history = read_collected([Path(path).parent for path in job.input.collected])
    write_figure(*make_figure(job.wildcards.figure, runs, history), Path(job.output[0]).with_suffix(""))
