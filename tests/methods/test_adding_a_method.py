"""docs/adding-a-method.md, run as it stands: its two files make a method."""

import csv
import json
import math
import subprocess
from pathlib import Path

import pytest
from documented import DOCS, commands, write_files
from studies import BIN, environment

from ssvi.runs import files

TEXT = (DOCS / "adding-a-method.md").read_text()


def ssvi(folder: Path, *arguments: str) -> str:
    command = [BIN / "ssvi", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def trained(folder: Path, model: str, density: float) -> Path:
    """The run of the text's command, but for its network and density."""
    assert write_files(TEXT, folder) == ["gradual.py", "gradual_plugin.py"]
    ((_, *words),) = commands(TEXT)
    for name, value in (("--model", model), ("--density", density)):
        words[words.index(name) + 1] = str(value)
    ssvi(folder, *words)
    return folder / f"results/runs/digits/{model}/gradual/density={density}/epochs=6+batch_size=64+lr=0.1/seed=0"


def test_the_example_trains_and_prunes(tmp_path: Path) -> None:
    run = trained(tmp_path, "mlp", 0.1)
    assert files.is_trained(run)
    with (run / files.HISTORY).open(newline="") as file:
        *_, last = csv.DictReader(file)
    assert int(last["active_weights"]) == sum(math.ceil(0.1 * n) for n in (64 * 256, 256 * 256, 256 * 10))
    assert float(last["validation_accuracy"]) > 0.8


@pytest.mark.fault("a method of one's own, evaluated", quick=0)
@pytest.mark.parametrize("density", [0.1, 0.3])
def test_the_example_is_evaluated(tmp_path: Path, density: float) -> None:
    run = trained(tmp_path, "resnet8", density)
    ssvi(tmp_path, "evaluate", str(run))
    metrics = json.loads((run / files.METRICS).read_text())
    # the stem is dense beside the density
    assert density <= metrics["density"] < density + 0.005
    assert metrics["accuracy"] > 0.8
    assert metrics["training_flops"] < metrics["training_flops_dense"]


def test_what_it_does_not_use_is_refused_like_that_of_any_method(tmp_path: Path) -> None:
    write_files(TEXT, tmp_path)
    with pytest.raises(AssertionError, match="method 'gradual' does not use delta_t"):
        ssvi(tmp_path, "train", "--plugins=gradual_plugin", "--method=gradual", "--delta-t=5")
