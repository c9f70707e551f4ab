"""Run folders as tidy frames, on made-up finished runs with hand-computed answers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import with_seeds, write_run, write_runs

from ssvi import runs as files
from ssvi.analysis import collect
from ssvi.errors import UserError
from ssvi.spec import CRITERIA, RunSpec

VI = RunSpec(method="vi", dataset="cifar10")
SSVI = RunSpec(method="ssvi", density=0.1, dataset="cifar10")


def test_row_has_used_options_only_and_measured_density(tmp_path: Path) -> None:
    frame = collect.load_runs(tmp_path, write_runs(tmp_path, [VI, SSVI]))
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
    frames = collect.load_frames(tmp_path, specs, ["history", "samples"])
    assert len(frames.history) == 15
    assert list(frames.history.columns) == list(collect.HISTORY_COLUMNS)
    assert frames.history["lr_start"].unique() == [0.01]
    assert frames.history.groupby("method")["density"].first().to_dict() == {"rigl": 0.1, "ssvi": 0.1, "vi": 1.0}
    assert frames.samples.groupby("run").size().tolist() == [1, 5, 5]
    assert frames.updates.empty
    assert list(frames.updates.columns) == list(collect.UPDATE_COLUMNS)
    with pytest.raises(UserError, match=r"topology\.jsonl: not readable as JSON"):
        collect.load_frames(tmp_path, specs, ["overlap"])


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
    records = files.read_jsonl(tmp_path / "runs" / run / files.TOPOLOGY)
    assert len(frames.updates) == 3 * 2
    first = frames.updates.iloc[0]
    layer = records[0]["layers"][0]
    assert [first[f"sigma_{q}"] for q in collect.QUANTILES] == layer["sigma"]
    assert (first["survivors"], first["layer"], first["position"]) == (layer["survivors"], layer["layer"], 0)
    assert frames.updates["progress"].iloc[-1] == pytest.approx(0.75, abs=1e-3)
    assert len(frames.overlap) == 3 * 15
    pair = frames.overlap[(frames.overlap["first"] == "snr") & (frames.overlap["second"] == "e_exp")].iloc[1]
    assert pair["iou"] == records[1]["iou"][CRITERIA.index("snr")][CRITERIA.index("e_exp")]


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
    with pytest.raises(UserError, match=r"delta_t was 100 and is now 50"):
        collect.load_runs(tmp_path, {run: dataclasses.replace(SSVI, delta_t=50)})
    (tmp_path / "runs" / run / files.METRICS).unlink()
    with pytest.raises(UserError, match=r"metrics\.json: no such file"):
        collect.load_runs(tmp_path, {run: SSVI})


def test_a_partial_study_names_what_is_missing_and_why(tmp_path: Path) -> None:
    seeds = with_seeds(SSVI, 5)
    specs = write_runs(tmp_path, seeds)
    missing, failed, training, diverged = list(specs)[1:]
    for run in (missing, failed, training):
        (tmp_path / "runs" / run / files.METRICS).unlink()
    files.write_text(tmp_path / "logs" / "train" / f"{failed}.log", "epoch 1/5\nRuntimeError: out of paper\n")
    files.write_text(tmp_path / "runs" / training / files.LIVE_HISTORY, "")
    write_run(tmp_path, seeds[4], diverged="the loss is nan")
    frames = collect.load_frames(tmp_path, specs, ["history"], partial=True)
    rows = frames.runs.set_index("run")
    assert rows["status"].tolist() == ["complete", "missing", "failed", "in training", "diverged"]
    assert rows.loc[failed, "cause"] == "RuntimeError: out of paper"
    assert rows.loc[failed, "density"] == 0.1
    assert set(frames.history["run"]) == {next(iter(specs)), diverged}


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
    files.write_text(tmp_path / "logs" / "train" / f"{run}.log", log)
    row = collect.load_runs(tmp_path, {run: SSVI}, partial=True).iloc[0]
    assert row["status"] == status
    assert row["cause"] is cause or row["cause"].startswith(cause)


def test_runs_on_different_images_are_not_put_side_by_side(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    path = tmp_path / "runs" / list(specs)[1] / files.SPEC
    path.write_text(path.read_text().replace("f" * 64, "0" * 64))
    with pytest.raises(UserError, match="trained on other images of 'cifar10'") as caught:
        collect.load_runs(tmp_path, specs)
    assert "\n" not in str(caught.value)


HEADER = ",".join(files.HISTORY_COLUMNS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch,loss\n1,2\n", "has the columns 'epoch,loss'"),
        (f"{HEADER}\n1,21,many,,,,,,,,,\n", "loss is 'many', but must be a number"),
        (f"{HEADER}\n1,21\n", "a row has 2 cells instead of 12"),
        ("", "has the columns ''"),
    ],
)
def test_broken_history_is_named(tmp_path: Path, text: str, words: str) -> None:
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    files.write_text(tmp_path / "runs" / list(specs)[1] / files.HISTORY, text)
    with pytest.raises(UserError, match=r"seed=1/history\.csv: ") as caught:
        collect.load_frames(tmp_path, specs, ["history"])
    assert words in str(caught.value)


def test_analysis_needs_neither_torch_nor_mlflow_nor_pyplot() -> None:
    code = (
        "import json, sys; import ssvi.analysis.collect, ssvi.analysis.tables, ssvi.analysis.figures; "
        "print(json.dumps([m for m in ('torch', 'mlflow', 'matplotlib.pyplot', 'seaborn') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
