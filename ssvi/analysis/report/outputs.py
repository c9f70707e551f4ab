"""Tables and figures as parts of the page: their files embedded, or the reason why they are not there."""

from __future__ import annotations

import base64
import html
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.shown import from_markdown
from ssvi.errors import one_line, told

# A larger file is named instead of embedded: it lies beside the page.
LARGEST_DOWNLOAD = 500_000
LARGEST_SVG = 1_500_000
KINDS = {
    "csv": "text/csv;charset=utf-8",
    "tex": "application/x-tex;charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
}
DOWNLOADS = {"tables": ("csv", "tex"), "figures": ("pdf", "png", "csv")}
FILES = {"tables": "html", "figures": "svg"}


@dataclass(frozen=True)
class Download:
    """A file offered for saving; without `href` it is too large and only named."""

    name: str
    label: str
    href: str
    path: str
    size: int


@dataclass(frozen=True)
class Output:
    """A table or figure in the page, or, with `reason`, why it is not."""

    name: str
    kind: str
    content: str = ""
    image: str = ""
    caption: str = ""
    notes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    reason: str = ""
    runs: int = 0
    complete: int = 0

    @property
    def anchor(self) -> str:
        """The id of its heading."""
        return f"{self.kind.removesuffix('s')}-{self.name}"


def read_output(kind: str, name: str, folder: Path, runs: pd.DataFrame, reason: str | None, log: Path) -> Output:
    """One table or figure from its files.

    Args:
        kind: `tables` or `figures`.
        name: as in the config.
        folder: the study's folder of reports.
        runs: the runs it is made from.
        reason: why it could not be made just now, if so; files of an earlier time are then not shown.
        log: the log of the job that makes it, for the reason.
    """
    counted = {"runs": len(runs), "complete": int((runs["status"] == COMPLETE).sum())}
    try:
        return _read_output(kind, name, folder, runs, reason, log, counted)
    except OSError as error:  # that one is missing, the others are shown
        return Output(name, kind, reason=told(error), **counted)


def _read_output(
    kind: str, name: str, folder: Path, runs: pd.DataFrame, reason: str | None, log: Path, counted: dict[str, int]
) -> Output:
    stem = folder / kind / name
    path = stem.with_name(f"{name}.{FILES[kind]}")
    if reason is None and not path.is_file():
        reason = _reason(path.relative_to(folder), runs, log)
    if reason is not None:
        return Output(name, kind, reason=reason, **counted)
    downloads = tuple(d for suffix in DOWNLOADS[kind] if (d := _download(stem, suffix, folder)) is not None)
    if kind == "tables":
        content = table_part(path.read_text(errors="replace"), name)
        return Output(name, kind, content=content, downloads=downloads, **counted)
    caption, notes = _caption(stem)
    return Output(name, kind, image=_image(path), caption=caption, notes=notes, downloads=downloads, **counted)


def _reason(path: Path, runs: pd.DataFrame, log: Path) -> str:
    said = log.read_text(errors="replace").splitlines() if log.is_file() else []
    errors = [line.removeprefix("ssvi: ") for line in said if line.startswith("ssvi: ")]
    if errors:
        return one_line(errors[-1])
    counts = Counter(runs.loc[runs["status"] != COMPLETE, "status"])
    states = ", ".join(f"{n} {status}" for status, n in counts.items())
    waits = f" Of its {len(runs)} runs, these are not complete: {states}." if states else ""
    return f"{path} has not been made.{waits}"


def table_part(page: str, name: str) -> Markup:
    """What a table's page shows, the table in a box that scrolls by itself, its caption above the box."""
    if found := re.search(r"<body[^>]*>(.*)</body>", page, re.DOTALL | re.IGNORECASE):
        part = found[1]
    else:
        start = page.find("<table")
        part = page[start:].replace("</html>", "") if start >= 0 else f"<pre>{html.escape(page)}</pre>"
    return Markup(re.sub(r"<table\b.*?</table>", lambda m: _boxed(m[0], name), part, flags=re.DOTALL))


def _boxed(table: str, name: str) -> str:
    caption = re.search(r"<caption[^>]*>(.*?)</caption>", table, re.DOTALL)
    above = f'<p class="caption">{caption[1]}</p>' if caption else ""
    table = table.replace(caption[0], "", 1) if caption else table
    table = re.sub(r'<th class="([^"]*)">([^<]{14,})</th>', r'<th class="\1 long">\2</th>', table)
    return f'{above}<div class="box" role="region" tabindex="0" aria-label="{html.escape(name)}">{table}</div>'


def _caption(stem: Path) -> tuple[str, tuple[str, ...]]:
    """Caption and notes of a figure, from its Markdown file."""
    path = stem.with_name(f"{stem.name}.md")
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    notes = tuple(from_markdown(line.removeprefix("- ")) for line in lines if line.startswith("- "))
    return from_markdown(" ".join(line for line in lines if line.strip() and not line.startswith("- "))), notes


def _image(path: Path) -> str:
    png = path.with_suffix(".png")
    if path.stat().st_size > LARGEST_SVG and png.is_file():
        path = png
    return data_url(path.read_bytes(), path.suffix[1:])


def _download(stem: Path, suffix: str, folder: Path) -> Download | None:
    path = stem.with_name(f"{stem.name}.{suffix}")
    if not path.is_file():
        return None
    size = path.stat().st_size
    href = data_url(path.read_bytes(), suffix) if size <= LARGEST_DOWNLOAD else ""
    label = {"tex": "LaTeX"}.get(suffix, suffix.upper())
    return Download(path.name, label, href, str(path.relative_to(folder)), size)


def data_url(data: bytes, suffix: str) -> str:
    """The bytes as a URL that needs no network."""
    return f"data:{KINDS[suffix]};base64,{base64.b64encode(data).decode()}"


def rows_of(runs: pd.DataFrame, paths: Collection[str]) -> pd.DataFrame:
    """The rows of these runs."""
    return runs[runs["run"].isin(set(paths))]


def paths_of(names: Collection[str], experiments: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The run paths of these experiments, each once; an experiment that is not there has none."""
    return list(dict.fromkeys(run for name in names for run in experiments.get(name, ())))
