"""A disk with no room left, at every moment of a training and in what is made of the runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SPECS, run, steps_begun_at, training
from fake_runs import EVALUATION, write_run
from images import make_image_folder
from small_disk import fill, free, small_disk
from stopping import results
from studies import config_of, write_config

from ssvi.runs import files
from ssvi.runs.spec import make_spec

# Bytes left at the start: none; less than a page; for the first files; for one checkpoint, two, three; for all of it.
ROOM = (0, 2_000, 30_000, 150_000, 400_000, 700_000, 800_000, 900_000, 1_000_000, 1_200_000, 2_000_000, 4_000_000)


def check_whole(folder: Path) -> bool:
    """Whether there is a checkpoint; whatever file there is can be read."""
    import torch

    from ssvi.training.state import State

    for name in (files.SPEC, files.TRAINING):
        if (folder / name).exists():
            json.loads((folder / name).read_text())
    return State.load(folder, torch.device("cpu")) is not None


@pytest.mark.fault("disk full in a training", quick=4, whole=len(ROOM))
@pytest.mark.parametrize("name", ["ssvi", "mlp"])
def test_a_training_ends_in_one_line_and_goes_on(tmp_path, data_root, undisturbed, name, trial: int, request) -> None:
    left = ROOM[trial if request.config.getoption("--all-trials") else (0, 3, 5, 7)[trial]]
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", "8m") as disk:
        folder, filler = disk / "run", fill(disk, left)
        code = run(training(SPECS[name], folder, data_root), log)
        if code:
            (line,) = [line for line in log.read_text().splitlines() if line.startswith("ssvi: ")]
            assert line.startswith(f"ssvi: {disk}")
            assert line.endswith(
                "No space left on device; what was there before is whole: make space, and the same command goes on"
            )
            assert "Traceback" not in log.read_text()
        assert code == (0 if files.is_trained(folder) else 1)
        had_one = check_whole(folder)
        filler.unlink()
        assert run(training(SPECS[name], folder, data_root), log) == 0
        assert results(folder) == results(undisturbed(name))
        assert (steps_begun_at(folder)[-1] > 0) == (had_one and code != 0)


@pytest.mark.fault("disk full in an evaluation")
def test_an_evaluation_can_be_repeated(tmp_path, data_root) -> None:
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", "8m") as disk:
        folder = disk / "run"
        assert run(training(SPECS["mlp"], folder, data_root), log) == 0
        filler = fill(disk, 0)
        words = ["evaluate", str(folder), "--data-root", str(data_root)]
        assert run(words, log) == 1
        assert f"ssvi: {folder / files.PREDICTIONS}: No space left on device" in log.read_text()
        assert not (folder / files.METRICS).exists()
        assert (folder / files.CHECKPOINT).exists()
        filler.unlink()
        assert run(words, log) == 0
        assert (folder / files.METRICS).exists()


@pytest.mark.fault("disk full in predictions and exports")
@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "network.safetensors", "network.pt2"])
def test_what_is_made_of_a_network_is_whole_or_the_old_one_is(tmp_path, undisturbed, name: str) -> None:
    make_image_folder(tmp_path / "images", classes=2, train=30, test=1, size=(8, 8))
    with small_disk(tmp_path / "disk", "8m") as disk:
        out, network = disk / name, str(undisturbed("mlp"))
        predict = ["predict", network, str(tmp_path / "images"), "--batch-size=1", f"--out={out}"]
        words = predict if name.startswith("rows") else ["export", network, f"--to={out}"]
        out.write_text("old")
        filler = fill(disk, 4_096)
        assert run(words, tmp_path / "log") == 1
        line = f"ssvi: {out}: No space left on device; what was there before is whole: make space, and the same "
        assert (tmp_path / "log").read_text() == f"{line}command goes on\n"
        assert out.read_text() == "old"
        assert {path.name for path in disk.iterdir()} == {out.name, filler.name}
        filler.unlink()
        assert run(words, tmp_path / "log") == 0
        assert out.stat().st_size > 4_096


@pytest.mark.fault("disk full in tables, figures, report", quick=2, whole=6)
def test_reports_stay_as_they_were(tmp_path, trial: int) -> None:
    """Every file is the old one or the new one, and the same command makes the rest once there is room."""
    grid = {"method": "vi", "seed": [0, 1]}
    study = {
        "train": {"dataset": "digits", "model": "mlp", "epochs": 2},
        "experiments": {"vi": grid},
        "tables": {"summary": ["vi"]},
        "figures": {"curves": ["vi"]},
    }
    for seed in grid["seed"]:
        spec = make_spec({**study["train"], "method": "vi", "seed": seed})
        write_run(tmp_path / "results", spec)
    with small_disk(tmp_path / "disk", "12m") as disk:
        write_config(tmp_path, config_of("tiny", study, reports="disk", evaluation=EVALUATION))

        def report() -> subprocess.CompletedProcess:
            words = [sys.executable, "-m", "ssvi", "report"]
            return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)

        done = report()
        assert done.returncode == 0, done.stderr
        made = {p: p.read_bytes() for p in (disk / "tiny").rglob("*") if p.is_file()}
        needed = sum(map(len, made.values()))
        spec = make_spec({**study["train"], "method": "vi", "seed": 1})
        write_run(tmp_path / "results", spec, accuracy=0.5)
        # each file that is replaced makes room for the next, so less than the largest
        filler = fill(disk, needed * trial // 12)
        done = report()
        assert done.returncode == 1, (free(disk), needed)
        assert "No space left on device; what was there before is whole" in done.stderr
        assert "Traceback" not in done.stderr
        now = {p: p.read_bytes() for p in (disk / "tiny").rglob("*") if p.is_file()}
        assert now.keys() == made.keys()
        filler.unlink()
        done = report()
        assert done.returncode == 0, done.stderr
        new = {p: p.read_bytes() for p in (disk / "tiny").rglob("*") if p.is_file()}
        assert all(content in (made[p], new[p]) for p, content in now.items() if p.suffix in (".csv", ".md"))
        assert any(new[p] != made[p] for p in made)
