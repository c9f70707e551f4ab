"""The page itself: everything gathered, put into the template, and written as one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ssvi.analysis.collect import METRIC_COLUMNS, PROVENANCE_COLUMNS, RunFolders
from ssvi.analysis.report.beliefs import believe
from ssvi.analysis.report.gather import Curves, curves_of, rounded
from ssvi.analysis.report.leading import SHOWN, leading
from ssvi.analysis.report.outputs import Experiments, Output, paths_of, read_output, rows_of
from ssvi.analysis.report.summary import cause_of, constant_options, summarise
from ssvi.analysis.settings import METHOD_NAMES, is_missing, option_text
from ssvi.analysis.stats import LEVEL
from ssvi.analysis.tables.published import published
from ssvi.errors import one_line
from ssvi.machine.disk import write_text
from ssvi.registry import KINDS
from ssvi.runs.changed import Changed
from ssvi.runs.completion import idle
from ssvi.runs.config import OUTPUT_KINDS, output_experiments
from ssvi.runs.options import FIELDS, non_defaults, options_of
from ssvi.runs.parents import with_parents
from ssvi.runs.paths import unique
from ssvi.runs.spec import RunSpec

HERE = Path(__file__).parent
# Integers beyond it are not exact in JavaScript.
EXACT = 2**53
TOLD_APART = ("status", "cause", "diverged_epoch")


def write_report(
    source: RunFolders,
    folder: Path,
    study: str,
    content: Mapping[str, Any],
    experiments: Experiments,
    problems: Mapping[tuple[str, str], str] | None = None,
    changed: Sequence[Changed] = (),
) -> Path:
    """Write a study's report from its run folders and from the files of its tables and figures; returns its path.

    Whatever is not there (a run, a table, a figure) is named in the page with the reason. Same files, same bytes.

    Args:
        source: its run folders, unfinished ones named by how far they have got (`partial`).
        folder: where the study has its tables/ and figures/, and will have its report.html.
        study: its name.
        content, experiments: the study and its runs, as `ssvi.runs.config.resolve` and `study_experiments` give them.
        problems: by kind (tables, figures) and name, why an output could not be made; what is named here is not shown.
        changed: the data sets whose images are no longer those of some runs, by `ssvi.runs.changed`.

    Raises:
        OSError: if it cannot be written.
    """
    specs = with_parents(unique(spec for runs in experiments.values() for spec in runs.values()))
    frames = source.frames(specs, ["history"], ["uncertainty"])
    runs, curves = frames.runs, curves_of(source.results, frames.runs, frames.history)
    outputs = _outputs(source, folder, study, content, runs, experiments, problems or {})
    text = _template().render(
        study=study,
        summary=summarise(runs, content, experiments, specs, changed),
        leading=leading(frames),
        leading_columns=[quantity.heading for quantity in SHOWN],
        beliefs=believe(source, runs, content, experiments),
        outputs=outputs,
        figures=set(content["figures"]) - {o.name for o in outputs["figures"] if o.reason},
        versions=_versions(runs),
        fingerprints=_fingerprints(runs),
        config=yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110),
        data=_json(_run_data(runs, specs, experiments, curves)),
        curves=_json([c.columns for c in curves]),
        thinned=_thinned(curves),
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _outputs(
    source: RunFolders,
    folder: Path,
    study: str,
    content: Mapping[str, Any],
    runs: pd.DataFrame,
    experiments: Experiments,
    problems: Mapping[tuple[str, str], str],
) -> dict[str, list[Output]]:
    """The tables and the figures in the config's order."""

    def read(kind: str, name: str) -> Output:
        mine = rows_of(runs, paths_of(output_experiments(content[kind][name]), experiments))
        log = source.results / "logs" / kind.removesuffix("s") / study / f"{name}.log"
        return read_output(kind, name, folder, mine, problems.get((kind, name)), log)

    return {kind: [read(kind, name) for name in content[kind]] for kind in OUTPUT_KINDS}


def _template() -> Template:
    """The page without what is of one study."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    script = (HERE / "report.js").read_text()
    environment.globals |= {
        "css": Markup((HERE / "report.css").read_text()),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "level": f"{100 * LEVEL:.0f} %",
        "flops_unit": f"{published()['flops_unit']:e}".split("e+"),
    }
    environment.filters["short"] = lambda value: f"{value:.3g}"
    environment.filters["change"] = lambda value: f"{value:+.2g}".replace("-", "−")
    return environment.get_template("template.html.jinja")


def _visible(value: Any) -> Any:
    """What the template puts into the page; of text, line by line, without the characters that are not seen."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return "\n".join(map(one_line, value.split("\n"))) if plain else value


def _versions(runs: pd.DataFrame) -> list[tuple[list[str], int]]:
    """What the runs were made with (version, torch, Python, commit), most frequent first, and how many runs."""
    counts: Counter[tuple[str, ...]] = Counter()
    for row in runs[runs["started"].notna()].itertuples():
        commit = "not recorded" if is_missing(row.commit) else str(row.commit)
        commit += " with changes that were not committed" if row.dirty is True else ""
        counts[(*(option_text(getattr(row, name)) for name in ("ssvi", "torch", "python")), commit)] += 1
    return [(list(versions), n) for versions, n in counts.most_common()]


def _fingerprints(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """The images that the numbers are of, those that were trained on and those that were evaluated on."""
    known = runs[runs["data"].notna()][["dataset", "data"]].drop_duplicates()
    return [(str(dataset), str(data)) for dataset, data in known.itertuples(index=False, name=None)]


def _run_data(
    runs: pd.DataFrame, specs: Mapping[str, RunSpec], experiments: Experiments, curves: list[Curves]
) -> dict[str, Any]:
    """What the list of runs is drawn from: a column each, words that repeat written once."""
    paths = list(runs["run"])
    position = {run: i for i, run in enumerate(paths)}
    rows = list(runs.itertuples())
    measured = [name for name in METRIC_COLUMNS if name not in TOLD_APART and runs[name].notna().any()]
    return {
        "options": {name: [_option(f.default), f.metadata["help"]] for name, f in FIELDS.items()},
        "used": {method: [name for name in FIELDS if name in options_of(method)] for method in KINDS},
        "methods": dict(METHOD_NAMES),
        "constant": list(constant_options(specs)),
        "run": paths,
        "status": _coded(list(runs["status"])),
        "cause": ["" if row.status == "complete" else cause_of(row) for row in rows],
        "method": _coded([specs[run].method for run in paths]),
        "idle": _coded([" ".join(sorted(idle(vars(specs[run])))) for run in paths]),
        "changed": [{k: _option(v) for k, v in non_defaults(specs[run]).items()} for run in paths],
        "metrics": {name: [_number(v) for v in runs[name]] for name in measured},
        "provenance": {
            name: _coded([None if is_missing(v) else str(v) for v in runs[name]]) for name in PROVENANCE_COLUMNS
        },
        "experiments": {e: [position[run] for run in members] for e, members in experiments.items()},
        "epochs": [c.epochs for c in curves],
        "unread": {i: c.problem for i, c in enumerate(curves) if c.problem},
    }


def _coded(values: list[str | None]) -> dict[str, list[Any]]:
    """The distinct values, and for each run the position of its own."""
    distinct = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return {"values": list(distinct), "of": [distinct[value] for value in values]}


def _option(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT else value


def _number(value: Any) -> float | int | None:
    """Metrics keep whole numbers whole: FLOPs and counts are exact."""
    if is_missing(value):
        return None
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int | float) and float(number).is_integer() and abs(number) <= EXACT:
        return int(number)
    return rounded(number)


def _thinned(curves: list[Curves]) -> tuple[int, int] | None:
    """How many runs' curves were thinned, and to how many points at most."""
    kept = [len(c.columns.get("epoch", ())) for c in curves]
    thinned = [n for c, n in zip(curves, kept, strict=True) if n < c.epochs]
    return (len(thinned), max(thinned)) if thinned else None


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element: no character that could end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
