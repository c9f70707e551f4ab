"""The Slurm profile on a real Slurm of two nodes with one pretended GPU each: `python tests/cluster/run.py`.

Trains a small study here, then again through `profiles/slurm`, stopping the workflow in the middle and starting it
again; then four of its runs with the other spelling of GPU requests and shared jobs. Checks that never more than two
trainings ran at once and that the results are the same bytes. Exit code 0: all checks passed; 1: one failed;
77: Slurm or Snakemake's plugin for it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import two_nodes
import yaml

from ssvi import runs as run_files
from ssvi.config import study_runs

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
BIN = Path(sys.executable).parent
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
# What these nodes need beyond the profile: they have no accounting, so `squeue` says how jobs stand; and nobody
# minds to be asked often.
OVERRIDES = (
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2"),
    *("--latency-wait", "10"),
)
EQUAL_BYTES = (run_files.MODEL, run_files.TOPOLOGY, run_files.PREDICTIONS)


@dataclass
class Checks:
    """What was checked, said as it happens and once more at the end."""

    rows: list[tuple[bool, str, str]] = field(default_factory=list)

    def add(self, passed: bool, what: str, seen: object) -> None:
        """Note one check and what was seen."""
        self.rows.append((passed, what, str(seen)))

    @property
    def passed(self) -> bool:
        """Whether there were checks and none failed."""
        return bool(self.rows) and all(passed for passed, _, _ in self.rows)

    def table(self) -> str:
        """A line a check."""
        width = max(len(what) for _, what, _ in self.rows)
        return "\n".join(f"{'ok  ' if p else 'FAIL'}  {what:<{width}}  {seen}" for p, what, seen in self.rows)


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


def training_processes(folder: Path) -> list[int]:
    """The processes `ssvi train` that work in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            is_training = any(a.endswith(b"/ssvi") and b == b"train" for a, b in pairwise(words))
            if is_training and process.joinpath("cwd").resolve() == folder:
                found.append(int(process.name))
    return found


def job_records(nodes: Path) -> list[dict[str, str]]:
    """Slurm's own records of all jobs, ended ones too."""
    lines = two_nodes.slurm(nodes, "scontrol", "show", "jobs", "--oneliner").splitlines()
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]


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


def command(profile: Path | None, *arguments: str) -> list[str]:
    """The call of Snakemake: here, or with a profile."""
    call = [str(BIN / "snakemake"), "--snakefile", str(ROOT / "Snakefile")]
    if profile is None:
        # As many threads as through Slurm: they decide the last digits of sums.
        threads = [f"{rule}={n}" for rule, n in yaml.safe_load(PROFILE.read_text())["set-threads"].items()]
        here = ("--workflow-profile", "none", "--quiet", "rules", "--cores", "2", "--set-threads", *threads)
        return [*call, *here, *arguments]
    return [*call, "--workflow-profile", str(profile), *OVERRIDES, *arguments]


def start_workflow(folder: Path, nodes: Path, call: list[str]) -> subprocess.Popen:
    """Start Snakemake in the folder, as a terminal would: in a process group of its own."""
    print(f"$ {' '.join(call)}", flush=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "SNAKEMAKE", "SLURM_"))}
    clean |= two_nodes.environment(nodes)
    clean["PATH"] = f"{BIN}{os.pathsep}{clean['PATH']}"
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(call, cwd=folder, env=clean, stdout=log, stderr=log, start_new_session=True)


def workflow(folder: Path, nodes: Path, call: list[str], seconds: float = 1200) -> int:
    """Run Snakemake to its end; its exit code."""
    process = start_workflow(folder, nodes, call)
    try:
        return process.wait(seconds)
    finally:
        interrupt(process)


def interrupt(process: subprocess.Popen, seconds: float = 120) -> None:
    """Ctrl-C, and a harder stop where that does not help."""
    for what, patience in ((signal.SIGINT, seconds), (signal.SIGKILL, 10)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, what)
                process.wait(patience)


def trained(folder: Path, age: float = 0) -> dict[str, int]:
    """The trainings in a folder that ended at least so many seconds ago, and when each was published."""
    root, end = folder / "results" / "runs", time.time_ns() - age * 1e9
    found = {str(p.parent.relative_to(root)): p.stat().st_mtime_ns for p in sorted(root.rglob(run_files.TRAINING))}
    return {name: published for name, published in found.items() if published <= end}


def new_folder(folder: Path) -> Path:
    """A working folder with the config."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's history without what the clock wrote."""
    with (folder / run_files.HISTORY).open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


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
    """The files of all runs, byte by byte, and their histories."""
    for file in EQUAL_BYTES:
        pairs = [(here / "results" / "runs" / n / file, there / "results" / "runs" / n / file) for n in names]
        same = sum(a.exists() and b.exists() and a.read_bytes() == b.read_bytes() for a, b in pairs)
        checks.add(same == len(names), f"{file} as trained here, byte by byte", f"{same} of {len(names)}")
    same = sum(
        history(here / "results" / "runs" / n) == history(there / "results" / "runs" / n)
        for n in names
        if (there / "results" / "runs" / n / run_files.HISTORY).exists()
    )
    checks.add(same == len(names), "history equal but for the seconds", f"{same} of {len(names)}")


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


def jobs_left(nodes: Path, seconds: float) -> int:
    """How many jobs the queue still holds, after some patience."""
    end = time.monotonic() + seconds
    while True:
        left = two_nodes.slurm(nodes, "squeue", "--noheader", "--format=%i").split()
        if not left or time.monotonic() > end:
            return len(left)
        time.sleep(0.5)


@contextlib.contextmanager
def two_slurm_nodes(folder: Path) -> Iterator[Path]:
    """The nodes, stopped whatever happens."""
    try:
        two_nodes.start(folder)
        yield folder
    finally:
        two_nodes.stop(folder)


def missing() -> str:
    """What has to be installed first, or nothing."""
    lines = []
    if two_nodes.missing_tools():
        lines.append(f"Slurm ({', '.join(two_nodes.missing_tools())} not found):\n  {two_nodes.INSTALL}")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        lines.append("Snakemake's plugin for Slurm:\n  pip install -e '.[slurm]'")
    return "\n".join(lines)


def main() -> int:
    """Run everything and print what was checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the folder when all checks pass, too")
    given = parser.parse_args()
    if missing():
        print(f"Nothing was run; to be installed first is\n{missing()}", file=sys.stderr)
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = list(study_runs(CONFIG, "proof"))
    # Short: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ssvi-slurm-")).resolve()
    nodes, here, there = folder / "nodes", new_folder(folder / "here"), new_folder(folder / "there")
    gres = new_folder(folder / "gres")
    checks = Checks()
    try:
        print(f"{len(names)} trainings, here and on two Slurm nodes; files in {folder}", flush=True)
        code = workflow(here, nodes, command(None))
        checks.add(code == 0, "the study on this machine, without Slurm: exit code", code)
        with two_slurm_nodes(nodes):
            check_main(checks, here, there, nodes, names)
            check_other_spelling(checks, here, gres, nodes, names)
    except Exception as error:
        checks.add(False, "ran to the end", f"{type(error).__name__}: {error}")
    print(f"\n{checks.table()}\n")
    if checks.passed and not given.keep:
        shutil.rmtree(folder)
    else:
        print(f"Logs: {folder}/*/snakemake.log, {folder}/nodes/*.log", file=sys.stderr)
    print("All checks passed." if checks.passed else "Some checks FAILED.")
    return 0 if checks.passed else 1


if __name__ == "__main__":
    sys.exit(main())
