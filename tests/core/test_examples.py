"""The examples run as they stand, and say what they promise."""

import os
import re
import subprocess
import sys

import pytest
from places import ROOT

from ssvi.data.sources import import_torchvision

# Lightning imports torchvision, which needs this beside a CPU-only torch.
WITH_TORCHVISION = "from ssvi.data.sources import import_torchvision; import_torchvision()\n"
# A training of two epochs, and one that is stopped after the first and goes on.
GOES_ON = """
import sys, warnings, lightning, torch
warnings.simplefilter("ignore")
sys.path.insert(0, "examples")
from images_lightning import Digits
from torch.utils.data import DataLoader, TensorDataset

source = torch.Generator().manual_seed(0)
images, labels = torch.rand(200, 1, 8, 8, generator=source), torch.randint(10, (200,), generator=source)
loader = DataLoader(TensorDataset(images, labels), 4)

def fit(epochs, stop=None, path=None):
    torch.manual_seed(0)
    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = trainer.current_epoch + 1 == stop
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[Stop()], **quiet)
    module = Digits(200)
    trainer.fit(module, loader, ckpt_path=path, weights_only=False)
    return trainer, module

whole, first = fit(2)[1], fit(2, stop=1)
path = sys.argv[1]
first[0].save_checkpoint(path)
second = fit(2, path=path)[1]
for one in (whole, first[1], second):
    print(one.subspace.steps, one.subspace.updates)
print(all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True)))
"""


def printed(*words: str) -> str:
    """What a Python of its own prints."""
    # numbers are the same on every machine with one thread
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=there)
    assert not done.returncode, done.stderr
    return done.stdout


def number(name: str, text: str) -> float:
    return float(re.search(rf"{name}: (-?[\d.]+)", text)[1])


@pytest.fixture
def lightning() -> None:
    """Skips where Lightning is missing."""
    import_torchvision()
    pytest.importorskip("lightning", reason="Lightning is not installed, which is an extra of this example alone")


def test_regression() -> None:
    text = printed("examples/regression.py")
    assert "active weights: 610 of 3050" in text
    assert number("updates of the subspace", text) == 21
    assert number("R2 on test data", text) > 0.4
    # of 100 cases, whose share has a sd of 0.03
    assert 0.81 <= number("90% intervals cover", text) <= 0.99
    assert number("of the network's own uncertainty", text) > 0.1


def test_natural_gradient() -> None:
    """Both ways learn the digits, and their posteriors are no points."""
    by_sgd, natural = printed("examples/natural_gradient.py").splitlines()
    said = re.compile(r"accuracy ([\d.]+) %, NLL ([\d.]+), ([\d.]+) % of the entropy is of the weights$")
    (accuracy, nll, share), (accuracy_2, nll_2, share_2) = (
        map(float, said.search(line).groups()) for line in (by_sgd, natural)
    )
    assert min(accuracy, accuracy_2) > 93
    assert max(nll, nll_2) < 0.3
    assert min(share, share_2) > 1


def test_images_in_lightning(lightning) -> None:
    run = WITH_TORCHVISION + "import runpy; runpy.run_path('examples/images_lightning.py', run_name='__main__')"
    text = printed("-c", run)
    assert number("updates of the subspace", text) == 10
    assert number("accuracy", text) > 0.94
    assert number("mutual_information", text) > 0.05


@pytest.mark.fault("a training in Lightning is stopped", quick=0)
def test_a_stopped_training_in_lightning_goes_on_to_the_bit(lightning, tmp_path) -> None:
    text = printed("-c", WITH_TORCHVISION + GOES_ON, str(tmp_path / "stopped.ckpt"))
    assert text.splitlines()[-4:] == ["100 3", "50 2", "100 3", "True"]
