"""Processor time that a run costs beyond its training steps: start-up, scheduling, evaluating, collecting.

Runs the workflow on digits with few and with many short trainings, each from nothing. The whole process
tree's processor time, less the time inside the training loops (one thread each), grows by the cost of a
run; what is left at zero runs is the fixed cost of a workflow (planning, tables, figures, mirror).

    python benchmarks/overhead.py [--json benchmarks/records/overhead.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import yaml

from ssvi.machine.devices import processor_name
from ssvi.machine.disk import write_json
from ssvi.runs.records import check_record

ROOT = Path(__file__).parent.parent
RUNS = (4, 12)
LIMIT = 6.0


def study(n: int) -> dict:
    """A config of n trainings of one epoch."""
    return {
        "study": "bench",
        "results": "results",
        "reports": "reports",
        "data_root": "data",
        "evaluation": {"samples": 5, "bins": 15},
        "studies": {
            "bench": {
                "train": {"dataset": "digits", "model": "resnet8", "epochs": 1, "batch_size": 64, "delta_t": 10},
                "experiments": {"ssvi": {"method": "ssvi", "seed": list(range(n))}},
                "tables": {"summary": ["ssvi"]},
                "figures": {"curves": ["ssvi"]},
            }
        },
    }


def processor_seconds(n: int) -> tuple[float, float]:
    """Processor seconds of a workflow of n runs without their training loops, and of those loops."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(study(n)))
        tools = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        command = [tools / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "2"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, "--configfile", folder / "config.yaml"], check=True, capture_output=True, env=environment
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        training = sum(json.loads(path.read_text())["training_cpu_seconds"] for path in folder.rglob("training.json"))
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - training, training


def main() -> None:
    """Measure, print, and write a record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.json:
        check_record(given.json, "when", "hardware", "figures")
    few, many = RUNS
    slopes, fixed = [], []
    for i in range(given.repeats):
        costs = {n: processor_seconds(n)[0] for n in RUNS}
        slopes.append((costs[many] - costs[few]) / (many - few))
        fixed.append(costs[few] - few * slopes[-1])
        print(f"repeat {i + 1}: {slopes[-1]:.2f} s a run, {fixed[-1]:.1f} s a workflow", flush=True)
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": processor_name(),
        "python": platform.python_version(),
        "repeats": given.repeats,
        "figures": [
            {"name": name, "value": median(v), "unit": "s of processor time", "minimum": min(v), "maximum": max(v)}
            for name, v in (("overhead.per_run", slopes), ("overhead.per_workflow", fixed))
        ],
    }
    print(f"\na run beyond its training steps: {median(slopes):.2f} s of processor time (must be at most {LIMIT:g} s)")
    if given.json:
        write_json(given.json, record)


if __name__ == "__main__":
    main()
