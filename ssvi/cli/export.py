"""`ssvi export` and `ssvi info`: a trained network as a file, and what such a file says."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import to_path, to_whole
from ssvi.cli.folders import check_no_part
from ssvi.cli.machine import add_plugins_option, check_number
from ssvi.errors import UserError, say
from ssvi.runs import plugins

if TYPE_CHECKING:
    from ssvi.runs.card import Card

# What a file is, by how its name ends.
KINDS = (".safetensors", ".onnx", ".pt2")
SIGMAS = ("float32", "bfloat16")


def add_export(commands: Any) -> None:
    """A trained network in one file."""
    export = commands.add_parser(
        "export",
        help="write a trained network to one file: sparse (.safetensors), ONNX or torch.export (.pt2)",
    )
    export.add_argument("folder", type=to_path, help="run folder; of a graph also an exported file (.safetensors)")
    export.add_argument("--to", type=to_path, required=True, metavar="FILE", help=f"a name that ends in {_kinds()}")
    export.add_argument(
        "--sigma",
        choices=SIGMAS,
        default=SIGMAS[0],
        help="type of the standard deviations in a sparse file (default: float32, of which nothing is lost)",
    )
    export.add_argument(
        "--samples",
        type=to_whole,
        help="weight samples as one graph (.onnx, .pt2; default: the network of the posterior's means)",
    )
    export.add_argument(
        "--compress",
        action="store_true",
        help="cut dead channels out of a graph (.onnx, .pt2) and fold BatchNorm into its layers, where that is exact",
    )
    export.add_argument("--licence", help="what others may do with it (default: what the run says)")
    add_plugins_option(export)
    export.set_defaults(run=_export)


def add_info(commands: Any) -> None:
    """What a network's file says."""
    info = commands.add_parser("info", help="what a run folder or an exported file (.safetensors) says of its network")
    info.add_argument("path", type=to_path, help="run folder or file")
    info.add_argument("--json", action="store_true", help="as JSON")
    add_plugins_option(info)
    info.set_defaults(run=_info)


def _kinds() -> str:
    return f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


def _export(given: argparse.Namespace) -> None:
    kind = given.to.suffix.lower()
    if kind not in KINDS:
        raise UserError(f"--to is {str(given.to)!r}, but must end in {_kinds()}.")
    for flag, value in (("samples", given.samples), ("compress", given.compress or None)):
        if value is not None and kind == KINDS[0]:
            raise UserError(
                f"--{flag} is of graphs (.onnx, .pt2); {given.to} would be a sparse file, which has it all."
            )
    if given.sigma != SIGMAS[0] and kind != KINDS[0]:
        raise UserError(f"--sigma is {given.sigma!r}, but only a sparse file (.safetensors) has standard deviations.")
    if given.samples is not None:
        check_number("samples", given.samples)
    plugins.load(given.plugins, "--plugins")
    check_no_part("--to", given.to, given.folder)
    for line in (_sparse if kind == KINDS[0] else _graph)(given):
        say(f"note: {given.to}: {line}")
    say(f"{given.to}: {given.to.stat().st_size:,} bytes", sys.stdout)


def _sparse(given: argparse.Namespace) -> list[str]:
    from ssvi.serving.sparse import write

    write(given.folder, given.to, given.sigma, given.licence)
    return []


def _graph(given: argparse.Namespace) -> list[str]:
    from ssvi.runs.card import check_licence
    from ssvi.runs.modelcard import to_text
    from ssvi.serving.graphs import export_onnx, export_pt2
    from ssvi.serving.predictor import load

    check_licence(given.licence)
    network = load(given.folder)
    card = replace(network.card, licence=given.licence or network.card.licence)
    graph = _described(network.card, given.samples)
    metadata = {
        "ssvi": json.dumps(card.to_json() | {"graph": graph}),
        "classes": json.dumps(card.inputs.classes),
        "model_card": f"{graph}\n\nThe card of the run:\n\n{to_text(card)}",
    }
    export = export_onnx if given.to.suffix.lower() == ".onnx" else export_pt2
    return export(given.to, network, metadata, samples=given.samples, compressed=given.compress)


def _described(card: Card, samples: int | None) -> str:
    """What a graph is, as its card is that of the run."""
    inputs = card.inputs
    sides = f"[n, {inputs.channels}, {inputs.image_size}, {inputs.image_size}]"
    who = "of the means" if samples is None else f"of {samples} weight samples at once"
    mean = "" if samples is not None else ", so not the average that the card's figures and thresholds are of"
    return f"A graph {who}{mean}. It takes images, uint8 {sides}, as read and resized; their normalisation is in it."


def _info(given: argparse.Namespace) -> None:
    plugins.load(given.plugins, "--plugins")
    from ssvi.serving.info import describe, to_lines

    found = describe(given.path)
    if given.json:
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    for line in to_lines(found):
        say(line, sys.stdout)
