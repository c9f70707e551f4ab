"""`make same-numbers` notices every kind of difference between two run folders, and tries every method."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssvi.registry import KINDS

PATH = Path(__file__).parent / "versions" / "same_numbers.py"
SPEC = importlib.util.spec_from_file_location("same_numbers", PATH)
same_numbers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(same_numbers)

TENSORS = {"w": np.array([1.0, -2.0, 0.0], dtype=np.float32), "mask": np.array([True, False, True])}
TOPOLOGY = [{"step": 4, "layers": [{"kept": 3, "seconds": 0.1}]}, {"step": 8, "layers": [{"kept": 3, "seconds": 0.2}]}]
METRICS = {"status": "complete", "accuracy": 0.5, "training_seconds": 3.0, "sessions": [{"threads": 1}], "nll": None}


def write(folder: Path, tensors=TENSORS, topology=TOPOLOGY, metrics=METRICS, history="1,0.25") -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "topology.jsonl").write_text("".join(json.dumps(line) + "\n" for line in topology))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text(f"epoch,loss,step_seconds\n{history},0.01\n")
    return folder


@pytest.fixture
def differences(tmp_path):
    old = write(tmp_path / "old")

    def between(**changed) -> dict:
        return same_numbers.compare(old, write(tmp_path / "new", **changed))[0]

    return between


def test_every_method_is_tried() -> None:
    assert {options["method"] for options in same_numbers.SPECS.values()} == set(KINDS)


def test_seconds_and_machines_are_not_compared(differences) -> None:
    metrics = METRICS | {"training_seconds": 9.0, "sessions": [], "peak_memory_bytes": 7}
    topology = [line | {"layers": [{"kept": 3, "seconds": 5.0}]} for line in TOPOLOGY]
    assert differences(metrics=metrics, topology=topology) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -2.5, 0.0], {"absolute": 0.5, "relative": 0.2}),
        ([1.0, -2.0, -0.0], {"absolute": 0.0, "relative": 0.0}),
        ([1.0, -2.0, np.nan], {"absolute": np.inf, "relative": np.inf}),
        ([np.inf, -2.0, 0.0], {"absolute": np.inf, "relative": np.inf}),
        ([1.0, -2.0], "float32[3] in old, float32[2] in new"),
    ],
)
def test_a_tensor_of_other_bytes_is_told_with_its_size(differences, values, expected) -> None:
    changed = TENSORS | {"w": np.array(values, dtype=np.float32)}
    assert differences(tensors=changed) == {"model.safetensors": {"w": expected}}


def test_masks_names_and_figures_are_told(differences) -> None:
    tensors = {"mask": np.array([False, True, True]), "v": TENSORS["w"]}
    topology = [*TOPOLOGY[:1], {"step": 8, "layers": [{"kept": 2}]}]
    found = differences(tensors=tensors, topology=topology, metrics=METRICS | {"nll": 0.1}, history="1,0.5")
    assert found == {
        "model.safetensors": {"mask": {"masked otherwise": 2}, "w": "only in old", "v": "only in new"},
        "topology.jsonl": {"1.layers.0.kept": "3 -> 2"},
        "history.csv": {"0.loss": "'0.25' -> '0.5'"},
        "metrics.json": {"nll": "None -> 0.1"},
    }
    assert "2 weights are masked otherwise, w: only in old, v: only in new" in same_numbers.words(found)


def test_the_same_numbers_of_a_failed_training_prove_nothing(tmp_path) -> None:
    old = write(tmp_path / "old", metrics=METRICS | {"status": "diverged"})
    (old / "model.safetensors").unlink()
    new = shutil.copytree(old, tmp_path / "new")
    assert same_numbers.compare(old, new)[0] == {
        "model.safetensors": {"file": "old lacks it, new lacks it"},
        "metrics.json": {"status of old": "diverged", "status of new": "diverged"},
    }
