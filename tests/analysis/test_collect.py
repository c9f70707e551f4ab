"""Run folders as tidy frames, on made-up finished runs with hand-computed answers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import tie, with_seeds, write_run, write_runs
from places import TESTS
from unreadable import unreadable

from ssvi import registry
from ssvi.analysis import collect, records
from ssvi.errors import UserError
from ssvi.machine.disk import write_json, write_text
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_jsonl, to_jsonl, told_by_version
from ssvi.runs.runfolder import FORMAT, read_spec, spec_record
from ssvi.runs.spec import RunSpec

CRITERIA = tuple(registry.CRITERIA)
VI = RunSpec(method="vi", dataset="cifar10")
SSVI = RunSpec(method="ssvi", density=0.1, dataset="cifar10")


def refusal(results: Path, specs: dict[str, RunSpec], needs: tuple[str, ...] = ()) -> str:
    """Why the one run that is refused is; it is in no other frame, and the others go on."""
    frames = collect.load_frames(results, specs, needs)
    (row,) = frames.runs[frames.runs["status"] == "refused"].to_dict("records")
    assert (frames.runs["status"] != "refused").sum() == len(specs) - 1
    assert pd.isna(row["accuracy"])
    for name in needs:
        assert row["run"] not in set(getattr(frames, name)["run"])
    assert row["cause"].isprintable()
    return row["cause"]


def test_row_has_used_options_only_and_measured_density(tmp_path: Path) -> None:
    frame = collect.load_frames(tmp_path, write_runs(tmp_path, [VI, SSVI])).runs
    dense, sparse = frame.iloc[0], frame.iloc[1]
    assert dense["density"] == 1.0
    assert pd.isna(dense["criterion"])
    assert pd.isna(dense["delta_t"])
    assert sparse["density"] == 0.1
    assert sparse["criterion"] == "snr_abs"
    assert sparse["delta_t"] == 100
    assert sparse["density_actual"] == pytest.approx(0.1, abs=1e-6)
    assert (sparse["commit"], sparse["device"], sparse["evaluation_samples"]) == ("0123abc", "cpu", 5)


def test_frames_are_read_only_where_asked_for(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [VI, SSVI, RunSpec(method="rigl", dataset="cifar10")], epochs=5)
    for run in specs:
        (tmp_path / "runs" / run / files.TOPOLOGY).write_text("broken")
        tie(tmp_path / "runs" / run)
    frames = collect.load_frames(tmp_path, specs, ["history", "samples"])
    assert len(frames.history) == 15
    assert list(frames.history.columns) == list(records.HISTORY_COLUMNS)
    assert frames.history["lr_start"].unique() == [0.01]
    assert frames.history.groupby("method")["density"].first().to_dict() == {"rigl": 0.1, "ssvi": 0.1, "vi": 1.0}
    assert frames.samples.groupby("run").size().tolist() == [1, 5, 5]
    assert frames.updates.empty
    assert list(frames.updates.columns) == list(records.UPDATE_COLUMNS)
    causes = collect.load_frames(tmp_path, specs, ["overlap"]).runs["cause"]
    assert causes.str.contains(r"topology\.jsonl: not readable as JSON").all()


def test_history_is_the_file(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    frames = collect.load_frames(tmp_path, specs, ["history"])
    for run in specs:
        mine = frames.history[frames.history["run"] == run]
        stored = pd.read_csv(tmp_path / "runs" / run / files.HISTORY)
        for column in files.HISTORY_COLUMNS:
            assert mine[column].tolist() == stored[column].tolist() or mine[column].isna().all()


def test_updates_and_overlap_are_the_records(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [VI, SSVI], layers=2, updates=3)
    frames = collect.load_frames(tmp_path, specs, ["updates", "overlap"])
    run = next(run for run, spec in specs.items() if spec.method == "ssvi")
    stored = read_jsonl(tmp_path / "runs" / run / files.TOPOLOGY)
    assert len(frames.updates) == 3 * 2
    first = frames.updates.iloc[0]
    layer = stored[0]["layers"][0]
    assert {q: first[f"sigma_{q}"] for q in records.QUANTILES} == layer["sigma"]
    assert (first["survivors"], first["layer"], first["position"]) == (layer["survivors"], layer["layer"], 0)
    assert frames.updates["progress"].iloc[-1] == pytest.approx(0.75, abs=1e-3)
    assert len(frames.overlap) == 3 * len(list(itertools.combinations(CRITERIA, 2)))
    pair = frames.overlap[(frames.overlap["first"] == "snr") & (frames.overlap["second"] == "e_exp")].iloc[1]
    assert pair["iou"] == stored[1]["iou"][CRITERIA.index("snr")][CRITERIA.index("e_exp")]


def test_collected_files_give_the_same_numbers_back(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI))
    frames = collect.load_frames(tmp_path, specs, ["history"])
    collect.write_collected(frames, tmp_path / "out")
    stored = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert stored["run"].tolist() == list(specs)
    assert stored["nll"].tolist() == frames.runs["nll"].tolist()
    assert len(pd.read_csv(tmp_path / "out" / "history.csv")) == 15
    assert not (tmp_path / "out" / "updates.csv").exists()


def test_foreign_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI)
    assert "delta_t was 100 and is now 50" in refusal(tmp_path, {run: dataclasses.replace(SSVI, delta_t=50)})
    (tmp_path / "runs" / run / files.METRICS).unlink()
    assert refusal(tmp_path, {run: SSVI}).endswith("metrics.json: no such file.")


def test_a_partial_study_names_what_is_missing_and_why(tmp_path: Path) -> None:
    seeds = with_seeds(SSVI, 5)
    specs = write_runs(tmp_path, seeds)
    missing, failed, training, diverged = list(specs)[1:]
    for run in (missing, failed, training):
        (tmp_path / "runs" / run / files.METRICS).unlink()
    write_text(tmp_path / "logs" / "train" / f"{failed}.log", "epoch 1/5\nRuntimeError: out of paper\n")
    write_text(tmp_path / "runs" / training / files.LIVE_HISTORY, "")
    write_run(tmp_path, seeds[4], diverged="the loss is nan")
    frames = collect.load_frames(tmp_path, specs, ["history"], partial=True)
    rows = frames.runs.set_index("run")
    assert rows["status"].tolist() == ["complete", "missing", "failed", "in training", "diverged"]
    assert rows.loc[failed, "cause"] == "RuntimeError: out of paper"
    assert rows.loc[failed, "density"] == 0.1
    assert set(frames.history["run"]) == {next(iter(specs)), diverged}


def test_a_training_that_was_refused_is_not_in_training(tmp_path: Path) -> None:
    """Who had claimed the folder is still to be read there."""
    run = run_path(SSVI)
    write_text(tmp_path / "runs" / run / files.OWNER, "{}")
    write_text(tmp_path / "runs" / run / files.LOCK, "")
    assert collect.load_frames(tmp_path, {run: SSVI}, partial=True).runs["status"].tolist() == ["missing"]
    write_text(tmp_path / "runs" / run / files.CHECKPOINT, "")
    assert collect.load_frames(tmp_path, {run: SSVI}, partial=True).runs["status"].tolist() == ["in training"]


@pytest.mark.parametrize(
    ("log", "status", "cause"),
    [
        ("Traceback ...\nKeyError: 'x'\n\n", "failed", "KeyError: 'x'"),
        ("ssvi: folder:x/train: no such folder.\n", "failed", "folder:x/train: no such folder."),
        ("epoch 1/5  loss 2.1\nssvi: the command was killed, perhaps for want of memory.", "failed", "the command was"),
        ("/bin/bash: line 1: 42 Killed   ssvi train", "failed", "/bin/bash: line 1: 42 Killed"),
        ("epoch 3/5  loss 2.1  train 20 %\n", "missing", None),
        ("", "missing", None),
    ],
)
def test_why_a_run_has_no_result(tmp_path: Path, log: str, status: str, cause: str | None) -> None:
    run = write_run(tmp_path, SSVI)
    (tmp_path / "runs" / run / files.METRICS).unlink()
    write_text(tmp_path / "logs" / "train" / f"{run}.log", log)
    row = collect.load_frames(tmp_path, {run: SSVI}, partial=True).runs.iloc[0]
    assert row["status"] == status
    assert row["cause"] is cause or row["cause"].startswith(cause)


def test_runs_on_different_images_are_not_put_side_by_side(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 3))
    path = tmp_path / "runs" / next(iter(specs)) / files.SPEC
    path.write_text(path.read_text().replace("e" * 64, "0" * 64))
    tie(path.parent)
    cause = refusal(tmp_path, specs)
    assert cause.startswith(next(iter(specs)))
    assert "trained on other training images of 'cifar10'" in cause


# What runs say of their images: the whole when evaluated, the training images, the test images.
OLD, NEW, RETESTED, RETRAINED = ("W", None, None), ("W", "T", "E"), ("W2", "T", "E2"), ("W3", "T3", "E")


@pytest.mark.parametrize(
    ("images", "refused"),
    [
        ([OLD, OLD, OLD], ""),
        ([NEW, NEW, NEW], ""),
        # what was recorded of the whole alone is known by its parts from those that recorded both
        ([OLD, NEW, NEW], ""),
        ([OLD, OLD, NEW], ""),
        ([RETESTED, NEW, NEW], "was evaluated on other test images of 'cifar10' than"),
        ([RETESTED, OLD, NEW], "was evaluated on other test images of 'cifar10' than"),
        # where nothing tells, the whole has to be the same
        ([RETESTED, OLD, OLD], "was trained on other images of 'cifar10' than"),
        ([RETRAINED, NEW, NEW], "was trained on other training images of 'cifar10' than"),
        ([RETRAINED, OLD, NEW], "was trained on other training images of 'cifar10' than"),
        ([("W", "T", "E"), ("W4", "T", "E"), ("W4", "T", "E")], ""),
    ],
)
def test_nothing_is_averaged_over_other_images(tmp_path: Path, images: list[tuple], refused: str) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 3))
    for run, (whole, training, test) in zip(specs, images, strict=True):
        folder = tmp_path / "runs" / run
        for name, part in ((files.SPEC, ("training_data", training)), (files.METRICS, ("test_data", test))):
            record = json.loads((folder / name).read_text())
            place = record["provenance"] if name == files.SPEC else record
            del place["data"], place[part[0]]
            place |= {"data": whole} if name == files.SPEC or test else {}
            place |= {part[0]: part[1]} if part[1] else {}
            (folder / name).write_text(json.dumps(record))
        tie(folder)
    runs = collect.load_frames(tmp_path, specs).runs
    assert list(runs["status"]) == ["refused" if refused else "complete", "complete", "complete"]
    assert (refused in runs.iloc[0]["cause"]) if refused else runs["cause"].isna().all()


@pytest.mark.parametrize("same", [True, False])
def test_the_curve_of_samples_is_of_the_test_images_of_the_metrics(tmp_path: Path, same: bool) -> None:
    specs = write_runs(tmp_path, [SSVI], test_data="E")
    folder = tmp_path / "runs" / next(iter(specs))
    head, *rows = (line.rpartition(",")[0] for line in (folder / files.SAMPLES).read_text().splitlines())
    lines = [f"{head},{files.TESTED_ON}", *(f"{row},{'E' if same else 'F'}" for row in rows)]
    (folder / files.SAMPLES).write_text("".join(f"{line}\n" for line in lines))
    tie(folder)
    frames = collect.load_frames(tmp_path, specs, ["samples"])
    assert len(frames.samples) == (len(rows) if same else 0)
    cause = frames.runs.iloc[0]["cause"]
    assert same or cause == (
        f"{folder / files.SAMPLES}: was measured on other test images than metrics.json; make both anew with "
        f"`ssvi evaluate {folder}` and `ssvi samples {folder}`."
    )


HEADER = ",".join(files.HISTORY_COLUMNS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss,kl\n1,2\n", "has the columns 'loss,kl', but no 'epoch'"),
        ("epoch,loss,step\n1,many,21\n", "loss is 'many', but must be a number"),
        ("epoch,loss,step\n1,21\n", "a row has 2 cells instead of 3"),
        (f"{HEADER}\n1,21,many{',' * 10}\n", "loss is 'many', but must be a number"),
        (f"{HEADER}\n1,21\n", f"a row has 2 cells instead of {len(files.HISTORY_COLUMNS)}"),
        ("epoch,loss\n1,-1\n", "loss is -1, but must be >= 0"),
        ("epoch,train_accuracy\n1,97.5\n", "train_accuracy is 97.5, but must be >= 0 and <= 1"),
        ("epoch,loss\n1,2\n2,1\n1,2\n", "epoch 1 is there twice"),
        ("", "has the columns ''"),
    ],
)
def test_broken_history_is_named(tmp_path: Path, text: str, words: str) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    path = tmp_path / "runs" / list(specs)[1] / files.HISTORY
    write_text(path, text)
    tie(path.parent)
    cause = refusal(tmp_path, specs, ("history",))
    assert "seed=1/history.csv: " in cause
    assert words in cause


# ---------------------------------------------------------------- what other versions wrote

# A run as commit e02c101 wrote it: `ssvi train --method=ssvi --model=mlp --epochs=3 --batch-size=256 --density=0.1
# --delta-t=5 --sigma-init=0.05 --lr=0.1`, `ssvi evaluate`, `ssvi samples`; no record in it carries a name.
FORMAT_1 = TESTS / "format_1"
ORDER_OF_FORMAT_1 = ["abs_mu", "snr", "e_abs", "snr_abs", "e_exp", "snr_exp"]
ALL = tuple(records.READERS)
# What the first format had.
FIRST = ("history", "updates", "overlap", "samples")


def old_run(results: Path) -> dict[str, RunSpec]:
    spec = read_spec(FORMAT_1)
    shutil.copytree(FORMAT_1, results / "runs" / run_path(spec))
    return {run_path(spec): spec}


def by_names(frames: collect.Frames, measure: str) -> dict[tuple[int, frozenset[str]], float]:
    """A measure by step and by the two criteria, in whichever order they stand."""
    rows = frames.overlap.itertuples()
    return {(row.step, frozenset((row.first, row.second))): getattr(row, measure) for row in rows}


REGISTRIES = {
    "as it was": CRITERIA,
    "two lines swapped": ("abs_mu", "e_abs", "snr", "snr_abs", "e_exp", "snr_exp"),
    "from behind": CRITERIA[::-1],
    "a seventh at the end": (*CRITERIA, "seventh"),
    "a seventh in front": ("seventh", *CRITERIA),
    "one less": tuple(name for name in CRITERIA if name != "e_abs"),
}


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=list(REGISTRIES))
def test_what_an_older_version_wrote_is_read_whatever_the_registry_is_now(tmp_path, monkeypatch, registry) -> None:
    monkeypatch.setattr(records, "CRITERIA", registry)
    frames = collect.load_frames(tmp_path, old_run(tmp_path), FIRST)
    stored = read_jsonl(FORMAT_1 / files.TOPOLOGY)
    known = [name for name in ORDER_OF_FORMAT_1 if name in registry]
    place = ORDER_OF_FORMAT_1.index
    for measure in ("iou", "spearman"):
        # the two halves of a stored matrix are the same up to rounding
        assert by_names(frames, measure) == pytest.approx(
            {
                (record["step"], frozenset((a, b))): record[measure][place(a)][place(b)]
                for record in stored
                for a, b in itertools.combinations(known, 2)
            },
            rel=1e-12,
        )
    # which it must be, because these criteria order alike, and those otherwise
    assert by_names(frames, "iou")[5, frozenset(("snr", "snr_abs"))] > 0.99
    assert by_names(frames, "iou")[5, frozenset(("abs_mu", "snr_exp"))] < 0.1
    assert all(registry.index(row.first) < registry.index(row.second) for row in frames.overlap.itertuples())


def test_all_that_an_older_version_wrote_is_read(tmp_path: Path) -> None:
    frames = collect.load_frames(tmp_path, old_run(tmp_path), FIRST)
    layer = read_jsonl(FORMAT_1 / files.TOPOLOGY)[1]["layers"][2]
    row = frames.updates.iloc[5]
    assert row["layer"] == layer["layer"] == "head"
    for name in ("sigma", "snr"):
        assert [row[f"{name}_{q}"] for q in ("q05", "q25", "q50", "q75", "q95")] == layer[name]
    assert frames.history["loss"].tolist() == pd.read_csv(FORMAT_1 / files.HISTORY)["loss"].tolist()
    assert frames.samples["nll"].tolist() == pd.read_csv(FORMAT_1 / files.SAMPLES)["nll"].tolist()
    assert frames.runs["accuracy"].tolist() == [json.loads((FORMAT_1 / files.METRICS).read_text())["accuracy"]]


def change_updates(results: Path, run: str, by: Callable[[dict[str, Any]], object]) -> None:
    path = results / "runs" / run / files.TOPOLOGY
    records = read_jsonl(path)
    for record in records:
        by(record)
    write_text(path, to_jsonl(records))
    tie(path.parent)


@pytest.mark.parametrize("names", [CRITERIA[::-1], (*CRITERIA[:3], "theirs", *CRITERIA[3:]), CRITERIA[:2], ("theirs",)])
def test_overlaps_are_read_by_the_names_they_carry(tmp_path: Path, names: tuple[str, ...]) -> None:
    """In any order, of more or of fewer criteria; what this version does not know is left out."""
    specs = write_runs(tmp_path, [SSVI])
    value = {name: number for number, name in enumerate(names)}

    def by(record: dict[str, Any]) -> None:
        record["criteria"] = names
        record["iou"] = [[0.1 * min(value[a], value[b]) + 0.01 * max(value[a], value[b]) for b in names] for a in names]
        record["spearman"] = [[0.5 for _ in names] for _ in names]

    change_updates(tmp_path, *specs, by)
    frame = collect.load_frames(tmp_path, specs, ["overlap"]).overlap
    pairs = [*itertools.combinations([name for name in CRITERIA if name in names], 2)]
    assert list(zip(frame["first"], frame["second"], strict=True)) == 4 * pairs
    for row in frame.itertuples():
        low, high = sorted((value[row.first], value[row.second]))
        assert row.iou == 0.1 * low + 0.01 * high


def test_quantiles_are_read_by_the_names_they_carry(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [SSVI])
    change_updates(
        tmp_path, *specs, lambda r: [x.update(sigma={"q95": 9.5, "q33": 3.3, "q05": 0.5}) for x in r["layers"]]
    )
    row = collect.load_frames(tmp_path, specs, ["updates"]).updates.iloc[0]
    assert (row["sigma_q05"], row["sigma_q95"]) == (0.5, 9.5)
    assert pd.isna(row["sigma_q50"])


def test_what_is_written_now_carries_its_names() -> None:
    """Read by this version or any other: the records of the training half name what they hold."""
    import torch

    from ssvi.core import criteria
    from ssvi.core.overlap import overlap_matrices
    from ssvi.core.ranking import Groups
    from ssvi.core.tensors import fetched
    from ssvi.methods.records import _quantiles

    scores = {
        name: f(torch.linspace(0.1, 2, 40), torch.linspace(1, 0.01, 40), 1.0) for name, f in criteria.CRITERIA.items()
    }
    record = fetched(overlap_matrices(scores, Groups.of([40], torch.device("cpu"))))
    assert record["criteria"] == list(criteria.CRITERIA)
    assert len(record["iou"]) == len(record["spearman"]) == len(record["criteria"])
    found = _quantiles(torch.arange(101.0))
    assert found == {"q05": 5, "q25": 25, "q50": 50, "q75": 75, "q95": 95}
    assert tuple(found) == records.QUANTILES


@pytest.mark.parametrize("needs", ["history", "samples"])
def test_columns_of_another_version_are_read_by_name(tmp_path: Path, needs: str) -> None:
    """Another order, a column less, a column of quoted words more, beside a run of this version."""
    specs = write_runs(tmp_path, with_seeds(SSVI, 3))
    expected = getattr(collect.load_frames(tmp_path, specs, [needs]), needs)
    name = {"history": files.HISTORY, "samples": files.SAMPLES}[needs]
    path = tmp_path / "runs" / list(specs)[1] / name
    stored = pd.read_csv(path, dtype=str).drop(columns="seal", errors="ignore")
    gone = "numerics" if needs == "samples" else stored.columns[-1]
    other = stored[stored.columns[::-1]].drop(columns=gone).assign(said='two words, "quoted"')
    write_text(path, other.to_csv(index=False))
    tie(path.parent)
    frame = getattr(collect.load_frames(tmp_path, specs, [needs]), needs)
    mine = frame["run"] == list(specs)[1]
    # the version of the arithmetic is 1 where none is said
    assert (frame.loc[mine, gone].eq(1) if gone == "numerics" else frame.loc[mine, gone].isna()).all()
    pd.testing.assert_frame_equal(frame.drop(columns=gone), expected.drop(columns=gone))
    assert frame.loc[~mine, gone].tolist() == expected.loc[~mine, gone].tolist()


# Whole files that this version does not understand, each as another version could have written it.
OTHERWISE = {
    files.METRICS: lambda text: text.replace('"status"', '"outcome"'),
    files.HISTORY: lambda text: text.replace("epoch", "period", 1),
    files.SAMPLES: lambda text: text.replace("samples", "draws", 1),
    files.UNCERTAINTY: lambda text: text.replace("part", "share", 1),
    files.TOPOLOGY: lambda text: text.replace('"layers"', '"modules"'),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_change_of_code_never_leads_to_deleting_results(tmp_path: Path, name: str) -> None:
    specs = write_runs(tmp_path, [SSVI])
    path = tmp_path / "runs" / next(iter(specs)) / name
    path.write_text(OTHERWISE[name](path.read_text()))
    tie(path.parent)
    cause = refusal(tmp_path, specs, ALL)
    assert str(path) in cause
    assert "ssvi 0.1.0 (commit 0123abc) wrote it: read it with that one" in cause
    assert "delete" not in cause
    assert "anew" not in cause


@pytest.mark.parametrize(
    ("provenance", "who"),
    [
        ({"ssvi": "0.9", "commit": "a" * 40}, "ssvi 0.9 (commit aaaaaaaaaaaa) wrote it"),
        ({"ssvi": "0.9", "commit": None}, "ssvi 0.9 wrote it"),
        ({"ssvi": "0.9\n", "commit": "\x1b[1m"}, "a version that spec.json does not name wrote it"),
        ({}, "a version that spec.json does not name wrote it"),
        ([], "a version that spec.json does not name wrote it"),
    ],
)
def test_the_version_that_wrote_a_folder_is_named_as_far_as_it_can_be(tmp_path: Path, provenance, who: str) -> None:
    write_json(tmp_path / files.SPEC, {"spec": {}, "provenance": provenance})
    said = told_by_version(tmp_path)
    assert who in said
    assert said.isprintable()
    (tmp_path / files.SPEC).unlink()
    assert "does not name wrote it" in told_by_version(tmp_path)


def test_a_folder_of_a_newer_format_is_refused_and_kept(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [SSVI], format=FORMAT + 1)
    cause = refusal(tmp_path, specs)
    assert re.search(r"spec\.json: format is \d+, but .*a newer version .*update ssvi", cause)
    assert "delete" not in cause
    with pytest.raises(UserError, match="update ssvi"):
        read_spec(tmp_path / "runs" / next(iter(specs)))


def test_the_format_is_written_and_absent_is_the_first(tmp_path: Path) -> None:
    assert spec_record(SSVI, {})["format"] == FORMAT == 4
    assert "format" not in json.loads((FORMAT_1 / files.SPEC).read_text())
    assert read_spec(FORMAT_1).method == "ssvi"


def test_analysis_needs_neither_torch_nor_mlflow_nor_pyplot() -> None:
    code = (
        "import json, sys; import ssvi.analysis.collect, ssvi.analysis.tables, ssvi.analysis.figures; "
        "print(json.dumps([m for m in ('torch', 'mlflow', 'matplotlib.pyplot', 'seaborn') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


@pytest.mark.parametrize(
    "what", ["", files.SPEC, files.METRICS, files.HISTORY, files.TRAINING, files.MODEL, files.SAMPLES]
)
@pytest.mark.parametrize("partial", [True, False])
def test_a_run_that_cannot_be_read_is_refused_and_the_others_go_on(tmp_path: Path, what: str, partial: bool) -> None:
    specs = write_runs(tmp_path, with_seeds(RunSpec(), 3))
    first, *others = specs
    with unreadable(tmp_path / "runs" / first / what):
        frames = collect.load_frames(tmp_path, specs, ["history", "samples"], partial=partial)
    runs = frames.runs.set_index("run")
    assert runs.loc[first, "status"] == "refused"
    assert "Permission denied" in runs.loc[first, "cause"]
    assert runs.loc[others, "status"].tolist() == ["complete", "complete"]
