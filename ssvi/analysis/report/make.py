"""All tables, figures and the report of a study in one go, from whatever runs there are."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssvi.analysis.collect import Frames, RunFolders
from ssvi.analysis.figures import FIGURES, make_figure, needs, write_figure
from ssvi.analysis.report.outputs import Experiments
from ssvi.analysis.report.page import write_report
from ssvi.analysis.tables import TABLES, make_table, write_table
from ssvi.errors import UserError
from ssvi.runs.changed import Changed
from ssvi.runs.config import output_experiments


def make_all(
    results: Path,
    folder: Path,
    study: str,
    content: Mapping[str, Any],
    experiments: Experiments,
    say: Callable[[str], None] = lambda line: None,
    changed: Sequence[Changed] = (),
    evaluation: Mapping[str, int] | None = None,
) -> Path:
    """Make every table and figure that can be made, then the report, which names the others with the reason.

    Args:
        results: the results folder.
        folder: where tables/, figures/ and report.html go; not where the workflow keeps what it has made, which it
            would then take for finished.
        say: is told each output that could not be made.
        evaluation: `evaluation` of the config; a run that was evaluated otherwise is left out.
        study, content, experiments, changed: as in `write_report`.

    Returns:
        the path of the report.

    Raises:
        OSError: if a file cannot be written; those written before stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    problems: dict[tuple[str, str], str] = {}  # a table and a figure may have one name
    source = RunFolders(results, partial=True, evaluation=evaluation)
    for kind, make in (("tables", _table), ("figures", _figure)):
        for name, output in content[kind].items():
            specs = {run: spec for e in output_experiments(output) for run, spec in experiments[e].items()}
            try:
                make(name, output, folder / kind / name, partial(source.frames, specs))
            except UserError as error:
                problems[kind, name] = str(error)
            except OSError:
                raise  # what cannot be written here cannot be written for the others either
            except Exception as error:
                # A mistake of ours, or of a function that someone has added; the rest of the report must not wait.
                for line in traceback.format_exc().splitlines():
                    say(line)
                problems[kind, name] = f"its code failed: {type(error).__name__}: {error}"
            if (kind, name) in problems:
                say(f"{kind.removesuffix('s')} {name} could not be made: {problems[kind, name]}")
    return write_report(source, folder, study, content, experiments, problems, changed)


def _table(name: str, output: Any, stem: Path, load: Callable[..., Frames]) -> None:
    maker = TABLES.get(name)
    write_table(make_table(name, load(maker.needs, maker.uses) if maker else load()), stem)


def _figure(name: str, output: Any, stem: Path, load: Callable[..., Frames]) -> None:
    write_figure(make_figure(name, load(needs(name) if name in FIGURES else ()), output), stem)
