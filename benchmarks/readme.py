"""What README.md and docs/digits/ show of the digits study and the benchmarks: `python -m benchmarks.readme`.

Tables and pictures are copied to docs/digits/, so that a fresh clone shows them; its README.md and the results
section of the main one are rendered from there, and a test renders both again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import performance
from ssvi.errors import UserError
from ssvi.machine.disk import write_text

RESULTS = ("<!-- results: rendered by `make readme` -->", "<!-- end of results -->")
SHOWN = ("tables/*.md", "tables/*.csv", "figures/*.png", "figures/*.md")
PERFORMANCE = ("<!-- performance: rendered by `make readme` -->", "<!-- end of performance -->")
INTRODUCTION = """# The study digits

Every table and figure that `make reproduce` makes, as it was rendered last. Handwritten digits of 8 x 8 pixels and
a network of 77,000 weights are not the paper's problem: these pages show what the tool makes, and how the methods
compare there, not whether the paper's numbers hold. In the HTML report the same stands beside every run's options
and curves, and a page that says how each number came about.
"""


def snapshot(reports: Path, docs: Path) -> None:
    """Copy a study's tables (Markdown, CSV) and figures (PNG, captions).

    Raises:
        UserError: if the study has not been made.
    """
    found = [path for pattern in SHOWN for path in sorted(reports.glob(pattern))]
    if not found:
        raise UserError(f"{reports}: has no tables and figures; run `make reproduce` first.")
    for pattern in SHOWN:
        for path in docs.glob(pattern):
            path.unlink()
    for path in found:
        target = docs / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def gallery(docs: Path) -> str:
    """The page docs/digits/README.md from the snapshot beside it."""
    parts = [INTRODUCTION]
    for path in sorted((docs / "tables").glob("*.md")):
        parts.append(f"## {path.stem}\n\n{path.read_text()}")
    for path in sorted((docs / "figures").glob("*.png")):
        caption = path.with_suffix(".md").read_text()
        parts.append(f"## {path.stem}\n\n![{path.stem}](figures/{path.name})\n\n{caption}")
    return "\n".join(parts)


def section(docs: Path) -> str:
    """The results section of the main README."""
    return "\n\n".join((docs / "tables" / f"{name}.md").read_text().strip() for name in ("table1", "table2"))


def insert(readme: str, marks: tuple[str, str], text: str) -> str:
    """The README with what stands between two marks replaced."""
    begin, end = marks
    before, rest = readme.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main() -> None:
    """Refresh docs/digits/, README.md and the benchmarks' picture from reports/digits/ and benchmarks/records/."""
    docs = Path("docs/digits")
    snapshot(Path("reports/digits"), docs)
    write_text(docs / "README.md", gallery(docs))
    readme = Path("README.md")
    records = performance.read_records(Path("benchmarks/records"))
    performance.write_plots(records, Path("benchmarks/scaling"))
    text = insert(readme.read_text(), RESULTS, section(docs))
    write_text(readme, insert(text, PERFORMANCE, performance.section(records)))


if __name__ == "__main__":
    main()
