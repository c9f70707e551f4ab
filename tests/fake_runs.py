"""Finished run folders as the trainer and the evaluation leave them, made up in milliseconds."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ssvi.errors import UserError
from ssvi.machine.disk import write_bytes, write_json, write_text
from ssvi.registry import CRITERIA, KINDS, SPARSE, VARIATIONAL, using
from ssvi.runs import files
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_record, to_csv, to_jsonl, write_csv
from ssvi.runs.runfolder import FORMAT, spec_record
from ssvi.runs.spec import RunSpec
from ssvi.runs.ties import SEAL, TIED_SINCE, measured_on, sealed, write_tied
from ssvi.runs.versions import SUITE

QUANTILES = ("q05", "q25", "q50", "q75", "q95")
WEIGHTS = 11_000_000
DENSE_REST = 20_000
STEP = 0.028  # seconds
# How they were evaluated; a config beside them says the same.
EVALUATION = {"samples": 5, "bins": 15}


def write_run(
    results: Path,
    spec: RunSpec,
    *,
    epochs: int = 5,
    diverged: str | None = None,
    layers: int = 3,
    updates: int = 4,
    format: int = FORMAT,
    **metrics: Any,
) -> str:
    """Write one finished run folder and return its run path; `metrics` replace the made-up ones."""
    run = run_path(spec)
    folder = results / "runs" / run
    provenance = {
        "commit": "0123abc",
        "dirty": False,
        "ssvi": "0.1.0",
        "torch": "2.8.0",
        "python": "3.11.2",
        "device": "cpu",
        "cpu": "A Processor",
        "data": "f" * 64,
        "training_data": "e" * 64,
        "host_cpus": 2,
        "threads": 2,
        "started": "2025-01-02T03:04:05+00:00",
    }
    write_json(folder / files.SPEC, spec_record(spec, provenance) | {"format": format})
    write_csv(folder / files.HISTORY, _history(spec, epochs), files.HISTORY_COLUMNS)
    tested_on = {"data": "f" * 64, "test_data": "d" * 64}
    all_metrics = _metrics(spec, epochs, diverged) | tested_on | metrics
    training = {key: all_metrics[key] for key in ("status", "cause", "diverged_epoch", "epochs_done", "steps")}
    records = _updates(spec, layers, updates, all_metrics["steps"])
    write_text(folder / files.TOPOLOGY, to_jsonl(map(_unnamed, records) if format == 1 else records))
    write_bytes(folder / files.MODEL, model_file(spec))
    write_bytes(folder / files.PREDICTIONS, _predictions(f"{spec} {all_metrics}"))
    started = {"parents": {run_path(parent): _fingerprint(parent) for parent in parents_of(spec)}}
    seconds = {"training_seconds": all_metrics["training_seconds"]}
    write_json(folder / files.TRAINING, training | seconds | started)
    write_json(folder / files.METRICS, all_metrics)
    write_text(folder / files.SAMPLES, to_csv(_samples(spec, all_metrics), files.SAMPLES_COLUMNS))
    write_uncertainty(results, spec)
    if format >= TIED_SINCE:
        tie(folder)
    return run


def tie(folder: Path) -> None:
    """Let the records and what is sealed belong to what lies beside them now, as far as it can be read."""
    for name in (files.TRAINING, files.METRICS):
        try:
            record = read_record(folder / name)
            before = record.pop("files", None) or {}
            record = write_tied(folder, name, record)
            record["files"] = before | record["files"]  # of what was taken away
        except (UserError, ValueError):
            continue
        (folder / name).write_text(json.dumps(record))
    for name in files.SEALED:
        try:
            head, *rows = (folder / name).read_text().splitlines()
            network = measured_on(folder, name)
        except (OSError, ValueError, UserError):
            continue
        if head.endswith(f",{SEAL}"):
            head, *rows = (line.rpartition(",")[0] for line in (head, *rows))
        (folder / name).write_text(sealed(network, "".join(f"{line}\n" for line in (head, *rows))))


OOD_SETS = {"held out": 1, "kmnist": 0}
SCORES = ("max_probability", "entropy", "mutual_information", "expected_entropy", "energy")
CORRUPTIONS = ("gaussian_noise", "fog")


def write_uncertainty(results: Path, spec: RunSpec, **changed: float | None) -> Path:
    """Write uncertainty.csv of a run that is there, as `uncertainty_rows`, and seal it; returns the file."""
    folder = results / "runs" / run_path(spec)
    metrics = read_record(folder / files.METRICS)
    samples = spec.members if spec.method == "ensemble" else 5 if KINDS[spec.method].posterior else 1
    about = {"samples": samples, "bins": EVALUATION["bins"], files.TESTED_ON: metrics.get("test_data")}
    about |= {"version": SUITE}
    rows = [row | about for row in uncertainty_rows(spec, **changed)] if metrics["status"] == "complete" else []
    write_csv(folder / files.UNCERTAINTY, rows, files.UNCERTAINTY_COLUMNS)
    if "files" in metrics:
        tie(folder)
    return folder / files.UNCERTAINTY


def uncertainty_rows(spec: RunSpec, **changed: float | None) -> list[dict[str, Any]]:
    """Figures of every part of the suite; of those that `changed` names (`PART_METRIC`) its value, or None for none.

    Each severity of a corruption costs one point of accuracy, from 90 %.
    """
    several = KINDS[spec.method].posterior or spec.method == "ensemble"
    rows = []

    def add(part: str, name: str, figures: dict[str, float], level: float | None = None, score: str | None = None):
        at = {"part": part, "name": name, "score": score, "level": level}
        figures = {metric: changed.get(f"{part}_{metric}", value) for metric, value in figures.items()}
        rows.extend({**at, "metric": metric, "value": value} for metric, value in figures.items() if value is not None)

    posterior = {"predictive_entropy": 0.3, "expected_entropy": 0.25, "disagreement": 0.04, "logit_sd": 0.5}
    if several:
        posterior |= {"mutual_information": 0.05, "mutual_information_share": 0.05 / 0.3}
    add("posterior", "test", posterior)
    for name, worse in (("raw", 2.0), ("scaled", 1.0)):
        errors = dict.fromkeys(("ece", "ece_mass", "ece_classwise", "ece_marginal"), 0.02 * worse)
        figures = {"accuracy": 0.9, "nll": 0.3 * worse, "brier": 0.15 * worse, **errors, "images": 1000}
        add("calibration", name, figures | ({"temperature": 1.5} if name == "scaled" else {}))
        for bin in range(3):
            add("reliability", name, {"images": 10, "confidence": bin / 3, "accuracy": bin / 4}, bin)
    add("selective", "test", {"aurc": 0.02, "eaurc": 0.01, "augrc": 0.015}, score="max_probability")
    for level in (0.8, 0.9, 0.95):
        add("selective", "test", {"accuracy_at_coverage": 1 - 0.1 * level}, level, "max_probability")
    add("selective", "test", {"coverage_at_risk": 0.7}, 0.05, "max_probability")
    for percent in range(25, 101, 25):
        add("risk", "test", {"risk": 0.001 * percent}, percent / 100, "max_probability")
    for name, size in (("lac", 1.2), ("aps", 1.6)):
        for level in (0.9, 0.95):
            add("conformal", name, {"coverage": level, "size": size, "images": 1000}, level)
    for severity in range(6):
        sets = {f"{name}_{kind}": value for name in ("lac", "aps")
                for kind, value in (("coverage", 0.9 - 0.05 * severity), ("size", 1.5))}  # fmt: skip
        figures = {"accuracy": 0.9 - 0.01 * severity, "nll": 0.6, "ece": 0.04 + 0.01 * severity, "brier": 0.3, **sets}
        figures |= {"nll_scaled": 0.5, "ece_scaled": 0.03 + 0.01 * severity, "brier_scaled": 0.29}
        for name in (*(CORRUPTIONS if severity else ("clean",)), "mean"):
            add("shift", name, figures, severity)
    add("shift", "mean", {"corruption_error": 0.13, "images": 1000})
    for name, near in OOD_SETS.items():
        add("ood", name, {"near": near, "images": 500})
        for number, score in enumerate((*SCORES, "entropy_scaled")):
            if several or score != "mutual_information":
                auroc = 0.95 - 0.1 * near - 0.01 * number
                add("ood", name, {"auroc": auroc, "aupr_in": 0.9, "aupr_out": 0.8, "fpr95": 0.2}, score=score)
    for name in ("test", *OOD_SETS):
        for bin in range(20):
            add("histogram", name, {"images": bin}, bin, "entropy")
    return rows


def model_file(spec: RunSpec) -> bytes:
    """A file of no tensors with the fingerprint of this spec's network."""
    head = json.dumps({"__metadata__": {"fingerprint": _fingerprint(spec)}}).encode()
    return struct.pack("<Q", len(head)) + head


def _predictions(words: str) -> bytes:
    """A file of predictions of eight images, other ones for other words."""
    drawn = np.random.default_rng(list(words.encode())).random((8, 3))
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=drawn / drawn.sum(1, keepdims=True), labels=np.arange(8) % 3)
    return buffer.getvalue()


def _fingerprint(spec: RunSpec) -> str:
    return hashlib.sha256(f"network {spec}".encode()).hexdigest()


def write_runs(results: Path, specs: Iterable[RunSpec], **kwargs: Any) -> dict[str, RunSpec]:
    """Write many; the mapping from run path to spec that the analysis works from."""
    return {write_run(results, spec, **kwargs): spec for spec in specs}


def with_seeds(spec: RunSpec, seeds: int = 3) -> list[RunSpec]:
    """The same spec under the first seeds."""
    return [dataclasses.replace(spec, seed=seed) for seed in range(seeds)]


def _density(spec: RunSpec) -> float:
    return spec.density if spec.method in SPARSE else 1.0


def _accuracy(spec: RunSpec) -> float:
    noise = random.Random(f"{spec}").gauss(0, 0.0025)
    top = {"dense": 0.952, "vi": 0.946, "ssvi": 0.944, "rigl": 0.941}.get(spec.method, 0.93)
    steep = {"ssvi": 0.006, "rigl": 0.011}.get(spec.method, 0.0) * (1.6 if spec.lr < 0.05 else 1.0)
    return top - steep * math.log(1 / _density(spec)) ** 1.3 + noise


def _updates(spec: RunSpec, layers: int, updates: int, steps: int) -> list[dict[str, Any]]:
    """Records of the subspace updates, over the first three quarters of the training."""
    if spec.method not in using("delta_t"):
        return []
    variational = spec.method in VARIATIONAL
    records = []
    for i in range(updates):
        progress = 0.75 * (i + 1) / updates
        agree = 0.6 + 0.3 * progress
        places = range(len(CRITERIA))
        matrix = [[1.0 if a == b else agree / (1 + abs(a - b)) for b in places] for a in places]
        active = int(_density(spec) * 1000)
        rows: list[dict[str, Any]] = []
        for n in range(layers):
            row = {"layer": f"blocks.{n}.conv1", "size": 1000, "active": active, "removed": 30, "added": 30, "born": 20}
            row["survivors"] = int(active * (1 - 0.8 * progress))
            if variational:
                row["sigma"] = {
                    q: spec.sigma_init * v for q, v in zip(QUANTILES, (0.2, 0.6, 1.0, 1.5, 2.1), strict=True)
                }
                row["snr"] = {q: v * (1 + progress) for q, v in zip(QUANTILES, (1, 5, 20, 50, 150), strict=True)}
                row["sigma_drift_gradient"] = -1e-6 * progress
                row["sigma_drift_topology"] = -1e-4 * progress
            rows.append(row)
        record = {"step": int(progress * steps), "epoch": 1, "update": i + 1, "drop_fraction": 0.3 * (1 - progress)}
        matrices = {"criteria": list(CRITERIA), "iou": matrix, "spearman": matrix} if variational else {}
        records.append({**record, **matrices, "layers": rows})
    return records


def _unnamed(record: dict[str, Any]) -> dict[str, Any]:
    """A record of an update as format 1 has it: of six criteria, without names."""
    matrices = {key: [row[:6] for row in record[key][:6]] for key in ("iou", "spearman") if key in record}
    layers = [{k: list(v.values()) if isinstance(v, dict) else v for k, v in row.items()} for row in record["layers"]]
    return {k: v for k, v in record.items() if k != "criteria"} | matrices | {"layers": layers}


def _samples(spec: RunSpec, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    if metrics["accuracy"] is None:
        return []
    counts = (1, 2, 5, 10, 50) if spec.method in VARIATIONAL else (1,)
    return [
        {"samples": n, **{k: metrics[k] for k in files.MEASURED}, "nll": metrics["nll"] + 0.01 / n, "seconds": 0.1 * n}
        for n in counts
    ]


def _history(spec: RunSpec, epochs: int) -> list[dict[str, Any]]:
    variational = spec.method in VARIATIONAL
    noise = random.Random(f"history {spec}")
    rows = []
    for epoch in range(1, epochs + 1):
        progress = epoch / epochs
        rows.append(
            {
                "epoch": epoch,
                "step": 351 * epoch,
                "loss": (2.3 - 0.2 * _density(spec)) * math.exp(-4 * progress) + 0.02 * (1 + noise.random()),
                "kl": 4e6 * _density(spec) * (1 - 0.3 * progress) * (1 + 0.02 * noise.random())
                if variational
                else None,
                "beta": min(2 * progress, 1.0) if variational else None,
                "train_accuracy": 1 - 0.8 * math.exp(-5 * progress) - 0.01 * noise.random(),
                "validation_accuracy": _accuracy(spec) - 0.8 * math.exp(-5 * progress) - 0.01 * noise.random()
                if spec.validation
                else None,
                "lr": spec.lr * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2,
                "active_weights": int(_density(spec) * WEIGHTS),
                "sigma_mean": spec.sigma_init if variational else None,
                "test_accuracy": None,
                "seconds": 10.0,
                "step_seconds": STEP,
            }
        )
    return rows


def _metrics(spec: RunSpec, epochs: int, diverged: str | None) -> dict[str, Any]:
    density = _density(spec)
    numbers = 2 if spec.method in VARIATIONAL else 1
    active = int(density * WEIGHTS)
    accuracy = None if diverged else _accuracy(spec)
    dense_flops = 3.3e9 * 45_000 * epochs
    return {
        "status": "diverged" if diverged else "complete",
        "cause": diverged,
        "diverged_epoch": 2 if diverged else None,
        "evaluation": EVALUATION,
        "accuracy": accuracy,
        "nll": accuracy and 4 * (1 - accuracy),
        "ece": accuracy and 0.2 * (1 - accuracy),
        "ece_mass": accuracy and 0.19 * (1 - accuracy),
        "ece_classwise": accuracy and 0.06 * (1 - accuracy),
        "ece_marginal": accuracy and 0.05 * (1 - accuracy),
        "brier": accuracy and 1.5 * (1 - accuracy),
        "aurc": accuracy and 0.3 * (1 - accuracy),
        "logit_sd": accuracy and 0.1,
        "accuracy_best_test": None,
        "test_images": 10_000,
        "density": active / WEIGHTS,
        "sparsity": 1 - active / WEIGHTS,
        "active_weights": active,
        "maskable_weights": WEIGHTS,
        "complexity": active + DENSE_REST,
        "stored_numbers": numbers * active + DENSE_REST,
        "stored_bytes": 4 * (numbers * active + DENSE_REST),
        "file_bytes": 4 * (numbers * active + DENSE_REST) + active + 20_000,
        "training_flops": dense_flops * density,
        "training_flops_dense": dense_flops,
        "inference_flops": 5.5e9 * density,
        "training_seconds": 10.0 * epochs,
        "step_seconds": STEP,
        "evaluation_seconds": 3.0,
        "peak_memory_bytes": 1_500_000_000,
        "images_per_second": 4500.0,
        "epochs_done": epochs,
        "steps": 351 * epochs,
    }
