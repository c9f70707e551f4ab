"""The command `ssvi` and what follows it. Heavy modules load only where needed."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssvi import __version__, extras, plugins, preload, process
from ssvi.arguments import READ, Parser, add_config_options, config_sources, to_number, to_path, to_whole, to_words
from ssvi.devices import claim_gpu
from ssvi.errors import UserError, say, told, unknown
from ssvi.evaluated import MOST_SAMPLES
from ssvi.process import SWITCHES
from ssvi.registry import COMMON, using
from ssvi.spec import FIELDS, PRESETS, RunSpec, bounds, make_spec, parents, run_path

if TYPE_CHECKING:
    import torch

    from ssvi.data import Data


RUNS = Path("results/runs")
# The commands whose output is what they are for; the others write files, and only say what they do.
PRINTED = ("data", "bench", "doctor")
DATA_HELP = "where data sets are kept (default: $SSVI_DATA, or data)"
LINKS_HELP = "links in folder:PATH may lead out of it (default: where $SSVI_FOLLOW_LINKS is true)"


# More samples or bins than these say nothing more; more threads than that the system does not start.
MOST = {"samples": 1_000_000, "bins": 1_000_000, "threads": 4096}


def _data_root() -> str:
    return os.environ.get("SSVI_DATA") or "data"


def _add_data_options(parser: Any, *names: str) -> None:
    follow = os.environ.get("SSVI_FOLLOW_LINKS") == "true"
    parser.add_argument(*names, "--data-root", dest="data_root", type=to_path, default=_data_root(), help=DATA_HELP)
    parser.add_argument("--follow-links", action="store_true", default=follow, help=LINKS_HELP)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train (these make the run's identity)")
    group.add_argument(
        "--plugins",
        type=to_words,
        default=os.environ.get("SSVI_PLUGINS", ""),
        metavar="MODULE,...",
        help="Python modules that bring criteria, networks or methods (default: $SSVI_PLUGINS)",
    )
    group.add_argument("--preset", choices=PRESETS, help="what the published code does, in one word")
    for name, field in FIELDS.items():
        kind = type(field.default)
        choices = field.metadata["choices"]
        used_by = () if name in COMMON else using(name)
        limits = "true or false" if kind is bool else bounds(name)
        note = "".join(f" [{part}]" for part in (limits, used_by and ", ".join(used_by)) if part)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=READ[kind],
            default=argparse.SUPPRESS,
            metavar="{" + ",".join(choices) + "}" if choices else kind.__name__.upper(),
            help=f"{field.metadata['help']}{note} (default: {field.default})".replace("%", "%%"),
        )


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how (no part of the identity)")
    group.add_argument("--out", type=to_path, help="run folder (default: the run's path in --runs)")
    group.add_argument(
        "--runs",
        type=to_path,
        help="where the runs lie, a parent among them (default: where --out ends in the run's path, what is before it, "
        "else results/runs)",
    )
    _add_data_options(group)
    group.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")
    group.add_argument(
        "--threads",
        type=to_whole,
        help="CPU threads (default: torch's own choice; a training that goes on keeps its own)",
    )
    group.add_argument("--plain", action="store_true", help="all of the following off")
    for name, help in SWITCHES.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, choices=("auto", "on", "off"), default="auto", help=f"{help} (default: auto)")


def _add_evaluation_options(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument("folder", type=to_path, help="run folder")
    parser.add_argument("--samples", type=to_whole, default=samples, help=f"weight samples (default: {samples})")
    parser.add_argument("--bins", type=to_whole, default=15, help="bins of the calibration errors (default: 15)")
    _add_data_options(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=to_whole, help="CPU threads")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="ssvi", description="Bayesian neural networks that stay sparse from the first step to the last.")
    top.add_argument("--version", action="version", version=f"ssvi {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    train = commands.add_parser("train", help="train one run (goes on where it was interrupted)")
    _add_run_options(train)
    _add_machine_options(train)
    train.add_argument(
        "--checkpoint-seconds",
        type=to_number,
        default=os.environ.get("SSVI_CHECKPOINT_SECONDS", "60"),
        help="time between two checkpoints (default: $SSVI_CHECKPOINT_SECONDS, or 60)",
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="metrics of a trained run on its test set")
    _add_evaluation_options(evaluate, samples=5)
    evaluate.set_defaults(run=_evaluate)

    samples = commands.add_parser("samples", help="metrics of a trained run by the number of weight samples")
    _add_evaluation_options(samples, samples=MOST_SAMPLES)
    samples.set_defaults(run=_samples)

    data = commands.add_parser("data", help="prepare a data set: download, decode, cache")
    data.add_argument("dataset", help="digits, cifar10, cifar100 or folder:PATH")
    _add_data_options(data, "--root")
    data.add_argument("--image-size", type=to_whole, default=RunSpec.image_size, help="side in pixels, for folder:PATH")
    data.add_argument("--download", action="store_true", help="fetch what is not there")
    data.set_defaults(run=_data)

    report = commands.add_parser("report", help="make a study's tables, figures and HTML report from the runs so far")
    add_config_options(report)
    report.add_argument("--study", help="default: the study that the config names")
    report.set_defaults(run=_report)

    keep = commands.add_parser(
        "preload", help="keep torch in memory for the commands of a workflow, which starts and ends this by itself"
    )
    keep.add_argument("socket", type=to_path, help="path of the Unix socket to listen at, until standard input ends")
    keep.set_defaults(run=_preload)

    bench = commands.add_parser("bench", help="measure what a training costs on this machine, beside other packages")
    bench.add_argument("suites", nargs="*", help="which (default: all but the long ones, scaling and accuracy)")
    bench.add_argument("--repeats", type=to_whole, default=5, help="rounds (default: 5)")
    bench.add_argument("--json", type=to_path, help="write the record to this file, after each suite")
    bench.set_defaults(run=_bench)

    doctor = commands.add_parser("doctor", help="what here would make results wrong, lost or slow")
    doctor.add_argument("--config", type=to_path, help="default: config.yaml, if it is there")
    doctor.add_argument("--results", type=to_path, help="results folder (default: the config's, or results)")
    doctor.add_argument("--data-root", type=to_path, help="default: $SSVI_DATA, or the config's, or data")
    doctor.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    doctor.add_argument("--threads", type=to_whole, help="CPU threads of each training (default: the config's)")
    doctor.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="these checks, as in 'results.*'")
    doctor.add_argument("--thorough", action="store_true", help="every method in every way too, which takes long")
    doctor.add_argument("--seconds", type=to_number, help="for all checks (default: 110; 3600 with thorough ones)")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON; lines go to standard error")
    doctor.set_defaults(run=_doctor)

    ui = commands.add_parser("ui", help="mirror all runs to MLflow as they train, and serve its pages")
    add_config_options(ui)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on; any other opens it to your network")
    ui.add_argument("--port", type=to_whole, default=5000, help="default: 5000")
    ui.set_defaults(run=_ui)
    return top


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one line on stderr and exit code 1."""
    process.calm_threads()
    if arguments is None:
        process.hold_streams()
        if (code := preload.hand_over(sys.argv[1:])) is not None:
            sys.exit(code)
    try:
        plugins.load()
        given = parser().parse_args(arguments)
        given.run(given)
        if given.command in PRINTED:
            process.check_output()
    except UserError as error:
        sys.exit(f"ssvi: {error}")
    except OSError as error:
        # A folder that cannot be written, a full disk: the user's to mend, and the message names the file.
        sys.exit(f"ssvi: {told(error)}")
    except ModuleNotFoundError as error:
        if (line := extras.told(error, f"ssvi {given.command}")) is None:
            raise
        sys.exit(f"ssvi: {line}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        sys.exit("ssvi: there is not enough memory for this; a smaller batch_size, width or image_size needs less.")
    except process.Interrupted as stop:
        say(f"ssvi: {stop}")
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_out_of_memory(error: Exception) -> bool:
    """Torch says it of a GPU by a class of its own, of a CPU only in words."""
    name, words = type(error).__name__, str(error)
    return name in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in words


def _check_number(name: str, value: int) -> None:
    if not 1 <= value <= MOST[name]:
        raise UserError(f"--{name} is {value}, but must be >= 1 and <= {MOST[name]}.")


def _device(name: str, threads: int | None) -> torch.device:
    import torch

    if threads is not None:
        _check_number("threads", threads)
        torch.set_num_threads(threads)
    if name == "auto":
        # A GPU of its own beside the trainings that already run here.
        name = f"cuda:{claim_gpu(torch.cuda.device_count())}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name!r} is unknown; choose auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r} is not supported; choose auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices.")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def _runs_around(folder: Path | None, run: str) -> Path | None:
    """The folder of all runs that a run folder lies in, if it does."""
    inside = folder is not None and str(folder).endswith(f"/{run}")
    return Path(str(folder).removesuffix(f"/{run}")) if inside else None


def _train(given: argparse.Namespace) -> None:
    if not 0 <= given.checkpoint_seconds < math.inf:
        raise UserError(f"--checkpoint-seconds is {given.checkpoint_seconds:g}, but must be >= 0 and finite.")
    plugins.load(given.plugins, "--plugins")
    options = {name: getattr(given, name) for name in FIELDS if hasattr(given, name)}
    if given.preset:
        options["preset"] = given.preset
    spec = make_spec(options, where="command line")
    root = given.runs or _runs_around(given.out, run_path(spec)) or RUNS
    folder = given.out or root / run_path(spec)

    if not _is_trained(folder, spec, root, given):
        from ssvi.lock import claimed
        from ssvi.runs import check_own

        check_own(folder)
        with claimed(folder, lambda line: say(f"note: {line}")):
            # whoever this has waited for may have trained it
            if not _is_trained(folder, spec, root, given):
                _train_here(given, spec, root, folder)


def _is_trained(folder: Path, spec: RunSpec, root: Path, given: argparse.Namespace) -> bool:
    """Whether there is nothing left to do, which is then said."""
    from ssvi import runs
    from ssvi.changed import check_images
    from ssvi.ties import check_parents, check_ties

    if not runs.is_trained(folder):
        return False
    runs.check_spec(folder, spec)
    check_ties(folder, runs.TRAINING)
    check_parents(folder, root, spec)
    check_images(folder, spec.dataset, given.data_root)
    _warn_of_plugins(folder, spec)
    say(f"{folder}: already trained; --out trains it again in another folder.")
    return True


def _train_here(given: argparse.Namespace, spec: RunSpec, root: Path, folder: Path) -> None:
    """Train the run in its folder, which this process has claimed."""
    device = _device(given.device, given.threads)
    from ssvi.data import load
    from ssvi.disk import remove_leftovers
    from ssvi.progress import reporter
    from ssvi.resume import keep_threads
    from ssvi.runs import LIVE, is_trained
    from ssvi.step import choose_machine
    from ssvi.trainer import Settings, Trainer

    chosen = {name: getattr(given, name) for name in SWITCHES}
    switches = {name: value == "on" for name, value in chosen.items() if value != "auto" or given.plain}
    if switches.get("hold_memory", device.type == "cpu"):
        switches["hold_memory"] = process.hold_memory()
    for place in (folder, folder / LIVE):
        remove_leftovers(place)
    watcher = reporter()
    keep_threads(folder, device, watcher.note)
    data = load(spec, given.data_root, device, given.follow_links)
    for note in data.notes:
        watcher.note(f"{spec.dataset}: {note}")
    machine = choose_machine(device, switches, spec.training_epochs * data.n_train // spec.batch_size)
    lineage = [root / run_path(parent) for parent in parents(spec)]
    for place, parent in zip(lineage, parents(spec), strict=True):
        if is_trained(place):
            _warn_of_plugins(place, parent)
    trainer = Trainer(spec, data, folder, Settings(machine, given.checkpoint_seconds), watcher, lineage)
    try:
        summary = trainer.run()
    except process.Interrupted as stop:
        raise process.Interrupted(stop.number, f"{folder}: {stop}") from None
    if summary["status"] == "diverged":
        say(f"{folder}: diverged in epoch {summary['diverged_epoch']}: {summary['cause']}")
    else:
        say(f"{folder}: trained in {summary['training_seconds']:.1f} s (ssvi evaluate: its metrics)")


def _evaluate(given: argparse.Namespace) -> None:
    spec, data, device = _trained(given)
    from ssvi.evaluate import evaluate

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
    from ssvi.evaluate import sample_curve

    rows = sample_curve(spec, data, given.folder, device, given.samples, given.bins)
    _note_other_files(given.folder, spec, data)
    for row in rows:
        numbers = {name: value for name, value in row.items() if name != "samples" and value is not None}
        print("  ".join([f"{row['samples']:3d}", *(f"{name} {value:.4f}" for name, value in numbers.items())]))


def _preload(given: argparse.Namespace) -> None:
    def prepare() -> None:
        # The first optimiser of a process loads this: as much as torch itself again.
        import torch._dynamo  # noqa: F401

        import ssvi.data
        import ssvi.evaluate
        import ssvi.progress
        import ssvi.trainer  # noqa: F401

    preload.serve(str(given.socket), prepare, main)


def _trained(given: argparse.Namespace) -> tuple[RunSpec, Data, torch.device]:
    """What a command on a run folder starts from."""
    from ssvi import runs
    from ssvi.ties import check_parents

    for name in ("samples", "bins"):
        _check_number(name, getattr(given, name))
    spec = runs.read_spec(given.folder)
    _warn_of_plugins(given.folder, spec)
    if (root := _runs_around(given.folder, run_path(spec))) is not None:
        check_parents(given.folder, root, spec)
    device = _device(given.device, given.threads)
    from ssvi.data import load

    return spec, load(spec, given.data_root, device, given.follow_links), device


def _warn_of_plugins(folder: Path, spec: RunSpec) -> None:
    """Of a trained run whose plugins have changed since."""
    from ssvi.runs import plugins_of, read_spec_record

    for line in plugins.changes(plugins_of(folder, read_spec_record(folder)), plugins.used(spec)):
        say(f"warning: {folder}: {line}: it was trained with the former.")


def _note_other_files(folder: Path, spec: RunSpec, data: Data) -> None:
    """Of a run that was just found to be of these pixels."""
    from ssvi.changed import other_files

    if line := other_files(folder, spec.dataset, data.content):
        say(f"note: {line}")


def _data(given: argparse.Namespace) -> None:
    from ssvi.data import prepare, remarks
    from ssvi.spec import validate

    validate({"dataset": given.dataset, "image_size": given.image_size}, where="command line")
    folder = {"image_size": given.image_size, "follow_links": given.follow_links}
    prepared = prepare(given.dataset, given.data_root, download=given.download, **folder)
    summary = {
        "dataset": given.dataset,
        "train_images": len(prepared.train_labels),
        "test_images": len(prepared.test_labels),
        "shape": list(prepared.train_images.shape[1:]),
        "classes": list(prepared.classes),
        "fingerprint": prepared.fingerprint,
        "content": prepared.content,
    }
    if prepared.content is not None:
        summary |= {"left_out": prepared.left_out, "reading": prepared.reading, "images": prepared.images}
    for note in remarks(prepared):
        say(f"note: {given.dataset}: {note}")
    print(json.dumps(summary, indent=2))


def _bench(given: argparse.Namespace) -> None:
    from ssvi import bench
    from ssvi.runs import check_record, write_json

    if given.repeats < 1:
        raise UserError(f"--repeats is {given.repeats}, but must be >= 1.")
    for name in given.suites:
        if name not in bench.SUITES:
            raise unknown("suite", name, bench.SUITES, "command line")

    if given.json:
        check_record(given.json, "when", "hardware", "figures")

    def write(figures: list[bench.Figure]) -> None:
        if given.json:
            write_json(given.json, bench.record(figures))

    names = given.suites or [name for name in bench.SUITES if name not in bench.LONG]
    print(bench.table(bench.run(names, given.repeats, say, write)))


def _report(given: argparse.Namespace) -> None:
    from ssvi.changed import changed_data_sets
    from ssvi.config import load, resolve, study_experiments, study_runs

    root, sources = config_sources(given)
    plugins.look_in(root)
    config = load(sources)
    study = given.study or config["study"]
    if study not in config["studies"]:
        raise unknown("study", study, config["studies"], "--study")
    from ssvi.analysis.report.make import make_all

    results = root / config["results"]
    path = make_all(
        results,
        root / config["reports"] / study / "so_far",
        study,
        resolve(config, study),
        study_experiments(config, study),
        say=say,
        changed=changed_data_sets(results, study_runs(config, study), root / config["data_root"], root),
        evaluation=config["evaluation"],
    )
    say(path, sys.stdout)


def _doctor(given: argparse.Namespace) -> None:
    from ssvi.doctor.command import examine

    if given.threads is not None:
        _check_number("threads", given.threads)
    code = examine(given)
    process.check_output()
    sys.exit(code)


def _ui(given: argparse.Namespace) -> None:
    from ssvi.analysis import tracking
    from ssvi.config import load, study_runs

    root, sources = config_sources(given)
    plugins.look_in(root)

    def plan() -> tracking.Plan:
        config = load(sources)
        studies = {s: (study_runs(config, s), root / config["reports"] / s) for s in config["studies"]}
        return tracking.Plan(root / config["results"], studies)

    sys.exit(tracking.serve(sources.files, plan, given.host, given.port))
