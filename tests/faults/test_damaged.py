"""Checkpoints that are not what was written: noticed, replaced by the one before; never a fresh start in silence."""

import random
import shutil
from pathlib import Path

import pytest
from commands import SPECS, run, steps_begun_at, torn, training
from stopping import results

from ssvi.runs import files, records
from ssvi.runs.records import ANEW

DAMAGES = {
    "truncated": lambda content, at: content[: int(len(content) * at)],
    "empty": lambda content, at: b"",
    "a flipped bit": lambda content, at: flipped(content, int(len(content) * 8 * at)),
    "zeros": lambda content, at: content[: int(len(content) * at)] + b"\0" * (len(content) - int(len(content) * at)),
    "something appended": lambda content, at: content + b"x",
    "something else": lambda content, at: b"not a checkpoint",
}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut_off(folder: Path, data_root: Path, log: Path) -> None:
    """A training killed after step 8 of 12, with the checkpoints of steps 8 and 7 (or 7 and 6)."""
    run(training(SPECS["ssvi"], folder, data_root), log, lambda: setattr(records, "append_jsonl", torn))
    assert (folder / files.CHECKPOINT).exists()
    assert (folder / files.PREVIOUS_CHECKPOINT).exists()


@pytest.mark.fault("a damaged checkpoint", quick=1, whole=8)
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, data_root, undisturbed, damage, trial: int) -> None:
    log, folder = tmp_path / "log", tmp_path / "run"
    cut_off(folder, data_root, log)
    path = folder / files.CHECKPOINT
    path.write_bytes(DAMAGES[damage](path.read_bytes(), random.Random(trial).random()))
    # twice: the good one must not be lost by what is written next
    for _ in range(2):
        run(training(SPECS["ssvi"], folder, data_root), log, lambda: setattr(records, "append_jsonl", torn))
    assert log.read_text().count(f"note: {path}: truncated or damaged checkpoint (") == 1
    assert "going on from the checkpoint before it\nnote: going on from the checkpoint of epoch 2, step 6" in (
        log.read_text()
    )
    assert run(training(SPECS["ssvi"], folder, data_root), log) == 0
    assert results(folder) == results(undisturbed("ssvi"))
    assert steps_begun_at(folder)[1] == 6


@pytest.mark.fault("a damaged checkpoint")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("previous", ["damaged", "missing"])
def test_without_a_whole_checkpoint_nothing_is_trained(tmp_path, data_root, damage: str, previous: str) -> None:
    log, folder = tmp_path / "log", tmp_path / "run"
    cut_off(folder, data_root, log)
    for name in (files.CHECKPOINT, files.PREVIOUS_CHECKPOINT):
        (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes(), 0.6))
    if previous == "missing":
        (folder / files.PREVIOUS_CHECKPOINT).unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    log.unlink()
    assert run(training(SPECS["ssvi"], folder, data_root), log) == 1
    (line,) = log.read_text().splitlines()
    assert line.startswith(f"ssvi: {folder / files.CHECKPOINT}: truncated or damaged checkpoint (")
    assert line.endswith(f"No other is left: delete {folder / files.LIVE} to start this run anew.")
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after | {folder / files.OWNER: b""} == before | {folder / files.OWNER: b""}


@pytest.mark.fault("a flipped bit in model.safetensors", quick=3, whole=40)
def test_a_flipped_bit_in_a_model_is_noticed(tmp_path, data_root, undisturbed, trial: int) -> None:
    """Wherever it is: a wrong weight would otherwise be a wrong accuracy that nobody doubts."""
    log, folder = tmp_path / "log", tmp_path / "run"
    shutil.copytree(undisturbed("mlp"), folder)
    path = folder / files.MODEL
    content = path.read_bytes()
    start = int.from_bytes(content[:8], "little")  # before it stand names, shapes and the checksum
    path.write_bytes(flipped(content, random.Random(trial).randrange(8 * start, 8 * len(content))))
    assert run(["evaluate", str(folder), "--data-root", str(data_root)], log) == 1
    assert log.read_text() == f"ssvi: {path}: damaged (its checksum is wrong); {ANEW}\n"
    path.write_bytes(content)
    assert run(["evaluate", str(folder), "--data-root", str(data_root)], log) == 0


@pytest.mark.fault("NaN or diverging loss")
@pytest.mark.parametrize("method", ["dense", "vi", "ssvi"])
@pytest.mark.parametrize("lr", ["1e6", "1e12"])
def test_a_diverging_training_ends_in_order(tmp_path, data_root, method: str, lr: str) -> None:
    """Exit code 0, so that no workflow tries again; marked; with the last state that was good; evaluated to nothing."""
    import json

    import torch
    from safetensors.torch import load_file

    log, folder = tmp_path / "log", tmp_path / "run"
    where = ["--data-root", str(data_root), "--device=cpu", "--threads=1"]
    words = ["train", f"--method={method}", "--dataset=digits", "--model=mlp", "--epochs=4", "--batch-size=256"]
    decay = ["--weight-decay=0"] if method == "dense" else []
    assert run([*words, f"--lr={lr}", *decay, "--out", str(folder), *where], log) == 0
    assert f"{folder}: diverged in epoch " in log.read_text()
    assert run(["evaluate", str(folder), *where], log) == 0
    assert "Traceback" not in log.read_text()
    training_, metrics = (json.loads((folder / name).read_text()) for name in (files.TRAINING, files.METRICS))
    assert training_["status"] == metrics["status"] == "diverged"
    assert metrics["accuracy"] is None
    assert training_["cause"]
    assert all(torch.isfinite(value).all() for value in load_file(folder / files.MODEL).values())
    rows = (folder / files.HISTORY).read_text().splitlines()
    assert len(rows) == training_["diverged_epoch"]
    assert "nan" not in "".join(rows)
