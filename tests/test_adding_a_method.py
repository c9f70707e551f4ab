"""docs/adding-a-method.md, run as it stands: its file and its line make a method."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssvi import runs

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adding-a-method.md").read_text(), flags=re.DOTALL)

# What the two edits of the text amount to: the module is there, and the registry has the line.
COMMAND = """
import sys, types
import ssvi.registry as registry
module = types.ModuleType("ssvi.methods.gradual")
sys.modules["ssvi.methods.gradual"] = module
registry.KINDS.update(eval("{" + sys.argv[2] + "}", vars(registry)))
from ssvi.cli import main
exec(compile(open(sys.argv[1]).read(), "gradual.py", "exec"), vars(module))
main(sys.argv[3:])
"""


def ssvi(folder: Path, *arguments: str) -> str:
    (folder / "gradual.py").write_text(BLOCKS[0])
    command = [sys.executable, "-c", COMMAND, str(folder / "gradual.py"), BLOCKS[1], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("density", [0.1, pytest.param(0.3, marks=pytest.mark.fault("more of a new method", quick=0))])
def test_the_example_trains_prunes_and_is_evaluated(tmp_path: Path, density: float) -> None:
    options = [
        "--method=gradual",
        f"--density={density}",
        "--model=resnet8",
        "--epochs=6",
        "--batch-size=64",
        "--lr=0.1",
    ]
    ssvi(tmp_path, "train", *options, f"--data-root={tmp_path}")
    run = tmp_path / f"results/runs/digits/resnet8/gradual/density={density}/epochs=6+batch_size=64+lr=0.1/seed=0"
    assert runs.is_trained(run)
    ssvi(tmp_path, "evaluate", str(run), f"--data-root={tmp_path}")
    metrics = json.loads((run / runs.METRICS).read_text())
    # the stem is dense beside the density
    assert density <= metrics["density"] < density + 0.005
    assert metrics["accuracy"] > 0.8
    assert metrics["training_flops"] < metrics["training_flops_dense"]


def test_what_it_does_not_use_is_refused_like_that_of_any_method(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="method 'gradual' does not use delta_t"):
        ssvi(tmp_path, "train", "--method=gradual", "--delta-t=5")
