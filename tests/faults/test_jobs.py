"""A training as the job of a workflow: signals, kills, and a workflow that is killed itself."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from commands import run, steps_begun_at, training
from stopping import results
from studies import command, config_of, environment, write_config

from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.spec import make_spec

# Long enough to be caught in the middle; two runs, because a single one is not handed over to a preloaded process.
OPTIONS = {"dataset": "digits", "model": "resnet8", "width": 0.25, "epochs": 15, "batch_size": 128, "density": 0.2}
SPECS = {run_path(spec): spec for spec in (make_spec({**OPTIONS, "delta_t": 10, "seed": seed}) for seed in (0, 1))}
CONFIG = config_of(
    "two",
    {
        "train": {**OPTIONS, "delta_t": 10},
        "experiments": {"two": {"method": "ssvi", "seed": [0, 1]}},
        "tables": {"summary": ["two"]},
    },
)


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    with (folder / "said").open("a") as log:
        words = command(folder, *arguments)
        return subprocess.Popen(words, cwd=folder, env=environment(), stdout=log, stderr=log)


def trainings(workflow: subprocess.Popen) -> list[psutil.Process]:
    """The processes `ssvi train` of a workflow, in their callers' sense: what Snakemake's shells wait for."""
    found = []
    for process in psutil.Process(workflow.pid).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words[1:4] == ["-m", "ssvi", "train"]:
            found.append(process)
    return found


def both_in_training(folder: Path, workflow: subprocess.Popen) -> list[psutil.Process]:
    """The two trainings, once each has closed an epoch."""
    histories = [folder / "results/runs" / path / files.LIVE_HISTORY for path in SPECS]
    while not all(path.exists() and path.stat().st_size for path in histories):
        assert workflow.poll() is None, (folder / "said").read_text()
        time.sleep(0.02)
    found = trainings(workflow)
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data_root) -> Path:
    """Both runs without a workflow and without any fault."""
    folder = tmp_path_factory.mktemp("alone")
    for path, spec in SPECS.items():
        assert run(training(spec, folder / path, data_root, 3600), folder / "log") == 0
    return folder


def new_folder(tmp_path: Path) -> Path:
    write_config(tmp_path, CONFIG)
    return tmp_path


@pytest.mark.fault("a job of a workflow is stopped or killed", quick=0, whole=4)
def test_a_job_that_is_asked_to_stop_is_tried_again_and_goes_on(tmp_path, alone, trial: int) -> None:
    folder = new_folder(tmp_path)
    number = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGHUP)[trial]
    with start(folder) as workflow:
        for process in both_in_training(folder, workflow):
            process.send_signal(number)
        assert workflow.wait(timeout=300) == 0, (folder / "said").read_text()
    for path in SPECS:
        there = folder / "results/runs" / path
        assert results(there) == results(alone / path)
        if number != signal.SIGKILL:  # the first minute has no checkpoint otherwise
            assert steps_begun_at(there)[-1] > 0
        assert not (there / files.LIVE).exists()
    assert (folder / "reports/two/tables/summary.md").exists()


@pytest.mark.fault("a workflow is killed while its jobs go on", quick=0, whole=3)
def test_what_ends_while_no_workflow_is_there_is_not_trained_again(tmp_path, alone, trial: int) -> None:
    folder = new_folder(tmp_path)
    workflow = start(folder)
    both_in_training(folder, workflow)
    workflow.kill()
    workflow.wait()
    published = [folder / "results/runs" / path / files.TRAINING for path in SPECS]
    if trial == 0:
        while not all(path.exists() for path in published):
            time.sleep(0.1)
    # else: they are still training when the workflow is started again
    assert start(folder, "--unlock").wait(timeout=100) == 0
    with start(folder) as workflow:
        assert workflow.wait(timeout=300) == 0, (folder / "said").read_text()
    for path in SPECS:
        there = folder / "results/runs" / path
        assert results(there) == results(alone / path)
        # not from the start, whoever deleted what
        assert steps_begun_at(there) in ([0], [0, 165]), (folder / "said").read_text()
        # no log has a hole where one attempt cut off another
        assert "\0" not in (folder / f"results/logs/train/{path}.log").read_text()
        assert not (there / files.LIVE).exists()
