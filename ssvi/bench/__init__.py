"""`ssvi bench`: what a training costs on this machine, beside a plain network and other packages.

Every figure is a name, a unit and the values of its repeats. Ratios are taken between steps in turn (A B A B ...) in
one process, on the same network and images, so that a machine that slows down slows both. What a figure must reach
stands in `TARGETS`.
"""

from ssvi.bench.record import TARGETS, Figure, record, table
from ssvi.bench.suites import LONG, SUITES, run

__all__ = ["LONG", "SUITES", "TARGETS", "Figure", "record", "run", "table"]
