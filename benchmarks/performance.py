"""What README.md and benchmarks/ show of the records that `ssvi bench` and the benchmarks wrote.

The records in benchmarks/records/ are JSON; a figure is rendered only if it was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssvi.analysis.figures.style import COLOURS, MARKERS, NAMES, WIDE, rc
from ssvi.errors import UserError

Record = dict[str, Any]

WHAT = {
    "cpu.lrt_over_plain": "SSVI step ÷ plain network's step",
    "cpu.sampling_over_plain": "the same with one weight sample a batch",
    "cpu.natural_over_plain": "the same, learned by the natural gradient",
    "cpu.library_over_trainer": "SSVI step in a loop of one's own ÷ the trainer's",
    "cpu.lrt_over_flipout": "SSVI step ÷ `bayesian-torch`'s Flipout step",
    "cpu.sampling_over_torchbnn": "one weight sample: ours ÷ `torchbnn`",
    "cpu.sampling_over_bayesian_torch": "one weight sample: ours ÷ `bayesian-torch`",
    "cpu.best_over_fp32": "SSVI step in bf16 ÷ in fp32",
    "memory.lrt_over_plain": "peak memory, SSVI ÷ plain network",
    "topology.share": "share of the time that subspace updates take (ΔT = 100)",
    "checkpoint.share": "share of the time that checkpoints take",
    "startup.seconds": "`ssvi train` to the end of its first step",
    "gpu.seconds_per_epoch": "SSVI, an epoch of 50,000 images",
    "gpu.lrt_over_plain": "SSVI step ÷ plain network's step, on the GPU",
    "gpu.packed_speedup": "images a second of several runs on a GPU ÷ of one",
    "gpu.syncs_per_step": "times a step waits for the GPU",
}
AXES = {
    "width": "width (× ResNet-18)",
    "depth": "blocks a stage",
    "batch": "images a step",
    "samples": "weight samples a prediction",
}


def read_records(folder: Path) -> dict[str, Record]:
    """The records of a folder by file name without ending."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def speed_table(records: dict[str, Record]) -> str:
    """The figures of `ssvi bench` that have a name in `WHAT`, as Markdown."""
    figures = records["speed"]["figures"]
    first = figures[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    notes = sorted({f["note"] for f in figures if f["name"] in WHAT and f["note"]})
    machine = f"{first['hardware']}, {first['threads']} threads; {versions}. {'; '.join(notes)}."
    return "\n".join([*_named(figures), "", machine])


def _named(figures: list[Record]) -> list[str]:
    """The lines of a table of the figures that have a name in `WHAT`."""
    measured = {f["name"]: f for f in figures}
    lines = ["| figure | median | range | |", "| :--- | ---: | :--- | :--- |"]
    for name, what in WHAT.items():
        if (figure := measured.get(name)) is None:
            continue
        unit = f" {figure['unit']}" if figure["unit"] else ""
        span = f"{figure['minimum']:.2g} to {figure['maximum']:.2g}" if figure["repeats"] > 1 else ""
        lines.append(f"| {what} | {figure['value']:.3g}{unit} | {span} | `{name}` |")
    return lines


def accuracy_line(records: dict[str, Record]) -> str:
    """Fast against plain on digits, as a sentence."""
    found = {f["name"]: f for f in records["accuracy"]["figures"]}
    fast, plain = (found[f"accuracy.digits.{which}"] for which in ("fast", "plain"))
    spans = [f"{100 * f['value']:.2f} % ({100 * f['minimum']:.2f} to {100 * f['maximum']:.2f})" for f in (fast, plain)]
    return (
        f"Validation accuracy on digits, median and range of {fast['repeats']} seeds: {spans[0]} with every switch on, "
        f"{spans[1]} with every switch off."
    )


def overhead_line(records: dict[str, Record]) -> str:
    """What a run of the workflow costs beyond its training, as a sentence."""
    (found,) = (f["value"] for f in records["overhead"]["figures"] if f["name"] == "overhead.per_run")
    return f"A run of the workflow takes {found:.1f} s of processor time beyond its training steps."


def gpu_part(record: Record) -> str:
    """What a trial on a GPU (`make gpu`) has found: what did not pass, figures, every way of a step, trainings.

    Raises:
        UserError: if no GPU wrote the record.
    """
    if record["device"] != "cuda" or record["tiny"] or not record["whole"]:
        raise UserError("benchmarks/records/gpu.json: is not a whole trial on a GPU; delete it.")
    jobs = record["jobs"]
    bad = {job["name"]: job for job in jobs if job["outcome"] not in ("passed", "skipped")}
    changed = ", with changes" if record["dirty"] else ""
    commit = (record["commit"] or "unknown")[:7]
    lines = [
        f"On a GPU ({record['hardware']}; torch {record['torch']}; {record['when'][:10]}, commit {commit}{changed}), "
        f"{len(jobs) - len(bad)} of the {len(jobs)} jobs of `make gpu` passed.",
    ]
    late = ("timed out", "not started")
    for outcome in late:
        if names := [f"`{name}`" for name, job in bad.items() if job["outcome"] == outcome]:
            lines.append(f"- {outcome}, for the time was over: {', '.join(names)}")
    lines += [f"- `{n}`: {job['outcome']}: {job['reason']}" for n, job in bad.items() if job["outcome"] not in late]
    figures = {f["name"]: f for f in record["figures"]}
    if set(figures) & set(WHAT):
        lines += ["", *_named(record["figures"])]
    # what a figure was measured without
    without = {f["name"]: f["note"].partition("; ")[2] for f in record["figures"] if "; " in f["note"]}
    if without:
        lines += ["", *(f"- `{name}`: {said}" for name, said in without.items())]
    return "\n".join([*lines, *_ways(figures), *_trainings(jobs)])


def _ways(figures: dict[str, Record]) -> list[str]:
    """Milliseconds of a step, a row for each contestant."""
    names = [name.split(".")[2:] for name in figures if name.startswith("gpu.ms.") and name.count(".") == 3]
    if not names:
        return []
    contestants, ways = (list(dict.fromkeys(column)) for column in zip(*names, strict=True))
    lines = ["", f"| milliseconds a step | {' | '.join(ways)} |", f"| :--- |{' ---: |' * len(ways)}"]
    for contestant in contestants:
        found = [figures.get(f"gpu.ms.{contestant}.{way}") for way in ways]
        cells = ["" if figure is None else f"{figure['value']:.3g}" for figure in found]
        lines.append(f"| {contestant} | {' | '.join(cells)} |")
    return lines


def _trainings(jobs: list[Record]) -> list[str]:
    """Trainings side by side: epochs, seconds of one, accuracy."""
    rows = []
    for job in jobs:
        said = {key: value for line in job["found"] for key, value in line.items()}
        if not job["name"].startswith("training.") or "history" not in said:
            continue
        seconds = sorted(line["history"]["seconds"] for line in job["found"] if "history" in line)
        validation, test = said["history"]["validation_accuracy"], said.get("metrics", {}).get("accuracy")
        shown = ["" if value is None else f"{100 * value:.2f} %" for value in (validation, test)]
        name = job["name"].removeprefix("training.")
        rows.append(f"| {name} | {len(seconds)} | {seconds[len(seconds) // 2]:.3g} | {' | '.join(shown)} |")
    images = (line["data"] for job in jobs if job["name"] == "images" for line in job["found"] if "data" in line)
    data = next(images, None)
    on = f" on {data['train_images']:,} images of {len(data['classes'])} classes" if data else ""
    head = f"| side by side{on} | epochs | s an epoch | validation | test |"
    return ["", head, "| :--- | ---: | ---: | ---: | ---: |", *rows] if rows else []


def section(records: dict[str, Record]) -> str:
    """The performance section of the main README."""
    parts = [speed_table(records), accuracy_line(records), overhead_line(records)]
    if "gpu" in records:
        parts.append(gpu_part(records["gpu"]))
    elif not any(f["name"].startswith("gpu.") for f in records["speed"]["figures"]):
        parts.append("No GPU has been measured: the CUDA path is tested as far as a CPU can.")
    return "\n\n".join(parts)


def draw(records: dict[str, Record]) -> Figure:
    """Step time and memory against width, depth and batch, prediction against samples, workflow against runs."""
    with matplotlib.rc_context(rc()):
        figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
        axes = figure.subplots(2, 5)
        for column, (axis, label) in enumerate(AXES.items()):
            for row, (what, unit) in enumerate((("seconds", "s"), ("bytes", "GB"))):
                _lines(axes[row][column], records["scaling"], axis, what, 1e9 if what == "bytes" else 1.0)
                axes[row][column].set_xlabel(label)
                axes[row][column].set_ylabel(f"{'time' if what == 'seconds' else 'memory'} ({unit})")
        _workflow(axes[0][4], records["scale"], "scale.collect_seconds", "collect (s)")
        _workflow(axes[1][4], records["scale"], "scale.plan_seconds", "plan, nothing to do (s)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _lines(axes: Axes, record: Record, axis: str, what: str, unit: float) -> None:
    for method in ("dense", "ssvi"):
        points = [f for f in record["figures"] if f["name"] == f"scaling.{axis}.{method}.{what}"]
        if points:
            x, y = [float(f["note"]) for f in points], [f["value"] / unit for f in points]
            axes.plot(x, y, marker=MARKERS[method], color=COLOURS[method], label=NAMES[method], markersize=3)
    axes.margins(0.08)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _workflow(axes: Axes, record: Record, name: str, label: str) -> None:
    points = [f for f in record["figures"] if f["name"] == name]
    axes.plot([f["runs"] for f in points], [f["value"] for f in points], marker="o", color="#555555", markersize=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("finished runs")
    axes.set_ylabel(label)


def write_plots(records: dict[str, Record], stem: Path) -> None:
    """Write the picture as PNG and SVG."""
    figure = draw(records)
    for ending in ("png", "svg"):
        with matplotlib.rc_context({**rc(), "svg.hashsalt": "ssvi"}):
            metadata = {"Date": None} if ending == "svg" else None
            figure.savefig(stem.with_suffix(f".{ending}"), dpi=200, metadata=metadata)
