"""`ssvi data`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import check_sheet, to_path, to_whole
from ssvi.cli.machine import add_data_options
from ssvi.errors import UserError, say
from ssvi.runs.options import DATASETS
from ssvi.runs.spec import RunSpec

if TYPE_CHECKING:
    from ssvi.data import Prepared


def add_data(commands: Any) -> None:
    """Prepare a data set."""
    data = commands.add_parser("data", help="prepare a data set: download, decode, cache")
    data.add_argument("dataset", help=f"{', '.join(DATASETS)} or folder:PATH")
    add_data_options(data, "--root")
    data.add_argument("--image-size", type=to_whole, default=RunSpec.image_size, help="side in pixels, for folder:PATH")
    data.add_argument("--download", action="store_true", help="fetch what is not there")
    data.add_argument(
        "--sheet", type=to_path, metavar="FILE.png", help="a picture of a test image under every corruption"
    )
    data.set_defaults(run=_data)


def _check_outside(path: Path, images: Path) -> None:
    """Refuse a picture among the images, which would replace one or be one of the next time."""
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(images)):
        raise UserError(f"--sheet is {str(path)!r}, which is among the images of {images}; name another place.")


def _draw_sheet(path: Path, prepared: Prepared) -> None:
    from ssvi.data.corruptions.sheet import draw, typical
    from ssvi.machine.disk import write_bytes

    write_bytes(path, draw(typical(prepared.test_images)))


def _data(given: argparse.Namespace) -> None:
    from ssvi.data import prepare, remarks
    from ssvi.runs.images import dataset_path, expanded
    from ssvi.runs.values import validate

    validate({"dataset": given.dataset, "image_size": given.image_size}, where="command line")
    check_sheet(given.sheet)
    if given.sheet is not None and (images := dataset_path(given.dataset)) is not None:
        _check_outside(given.sheet, expanded(images))
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
    if given.sheet is not None:
        _draw_sheet(given.sheet, prepared)
    print(json.dumps(summary, indent=2))
