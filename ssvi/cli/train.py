"""`ssvi train`."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from ssvi.cli.arguments import READ, to_number, to_path, to_whole
from ssvi.cli.folders import runs_around, warn_of_plugins
from ssvi.cli.machine import add_data_options, add_plugins_option, device_of
from ssvi.errors import UserError, say
from ssvi.machine import process
from ssvi.machine.process import SWITCHES
from ssvi.registry import COMMON, using
from ssvi.runs import plugins
from ssvi.runs.options import FIELDS, PRESETS
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.runs.values import bounds

RUNS = Path("results/runs")


def add_train(commands: Any) -> None:
    """Train one run."""
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


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train (these make the run's identity)")
    add_plugins_option(group)
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
    add_data_options(group)
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


def _train(given: argparse.Namespace) -> None:
    if not 0 <= given.checkpoint_seconds < math.inf:
        raise UserError(f"--checkpoint-seconds is {given.checkpoint_seconds:g}, but must be >= 0 and finite.")
    plugins.load(given.plugins, "--plugins")
    options = {name: getattr(given, name) for name in FIELDS if hasattr(given, name)}
    if given.preset:
        options["preset"] = given.preset
    spec = make_spec(options, where="command line")
    root = given.runs or runs_around(given.out, run_path(spec)) or RUNS
    folder = given.out or root / run_path(spec)

    if not _is_trained(folder, spec, root, given):
        from ssvi.runs.runfolder import check_own
        from ssvi.training.lock import claimed

        check_own(folder)
        with claimed(folder, lambda line: say(f"note: {line}")):
            # whoever this has waited for may have trained it
            if not _is_trained(folder, spec, root, given):
                _train_here(given, spec, root, folder)


def _is_trained(folder: Path, spec: RunSpec, root: Path, given: argparse.Namespace) -> bool:
    """Whether there is nothing left to do, which is then said."""
    from ssvi.runs import files
    from ssvi.runs.changed import check_images
    from ssvi.runs.runfolder import check_spec
    from ssvi.runs.ties import check_parents, check_ties

    if not files.is_trained(folder):
        return False
    check_spec(folder, spec)
    check_ties(folder, files.TRAINING)
    check_parents(folder, root, spec)
    check_images(folder, spec, given.data_root)
    warn_of_plugins(folder, spec)
    say(f"{folder}: already trained; --out trains it again in another folder.")
    return True


def _train_here(given: argparse.Namespace, spec: RunSpec, root: Path, folder: Path) -> None:
    """Train the run in its folder, which this process has claimed."""
    device = device_of(given.device, given.threads)
    from ssvi.data import load
    from ssvi.machine.disk import remove_leftovers
    from ssvi.runs.files import LIVE, is_trained
    from ssvi.training.progress import reporter
    from ssvi.training.resume import keep_threads
    from ssvi.training.step import choose_machine
    from ssvi.training.trainer import Settings, Trainer

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
    lineage = [root / run_path(parent) for parent in parents_of(spec)]
    for place, parent in zip(lineage, parents_of(spec), strict=True):
        if is_trained(place):
            warn_of_plugins(place, parent)
    trainer = Trainer(spec, data, folder, Settings(machine, given.checkpoint_seconds), watcher, lineage)
    try:
        summary = trainer.run()
    except process.Interrupted as stop:
        raise process.Interrupted(stop.number, f"{folder}: {stop}") from None
    if summary["status"] == "diverged":
        say(f"{folder}: diverged in epoch {summary['diverged_epoch']}: {summary['cause']}")
    else:
        say(f"{folder}: trained in {summary['training_seconds']:.1f} s (ssvi evaluate: its metrics)")
