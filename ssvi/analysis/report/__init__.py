"""One self-contained HTML page a study: summary, tables, figures, every run, versions, and what to believe.

`make.make_all` also makes the tables and figures first; it is not imported here, because it loads what draws them.
"""

from ssvi.analysis.report.page import write_report

__all__ = ["write_report"]
