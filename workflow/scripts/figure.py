"""Draw one figure from the collected experiments as PNG, SVG and the numbers in it as CSV."""

import sys
from pathlib import Path

from ssvi.analysis.collect import read_collected
from ssvi.analysis.figures import make_figure, write_figure

job = snakemake  # noqa: F821 (Snakemake defines it)
sys.stdout = sys.stderr = open(job.log[0], "w")

runs, history = read_collected([Path(path).parent for path in job.input.collected])
write_figure(*make_figure(job.wildcards.figure, runs, history), Path(job.output[0]).with_suffix(""))
