"""`ssvi data`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ssvi.cli.arguments import to_whole
from ssvi.cli.machine import add_data_options
from ssvi.errors import say
from ssvi.runs.spec import RunSpec


def add_data(commands: Any) -> None:
    """Prepare a data set."""
    data = commands.add_parser("data", help="prepare a data set: download, decode, cache")
    data.add_argument("dataset", help="digits, cifar10, cifar100 or folder:PATH")
    add_data_options(data, "--root")
    data.add_argument("--image-size", type=to_whole, default=RunSpec.image_size, help="side in pixels, for folder:PATH")
    data.add_argument("--download", action="store_true", help="fetch what is not there")
    data.set_defaults(run=_data)


def _data(given: argparse.Namespace) -> None:
    from ssvi.data import prepare, remarks
    from ssvi.runs.values import validate

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
