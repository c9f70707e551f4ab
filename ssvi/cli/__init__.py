"""The command `ssvi`: its commands, a file a topic. Heavy modules load only where needed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ssvi import __version__
from ssvi.cli.arguments import Parser, to_path
from ssvi.cli.checkup import add_bench, add_doctor
from ssvi.cli.data import add_data
from ssvi.cli.evaluate import add_evaluate, add_samples
from ssvi.cli.export import add_export, add_info
from ssvi.cli.predict import add_predict
from ssvi.cli.study import add_register, add_report, add_ui
from ssvi.cli.train import add_train
from ssvi.errors import UserError, say, told
from ssvi.machine import extras, preload, process
from ssvi.runs import plugins

# The commands whose output is what they are for; the others write files, and only say what they do.
PRINTED = ("predict", "info", "data", "bench", "doctor")


def parser() -> argparse.ArgumentParser:
    """The command line; commands are shown in this order."""
    top = Parser(prog="ssvi", description="Bayesian neural networks that stay sparse from the first step to the last.")
    top.add_argument("--version", action="version", version=f"ssvi {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add_train(commands)
    add_evaluate(commands)
    add_samples(commands)
    add_predict(commands)
    add_export(commands)
    add_info(commands)
    add_data(commands)
    add_report(commands)
    _add_preload(commands)
    add_bench(commands)
    add_doctor(commands)
    add_ui(commands)
    add_register(commands)
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


def _add_preload(commands: Any) -> None:
    """The process that has torch in memory and carries out commands of others."""
    keep = commands.add_parser(
        "preload", help="keep torch in memory for the commands of a workflow, which starts and ends this by itself"
    )
    keep.add_argument("socket", type=to_path, help="path of the Unix socket to listen at, until standard input ends")
    keep.set_defaults(run=_preload)


def _preload(given: argparse.Namespace) -> None:
    def prepare() -> None:
        # The first optimiser of a process loads this: as much as torch itself again.
        import torch._dynamo  # noqa: F401

        import ssvi.data
        import ssvi.training.evaluate
        import ssvi.training.progress
        import ssvi.training.trainer  # noqa: F401

    preload.serve(str(given.socket), prepare, main)
