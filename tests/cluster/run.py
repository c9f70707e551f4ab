"""The Slurm profile on a real Slurm of two nodes with one pretended GPU each: `python tests/cluster/run.py`.

Trains a small study here, then again through `profiles/slurm`, stopping the workflow in the middle and starting it
again; then four of its runs with the other spelling of GPU requests and shared jobs. Checks that never more than two
trainings ran at once and that the results are the same bytes. Exit code 0: all checks passed; 1: one failed;
77: Slurm or Snakemake's plugin for it is not installed.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import two_nodes
from scenario import (
    EQUAL,
    PROFILE,
    Checks,
    command,
    differences,
    interrupt,
    job_records,
    jobs_left,
    new_folder,
    prove,
    start_workflow,
    trained,
    training_processes,
    two_slurm_nodes,
    workflow,
)

from ssvi.runs import files as run_files
from ssvi.runs.config import study_runs

NODES = 2

CONFIG = {
    "study": "proof",
    "results": "results",
    "reports": "reports",
    "data_root": "data",
    "evaluation": {"samples": 2, "bins": 15, "most_samples": 4},
    "studies": {
        "proof": {
            "train": {
                "dataset": "digits",
                "model": "resnet8",
                "epochs": 3,
                "batch_size": 64,
                "delta_t": 10,
                "prior_sigma": 0.05,
            },
            "experiments": {
                "dense": {"method": "dense", "lr": 0.1, "seed": [0, 1]},
                "vi": {"method": "vi", "lr": 0.1, "seed": [0, 1]},
                "ssvi": {"method": "ssvi", "lr": 0.1, "density": [0.2, 0.05], "seed": [0, 1]},
                "rigl": {"method": "rigl", "lr": 0.1, "density": 0.1, "seed": [0, 1]},
            },
            "tables": {"summary": ["dense", "vi", "ssvi", "rigl"]},
            "figures": {"curves": ["dense", "vi", "ssvi", "rigl"], "test_samples": ["vi"]},
        }
    },
}


class Watcher:
    """Counts, twice a second, the jobs that `squeue` shows running and the `ssvi train` processes in a folder."""

    def __init__(self, nodes: Path, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.jobs, self.trainings, self.samples = 0, 0, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            running = two_nodes.slurm(
                self.nodes, "squeue", "--noheader", "--states=R,CG", "--format=%i", check=False
            ).split()
            self.jobs = max(self.jobs, len(running))
            self.trainings = max(self.trainings, len(training_processes(self.folder)))
            self.samples += 1


def most_at_once(records: list[dict[str, str]]) -> int:
    """The largest number of jobs that ran at the same time, by their recorded starts and ends."""
    changes = []
    for record in records:
        if record.get("NodeList", "(null)") not in ("", "(null)"):
            begin, end = (datetime.fromisoformat(record[key]) for key in ("StartTime", "EndTime"))
            changes += [(begin, 1), (end, -1)] if end > begin else []
    running = most = 0
    for _, change in sorted(changes):  # an end sorts before a start in the same second
        running += change
        most = max(most, running)
    return most


def other_spelling(text: str) -> str:
    """The profile with `--gres` for `--gpus` and runs sharing jobs: its commented lines in use."""
    lines = []
    for line in text.splitlines():
        if re.match(r"\s+gpu: 1\b", line):
            continue
        alternative = re.match(r'(\s*)# (gpu: 0|gres: "gpu:1"|group-components:|  training: 10|  evaluation: 10)', line)
        lines.append(line.replace("# ", "", 1) if alternative else line)
    return "\n".join(lines) + "\n"


def compare(checks: Checks, names: list[str], here: Path, there: Path) -> None:
    """The files of all runs, and their histories."""
    different = {name: differences(name, here, there) for name in names}
    for file in EQUAL:
        same = sum(file not in found for found in different.values())
        kind = "but for the seconds" if file == run_files.HISTORY else "byte by byte"
        checks.add(same == len(names), f"{file} as trained here, {kind}", f"{same} of {len(names)}")


def check_jobs(checks: Checks, records: list[dict[str, str]], watcher: Watcher, gpu_field: str) -> None:
    """That jobs asked for a GPU in the right spelling and never more ran than there are GPUs."""
    asked = sum("gpu" in r.get(gpu_field, "") for r in records)
    checks.add(asked == len(records) > 0, f"jobs that asked for a GPU ({gpu_field})", f"{asked} of {len(records)}")
    most = most_at_once(records)
    checks.add(1 <= most <= NODES, "most jobs at once, by Slurm's records", most)
    checks.add(watcher.jobs <= NODES, f"most jobs at once, in {watcher.samples} looks at squeue", watcher.jobs)
    checks.add(1 <= watcher.trainings <= NODES, "most processes `ssvi train` at once", watcher.trainings)


def check_main(checks: Checks, here: Path, there: Path, nodes: Path, names: list[str]) -> None:
    """The study through the profile as it is, stopped by Ctrl-C after three trainings and started again."""
    with Watcher(nodes, there) as watcher:
        process = start_workflow(there, nodes, command(PROFILE.parent))
        try:
            # A training whose process has not quite ended when it is cancelled is trained again; so wait for that.
            while process.poll() is None and len(trained(there, age=5)) < 3:
                time.sleep(0.2)
        finally:
            interrupt(process)
        before = trained(there)
        checks.add(3 <= len(before) < len(names), "trainings done when Ctrl-C stopped it", len(before))
        left = jobs_left(nodes, 30)
        checks.add(left == 0, "jobs left in the queue after Ctrl-C", left)
        code = workflow(there, nodes, command(PROFILE.parent))
    after = trained(there)
    checks.add(code == 0, "the same command again: exit code", code)
    again = [run for run in before if after.get(run) != before[run]]
    checks.add(not again, "finished trainings that were trained again", len(again))
    checks.add(
        sorted(after) == sorted(names), "runs of the study trained through Slurm", f"{len(after)} of {len(names)}"
    )
    records = job_records(nodes)
    check_jobs(checks, records, watcher, "TresPerJob")
    kinds = {r.get("Comment", "") for r in records}
    submitted = {"rule_training_train", "rule_evaluation_evaluate", "rule_evaluation_samples"}
    checks.add(kinds == submitted, "submitted rules", ", ".join(sorted(kinds)))
    local = [*there.glob("results/mlflow/proof.json"), *there.glob("reports/proof/tables/summary.md")]
    checks.add(len(local) == 2, "tables and the mirror, made by the submitting side", f"{len(local)} of 2")
    compare(checks, names, here, there)


def check_other_spelling(checks: Checks, here: Path, there: Path, nodes: Path, names: list[str]) -> None:
    """Four runs with the profile's commented lines: `--gres`, and ten runs a job."""
    seen = {r["JobId"] for r in job_records(nodes)}
    profile = there / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(other_spelling(PROFILE.read_text()))
    some = names[:2] + names[-2:]
    targets = [f"results/runs/{name}/{run_files.METRICS}" for name in some]
    with Watcher(nodes, there) as watcher:
        code = workflow(there, nodes, command(profile, "--", *targets))
    checks.add(code == 0, "four runs with --gres, sharing jobs: exit code", code)
    records = [r for r in job_records(nodes) if r["JobId"] not in seen]
    check_jobs(checks, records, watcher, "TresPerNode")
    checks.add(len(records) == 2, "jobs that the four runs shared, trainings and evaluations", len(records))
    checks.add(watcher.trainings == 1, "trainings at once in a shared job", watcher.trainings)
    compare(checks, some, here, there)


def play(checks: Checks, folder: Path) -> None:
    """The study here, on the nodes, and some of it in the other spelling."""
    names = list(study_runs(CONFIG, "proof"))
    nodes, here, there = folder / "nodes", new_folder(folder / "here", CONFIG), new_folder(folder / "there", CONFIG)
    gres = new_folder(folder / "gres", CONFIG)
    print(f"{len(names)} trainings, here and on two Slurm nodes; files in {folder}", flush=True)
    code = workflow(here, nodes, command(None))
    checks.add(code == 0, "the study on this machine, without Slurm: exit code", code)
    with two_slurm_nodes(nodes):
        check_main(checks, here, there, nodes, names)
        check_other_spelling(checks, here, gres, nodes, names)


def main() -> int:
    """Run everything and print what was checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the folder when all checks pass, too")
    return prove(play, parser.parse_args().keep)


if __name__ == "__main__":
    sys.exit(main())
