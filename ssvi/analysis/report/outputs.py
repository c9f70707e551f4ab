"""Tables and figures as parts of the page: their files embedded, or the reason why they are not there."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.shown import from_markdown
from ssvi.analysis.tables.format import from_html
from ssvi.errors import one_line, told
from ssvi.runs.spec import RunSpec

# A study's runs by experiment, then by run path.
Experiments = Mapping[str, Mapping[str, RunSpec]]

# A larger file is named instead of embedded: it lies beside the page.
LARGEST_DOWNLOAD = 500_000
LARGEST_SVG = 1_500_000
MIME = {
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
    found = Output(name, kind, runs=len(runs), complete=int((runs["status"] == COMPLETE).sum()))
    path = folder / kind / f"{name}.{FILES[kind]}"
    try:
        if reason is None and not path.is_file():
            reason = _reason(path.relative_to(folder), runs, log)
        if reason is not None:
            return replace(found, reason=reason)
        downloads = tuple(d for suffix in DOWNLOADS[kind] if (d := _download(path.with_suffix(f".{suffix}"), folder)))
        shown = _table(path, folder) if kind == "tables" else _figure(path)
        return replace(found, downloads=downloads, **shown)
    except OSError as error:  # that one is missing, the others are shown
        return replace(found, reason=told(error))


def _reason(path: Path, runs: pd.DataFrame, log: Path) -> str:
    said = log.read_text(errors="replace").splitlines() if log.is_file() else []
    errors = [line.removeprefix("ssvi: ") for line in said if line.startswith("ssvi: ")]
    if errors:
        return one_line(errors[-1])
    counts = Counter(runs.loc[runs["status"] != COMPLETE, "status"])
    states = ", ".join(f"{n} {status}" for status, n in counts.items())
    waits = f" Of its {len(runs)} runs, these are not complete: {states}." if states else ""
    return f"{path} has not been made.{waits}"


def _table(path: Path, folder: Path) -> dict[str, Any]:
    """The part of a table's page that this one shows too."""
    content = from_html(path.read_text(errors="replace"))
    reason = "" if content else f"{path.relative_to(folder)} is no table of this version; make it anew."
    return {"content": Markup(content), "reason": reason}


def _figure(path: Path) -> dict[str, Any]:
    """The picture, and its caption and notes, from its Markdown file."""
    words = path.with_suffix(".md")
    lines = words.read_text(errors="replace").splitlines() if words.is_file() else []
    caption = from_markdown(" ".join(line for line in lines if line.strip() and not line.startswith("- ")))
    notes = tuple(from_markdown(line.removeprefix("- ")) for line in lines if line.startswith("- "))
    png = path.with_suffix(".png")
    if path.stat().st_size > LARGEST_SVG and png.is_file():
        path = png
    return {"image": data_url(path.read_bytes(), path.suffix[1:]), "caption": caption, "notes": notes}


def _download(path: Path, folder: Path) -> Download | None:
    if not path.is_file():
        return None
    size, suffix = path.stat().st_size, path.suffix[1:]
    href = data_url(path.read_bytes(), suffix) if size <= LARGEST_DOWNLOAD else ""
    label = {"tex": "LaTeX"}.get(suffix, suffix.upper())
    return Download(path.name, label, href, str(path.relative_to(folder)), size)


def data_url(data: bytes, suffix: str) -> str:
    """The bytes as a URL that needs no network."""
    return f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"


def rows_of(runs: pd.DataFrame, paths: Collection[str]) -> pd.DataFrame:
    """The rows of these runs."""
    return runs[runs["run"].isin(set(paths))]


def paths_of(names: Collection[str], experiments: Experiments) -> list[str]:
    """The run paths of these experiments, each once; an experiment that is not there has none."""
    return list(dict.fromkeys(run for name in names for run in experiments.get(name, ())))
