"""The results section of README.md, rendered from a study's tables: `python -m ssvi.analysis.readme`.

Tables and the figure are copied to docs/digits/, so that the README of a fresh clone shows them; a test
renders the section again from there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from ssvi.analysis.tables import METHOD_NAMES
from ssvi.errors import UserError
from ssvi.runs import write_text

BEGIN, END = "<!-- results: rendered by `make readme` -->", "<!-- end of results -->"
KEPT = ("tables/table1.csv", "tables/table1.md", "tables/summary.csv", "tables/summary.md", "figures/figure2_left.png")


def snapshot(reports: Path, docs: Path) -> None:
    """Copy what the README shows from a study's reports.

    Raises:
        UserError: if the study has not been made.
    """
    for name in KEPT:
        if not (reports / name).is_file():
            raise UserError(f"{reports / name}: no such file; run `make reproduce` first.")
        docs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reports / name, docs / Path(name).name)


def render(docs: Path) -> str:
    """The section between the two marks, from the snapshot."""
    runs = pd.read_csv(docs / "summary.csv")
    lines = [
        "| method | density | lr | test accuracy (%) | NLL | ECE | active weights + dense rest | n |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in runs.to_dict("records"):
        cells = [
            METHOD_NAMES[row["method"]],
            f"{row['density']:g}",
            f"{row['lr']:g}",
            f"{row['accuracy_percent_mean']:.2f} ± {row['accuracy_percent_sd']:.2f}",
            f"{row['nll_mean']:.3f} ± {row['nll_sd']:.3f}",
            f"{row['ece_mean']:.3f} ± {row['ece_sd']:.3f}",
            f"{row['complexity_mean']:,.0f}",
            f"{row['n']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    table1 = (docs / "table1.md").read_text().strip()
    return "\n\n".join(
        [
            table1,
            "All settings (mean ± sample standard deviation over n seeds; every column in "
            f"[`{docs.parent.name}/{docs.name}/summary.md`]({docs.parent.name}/{docs.name}/summary.md)):",
            "\n".join(lines),
        ]
    )


def insert(readme: str, section: str) -> str:
    """The README with its results section replaced."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def main() -> None:
    """Refresh docs/digits/ and README.md from reports/digits/."""
    docs = Path("docs/digits")
    snapshot(Path("reports/digits"), docs)
    readme = Path("README.md")
    write_text(readme, insert(readme.read_text(), render(docs)))


if __name__ == "__main__":
    main()
