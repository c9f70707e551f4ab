"""Made-up runs of settings with given results, and what the table of claims says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
from fake_runs import with_seeds, write_run, write_uncertainty

from ssvi.analysis import tables
from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.records import OVERLAP_COLUMNS
from ssvi.runs.spec import RunSpec

DIGITS = {"dataset": "digits", "model": "resnet8", "epochs": 3}
NOISE = (-0.06, 0.0, 0.06)  # differences of a noisy setting scatter by 6 points

METRICS = ("nll", "ece_marginal", "complexity", "training_flops", "test_images", "sparsity", "parent_flops")
# Of uncertainty.csv, at every severity or of every set; seeds differ by 0.001.
SUITE = ("shift_accuracy", "shift_ece", "ood_auroc")

Setting = tuple[dict[str, Any], dict[str, Any]]


def vi(accuracy: float, noisy: bool = False, **rest: Any) -> Setting:
    return made("vi", accuracy, noisy, rest)


def ssvi(accuracy: float, noisy: bool = False, **rest: Any) -> Setting:
    return made("ssvi", accuracy, noisy, rest)


def rigl(accuracy: float, noisy: bool = False, **rest: Any) -> Setting:
    return made("rigl", accuracy, noisy, rest)


def vd(accuracy: float, noisy: bool = False, **rest: Any) -> Setting:
    return made("vd", accuracy, noisy, {"sparsity": 0.8, **rest})


def made(method: str, accuracy: float, noisy: bool, rest: dict[str, Any]) -> Setting:
    metrics = {name: rest.pop(name) for name in (*METRICS, *SUITE) if name in rest}
    values = [accuracy + (noise if noisy else 0) for noise in NOISE]
    return {"method": method, **DIGITS, **rest}, {"accuracy": values, **{k: [v] * 3 for k, v in metrics.items()}}


def study(results: Path, *settings: Setting, seeds: int = 3) -> Frames:
    written = {}
    for options, metrics in settings:
        for i, spec in enumerate(with_seeds(RunSpec(**options), seeds)):
            mine = {name: values[i] for name, values in metrics.items()}
            written[write_run(results, spec, **{k: v for k, v in mine.items() if k not in SUITE})] = spec
            if suite := {k: v and v + 0.001 * i for k, v in mine.items() if k in SUITE}:
                write_uncertainty(results, spec, **suite)
    uses = ["uncertainty"] if any(set(SUITE) & set(metrics) for _, metrics in settings) else []
    return load_frames(results, written, ("overlap",), uses)


def findings(frames: Frames, key: str) -> pd.DataFrame:
    numbers = tables.make_table("claims", frames).numbers
    return numbers[numbers["claim"] == key]


def agreement(frames: Frames, first: list[float], last: list[float]) -> Frames:
    """The overlap frame with these IoUs at the first and last record of each run."""
    records = []
    for run, *ious in zip(frames.runs["run"], first, last, strict=True):
        for step, iou in enumerate(ious):
            records.append([run, step, 1, step / 2, "abs_mu", "snr", iou, 0.5])
            records.append([run, step, 1, step / 2, "abs_mu", "e_abs", 0.0, 0.5])
    return dataclasses.replace(frames, overlap=pd.DataFrame(records, columns=list(OVERLAP_COLUMNS)))
