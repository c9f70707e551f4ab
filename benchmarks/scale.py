"""What thousands of finished runs cost: collecting them into tables, planning when nothing has changed, mirroring.

Writes run folders as trainings of a ResNet-18 for 200 epochs leave them (made-up numbers, real sizes), then measures
in processes of their own: every run collected with its history into CSV files and a table; `snakemake -n` where
everything is done; and, with the most runs, what the MLflow mirror takes a run as the number of runs grows.

    python benchmarks/scale.py [--runs 10 100 1000 5000] [--mirrored 600] [--json benchmarks/records/scale.json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ssvi.machine.devices import processor_name
from ssvi.machine.disk import write_json, write_text
from ssvi.runs import files
from ssvi.runs.config import resolve, study_runs
from ssvi.runs.paths import run_path, to_flags
from ssvi.runs.records import check_record
from ssvi.runs.runfolder import read_spec, spec_record
from ssvi.runs.spec import RunSpec

ROOT = Path(__file__).parent.parent

EPOCHS, LAYERS, UPDATES = 200, 21, 20
SETTINGS = 108
LIMITS = {"scale.collect_seconds": 60.0, "scale.collect_gigabytes": 4.0, "scale.plan_seconds": 90.0}


def config(folder: Path, n: int) -> dict[str, Any]:
    """A study of about n runs whose figures need few of the histories and per-update records."""
    grid = {
        "method": "ssvi",
        "density": [0.1, 0.05, 0.01],
        "criterion": ["abs_mu", "snr", "e_abs", "snr_abs", "e_exp", "snr_exp"],
        "sigma_init": [0.0006, 0.001, 0.002, 0.003, 0.005, 0.01],
        "seed": list(range(max(1, round(n / SETTINGS)))),
    }
    if n < SETTINGS:
        grid |= {"density": 0.1, "criterion": "snr_abs", "sigma_init": 0.0006, "seed": list(range(max(3, n - 3)))}
    content = {
        "train": {"dataset": "cifar10", "model": "resnet18", "validation": 0.0},
        "experiments": {"vi": {"method": "vi", "seed": [0, 1, 2]}, "grid": grid, "few": {**grid, **_ONE}},
        "tables": {"table1": ["vi", "few"], "summary": ["vi", "grid"]},
        "figures": {"figure2_left": ["vi", "grid"], "curves": ["vi", "few"], "iou": ["few"]},
    }
    return {
        "study": "scale",
        "results": str(folder / "results"),
        "reports": str(folder / "reports"),
        "data_root": str(folder / "data"),
        "evaluation": {"samples": 5, "bins": 15},
        "studies": {"scale": content},
    }


_ONE = {"density": 0.1, "criterion": "snr_abs", "sigma_init": 0.0006, "seed": [0, 1, 2]}


def write_runs(results: Path, specs: dict[str, RunSpec]) -> None:
    """All run folders: the first of a method is written, the others are it with another spec and accuracy."""
    sys.path.append(str(ROOT / "tests"))
    from fake_runs import write_run

    patterns: dict[str, dict[str, bytes]] = {}
    for number, (run, spec) in enumerate(specs.items()):
        folder = results / "runs" / run
        if spec.method not in patterns:
            write_run(results, spec, epochs=EPOCHS, layers=LAYERS, updates=UPDATES)
            (folder / files.MODEL).write_bytes(b"weights")
            (folder / files.PREDICTIONS).write_bytes(b"predictions")
            # What the evaluation wrote is the newest.
            order = sorted(folder.iterdir(), key=lambda path: path.name in (files.METRICS, files.PREDICTIONS))
            patterns[spec.method] = {path.name: path.read_bytes() for path in order}
            continue
        folder.mkdir(parents=True)
        content = dict(patterns[spec.method])
        record = json.loads(content[files.SPEC])
        content[files.SPEC] = json.dumps(spec_record(spec, record["provenance"])).encode()
        metrics = json.loads(content[files.METRICS])
        content[files.METRICS] = json.dumps(metrics | {"accuracy": 0.9 + 0.05 * (number % 97) / 97}).encode()
        for name, data in content.items():
            (folder / name).write_bytes(data)


def measured(step: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Seconds and gigabytes (largest resident set) of a step in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        start = time.perf_counter()
        step(*arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        os.write(write, json.dumps([time.perf_counter() - start, peak]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1]:
        sys.exit("the step failed")
    seconds, gigabytes = json.loads(text)
    return seconds, gigabytes


def collect(settings: dict[str, Any]) -> None:
    """Everything the cheap rules do with all the runs: frames with histories, CSV files, the summary."""
    from ssvi.analysis.collect import load_frames, write_collected
    from ssvi.analysis.tables import make_table, write_table

    results, reports = Path(settings["results"]), Path(settings["reports"])
    frames = load_frames(results, study_runs(settings, "scale"), ["history"])
    write_collected(frames, reports / "scale" / "data")
    write_table(make_table("summary", frames), reports / "scale" / "tables" / "summary")


def snakemake(folder: Path, *arguments: str) -> float:
    """Seconds of one call of the workflow."""
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [tools / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "config.yaml", "--cores", "2", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or ("-n" in arguments and "Nothing to be done" not in said):
        sys.exit(said[-2000:])
    return time.perf_counter() - start


def remember(folder: Path, settings: dict[str, Any], specs: dict[str, RunSpec]) -> None:
    """Snakemake's records of all runs, as many as a finished workflow leaves.

    It makes those of a few runs itself (`--touch`, whose time grows with the square of the jobs); the others are
    the record of one of them under their own names.
    """
    few = {**settings, **config(folder, SETTINGS)}
    (folder / "config.yaml").write_text(yaml.safe_dump(few))
    snakemake(folder, "--touch")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    records = folder / ".snakemake" / "metadata"
    for path in [path for path in records.rglob("*") if path.is_file()]:
        if "/runs/" not in _decoded(path, records):
            path.unlink()  # made from the few runs alone
    known = study_runs(few, "scale")
    for method in ("vi", "ssvi"):
        pattern = next(run for run, spec in known.items() if spec.method == method)
        flags = shlex.join(to_flags(known[pattern]))
        own = [path for path in records.rglob("*") if path.is_file() and f"/{pattern}/" in _decoded(path, records)]
        for run, spec in specs.items():
            for path in own if spec.method == method and run not in known else []:
                name = _decoded(path, records).replace(pattern, run)
                target = records.joinpath(*_encoded(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                text = path.read_text().replace(pattern, run)
                target.write_text(text.replace(flags, shlex.join(to_flags(spec))))


def _decoded(path: Path, records: Path) -> str:
    """The output that a record is of; its file name is that in base64, in pieces that fit a file name."""
    return urlsafe_b64decode("".join(part.removeprefix("@") for part in path.relative_to(records).parts)).decode()


def _encoded(output: str) -> list[str]:
    text = urlsafe_b64encode(output.encode()).decode()
    pieces = [text[i : i + 254] for i in range(0, len(text), 254)]
    return [*(f"@{piece}" for piece in pieces[:-1]), pieces[-1]]


def mirrored(results: Path, n: int) -> list[float]:
    """Seconds a run that the mirror takes for each tenth of n runs, one after the other, and for a look at them all."""
    from ssvi.analysis.tracking import mirror

    specs = dict(list(study_runs_of(results).items())[:n])
    costs, tenth = [], n // 10
    for i in range(10):
        start = time.perf_counter()
        mirror(results, "scale", dict(list(specs.items())[: (i + 1) * tenth]))
        costs.append((time.perf_counter() - start) / tenth)
    start = time.perf_counter()
    mirror(results, "scale", specs)
    return [*costs, (time.perf_counter() - start) / n]


def study_runs_of(results: Path) -> dict[str, RunSpec]:
    """The runs in a results folder by path."""
    found = (read_spec(path.parent) for path in sorted((results / "runs").rglob(files.SPEC)))
    return {run_path(spec): spec for spec in found}


def measure(n: int, mirror: int, note: Callable[[str, float, str], None]) -> None:
    """Write about n runs and measure what they cost; `mirror` of them are mirrored."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = config(folder, n)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        specs = study_runs(settings, "scale")
        write_runs(folder / "results", specs)
        note("scale.runs", len(specs), "runs")
        seconds, gigabytes = measured(collect, settings)
        note("scale.collect_seconds", seconds, "s")
        note("scale.collect_gigabytes", gigabytes, "GB")
        # All is made, as by a finished workflow: outputs newer than runs, and Snakemake's records of both.
        for kind, extensions in (
            ("tables", ("csv", "md", "html", "tex")),
            ("figures", ("png", "svg", "pdf", "csv", "md")),
        ):
            for output in resolve(settings, "scale")[kind]:
                for extension in extensions:
                    write_text(folder / "reports" / "scale" / kind / f"{output}.{extension}", "made")
        for path in ("reports/scale/report.html", "results/mlflow/scale.json", "results/data/cifar10.json"):
            write_text(folder / path, "made")
        remember(folder, settings, specs)
        note("scale.plan_seconds", snakemake(folder, "-n"), "s")
        if mirror:
            costs = mirrored(folder / "results", mirror)
            note("scale.mirror_first_tenth", costs[0], "s a run")
            note("scale.mirror_last_tenth", costs[-2], "s a run")
            note("scale.mirror_nothing_new", costs[-1], "s a run")


def main() -> None:
    """Measure, print, and write a record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--mirrored", type=int, default=600)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.json:
        check_record(given.json, "when", "hardware", "figures")
    figures: list[dict[str, Any]] = []
    for n in sorted(given.runs):

        def note(name: str, value: float, unit: str, n: int = n) -> None:
            figures.append({"name": name, "value": value, "unit": unit, "runs": n})
            limit = f"   (must be at most {LIMITS[name]:g})" if name in LIMITS else ""
            print(f"{name:34} {value:9.3f} {unit}{limit}", flush=True)

        measure(n, given.mirrored if n == max(given.runs) else 0, note)
    if given.json:
        record = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": processor_name(),
            "figures": figures,
        }
        write_json(given.json, record)


if __name__ == "__main__":
    main()
