"""`ssvi evaluate` and `ssvi samples`: what comes out of a trained run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import to_path, to_whole
from ssvi.cli.folders import runs_around, warn_of_plugins
from ssvi.cli.machine import add_data_options, check_number, device_of
from ssvi.errors import UserError, say
from ssvi.runs.evaluated import MOST_SAMPLES, POINT_SHARE
from ssvi.runs.files import UNCERTAINTY, UNCERTAINTY_PREDICTIONS
from ssvi.runs.images import PARTS
from ssvi.runs.options import DATASETS
from ssvi.runs.paths import run_path
from ssvi.runs.runfolder import read_spec
from ssvi.runs.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from ssvi.data import Data


BINS = 15
# Of the figures of a suite, the first to look at: what they are called, and where they stand in uncertainty.csv.
SHOWN_OF_SUITE = (
    ("accuracy under corruption, severity 5:", "shift", "mean", "", 5, "accuracy"),
    ("mean corruption error:", "shift", "mean", "", None, "corruption_error"),
    ("ECE after temperature scaling:", "calibration", "scaled", "", None, "ece"),
    ("AURC:", "selective", "test", "max_probability", None, "aurc"),
)


def add_evaluate(commands: Any) -> None:
    """Metrics of a run."""
    evaluate = commands.add_parser("evaluate", help="metrics of a trained run on its test set, or on other images")
    _add_evaluation_options(evaluate, samples=5)
    evaluate.add_argument(
        "--on",
        metavar="DATA",
        help=f"evaluate on this data set instead ({', '.join(DATASETS)}, folder:PATH), by the names of its classes; "
        "the results lie beside the run's own, and the run may be a file of `ssvi export`, of which they are only said "
        "(--samples by default: as many as the run was evaluated with)",
    )
    evaluate.add_argument("--part", choices=PARTS, help="of --on (default: test, where it has parts)")
    evaluate.add_argument(
        "--suite",
        choices=("uncertainty",),
        help="instead, of a run that was evaluated: corrupted images, images from outside, selective prediction, "
        "conformal sets and calibration, by the weight samples of its evaluation (docs/metrics.md)",
    )
    evaluate.add_argument(
        "--outside",
        metavar="folder:PATH",
        action="append",
        default=[],
        help="of --suite: images that are of none of the network's classes; may be given several times",
    )
    evaluate.add_argument("--licence", help="what others may do with the network, as its card is to say")
    evaluate.set_defaults(run=_evaluate)


def add_samples(commands: Any) -> None:
    """Metrics by the number of weight samples."""
    samples = commands.add_parser("samples", help="metrics of a trained run by the number of weight samples")
    _add_evaluation_options(samples, samples=MOST_SAMPLES)
    samples.set_defaults(run=_samples)


def _add_evaluation_options(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument("folder", type=to_path, help="run folder")
    parser.add_argument("--samples", type=to_whole, help=f"weight samples (default: {samples})")
    parser.set_defaults(usual_samples=samples)
    parser.add_argument("--bins", type=to_whole, help=f"bins of the calibration errors (default: {BINS})")
    add_data_options(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=to_whole, help="CPU threads")


def _evaluate(given: argparse.Namespace) -> None:
    if given.suite is None and given.outside:
        raise UserError(f"--outside is {given.outside[0]}, but has no effect without --suite.")
    if given.suite is not None:
        _evaluate_suite(given)
        return
    if given.on is not None:
        _evaluate_on(given)
        return
    if given.part is not None:
        raise UserError(f"--part is {given.part}, but has no effect without --on.")
    if os.path.isfile(given.folder):
        raise UserError(f"{given.folder}: is a file, which has no test images of its own; name some: --on DATA.")
    spec, data, device = _trained(given)
    from ssvi.training.evaluate import evaluate

    metrics = evaluate(spec, data, given.folder, device, given.samples, given.bins, given.licence)
    _note_other_files(given.folder, spec, data)
    if metrics["status"] == "diverged":
        say(f"{given.folder}: diverged in epoch {metrics['diverged_epoch']}: {metrics['cause']}", sys.stdout)
        return
    shown = ("accuracy", "nll", "ece", "ece_marginal", "brier", "sparsity")
    if metrics["accuracy_best_checkpoint"] is not None:
        best = "  ".join(f"{name} {metrics[f'{name}_best_checkpoint']:.4f}" for name in shown[:-1])
        print(f"of epoch {metrics['best_epoch']}, the best on test data: {best}")
    if metrics["point_posterior"]:
        share = metrics["mutual_information_share"]
        print(
            f"the posterior is practically a point: mutual information is {share:.2g} of the predictive entropy, under "
            f"{POINT_SHARE:g}; its samples say the same, and its uncertainty is that of one network"
        )
    # the last line, by which a report knows that this went well
    print("  ".join([*(f"{name} {metrics[name]:.4f}" for name in shown), _uncertainty(metrics)]))


def _evaluate_suite(given: argparse.Namespace) -> None:
    """Show a run that was evaluated what its uncertainty has to stand."""
    for name in ("on", "part", "samples", "bins", "licence"):
        if (value := getattr(given, name)) is not None:
            raise UserError(f"--{name} is {value}, but has no effect with --suite, which takes that of the evaluation.")
    if os.path.isfile(given.folder):
        raise UserError(f"{given.folder}: is a file; --suite takes the folder of a run, with what was evaluated of it.")
    spec, data, device = _trained(given)
    from ssvi.uncertainty.suite import evaluate_suite

    root, links = given.data_root, given.follow_links
    suite = evaluate_suite(spec, data, given.folder, device, root=root, folders=given.outside, follow_links=links)
    for name, near, images, source in suite.sets:
        print(f"{name}: {images} images, {'near' if near else 'far'}: {source}")
    figures = {
        (one["part"], one["name"], one["score"], one["level"], one["metric"]): one["value"] for one in suite.rows
    }
    for name, *place in SHOWN_OF_SUITE:
        if tuple(place) in figures:
            print(f"{name} {figures[tuple(place)]:.4f}")
    size = f"{suite.file_bytes / 1e6:.2f} MB of predictions in {UNCERTAINTY_PREDICTIONS}"
    print(f"{given.folder}: {len(suite.rows)} figures in {UNCERTAINTY}, {size}, {suite.seconds:.1f} s")


def _evaluate_on(given: argparse.Namespace) -> None:
    """Evaluate a run, or an exported network, on other images than its own."""
    if given.licence is not None:
        raise UserError(f"--licence is {given.licence!r}, but has no effect with --on.")
    _check_numbers(given)
    if given.folder.is_dir():
        warn_of_plugins(given.folder, read_spec(given.folder))
    device = device_of(given.device, given.threads)
    from ssvi.serving import elsewhere
    from ssvi.serving.predictor import load

    predictor = load(given.folder, device)
    others = elsewhere.gather(given.on, given.part, predictor.card.inputs, given.data_root, given.follow_links)
    record = elsewhere.evaluate_on(predictor, others, given.samples, given.bins or BINS)
    for line in elsewhere.remarks(record):
        say(f"note: {given.on}: {line}")
    part = "" if others.part is None else f" ({others.part})"
    where = f", in {elsewhere.write_on(given.folder, record)}" if given.folder.is_dir() else ""
    say(f"{given.folder}: on {len(others.labels)} images of {given.on}{part}{where}", sys.stdout)
    if record["temperature"] is not None:
        names = ("nll", "ece", "ece_marginal", "brier")
        values = "  ".join(f"{name} {record[f'{name}_scaled']:.4f}" for name in names)
        print(f"at the temperature {record['temperature']:.4g} of the run's validation images: {values}")
    shown = ("accuracy", "nll", "ece", "ece_marginal", "brier")
    print("  ".join([*(f"{name} {record[name]:.4f}" for name in shown), _uncertainty(record)]))


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


def _check_numbers(given: argparse.Namespace) -> None:
    for name in ("samples", "bins"):
        if getattr(given, name) is not None:
            check_number(name, getattr(given, name))


def _trained(given: argparse.Namespace) -> tuple[RunSpec, Data, torch.device]:
    """What a command on a run folder starts from."""
    from ssvi.runs.ties import check_parents

    given.samples = given.usual_samples if given.samples is None else given.samples
    given.bins = BINS if given.bins is None else given.bins
    _check_numbers(given)
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

    if line := other_files(folder, spec, data.identity):
        say(f"note: {line}")
