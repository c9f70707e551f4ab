"""Tables as pure functions of the frames; each is a line in `TABLES`.

A figure is a mean and a sample standard deviation over seeds, or a difference with its interval; n counts the
runs behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ssvi.analysis.collect import Frames
from ssvi.analysis.tables.beside import table1_paper, table2_paper
from ssvi.analysis.tables.choices import choices
from ssvi.analysis.tables.claims import claims, learning_claims
from ssvi.analysis.tables.format import Table, format_mean_sd, to_html, to_latex, to_markdown, write_table
from ssvi.analysis.tables.learning import learning
from ssvi.analysis.tables.results import baselines, summary, table1, table2
from ssvi.analysis.tables.uncertainty import ood, selective, shift, uncertainty
from ssvi.errors import unknown

__all__ = [
    "TABLES",
    "Table",
    "TableMaker",
    "format_mean_sd",
    "make_table",
    "to_html",
    "to_latex",
    "to_markdown",
    "write_table",
]


@dataclass(frozen=True)
class TableMaker:
    """How a table is made, and which frames it reads beside the runs; what it `uses` only of the runs that have it."""

    make: Callable[[Frames], Table]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


TABLES: dict[str, TableMaker] = {
    "table1": TableMaker(table1),
    "table1_paper": TableMaker(table1_paper),
    "table2": TableMaker(table2),
    "table2_paper": TableMaker(table2_paper),
    "claims": TableMaker(claims, ("overlap",), uses=("uncertainty",)),
    "choices": TableMaker(choices),
    "baselines": TableMaker(baselines),
    "learning": TableMaker(learning),
    "learning_claims": TableMaker(learning_claims),
    "uncertainty": TableMaker(uncertainty, ("uncertainty",)),
    "shift": TableMaker(shift, ("uncertainty",)),
    "ood": TableMaker(ood, ("uncertainty",)),
    "selective": TableMaker(selective, ("uncertainty",)),
    "summary": TableMaker(summary),
}


def make_table(name: str, frames: Frames) -> Table:
    """The registered table of that name.

    Raises:
        UserError: for an unknown name, or runs that lack what the table shows.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES, "reports")
    return TABLES[name].make(frames)
