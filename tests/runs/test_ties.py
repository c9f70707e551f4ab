"""The files of a run folder belong together, or the run is refused, the file named, and the rest goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import tie, with_seeds, write_run, write_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from ssvi.analysis.collect import load_frames
from ssvi.analysis.ranges import bounds
from ssvi.analysis.records import READERS
from ssvi.analysis.settings import caveats
from ssvi.analysis.tables import make_table
from ssvi.cli import main
from ssvi.core.metrics import evaluate_all
from ssvi.errors import UserError
from ssvi.runs import files, ties
from ssvi.runs.paths import run_path, to_flags
from ssvi.runs.records import read_record
from ssvi.runs.runfolder import FORMAT
from ssvi.runs.spec import RunSpec

SSVI = RunSpec(method="ssvi", density=0.1)
SEEDS = with_seeds(SSVI)
FILES = (
    *(files.SPEC, files.HISTORY, files.TOPOLOGY, files.MODEL, files.TRAINING),
    *(files.PREDICTIONS, files.METRICS, files.SAMPLES, files.UNCERTAINTY),
)


def folder_of(results: Path, spec: RunSpec) -> Path:
    return results / "runs" / run_path(spec)


def refused(results: Path, specs: dict[str, RunSpec]) -> dict[str, str]:
    """Causes by run path; every run that is not refused is complete."""
    frame = load_frames(results, specs, tuple(READERS)).runs
    assert set(frame["status"]) <= {"complete", "refused"}
    bad = frame[frame["status"] == "refused"]
    return dict(zip(bad["run"], bad["cause"], strict=True))


def test_files_of_one_run_belong_together(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, SEEDS)
    frame = load_frames(tmp_path, specs, tuple(READERS)).runs
    assert frame["verified"].tolist() == [True, True, True]
    assert frame["network"].nunique() == 3
    assert not any("Not verified" in note for note in caveats(frame))


@pytest.mark.parametrize("names", [*((name,) for name in FILES), (files.METRICS, files.PREDICTIONS), FILES[3:], FILES])
def test_a_file_of_another_run_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Of another seed; one file, or several that belong together among themselves, or all of them."""
    specs = write_runs(tmp_path, SEEDS)
    first, second, _ = (folder_of(tmp_path, spec) for spec in SEEDS)
    if names == (files.TOPOLOGY,):  # what is made up is the same for every seed
        (first / files.TOPOLOGY).write_text((first / files.TOPOLOGY).read_text().replace('"born": 20', '"born": 21'))
        tie(first)
    for name in names:
        shutil.copy(first / name, second / name)
    causes = refused(tmp_path, specs)
    assert list(causes) == [run_path(SEEDS[1])]
    (cause,) = causes.values()
    assert str(second) in cause
    assert cause.isprintable()
    if names == FILES:
        assert "seed was 0 and is now 1" in cause
    elif len(names) == 1:
        assert names[0] in cause
    table = make_table("summary", load_frames(tmp_path, specs, tuple(READERS)))
    assert any(run_path(SEEDS[1]) in note and "refused" in note for note in table.notes)
    assert table.frame["n"].tolist() == ["2"]


def test_another_training_of_the_same_spec_is_another_run(tmp_path: Path) -> None:
    """Two trainings of one spec on two machines differ in what spec.json says of them, and in the network."""
    specs = write_runs(tmp_path / "here", SEEDS)
    write_runs(tmp_path / "there", SEEDS)
    there, here = (folder_of(tmp_path / where, SEEDS[0]) for where in ("there", "here"))
    record = json.loads((there / files.SPEC).read_text())
    record["provenance"]["device"] = "NVIDIA H100"
    (there / files.SPEC).write_text(json.dumps(record))
    tie(there)
    for name in (files.TRAINING, files.METRICS, files.SPEC):
        kept = (here / name).read_bytes()
        shutil.copy(there / name, here / name)
        (cause,) = refused(tmp_path / "here", specs).values()
        assert name in cause
        (here / name).write_bytes(kept)
    assert refused(tmp_path / "here", specs) == {}


@pytest.mark.parametrize("name", [files.TRAINING, files.METRICS])
def test_a_record_that_was_changed_by_hand_is_refused_and_one_laid_out_otherwise_is_not(tmp_path, name: str) -> None:
    specs = write_runs(tmp_path, SEEDS)
    path = folder_of(tmp_path, SEEDS[1]) / name
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, indent=7, sort_keys=True))
    if name == files.TRAINING:  # whose bytes metrics.json knows
        tie(path.parent)
    assert refused(tmp_path, specs) == {}
    path.write_text(json.dumps(record | {"steps": record["steps"] + 1}))
    (cause,) = refused(tmp_path, specs).values()
    assert f"{name}: was changed since it was written" in cause


@pytest.mark.parametrize("name", [files.TRAINING, files.METRICS, files.MODEL, files.SAMPLES])
def test_a_file_that_does_not_say_what_it_belongs_to_is_refused(tmp_path: Path, name: str) -> None:
    specs = write_runs(tmp_path, SEEDS)
    path = folder_of(tmp_path, SEEDS[1]) / name
    if name == files.MODEL:
        path.write_bytes(path.read_bytes().replace(b"fingerprint", b"fingerPrint"))
    elif name == files.SAMPLES:
        pd.read_csv(path).drop(columns=ties.SEAL).to_csv(path, index=False)
    else:
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "files"}))
    (cause,) = refused(tmp_path, specs).values()
    assert name in cause


def test_a_child_of_another_training_of_its_parent_is_refused(tmp_path: Path) -> None:
    parent = RunSpec(method="vi")
    child = RunSpec(method="pruned", parent="vi", density=0.1, kl_warmup=False)
    specs = write_runs(tmp_path, [parent, child])
    assert refused(tmp_path, specs) == {}
    path = folder_of(tmp_path, parent) / files.MODEL
    shutil.copy(folder_of(tmp_path, child) / files.MODEL, path)
    (path.parent / files.SAMPLES).unlink()
    tie(path.parent)
    assert list(refused(tmp_path, specs)) == [run_path(child)]
    assert str(path.parent) in refused(tmp_path, specs)[run_path(child)]
    shutil.rmtree(path.parent)  # a parent that is not there says nothing
    assert refused(tmp_path, {run_path(child): child}) == {}


def test_a_parent_whose_own_files_are_damaged_takes_no_child_with_it(tmp_path: Path) -> None:
    parent, child = RunSpec(method="vi"), RunSpec(method="pruned", parent="vi", density=0.1, kl_warmup=False)
    specs = write_runs(tmp_path, [parent, child])
    path = folder_of(tmp_path, parent) / files.MODEL
    for spoilt in (path.read_bytes()[:-1], (folder_of(tmp_path, child) / files.MODEL).read_bytes()):
        path.write_bytes(spoilt)
        assert list(refused(tmp_path, specs)) == [run_path(parent)]


def test_commands_on_a_child_of_another_training_of_its_parent_refuse(tmp_path: Path, capsys) -> None:
    """`ssvi train` does not take it for trained, and it is not evaluated."""
    parent, child = RunSpec(method="vi"), RunSpec(method="pruned", parent="vi", density=0.1, kl_warmup=False)
    write_runs(tmp_path, [parent, child])
    folder = folder_of(tmp_path, parent)
    shutil.copy(folder_of(tmp_path, child) / files.MODEL, folder)
    tie(folder)
    out = str(folder_of(tmp_path, child))
    for words in (["train", *to_flags(child), "--out", out], ["evaluate", out], ["samples", out]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert f"started from another training of {folder}" in str(caught.value)


def rewritten(by: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    """samples.csv with other lines."""
    return lambda path: path.write_text("".join(f"{line}\n" for line in by(path.read_text().splitlines())))


@pytest.mark.parametrize(
    "spoil",
    [
        rewritten(lambda lines: [lines[0], *(re.sub(r"^(\d+),[^,]*", r"\1,0.999", line) for line in lines[1:])]),
        rewritten(lambda lines: [lines[0], *(re.sub(r"^(\d+),[^,]*", r"\1,", line) for line in lines[1:])]),
        rewritten(lambda lines: lines[:2] + lines[3:]),
        rewritten(lambda lines: lines[:1]),
        rewritten(lambda lines: []),
        rewritten(lambda lines: [lines[0], *reversed(lines[1:])]),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["other numbers", "no numbers", "a row less", "no rows", "nothing", "another order", "a folder", "a pipe"],
)
def test_samples_that_were_changed_are_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    specs = write_runs(tmp_path, SEEDS)
    spoil(folder_of(tmp_path, SEEDS[1]) / files.SAMPLES)
    (cause,) = refused(tmp_path, specs).values()
    assert files.SAMPLES in cause
    with pytest.raises(UserError, match=files.SAMPLES):
        ties.check_sealed(folder_of(tmp_path, SEEDS[1]), files.SAMPLES)


@pytest.mark.parametrize("spoil", [{"accuracy": 0.999}, {"nll": 0.5}], ids=str)
def test_what_this_version_evaluated_of_an_older_folder_is_checked(tmp_path: Path, spoil: dict[str, float]) -> None:
    """Its metrics.json says what it was made of, though training.json does not."""
    specs = write_runs(tmp_path, SEEDS, format=2)
    folder = folder_of(tmp_path, SEEDS[1])
    record = read_record(folder / files.METRICS)
    ties.write_tied(folder, files.METRICS, record)
    assert refused(tmp_path, specs) == {}
    (folder / files.METRICS).write_text(json.dumps(read_record(folder / files.METRICS) | spoil))
    assert list(refused(tmp_path, specs)) == [run_path(SEEDS[1])]


def test_folders_of_older_formats_are_read_and_said_to_be_unverified(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, SEEDS[:2], format=2) | write_runs(tmp_path, SEEDS[2:])
    frames = load_frames(tmp_path, specs, tuple(READERS))
    assert frames.runs["verified"].tolist() == [False, False, True]
    assert frames.samples["run"].nunique() == 3
    assert [note for note in caveats(frames.runs) if note.startswith("Not verified: 2 of 3 runs")]


@pytest.mark.parametrize("format", [2, FORMAT])
def test_a_copy_of_another_seed_is_no_second_seed(tmp_path: Path, format: int) -> None:
    """Whatever its files say of each other: two seeds never give the same."""
    specs = write_runs(tmp_path, SEEDS, format=format)
    first, second, _ = (folder_of(tmp_path, spec) for spec in SEEDS)
    for name in FILES[1:]:
        shutil.copy(first / name, second / name)
    if format == FORMAT:
        tie(second)
    (cause,) = refused(tmp_path, specs).values()
    assert run_path(SEEDS[0]) in cause
    assert "copy" in cause


def test_a_copy_in_an_older_folder_of_a_checked_run_is_refused(tmp_path: Path) -> None:
    specs = write_runs(tmp_path, [SEEDS[0], SEEDS[2]]) | write_runs(tmp_path, SEEDS[1:2], format=2)
    first, second = (folder_of(tmp_path, spec) for spec in SEEDS[:2])
    record = json.loads((first / files.METRICS).read_text())
    del record["files"]
    (second / files.METRICS).write_text(json.dumps(record))
    assert list(refused(tmp_path, specs)) == [run_path(SEEDS[1])]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("accuracy", 97.5), ("accuracy", -0.1), ("nll", -3.0), ("nll", 1e4), ("ece", 1.5), ("ece_marginal", -1.0)],
        *[("ece_mass", 1.5), ("ece_classwise_scaled", -0.1), ("aurc_best_checkpoint", 1.2)],
        *[("brier", 2.5), ("sparsity", 3.0), ("temperature", -1.0), ("accuracy_best_test", 98.2), ("nll_scaled", -1.0)],
        *[("ece_best_checkpoint", 2.0), ("mutual_information_share", 1.2), ("predictive_entropy", -0.1)],
        *[("training_flops", -1), ("training_seconds", -2.0), ("test_images", 0), ("density", -0.5)],
    ],
)
def test_what_a_number_cannot_be_is_refused(tmp_path: Path, name: str, value: float) -> None:
    specs = write_runs(tmp_path, SEEDS[:2])
    run = write_run(tmp_path, SEEDS[2], **{name: value})
    causes = refused(tmp_path, {**specs, run: SEEDS[2]})
    assert list(causes) == [run]
    assert files.METRICS in causes[run]
    assert f"is {value!r}, but must be" in causes[run]


@settings(max_examples=60)
@given(st.data())
def test_no_measured_value_is_out_of_its_range(data: st.DataObject) -> None:
    """The ranges are those of the metrics, at their ends too: certainty, right and wrong."""
    import torch

    classes, n = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 8))
    rows = st.lists(st.floats(0, 1), min_size=classes, max_size=classes).filter(lambda row: sum(row) > 0.1)
    table = torch.tensor(data.draw(st.lists(rows, min_size=n, max_size=n)), dtype=torch.float64)
    if data.draw(st.booleans()):
        table = torch.nn.functional.one_hot(table.argmax(1), classes).double()
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    for name, value in evaluate_all(table / table.sum(1, keepdim=True), labels).items():
        low, high = bounds(name)
        assert low <= value <= high, name


def test_a_model_is_told_by_its_tensors_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    import torch

    from ssvi.training.stored import save_model

    save_model(tmp_path, {"a": torch.arange(3.0)})
    found = ties.identity(tmp_path / files.MODEL)
    save_model(tmp_path, {"a": torch.arange(3.0) + 1})
    assert ties.identity(tmp_path / files.MODEL) != found
    save_model(tmp_path, {"a": torch.arange(3.0)})
    assert ties.identity(tmp_path / files.MODEL) == found
    content = (tmp_path / files.MODEL).read_bytes()
    word = content.replace(b'{"__metadata__":{', b'{"__metadata__":"', 1)
    for spoilt in (content[:-1], content + b"x", content[:20], b"", b"\xff" * 64, word):
        (tmp_path / files.MODEL).write_bytes(spoilt)
        with pytest.raises(UserError, match=r"model\.safetensors: truncated or damaged"):
            ties.identity(tmp_path / files.MODEL)


def test_two_settings_may_have_the_very_same_numbers(tmp_path: Path) -> None:
    """Criteria that order alike train the same networks; only seeds of one setting never do."""
    other = dataclasses.replace(SSVI, criterion="snr")
    specs = write_runs(tmp_path, [SSVI, other])
    first, second = (folder_of(tmp_path, spec) for spec in (SSVI, other))
    shutil.copy(first / files.MODEL, second / files.MODEL)
    tie(second)
    (second / files.SAMPLES).write_bytes((first / files.SAMPLES).read_bytes())
    assert refused(tmp_path, specs) == {}
