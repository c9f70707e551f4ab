"""float32 is float32 in whatever way this version of PyTorch could be told otherwise."""

import os

import pytest
import torch

from ssvi.data import load
from ssvi.runs.spec import make_spec
from ssvi.training.evaluate import evaluate
from ssvi.training.precision import _parts, float32_is_full, full_float32
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

TINY = {"dataset": "digits", "model": "mlp", "width": 0.05, "epochs": 1, "batch_size": 512, "method": "vi"}


def by_old_switches() -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True


def by_new_switches() -> None:
    if not _parts():
        pytest.skip("this version has none")
    for part in _parts():
        part.fp32_precision = "tf32"


@pytest.mark.parametrize("spoil", [by_old_switches, by_new_switches])
def test_switches_of_every_kind_are_set_back(monkeypatch, spoil) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    spoil()
    assert not float32_is_full()
    full_float32()
    assert float32_is_full()
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_training_and_evaluation_set_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    spec, cpu = make_spec(TINY), torch.device("cpu")
    data = load(spec, tmp_path / "data", cpu)
    by_old_switches()
    Trainer(spec, data, tmp_path / "run", Settings(Machine(cpu)), Lines()).run()
    assert float32_is_full()
    by_old_switches()
    evaluate(spec, data, tmp_path / "run", cpu)
    assert float32_is_full()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("convolution", [False, True])
def test_a_product_on_a_gpu_has_the_precision_of_float32(convolution) -> None:
    """Against float64: rounding to TF32 would make relative errors of about 3e-4."""
    by_old_switches()
    full_float32()
    x, w = torch.randn(64, 64, 16, 16, dtype=torch.float64), torch.randn(64, 64, 3, 3, dtype=torch.float64)
    f = torch.nn.functional.conv2d if convolution else lambda x, w: x.flatten(1) @ x.flatten(1).T
    exact, found = f(x, w), f(x.float().cuda(), w.float().cuda()).cpu().double()
    assert float((found - exact).norm() / exact.norm()) < 1e-5
