"""What the scenarios on the two nodes share: calls of Snakemake, Slurm's records, comparisons, the list of checks."""

from __future__ import annotations

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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import two_nodes
import yaml

from ssvi.runs import files as run_files

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
BIN = Path(sys.executable).parent
# What these nodes need beyond the profile: they have no accounting, so `squeue` says how jobs stand; and nobody
# minds to be asked often. (Snakemake ends only when the timespan of its last job is over.)
OVERRIDES = (
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2"),
    *("--max-jobs-per-timespan", "30/1s"),
    *("--latency-wait", "10"),
)
EQUAL = (run_files.MODEL, run_files.TOPOLOGY, run_files.PREDICTIONS, run_files.HISTORY)


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


def is_training(process: Path) -> bool:
    """Whether this folder of /proc belongs to a process `ssvi train`."""
    words = process.joinpath("cmdline").read_bytes().split(b"\0")
    return words[1:4] == [b"-m", b"ssvi", b"train"]


def training_processes(folder: Path) -> list[int]:
    """The processes `ssvi train` that work in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if is_training(process) and process.joinpath("cwd").resolve() == folder:
                found.append(int(process.name))
    return found


def job_records(nodes: Path) -> list[dict[str, str]]:
    """Slurm's own records of all jobs, ended ones too."""
    lines = two_nodes.slurm(nodes, "scontrol", "show", "jobs", "--oneliner").splitlines()
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]


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
    print(f"$ {' '.join(call[: call.index('--')] if '--' in call else call)}", flush=True)
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


def new_folder(folder: Path, config: dict[str, Any]) -> Path:
    """A working folder with the config."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's history without what the clock wrote."""
    with (folder / run_files.HISTORY).open(newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def differences(name: str, here: Path, there: Path) -> list[str]:
    """The files of a run that are not as they were made here: byte by byte; of the history all but the seconds."""
    mine, other = (folder / "results" / "runs" / name for folder in (here, there))

    def same(file: str) -> bool:
        if not (mine / file).exists() or not (other / file).exists():
            # not asked for, or missing
            return (mine / file).exists() == (other / file).exists()
        if file == run_files.HISTORY:
            return history(mine) == history(other)
        return (mine / file).read_bytes() == (other / file).read_bytes()

    return [file for file in EQUAL if not same(file)]


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


def prove(play: Callable[[Checks, Path], None], keep: bool) -> int:
    """Play a scenario in a folder of its own and print what was checked.

    Returns the exit code: 0 if all is well, 1 if not, 77 where Slurm or Snakemake's plugin for it is not installed.
    """
    if missing():
        print(f"Nothing was run; to be installed first is\n{missing()}", file=sys.stderr)
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Short: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ssvi-slurm-")).resolve()
    checks = Checks()
    try:
        play(checks, folder)
    except Exception as error:
        checks.add(False, "ran to the end", f"{type(error).__name__}: {error}")
    print(f"\n{checks.table()}\n")
    if checks.passed and not keep:
        shutil.rmtree(folder)
    else:
        print(f"Logs: {folder}/*/snakemake.log, {folder}/nodes/*.log", file=sys.stderr)
    print("All checks passed." if checks.passed else "Some checks FAILED.")
    return 0 if checks.passed else 1
