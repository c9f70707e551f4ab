"""Results that were copied, touched or partly lost: what is due is told by content, and what is planned is done."""

import atexit
import base64
import json
import os
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import snakemake.cli
import yaml
from fake_runs import tie
from studies import command, config_of, environment, write_config

from ssvi.runs import files

STUDY = {
    "train": {"dataset": "digits", "model": "mlp", "width": 0.1, "epochs": 1, "batch_size": 256},
    "experiments": {
        "vi": {"method": "vi", "seed": [0, 1]},
        "pruned": {"method": "pruned", "parent": "vi", "density": 0.1, "seed": [0, 1]},
    },
    "tables": {"summary": ["vi", "pruned"]},
}
COSTLY = ("data", "train", "evaluate", "samples")
Jobs = set[tuple[str, str]]


def workflow(folder: Path, *arguments: str) -> str:
    """What Snakemake says, in a process that is forked from this one, which has it in memory."""
    words, log = command(folder, "--quiet", "host", *arguments, cores=1), folder / "said"
    number = os.fork()
    if not number:
        code = 1
        atexit._clear()  # what this process is to do at its end
        try:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            clean = environment()
            os.environ.clear()
            os.environ.update(clean)
            os.chdir(folder)
            snakemake.cli.main([str(word) for word in words[1:]])
        except SystemExit as end:
            code = end.code
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(number, 0)[1] == 0, log.read_text()
    return log.read_text()


def jobs(said: str) -> Jobs:
    """The costly jobs that Snakemake named: rule, and the method and seed of the run."""
    found = re.findall(r"^(?:local)?rule (\w+):(?:\n    .*)*?\n    wildcards: (.*)$", said, re.M)
    return {(rule, short(wildcards)) for rule, wildcards in found if rule in COSTLY}


def short(run: str) -> str:
    method, seed = re.search(r"/(vi|pruned)/", run), re.search(r"seed=\d", run)
    return f"{method[1]} {seed[0][-1]}" if method and seed else ""


def planned(said: str) -> list[int]:
    """Runs, done and to do of the whole plan."""
    return [int(number) for number in re.search(r"in all +(\d+) +(\d+) +(\d+)", said).groups()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_config(folder, config_of("tiny", STUDY))
    assert len(jobs(workflow(folder, "--", "summary"))) == 9
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The results in another folder, where Snakemake knows nothing of them, with times that tell nothing."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".snakemake", "said", "mlflow"))
    any_times(tmp_path)
    return tmp_path


def any_times(folder: Path, seed: int = 0) -> None:
    """As of a copier that takes files in any order, clocks that are late or early, and a disk that counts by 2 s."""
    draw = random.Random(seed)
    for path in sorted(folder.joinpath("results").rglob("*")):
        when = time.time() + 2 * draw.randint(-100_000, 100_000)
        os.utime(path, (when, when))


def of(folder: Path, name: str) -> Path:
    (found,) = (path.parent for path in folder.rglob(files.SPEC) if short(str(path)) == name)
    return found


def lose(name: str, file: str = "") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = of(folder, name) / file
        path.unlink() if file else shutil.rmtree(path)

    return change


def lose_records(folder: Path) -> None:
    shutil.rmtree(folder / "results/data")


def add_seed(folder: Path) -> None:
    lose_records(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["studies"]["tiny"]["experiments"]["vi"]["seed"] = [0, 1, 2]
    write_config(folder, config)


def train_otherwise(folder: Path) -> None:
    """The parent of a run, by hand: another network, all of its files those of one training."""
    parent = of(folder, "vi 0")
    model = (parent / files.MODEL).read_bytes()
    before = re.search(rb'"fingerprint\\": \\"(\w+)', model)[1]
    (parent / files.MODEL).write_bytes(model.replace(before, before[::-1]))
    tie(parent)


def evaluate_before_training(folder: Path) -> None:
    """Metrics of another training than lies beside them, which is whole."""
    metrics = (of(folder, "vi 0") / files.METRICS).read_text()
    train_otherwise(folder)
    (of(folder, "vi 0") / files.METRICS).write_text(metrics)


def begin_again(folder: Path) -> None:
    """As a Snakemake that was killed left it: the training went on by itself, and is noted as cut off."""
    notes = folder / ".snakemake/incomplete"
    notes.mkdir(parents=True)
    name = str((of(folder, "vi 0") / files.MODEL).relative_to(folder))
    (notes / base64.b64encode(name.encode()).decode()).touch()


def other_notes(folder: Path, made: Path) -> None:
    """Snakemake's own notes of how the files were made, all of them of other options, inputs and code than now."""
    shutil.copytree(made / ".snakemake", folder / ".snakemake")
    found = 0
    for path in (folder / ".snakemake/metadata").rglob("*"):
        note = json.loads(path.read_text()) if path.is_file() else {}
        if note.get("rule") in COSTLY:
            found += 1
            path.write_text(json.dumps(note | {"params": ["other"], "input": ["other"], "code": "other"}))
    assert found >= 4 * (len(files.TRAINED) + 2)


OWN = {("train", "vi 0"), ("evaluate", "vi 0")}
CHILD = {("train", "pruned 0"), ("evaluate", "pruned 0")}
CHANGES: dict[str, tuple[Callable[[Path], None], Jobs, int]] = {
    "nothing": (lambda folder: None, set(), 0),
    "other times": (lambda folder: any_times(folder, 1), set(), 0),
    "no records of the data": (lose_records, set(), 0),
    "a note of a training that was cut off": (begin_again, set(), 0),
    "a parent is lost": (lose("vi 0"), OWN, 1),
    "a file of a parent is lost": (lose("vi 0", files.TOPOLOGY), OWN, 1),
    "metrics are lost": (lose("pruned 0", files.METRICS), {("evaluate", "pruned 0")}, 1),
    "predictions are lost": (lose("pruned 0", files.PREDICTIONS), {("evaluate", "pruned 0")}, 1),
    "a seed more, without records": (add_seed, {("data", ""), ("train", "vi 2"), ("evaluate", "vi 2")}, 1),
    "another training of a parent": (train_otherwise, CHILD, 1),
    "metrics of another training": (evaluate_before_training, {("evaluate", "vi 0")} | CHILD, 2),
}


@pytest.mark.fault("results copied, touched or partly lost")
@pytest.mark.parametrize("name", CHANGES)
def test_content_decides_and_the_plan_says_so(copy: Path, name: str) -> None:
    change, expected, to_do = CHANGES[name]
    change(copy)
    said = workflow(copy, "-n")
    assert jobs(said) == expected
    total, done, left = planned(said)
    assert (total - done, left) == (to_do, to_do)
    assert "Plan of study tiny" in said


def test_edited_rules_and_lost_or_foreign_notes_retrain_nothing(copy: Path, made: Path) -> None:
    """By every reason that Snakemake has of its own, which the profile leaves out."""
    other_notes(copy, made)
    assert jobs(workflow(copy, "-n", "--workflow-profile=none")) <= {("data", "")}


def test_what_was_planned_is_done_and_then_nothing_is_left(copy: Path) -> None:
    """Jobs with inputs of the future among them; a parent that comes out the same leaves its child as it is."""
    lose("vi 0")(copy)
    lose("pruned 1", files.METRICS)(copy)
    add_seed(copy)
    shutil.rmtree(copy / "reports")  # a table that is there needs no more of its runs
    before = (of(copy, "pruned 0") / files.TRAINING).read_bytes()
    plan = jobs(workflow(copy, "-n", "--", "summary"))
    assert plan == OWN | {("evaluate", "pruned 1"), ("data", ""), ("train", "vi 2"), ("evaluate", "vi 2")}
    assert jobs(workflow(copy, "--", "summary")) == plan
    assert (of(copy, "pruned 0") / files.TRAINING).read_bytes() == before
    assert jobs(workflow(copy, "-n")) == set()


def test_what_snakemake_is_told_to_do_again_is_done_again(copy: Path) -> None:
    """Everything that is forced, and whatever stands on it."""
    everything = {(rule, run) for rule in ("train", "evaluate") for run in ("vi 0", "vi 1", "pruned 0", "pruned 1")}
    assert jobs(workflow(copy, "-n", "--forcerun", "train")) == everything
    assert jobs(workflow(copy, "-n", "--forcerun", "evaluate")) == {job for job in everything if job[0] == "evaluate"}
