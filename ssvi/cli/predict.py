"""`ssvi predict`: what a trained network says of images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import check_sheet, to_number, to_path, to_whole
from ssvi.cli.folders import check_no_part
from ssvi.cli.machine import add_plugins_option, check_number, device_of
from ssvi.errors import UserError, say
from ssvi.machine import process
from ssvi.machine.disk import write_bytes
from ssvi.runs import plugins
from ssvi.runs.values import validate

if TYPE_CHECKING:
    from ssvi.runs.card import Card, Step
    from ssvi.serving.predictor import Predictions
    from ssvi.serving.sheet import Extremes

# Where some images could not be read, whose rows say why.
SOME_UNREAD = 3
LIST = "-"


def add_predict(commands: Any) -> None:
    """What a network says of images."""
    predict = commands.add_parser(
        "predict",
        help="classes of images by a trained network, and how sure it is",
        epilog=f"Exit code: 0; {SOME_UNREAD} where some images could not be read, whose rows say why; 1, or 2 for "
        "wrong arguments, where the command failed, and one line says why.",
    )
    predict.add_argument("network", metavar="RUN", type=to_path, help="run folder, or a file that ssvi export wrote")
    predict.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        type=_to_image,
        help="image files; folders, of which all images are read; - for a list of them on standard input, one a line "
        "or (as of find -print0) a null byte after each",
    )
    _add_output_options(predict)
    predict.add_argument("--samples", type=to_whole, help="weight samples (default: those of the run's evaluation)")
    predict.add_argument("--seed", type=to_whole, help="of the weight samples (default: that of the evaluation)")
    chosen = "chosen on the run's validation images"
    predict.add_argument("--coverage", type=to_number, help=f"answer for this share of images, by a threshold {chosen}")
    predict.add_argument("--risk", type=to_number, help=f"answer so that at most this share is wrong, by one {chosen}")
    predict.add_argument("--calibrated", action="store_true", help=f"probabilities at the temperature {chosen}")
    add_plugins_option(predict)
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    predict.add_argument("--threads", type=to_whole, help="CPU threads")
    predict.add_argument("--batch-size", type=to_whole, default=64, help="images at once (default: 64)")
    predict.set_defaults(run=_predict)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=to_path, metavar="FILE", help="where the rows go (default: standard output)")
    parser.add_argument(
        "--format", choices=("csv", "jsonl", "parquet"), help="of the rows (default: by the suffix of --out, else csv)"
    )
    parser.add_argument(
        "--sheet", type=to_path, metavar="FILE.png", help="a picture of the surest and of the least sure images"
    )


def _to_image(text: str) -> str:
    """A path as it is: a file whose name has odd characters has its row like any other."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no path: it is empty")
    return text


def _predict(given: argparse.Namespace) -> None:
    _check(given)
    plugins.load(given.plugins, "--plugins")
    device = device_of(given.device, given.threads)
    from ssvi.serving.predictor import Request, load
    from ssvi.serving.progress import bar
    from ssvi.serving.reading import files_in
    from ssvi.serving.rows import FORMATS, format_of
    from ssvi.serving.sheet import Extremes, draw

    form = format_of(given.out, given.format)
    if form == "parquet" and given.out is None and sys.stdout.isatty():
        raise UserError("--format is parquet, which is nothing for a terminal; name a file by --out.")
    images = list(files_in(_places(given.images)))
    _check_own_files(given, images)
    network = load(given.network, device)
    request = Request(given.samples, given.coverage, given.risk, given.calibrated, given.seed)
    parts = network.stream(images, request, given.batch_size)
    if (step := network.step(given.coverage, given.risk)) is not None:
        say(_threshold(step, network.card, given))
    tally, extremes = Tally(), Extremes() if given.sheet else None
    with bar(len(images), sys.stderr.isatty() and not (given.out is None and sys.stdout.isatty())) as advance:
        _write(FORMATS[form](_watched(parts, tally, extremes, advance), network.classes), given.out)
    if extremes is not None and tally.read:
        write_bytes(given.sheet, draw(extremes, network.card.inputs))
    _end(given, tally)


def _check(given: argparse.Namespace) -> None:
    """Refuse what cannot be, before torch is loaded."""
    for name in ("samples", "batch_size"):
        if (number := getattr(given, name)) is not None:
            check_number(name, number)
    if given.seed is not None:
        validate({"seed": given.seed}, "command line")
    check_sheet(given.sheet)


def _places(images: list[str]) -> list[Path]:
    """The images as they are given, with those of the list on standard input in its place.

    Raises:
        UserError: if it is asked for twice, or is empty.
    """
    if images.count(LIST) > 1:
        raise UserError(f"{LIST} is given twice, but standard input has one list.")
    return [path for image in images for path in (_listed() if image == LIST else [Path(image)])]


def _listed() -> list[Path]:
    content = sys.stdin.buffer.read()
    found = [Path(os.fsdecode(one)) for one in content.split(b"\0" if b"\0" in content else b"\n") if one]
    if not found:
        raise UserError("standard input: has no paths of images.")
    return found


def _check_own_files(given: argparse.Namespace, images: list[Path]) -> None:
    """Refuse to write what the command reads, or what is no file.

    Raises:
        UserError: naming the option and the file.
    """
    own = {name: os.path.realpath(path) for name in ("out", "sheet") if (path := getattr(given, name)) is not None}
    if not own:
        return
    read = {os.path.realpath(image) for image in images}
    for name, place in own.items():
        path = getattr(given, name)
        check_no_part(f"--{name}", path, given.network)
        if place in read:
            raise UserError(f"--{name} is {str(path)!r}, which is one of the images; name another file.")
    if len({*own.values()}) < len(own):
        raise UserError(f"--out and --sheet are both {str(given.out)!r}.")


def _threshold(step: Step, card: Card, given: argparse.Namespace) -> str:
    """How sure the network has to be, and what that kept where it was chosen."""
    calibration = card.calibration
    assert calibration is not None  # else there is no step
    words = (
        f"abstains below a probability of {step.threshold:.4g}: of {calibration.images} validation images that kept "
        f"{step.coverage:.1%}, of which {step.risk:.2%} were wrong"
    )
    if given.calibrated:
        words += "; that is the probability before the temperature"
    if given.samples not in (None, calibration.samples):
        words += f"; they were predicted with {calibration.samples} weight samples, not {given.samples}"
    return words


@dataclass
class Tally:
    """What became of the images."""

    images: int = 0
    abstained: int = 0
    unread: int = 0
    first: str = ""

    @property
    def read(self) -> int:
        return self.images - self.unread

    def add(self, part: Predictions) -> None:
        """Count some more."""
        self.images += len(part.names)
        readable = [cause is None for cause in part.causes]
        if part.abstain is not None:
            self.abstained += sum(a and r for a, r in zip(part.abstain.tolist(), readable, strict=True))
        if not self.unread and not all(readable):
            i = readable.index(False)
            self.first = f"{part.names[i]}: {part.causes[i]}"
        self.unread += readable.count(False)


def _watched(
    parts: Iterable[Predictions], tally: Tally, extremes: Extremes | None, advance: Any
) -> Iterator[Predictions]:
    """The parts as they pass by."""
    for part in parts:
        tally.add(part)
        if extremes is not None:
            extremes.add(part)
        advance(len(part.names))
        yield part


def _write(chunks: Iterator[bytes], out: Path | None) -> None:
    """Into the file, whole or not at all; or to standard output as they come, until nobody reads on."""
    if out is not None:
        write_bytes(out, chunks)
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        process.check_output()


def _end(given: argparse.Namespace, tally: Tally) -> None:
    """Say what became of the images; the exit code says whether all could be read."""
    if given.coverage is not None or given.risk is not None:
        kept = f" (kept {1 - tally.abstained / tally.read:.1%})" if tally.read else ""
        say(f"abstained on {tally.abstained} of {tally.read} images{kept}")
    if given.sheet and not tally.read:
        say(f"no {given.sheet}: there is nothing to show")
    if tally.unread:
        say(f"{tally.unread} of {tally.images} images could not be read: first {tally.first}")
        process.check_output()
        sys.exit(SOME_UNREAD)
