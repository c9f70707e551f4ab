"""Some of what a cluster does to trainings, where Slurm is installed, by `make faults`; all of it by `make slurm`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.fault("Slurm: scancel, scontrol requeue, Snakemake killed, at once", quick=0)
def test_trainings_on_slurm_go_on() -> None:
    call = [sys.executable, Path(__file__).with_name("faults.py"), "--quick"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=900)
    if done.returncode == 77:
        pytest.skip(" ".join(done.stderr.split()))
    assert done.returncode == 0, done.stdout + done.stderr
