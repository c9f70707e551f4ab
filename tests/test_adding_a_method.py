"""docs/adding-a-method.md, run as it stands: its two files make a method."""

import json
import subprocess
from pathlib import Path

import pytest
from documented import commands, write_files
from studies import BIN, environment

from ssvi import runs

TEXT = "adding-a-method.md"


def ssvi(folder: Path, *arguments: str) -> str:
    command = [BIN / "ssvi", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("density", [0.1, pytest.param(0.3, marks=pytest.mark.fault("more of a new method", quick=0))])
def test_the_example_trains_prunes_and_is_evaluated(tmp_path: Path, density: float) -> None:
    assert write_files(TEXT, tmp_path) == ["gradual.py", "gradual_plugin.py"]
    ((_, *words),) = commands(TEXT)
    words[words.index("--density") + 1] = str(density)
    ssvi(tmp_path, *words)
    run = tmp_path / f"results/runs/digits/resnet8/gradual/density={density}/epochs=6+batch_size=64+lr=0.1/seed=0"
    assert runs.is_trained(run)
    ssvi(tmp_path, "evaluate", str(run))
    metrics = json.loads((run / runs.METRICS).read_text())
    # the stem is dense beside the density
    assert density <= metrics["density"] < density + 0.005
    assert metrics["accuracy"] > 0.8
    assert metrics["training_flops"] < metrics["training_flops_dense"]


def test_what_it_does_not_use_is_refused_like_that_of_any_method(tmp_path: Path) -> None:
    write_files(TEXT, tmp_path)
    with pytest.raises(AssertionError, match="method 'gradual' does not use delta_t"):
        ssvi(tmp_path, "train", "--plugins=gradual_plugin", "--method=gradual", "--delta-t=5")
