"""`ssvi evaluate` and `ssvi samples`: what comes out of a trained run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import to_path, to_whole
from ssvi.cli.folders import runs_around, warn_of_plugins
from ssvi.cli.machine import add_data_options, check_number, device_of
from ssvi.errors import say
from ssvi.runs.evaluated import MOST_SAMPLES
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from ssvi.data import Data


def add_evaluate(commands: Any) -> None:
    """Metrics of a run."""
    evaluate = commands.add_parser("evaluate", help="metrics of a trained run on its test set")
    _add_evaluation_options(evaluate, samples=5)
    evaluate.set_defaults(run=_evaluate)


def add_samples(commands: Any) -> None:
    """Metrics by the number of weight samples."""
    samples = commands.add_parser("samples", help="metrics of a trained run by the number of weight samples")
    _add_evaluation_options(samples, samples=MOST_SAMPLES)
    samples.set_defaults(run=_samples)


def _add_evaluation_options(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument("folder", type=to_path, help="run folder")
    parser.add_argument("--samples", type=to_whole, default=samples, help=f"weight samples (default: {samples})")
    parser.add_argument("--bins", type=to_whole, default=15, help="bins of the calibration errors (default: 15)")
    add_data_options(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=to_whole, help="CPU threads")


def _evaluate(given: argparse.Namespace) -> None:
    spec, data, device = _trained(given)
    from ssvi.training.evaluate import evaluate

    metrics = evaluate(spec, data, given.folder, device, given.samples, given.bins)
    _note_other_files(given.folder, spec, data)
    if metrics["status"] == "diverged":
        say(f"{given.folder}: diverged in epoch {metrics['diverged_epoch']}: {metrics['cause']}", sys.stdout)
        return
    shown = ("accuracy", "nll", "ece", "ece_marginal", "brier", "sparsity")
    if metrics["accuracy_best_checkpoint"] is not None:
        best = "  ".join(f"{name} {metrics[f'{name}_best_checkpoint']:.4f}" for name in shown[:-1])
        print(f"of epoch {metrics['best_epoch']}, the best on test data: {best}")
    # the last line, by which a report knows that this went well
    print("  ".join([*(f"{name} {metrics[name]:.4f}" for name in shown), _uncertainty(metrics)]))


def _uncertainty(metrics: dict[str, Any]) -> str:
    """How uncertain the predictions are, and what of it the posterior makes."""
    line = f"predictive entropy {metrics['predictive_entropy']:.4f} nats"
    information, share = metrics["mutual_information"], metrics["mutual_information_share"]
    if information is None:
        return f"{line}, of one sample: no mutual information"
    of = "" if share is None else f", {share:.2%} of it"
    return f"{line}, mutual information {information:.2g} nats{of} ({metrics['evaluation']['samples']} samples)"


def _samples(given: argparse.Namespace) -> None:
    spec, data, device = _trained(given)
    from ssvi.training.evaluate import sample_curve

    rows = sample_curve(spec, data, given.folder, device, given.samples, given.bins)
    _note_other_files(given.folder, spec, data)
    for row in rows:
        numbers = {name: value for name, value in row.items() if name != "samples" and value is not None}
        print("  ".join([f"{row['samples']:3d}", *(f"{name} {value:.4f}" for name, value in numbers.items())]))


def _trained(given: argparse.Namespace) -> tuple[RunSpec, Data, torch.device]:
    """What a command on a run folder starts from."""
    from ssvi.runs.runfolder import read_spec
    from ssvi.runs.ties import check_parents

    for name in ("samples", "bins"):
        check_number(name, getattr(given, name))
    spec = read_spec(given.folder)
    warn_of_plugins(given.folder, spec)
    if (root := runs_around(given.folder, run_path(spec))) is not None:
        check_parents(given.folder, root, spec)
    device = device_of(given.device, given.threads)
    from ssvi.data import load

    return spec, load(spec, given.data_root, device, given.follow_links), device


def _note_other_files(folder: Path, spec: RunSpec, data: Data) -> None:
    """Of a run that was just found to be of these pixels."""
    from ssvi.runs.changed import other_files

    if line := other_files(folder, spec.dataset, data.content):
        say(f"note: {line}")
