"""Which trainings are due although their files are there, told by what is in them: no time of a file decides.

Other options are another run, in a folder of its own; here it is parents that were trained anew. Changed images are
told by `ssvi.runs.changed`, evaluations that are due by `ssvi.runs.evaluated`.

Standard library only: the workflow asks before it plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ssvi.errors import UserError
from ssvi.runs.files import is_trained
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import changed_parent


def to_train_anew(results: Path, runs: Mapping[str, RunSpec]) -> dict[str, str]:
    """The trained runs that started from another training of a parent than lies there, or will; each with its cause.

    A parent that is not there says nothing: once it is trained again, perhaps to the same bits, this is asked again.
    Nor does a record that cannot be read, which is refused where it is used.

    Args:
        results: the results folder.
        runs: all runs of the study, parents among them, and their specs.
    """

    @cache
    def cause(run: str) -> str | None:
        if not is_trained(results / "runs" / run):
            return None
        try:
            changed = changed_parent(results / "runs" / run, results / "runs", runs[run])
        except UserError:
            return None
        if changed is not None:
            return f"started from another training of {changed} than lies there now"
        anew = (parent for parent in map(run_path, parents_of(runs[run])) if cause(parent))
        return next((f"starts from {parent}, which is trained anew" for parent in anew), None)

    return {run: found for run in runs if (found := cause(run))}
