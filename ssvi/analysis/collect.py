"""Run folders as tidy frames: a row a run, an epoch, a layer at an update, a pair of criteria, a measured figure."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from ssvi.analysis import ranges, shown
from ssvi.analysis.made import completed, plugin_files
from ssvi.analysis.records import BESIDE, READERS, UNCERTAINTY_COLUMNS, RunFiles, run_folder, used_options
from ssvi.errors import UserError, one_line, told
from ssvi.machine.disk import write_text
from ssvi.runs import files, ties
from ssvi.runs.evaluated import check_evaluated, check_measured
from ssvi.runs.identity import kind_of
from ssvi.runs.options import FIELDS
from ssvi.runs.records import is_number, read_record, reading_once, told_by_version
from ssvi.runs.runfolder import check_spec, plugins_of
from ssvi.runs.spec import RunSpec

METRIC_COLUMNS = (
    *("status", "cause", "diverged_epoch", "evaluation_samples", "evaluation_bins", "evaluation_numerics"),
    *files.MEASURED,
    *("temperature", *(f"{name}_scaled" for name in files.CALIBRATED)),
    *("predictive_entropy", "expected_entropy", "mutual_information", "mutual_information_share"),
    *("disagreement", "logit_sd", "point_posterior", "validation_accuracy", "validation_nll"),
    *("accuracy_best_test", "best_epoch", *(f"{name}_best_checkpoint" for name in files.MEASURED), "test_images"),
    *("density_actual", "sparsity", "active_weights", "maskable_weights", "complexity", "stored_numbers"),
    *("stored_bytes", "file_bytes", "training_flops", "training_flops_dense", "inference_flops"),
    *("training_seconds", "step_seconds", "parent_flops", "parent_seconds", "evaluation_seconds"),
    *("peak_memory_bytes", "images_per_second", "epochs_done", "steps", "machines"),
)
PROVENANCE_COLUMNS = (
    *("commit", "dirty", "device", "cpu", "computed_precision", "host_cpus", "threads"),
    *("ssvi", "numerics", "torch", "python", "data", "training_data", "test_data", "plugins", "started", "network"),
    "verified",
)
WORDS = {
    *("status", "cause", "commit", "device", "cpu", "computed_precision"),
    *("ssvi", "torch", "python", "data", "training_data", "test_data", "plugins", "started", "network"),
}
TRUTHS = {"dirty", "verified", "point_posterior"}
# What every run has that did not diverge, whichever version evaluated it.
RESULTS = ("accuracy", "nll", "ece", "ece_marginal", "brier")
RUN_COLUMNS = ("run", *FIELDS, *METRIC_COLUMNS, *PROVENANCE_COLUMNS)

COMPLETE, DIVERGED, REFUSED = "complete", "diverged", "refused"


@dataclass(frozen=True)
class Frames:
    """What tables and figures are made from; all but `runs` are empty unless asked for.

    Attributes:
        runs: a row a run: path, options, metrics, provenance (`RUN_COLUMNS`). `status` is `complete`, `diverged`,
            `refused` or, where a partial report was asked for, `failed`, `in training` or `missing`. `verified` says
            whether the files of its folder say of each other that they belong together (not in formats before 3),
            `network` is the fingerprint of its model. `data` is that of the images when it was evaluated, `test_data`
            of the test images then, and `training_data` of those that it was trained on; the latter two are empty of
            versions that recorded the whole alone.
        history: a row an epoch (`HISTORY_COLUMNS`).
        updates: a row a layer and recorded subspace update (`UPDATE_COLUMNS`); `progress` is step / all steps.
        overlap: a row a pair of removal criteria and recorded update (`OVERLAP_COLUMNS`), `first` before `second`
            in the order of `CRITERIA`; a criterion that this version does not have is in none.
        samples: a row a number of weight samples (`SAMPLES_COLUMNS`).
        uncertainty: a row a figure of the uncertainty suite (`UNCERTAINTY_COLUMNS`), as uncertainty.csv has it
            (`ssvi.analysis.uncertain` makes columns of the runs of them).
        left_out: why runs are in no frame of what is used where it is there, by run path.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    updates: pd.DataFrame
    overlap: pd.DataFrame
    samples: pd.DataFrame
    uncertainty: pd.DataFrame = field(default_factory=lambda: pd.DataFrame([], columns=list(UNCERTAINTY_COLUMNS)))
    left_out: Mapping[str, str] = field(default_factory=dict)


class RunFolders:
    """The run folders of a study, whose files are read once for all that is made of them.

    Args:
        results: the results folder.
        partial: name unfinished runs by how far they have got instead of refusing them.
        evaluation: `evaluation` of the config, under which all of them must have been evaluated; None takes them as
            they are.
    """

    def __init__(self, results: Path, *, partial: bool = False, evaluation: Mapping[str, int] | None = None) -> None:
        self.results, self._partial, self._evaluation = results, partial, evaluation
        self._row, self._files = cache(self._read_row), RunFiles(results)
        self._check_measured = cache(self._measured)

    def frames(self, specs: Mapping[str, RunSpec], needs: Collection[str] = (), uses: Collection[str] = ()) -> Frames:
        """The frames of these runs.

        A run is refused, and left out of all frames but `runs`, where its status is then `refused` and its cause says
        why: its files are missing, unreadable, impossible, not of one training, or made under other options or on
        other images; or it is a copy. The others go on.

        Args:
            specs: run paths and their specs. Options that a method does not use are empty; the density of a dense
                method is 1. `density` is the one asked for, `density_actual` the measured one.
            needs: which of history, updates, overlap, samples, uncertainty to read beside the runs.
            uses: which of `BESIDE` to read of the runs that have it. One that cannot be used takes no run with it:
                it is left out of its frame alone, and `left_out` says why.
        """
        runs = pd.DataFrame([self._row(*one) for one in specs.items()], columns=list(RUN_COLUMNS))
        for causes in (_trained_on_others, _evaluated_on_others, _copies):
            runs = _refused(runs, causes(runs))
        finished = {run: specs[run] for run in runs.loc[runs["status"].isin([COMPLETE, DIVERGED]), "run"]}
        more, causes = self._usable(finished, needs)
        runs, left_out = _refused(runs, causes), {}
        for name in set(uses) - set(needs):
            there = {
                run: spec
                for run, spec in finished.items()
                if run not in causes and os.path.exists(run_folder(self.results, run) / BESIDE[name])
            }
            frames, found = self._usable(there, [name])
            more[name], left_out = frames[name], left_out | found
        return Frames(runs, **more, left_out=left_out)

    def _usable(
        self, specs: Mapping[str, RunSpec], needs: Collection[str]
    ) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
        """The frames beside the runs, and why runs are in none of them."""
        try:
            return self._beside(specs, needs), {}
        except (UserError, OSError):
            # The files of all runs are parsed at once, so which of them are to blame is asked for only now.
            found = {run: self._problem({run: spec}, needs) for run, spec in specs.items()}
        usable = {run: spec for run, spec in specs.items() if not found[run]}
        return self._beside(usable, needs), {run: cause for run, cause in found.items() if cause}

    def _read_row(self, run: str, spec: RunSpec) -> dict[str, Any]:
        try:
            if self._partial and not (run_folder(self.results, run) / files.METRICS).is_file():
                return _unfinished_row(self.results, run, spec)
            with reading_once():
                return _run_row(self.results, run, spec, self._evaluation)
        except (UserError, OSError) as error:
            return {"run": run, **used_options(spec), "status": REFUSED, "cause": cause(error)}

    def _beside(self, specs: Mapping[str, RunSpec], needs: Collection[str]) -> dict[str, pd.DataFrame]:
        """The frames beside the runs.

        Raises:
            UserError: at the first file that is unusable, or was made otherwise than the config says.
        """
        frames = {
            name: read(self._files, specs)[list(columns)] if name in needs else pd.DataFrame([], columns=list(columns))
            for name, (read, columns) in READERS.items()
        }
        for name, file in BESIDE.items() if self._evaluation is not None else ():
            for run in frames[name]["run"].unique():
                self._check_measured(run_folder(self.results, run) / file, specs[run])
        return frames

    def _measured(self, path: Path, spec: RunSpec) -> None:
        check_measured(path, spec, self._evaluation)

    def _problem(self, spec: Mapping[str, RunSpec], needs: Collection[str]) -> str | None:
        try:
            self._beside(spec, needs)
        except (UserError, OSError) as error:
            return cause(error)
        return None


def load_frames(
    results: Path,
    specs: Mapping[str, RunSpec],
    needs: Collection[str] = (),
    uses: Collection[str] = (),
    *,
    partial: bool = False,
    evaluation: Mapping[str, int] | None = None,
) -> Frames:
    """The frames of these runs alone, by `RunFolders`."""
    return RunFolders(results, partial=partial, evaluation=evaluation).frames(specs, needs, uses)


def cause(error: UserError | OSError) -> str:
    """Why a run is refused: of a folder that this user may not read, what the system says."""
    return told(error) if isinstance(error, OSError) else str(error)


def refusal(results: Path, run: str, spec: RunSpec, needs: Collection[str] = ()) -> str | None:
    """Why a finished run is left out of tables and figures, by its own folder; None if it is not."""
    (row,) = load_frames(results, {run: spec}, needs).runs.to_dict("records")
    return row["cause"] if row["status"] == REFUSED else None


def _refused(runs: pd.DataFrame, causes: Mapping[str, str]) -> pd.DataFrame:
    """The runs, some of which are refused for a cause: of those the options stay, and nothing that was measured."""
    if not causes:
        return runs
    kept = ("run", *FIELDS)
    rows = [
        {**{name: row[name] for name in kept}, "status": REFUSED, "cause": causes[row["run"]]}
        if row["run"] in causes
        else row
        for row in runs.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _trained_on_others(runs: pd.DataFrame) -> dict[str, str]:
    """Why runs are refused that were trained on other images than most of the same data set: by run path."""
    return {
        run: f"{run}: was trained on other {kind_of(name)} of {than}; keep the runs on other images elsewhere."
        for run, name, than in _unlike_most(runs, "training_data")
    }


def _evaluated_on_others(runs: pd.DataFrame) -> dict[str, str]:
    """The same of those that were evaluated on other test images."""
    return {
        run: f"{run}: was evaluated on other test images of {than}; evaluate anew those that are not of the present "
        "ones (ssvi evaluate)."
        for run, _, than in _unlike_most(runs, "test_data")
    }


def _unlike_most(runs: pd.DataFrame, part: str) -> Iterator[tuple[str, str, str]]:
    """The runs whose images (`training_data` or `test_data`) are others than those of most on their data set; with
    the column that tells, and what they are unlike, in words."""
    known = runs[runs["data"].notna()]
    pairs = list(known[["data", part]].astype(object).itertuples(index=False, name=None))
    # where an older version recorded the whole alone, a newer one may have recorded its parts too
    parts = {whole: one for whole, one in pairs if isinstance(one, str)}
    known = known.assign(images=[one if isinstance(one, str) else parts.get(whole, whole) for whole, one in pairs])
    for (dataset, _), group in known.groupby(["dataset", "image_size"], dropna=False):
        # the most runs, and of as many the latest
        kinds = [one for _, one in group.groupby("images")]
        most = max(kinds, key=lambda one: (len(one), max(map(str, one["started"]))))
        usual = most.iloc[0]
        for _, row in group[group["images"] != usual["images"]].iterrows():
            yield (
                row["run"],
                "data" if {row["images"], usual["images"]} & {row["data"], usual["data"]} else part,
                f"{dataset!r} than {usual['run']} (fingerprints {row['images'][:12]} and {usual['images'][:12]}, the "
                f"latter of {len(most)} in all)",
            )


def _copies(runs: pd.DataFrame) -> dict[str, str]:
    """Why runs are refused that have the very network, or results, of another one with another seed: by run path.

    No two seeds give the same; a copy would make an interval of no width.
    """
    done = runs[runs["status"] == COMPLETE]
    options = [name for name in FIELDS if name != "seed"]
    causes = {}
    for _, group in done[done["network"].notna()].groupby([*options, "network"], dropna=False, sort=False):
        first, *others = group["run"]
        causes |= {run: f"{run}: has the very network of {first}; one of the two is a copy." for run in others}
    # The numbers of a checked folder are its own: two networks that say the same of every image are no copies.
    for _, group in done.groupby([*options, "nll", "brier", "ece"], dropna=False, sort=False):
        checked = group["verified"].eq(True)
        first, *others = [*group.loc[checked, "run"], *group.loc[~checked, "run"]]
        unchecked = set(group.loc[~checked, "run"])
        causes |= {
            run: f"{run}: has the very results of {first}; one of the two is a copy."
            for run in others
            if run in unchecked
        }
    return causes


def _unfinished_row(results: Path, run: str, spec: RunSpec) -> dict[str, Any]:
    """A run without metrics: failed (with the last words of its log), in training, or not begun."""
    status, cause = "missing", None
    folder = run_folder(results, run)
    if (folder / files.LIVE).is_dir() and any((folder / name).is_file() for name in BEGUN):
        status = "in training"
    for step in ("evaluate", "train"):
        log = results / "logs" / step / f"{run}.log"
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
        if said and not PROGRESS.search(said[-1]):
            status, cause = "failed", one_line(said[-1].strip().removeprefix("ssvi: "))
            break
    return {"run": run, **used_options(spec), "status": status, "cause": cause}


# Of a training that has begun; one that was refused leaves at most that it was claimed.
BEGUN = (files.SPEC, files.CHECKPOINT, files.LIVE_HISTORY)
# The last line of a log whose command was still at work, or had done its work, when it was looked at.
PROGRESS = re.compile(r"^epoch \d|^note: |: trained in |: already trained|: stopped by SIG|^accuracy ")


def _run_row(results: Path, run: str, spec: RunSpec, wanted: Mapping[str, int] | None = None) -> dict[str, Any]:
    folder = run_folder(results, run)
    stored = check_spec(folder, spec)
    path = folder / files.METRICS
    metrics = read_record(path, status=str)
    tied = [ties.check_ties(folder, name) for name in (files.TRAINING, files.METRICS)]
    verified = all(tied)
    ties.check_parents(folder, results / "runs", spec)
    evaluation = metrics.get("evaluation") or {}
    if not isinstance(evaluation, dict):
        raise UserError(f"{path}: evaluation is {reprlib.repr(evaluation)}, but must be an object; evaluate it anew.")
    measured = {
        "evaluation_samples": evaluation.get("samples"),
        "evaluation_bins": evaluation.get("bins"),
        "evaluation_numerics": metrics.get("evaluation_numerics", 1),
        "density_actual": metrics.get("density"),
    }
    measured |= {name: metrics.get(name) for name in METRIC_COLUMNS if name not in measured}
    origin = completed(stored.get("provenance", {}), metrics.get("sessions"), spec)
    origin |= {"plugins": plugin_files(plugins_of(folder, stored))}
    origin |= {"network": metrics["files"].get(files.MODEL) if verified else None, "verified": verified}
    tested = {name: metrics[name] for name in ("data", "test_data") if name in metrics}
    measured["machines"] = origin["machines"]
    provenance = {name: origin.get(name) for name in PROVENANCE_COLUMNS}
    _check_values(path, measured | tested)
    _check_values(folder / files.SPEC, provenance)
    measured, provenance = _visible(measured), _visible(provenance | tested)
    if measured["status"] not in (COMPLETE, DIVERGED):
        raise UserError(f"{path}: status is {measured['status']!r}, but must be {COMPLETE} or {DIVERGED}.")
    if measured["status"] == COMPLETE and (missing := [name for name in RESULTS if measured[name] is None]):
        raise UserError(f"{path}: has no {missing[0]!r}; evaluate the run anew.")
    if wanted is not None:
        check_evaluated(path, metrics, spec, wanted)
    return {"run": run, **used_options(spec), **measured, **provenance}


def _visible(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with words as they may be printed: a run folder may come from anywhere."""
    return {name: one_line(value) if isinstance(value, str) else value for name, value in values.items()}


def _check_values(path: Path, values: Mapping[str, Any]) -> None:
    """Each a number of its range unless named in `WORDS` or `TRUTHS`, or None."""
    for name, value in values.items():
        kind = str if name in WORDS else bool if name in TRUTHS else float
        must = {str: "a word", bool: "true or false", float: "a number"}[kind], reprlib.repr(value)
        right = is_number(value) if kind is float else isinstance(value, kind)
        if right and kind is float and not ranges.inside(name, value):
            right, must = False, (ranges.allowed(name), repr(value))
        if value is not None and not right:
            problem = f"{path}: {name} is {must[1]}, but must be {must[0]}"
            raise UserError(f"{problem}; {told_by_version(path.parent)}")


def write_collected(frames: Frames, out: Path) -> None:
    """Write the runs and whichever other frames are not empty as CSV files into `out`, each atomically."""
    for name in ("runs", *READERS):
        frame = getattr(frames, name)
        if name == "runs" or len(frame):
            write_text(out / f"{name}.csv", shown.to_csv(frame))
