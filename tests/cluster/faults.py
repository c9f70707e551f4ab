"""What a cluster does to trainings, on a real Slurm of two nodes: `python tests/cluster/faults.py`.

A small study is trained here without disturbance, then through `profiles/slurm`, and each of its runs meets a fault in
the middle of its training: the job's time limit, `scancel`, `scontrol requeue`, a node set down and up again, a node
whose power fails, a node that Slurm loses sight of while its processes go on. Then Snakemake is killed while trainings
run, and started again when one of them has ended. Checks that the workflow ends well each time, with the results of the
undisturbed runs, and that trainings went on from where they were. Exit code 0: all checks passed; 1: one failed;
77: Slurm or Snakemake's plugin for it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import two_nodes
from scenario import (
    PROFILE,
    Checks,
    command,
    differences,
    interrupt,
    is_training,
    job_records,
    jobs_left,
    new_folder,
    prove,
    start_workflow,
    trained,
    two_slurm_nodes,
    workflow,
)

from ssvi.errors import UserError
from ssvi.runs import files as run_files
from ssvi.runs.config import study_experiments
from ssvi.runs.records import read_json, read_jsonl

PATIENCE = 600  # seconds for a call of the workflow
KILLED = "Snakemake killed, started again"


@dataclass(frozen=True)
class Victim:
    """A training on the nodes, some steps after its first checkpoint."""

    run: str
    job: str
    node: str
    process: int
    seen: datetime = field(default_factory=partial(datetime.now, UTC), compare=False)


# The faults -----------------------------------------------------------------------------------------


def reach_limit(nodes: Path, there: Path, victim: Victim) -> None:
    """Let the job's time be over, which Slurm notices within 30 s."""
    end = datetime.now() + timedelta(seconds=1)
    two_nodes.slurm(nodes, "scontrol", "update", f"jobid={victim.job}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
    state = ("squeue", "--noheader", f"--jobs={victim.job}", "--format=%t")
    _slow_down(victim, lambda: two_nodes.slurm(nodes, *state).strip() != "R")


def cancel(nodes: Path, there: Path, victim: Victim) -> None:
    """`scancel`, by somebody who is not Snakemake."""
    two_nodes.slurm(nodes, "scancel", victim.job)


def requeue(nodes: Path, there: Path, victim: Victim) -> None:
    """Back into the queue, as after a preemption."""
    two_nodes.slurm(nodes, "scontrol", "requeue", victim.job)


def set_down(nodes: Path, there: Path, victim: Victim) -> None:
    """The administrator takes the node away for a while."""
    _set_node(nodes, victim.node, "state=down", "reason=test")
    time.sleep(10)
    _set_node(nodes, victim.node, "state=resume")


def lose_power(nodes: Path, there: Path, victim: Victim) -> None:
    """The node is gone without a warning, and comes back."""
    two_nodes.power_off(nodes, victim.node)
    _set_node(nodes, victim.node, "state=down", "reason=test")
    time.sleep(5)
    two_nodes.start_node(nodes, victim.node)
    _set_node(nodes, victim.node, "state=resume")


def lose_sight(nodes: Path, there: Path, victim: Victim) -> None:
    """Slurm takes the node for dead, but the training there goes on to its end; the job's second start has to wait."""
    two_nodes.cut_off(nodes, victim.node)
    _set_node(nodes, victim.node, "state=down", "reason=test")
    log = there / "results" / "logs" / "train" / f"{victim.run}.log"
    _slow_down(victim, lambda: "waiting for it to end" in log.read_text())
    while Path(f"/proc/{victim.process}").exists():
        time.sleep(0.1)
    two_nodes.start_node(nodes, victim.node)
    _set_node(nodes, victim.node, "state=resume")


def _slow_down(victim: Victim, until: Callable[[], bool]) -> None:
    """Give a training little of the processor until something happens, so that it is in its midst then."""
    with contextlib.suppress(ProcessLookupError):  # it may end before
        while not until():
            os.kill(victim.process, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(victim.process, signal.SIGCONT)
            time.sleep(0.03)


def _set_node(nodes: Path, node: str, *settings: str) -> None:
    two_nodes.slurm(nodes, "scontrol", "update", f"nodename={node}", *settings)


@dataclass(frozen=True)
class Fault:
    """What is done to a training, and the options of the training that it is done to."""

    title: str
    strike: Callable[[Path, Path, Victim], None]
    options: dict[str, object]
    outlived: bool = False  # by the process itself, which then trains to the end


# By the name of the experiment.
FAULTS = {
    "limit": Fault("time limit", reach_limit, {"method": "ssvi", "density": 0.2}),
    "cancel": Fault("scancel", cancel, {"method": "ssvi", "density": 0.05}),
    "requeue": Fault("scontrol requeue", requeue, {"method": "rigl", "density": 0.1}),
    "down": Fault("node set down, resumed", set_down, {"method": "vi"}),
    "power": Fault("node without power, back", lose_power, {"method": "ssvi", "density": 0.2, "addition": "mcK"}),
    "sight": Fault("node out of sight, back", lose_sight, {"method": "dense"}, outlived=True),
}
QUICK = ("cancel", "requeue")


def study(quick: bool) -> dict[str, object]:
    """The config: a run a fault, and more during which Snakemake is killed; the first of these is short."""
    experiments: dict[str, object] = {name: FAULTS[name].options for name in (QUICK if quick else FAULTS)}
    experiments["left"] = [
        {"method": "ssvi", "density": 0.1, "seed": seed, "epochs": 10 if seed else 4}
        for seed in range(1 if quick else 4)
    ]
    train = {"dataset": "digits", "model": "resnet8", "epochs": 8, "batch_size": 64, "delta_t": 10, "lr": 0.1}
    return {
        "study": "faults",
        "results": "results",
        "reports": "reports",
        "data_root": "data",
        "checkpoint_seconds": 0.2,
        "evaluation": {"samples": 2, "bins": 15},
        "studies": {
            "faults": {
                "train": {**train, "prior_sigma": 0.05},
                "experiments": experiments,
                "tables": {"summary": list(experiments)},
            }
        },
    }


# The scenario ---------------------------------------------------------------------------------------


def under_way(folder: Path) -> list[Victim]:
    """The trainings in their midst: a process works on them, and there is a checkpoint and an epoch."""
    found = []
    for owner in folder.glob(f"results/runs/**/{run_files.OWNER}"):
        path = owner.parents[1]
        # the process or the folder may vanish, a line be half written
        with contextlib.suppress(OSError, UserError, json.JSONDecodeError):
            process = Path("/proc", str(read_json(owner)["process"]))
            begun = (path / run_files.CHECKPOINT).exists() and read_jsonl(path / run_files.LIVE_HISTORY)
            if begun and not run_files.is_trained(path) and is_training(process):
                lines = process.joinpath("environ").read_text().split("\0")
                values = dict(line.partition("=")[::2] for line in lines)
                name = str(path.relative_to(folder / "results" / "runs"))
                found.append(Victim(name, values["SLURM_JOB_ID"], values["SLURMD_NODENAME"], int(process.name)))
    return found


def disturb(
    nodes: Path, there: Path, call: list[str], strikes: dict[str, Fault], to_kill: bool
) -> tuple[int, dict[str, Victim]]:
    """Run the workflow; each training meets its fault once.

    Args:
        nodes: folder of the nodes.
        there: where the workflow runs.
        call: its command.
        strikes: what shall happen to which run.
        to_kill: whether Snakemake, too, is killed, when all that has happened and a training runs.

    Returns:
        its exit code, and what was struck.
    """
    struck: dict[str, Victim] = {}
    process = start_workflow(there, nodes, call)
    end = time.monotonic() + PATIENCE
    with ThreadPoolExecutor() as pool:
        done: list[Future[None]] = []
        try:
            while process.poll() is None and time.monotonic() < end:
                for victim in under_way(there):
                    if victim.run in strikes and victim.run not in struck:
                        struck[victim.run] = victim
                        done.append(pool.submit(strikes[victim.run].strike, nodes, there, victim))
                    elif to_kill and struck.keys() == strikes.keys() and victim not in struck.values():
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
                        break
                time.sleep(0.1)
        finally:
            interrupt(process)
    for one in done:
        one.result()
    return process.returncode, struck


def wait_for_another(there: Path, before: dict[str, int]) -> None:
    """Wait until more trainings are published than before."""
    end = time.monotonic() + PATIENCE
    while trained(there).keys() <= before.keys():
        if time.monotonic() > end:
            raise RuntimeError(f"no training was published in {PATIENCE} s")
        time.sleep(0.1)


def judge(run: str, began_by: datetime | None, here: Path, there: Path) -> tuple[bool, list[int], str]:
    """Whether a run has the undisturbed results and was not begun anew, from which steps it went on, all in words.

    Args:
        run: the run.
        began_by: when its training had begun, if it had.
        here: where it was trained without disturbance.
        there: where it was disturbed.
    """
    if different := differences(run, here, there):
        return False, [], f"not as without disturbance: {', '.join(different)}"
    record = read_json(there / "results" / "runs" / run / run_files.TRAINING)
    first, *others = record["sessions"]
    steps = [one["from_step"] for one in others]
    kept = began_by is None or datetime.fromisoformat(first["started"]) <= began_by
    seen = "trained to its end by one process"
    if others:
        seen = f"went on from step {' and '.join(map(str, steps))} of {record['steps']}"
    if not kept:
        seen = "was begun anew"
    return kept and first["from_step"] == 0 and all(steps), steps, seen


def end_of(nodes: Path, victim: Victim) -> str:
    """What Slurm says of the job that was struck."""
    record = next(record for record in job_records(nodes) if record["JobId"] == victim.job)
    again = f" after {record['Restarts']} restart" if record["Restarts"] != "0" else ""
    return f"job {victim.job} {record['JobState']}{again}"


def play(checks: Checks, folder: Path, quick: bool) -> None:
    """All faults, each in the middle of a training."""
    config = study(quick)
    runs = {name: list(found) for name, found in study_experiments(config, "faults").items()}
    strikes = {runs[name][0]: FAULTS[name] for name in FAULTS if name in runs}
    last = run_files.TRAINING if quick else run_files.METRICS
    targets = {run: f"results/runs/{run}/{last}" for found in runs.values() for run in found}
    nodes, here, there = folder / "nodes", new_folder(folder / "here", config), new_folder(folder / "there", config)
    # The quick one trains, and no more.
    whole = command(PROFILE.parent, *(["--", *targets.values()] if quick else []))

    print(f"{len(targets)} trainings, here and on two Slurm nodes; files in {folder}", flush=True)
    code = workflow(here, nodes, command(None, "--", *targets.values()))
    checks.add(code == 0, "the study on this machine, without Slurm: exit code", code)
    with two_slurm_nodes(nodes):
        struck: dict[str, Victim] = {}
        codes: list[int] = []
        if not quick:
            first = command(PROFILE.parent, "--", *(targets[run] for run in strikes))
            code, struck = disturb(nodes, there, first, strikes, to_kill=False)
            codes.append(code)
            checks.add(code == 0, "the workflow under all faults but the last: exit code", code)
            left = jobs_left(nodes, 30)
            checks.add(left == 0, "jobs left in the queue", left)
        before = trained(there)
        code, more = disturb(nodes, there, whole, strikes if quick else {}, to_kill=True)
        checks.add(code == -signal.SIGKILL, "the workflow, killed: exit code", code)
        at_kill = trained(there)
        wait_for_another(there, at_kill)
        published, running = trained(there), {victim.run for victim in under_way(there)}
        again, left = datetime.now(UTC), jobs_left(nodes, 0)
        codes += [workflow(there, nodes, command(PROFILE.parent, "--unlock")), workflow(there, nodes, whole)]
        checks.add(codes[-2:] == [0, 0], f"--unlock, and started beside {left} old jobs: exit codes", codes[-2:])
        left = jobs_left(nodes, 60)
        checks.add(left == 0, "jobs left in the queue", left)
        after = trained(there)
        touched = [run for run in before if after.get(run) != before[run]]
        checks.add(not touched, "finished trainings that were trained again", len(touched))
        same = sum(not differences(run, here, there) for run in targets)
        checks.add(same == len(targets), "runs that are as without disturbance", f"{same} of {len(targets)}")

        rows: list[tuple[str, bool]] = []
        for run, victim in (struck | more).items():
            fault = strikes[run]
            passed, steps, seen = judge(run, victim.seen, here, there)
            passed = passed and (fault.outlived or bool(steps))
            checks.add(passed, fault.title, f"{end_of(nodes, victim)}; {seen}")
            rows.append((fault.title, passed and not any(codes)))
        checks.add(len(rows) == len(strikes), "trainings that met their fault", f"{len(rows)} of {len(strikes)}")
        for run in targets.keys() - at_kill.keys():
            state = "published meanwhile" if run in published else "running then" if run in running else "waiting then"
            passed, _, seen = judge(run, None if state == "waiting then" else again, here, there)
            checks.add(passed, f"{KILLED}: {state}", seen)
            rows.append((KILLED, passed and not any(codes)))
    print(f"\n{table(rows)}", flush=True)


def table(rows: list[tuple[str, bool]]) -> str:
    """Fault, trials, survived."""
    titles = list(dict.fromkeys(title for title, _ in rows))
    width = max(map(len, titles))
    lines = [f"{'fault':<{width}}  trials  survived"]
    for title in titles:
        outcomes = [passed for found, passed in rows if found == title]
        lines.append(f"{title:<{width}}  {len(outcomes):6}  {sum(outcomes):8}")
    return "\n".join(lines)


def main() -> int:
    """Play the faults and print what was survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the folder when all checks pass, too")
    parser.add_argument("--quick", action="store_true", help="only scancel, a requeue and a killed Snakemake")
    given = parser.parse_args()
    return prove(partial(play, quick=given.quick), given.keep)


if __name__ == "__main__":
    sys.exit(main())
