"""What the tests of the doctor's checks have in common."""

import os
from pathlib import Path

import pytest

from ssvi.doctor import worker
from ssvi.doctor.base import Asked, Result
from ssvi.doctor.registry import CHECKS


def bare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is asked of a machine whose environment says nothing."""
    for name in [*os.environ]:
        if name.startswith(("MLFLOW_", "SLURM_", "CUDA_VISIBLE", "CXX", "CC")):
            monkeypatch.delenv(name)
    return Asked("cpu", folder / "results", folder / "data", token="test")


def examined(name: str, asked: Asked) -> Result:
    """What a check of the registry finds, in this process."""
    return worker.examined(CHECKS[name].code, CHECKS[name].of, asked)
