"""What a run folder or an exported file says of its network, without making it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssvi.registry import KINDS
from ssvi.runs.card import read_card
from ssvi.runs.files import MODEL
from ssvi.runs.options import non_defaults
from ssvi.runs.ties import identity
from ssvi.serving.sparse import LayerSize, check_header, layer_sizes, read_header

# Of many classes the first ones say enough.
NAMED = 20


def describe(path: Path) -> dict[str, Any]:
    """What there is to say of a network, as JSON has it: its card, its layers, its bytes.

    Raises:
        UserError: as `ssvi.runs.card.read_card`, or `ssvi.serving.sparse.read_header` of a file.
    """
    if path.is_dir():
        card, file, kind = read_card(path), path / MODEL, "run folder"
        network = identity(file)
    else:
        check_header(header := read_header(path), path)
        card, file, kind, network = header.card, path, "sparse file", header.network
    layers = layer_sizes(file)
    weights, active = sum(one.weights for one in layers), sum(one.active for one in layers)
    return {
        "path": str(path),
        "kind": kind,
        "bytes": file.stat().st_size,
        "network": network,
        "weights": weights,
        "active": active,
        "layers": [{"name": one.name, "weights": one.weights, "active": one.active} for one in layers],
        "card": card.to_json(),
        "options": non_defaults(card.spec),
    }


def to_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    card = found["card"]
    spec, inputs, metrics = card["spec"], card["inputs"], card["metrics"]
    of = ", its network" if found["kind"] == "run folder" else ""
    yield f"{found['path']}: {found['kind']}{of}, {found['bytes']:,} bytes"
    samples = f", {card['samples']} weight samples" if KINDS[spec["method"]].posterior else ""
    yield f"network      {spec['model']} by {spec['method']} on {spec['dataset']}{samples}"
    yield f"licence      {card['licence'] or 'not stated'}"
    size, colour = inputs["image_size"], "grey" if inputs["channels"] == 1 else "colour"
    yield f"images       {size} × {size}, {colour}"
    more = " …" if len(inputs["classes"]) > NAMED else ""
    yield f"classes      {len(inputs['classes'])}: {', '.join(inputs['classes'][:NAMED])}{more}"
    yield f"metrics      {', '.join(f'{name} {value:.6g}' for name, value in metrics.items()) or 'not evaluated yet'}"
    if (held_out := card["calibration"]) is None:
        yield f"calibration  none: {'no validation images' if metrics else 'not evaluated yet'}"
    else:
        known = f"temperature {held_out['temperature']:.3g}, {len(held_out['curve'])} thresholds"
        yield f"calibration  {known}, of {held_out['images']} validation images"
    known = {name: value for name, value in card["provenance"].items() if value is not None}
    yield f"provenance   {', '.join(f'{name} {value}' for name, value in known.items())}"
    yield f"options      {', '.join(f'{name} {value}' for name, value in found['options'].items())}"
    for one in found["layers"]:
        yield _layer(LayerSize(**one))
    yield _layer(LayerSize("in all", found["weights"], found["active"]))


def _layer(one: LayerSize) -> str:
    return f"  {one.name:<30} {one.active:>12,} of {one.weights:>12,} weights, sparsity {one.sparsity:.2%}"
