"""A trained network as one graph that runs without this package, from raw pixels to probabilities: ONNX, and what
`torch.export` writes.

Of one network, the mean, or of several weight samples at once. Inputs are `images`, uint8 [n, C, size, size], as the
reader of images gives them; the normalisation is a part of the graph. Whatever the graph computes is compared with what
the network itself does before anything is written.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from packaging.version import Version
from torch import Tensor, nn

from ssvi.core import modes
from ssvi.core.noise import NormalSource
from ssvi.data.batches import normalised
from ssvi.errors import UserError
from ssvi.machine.disk import write_bytes
from ssvi.registry import broken
from ssvi.runs.card import Inputs
from ssvi.serving.compress import compress
from ssvi.serving.plain import plain, together
from ssvi.serving.predictor import Predictor
from ssvi.training.evaluate import STREAM
from ssvi.training.precision import full_float32

# Bytes of an ONNX file that is one file.
LARGEST = 2**31 - 1
# The PyTorch whose exporter is proven to write what it is given; 2.6 writes files that cannot be read.
OLDEST = "2.11"
# How far the graph's logits may be from the network's, in units of the largest: rounding of float32, and no more.
TOLERANCE = 1e-3
TRIED = 3  # images


# Graphs --------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """From raw pixels to what is said of them."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(inputs.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(inputs.std, dtype=torch.float32))

    def outputs(self, images: Tensor) -> Tensor:
        """Of the network: logits [n, K], or [S, n, K]."""
        return self.net(normalised(images, self.mean, self.std))


class OneGraph(Graph):
    """Of one network."""

    names = ("logits", "probabilities")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.outputs(images)
        return {"logits": logits, "probabilities": logits.softmax(1)}


class AverageGraph(Graph):
    """Of several networks what they say on average; the logits are the logarithms of that."""

    names = OneGraph.names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logs = self.outputs(images).log_softmax(2)
        probabilities = logs.exp().mean(0)
        return {"logits": torch.logsumexp(logs, 0) - _log(logs.shape[0]), "probabilities": probabilities}


class SamplesGraph(Graph):
    """Of several networks what each says, what they say on average, and how far they disagree (in nats)."""

    names = ("logits", "probabilities", "entropy", "mutual_information")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.outputs(images)
        each = logits.softmax(2)
        probabilities = each.mean(0)
        entropy = _entropy(probabilities)
        information = (entropy - _entropy(each).mean(0)).clamp_min(0.0)
        return dict(zip(self.names, (logits, probabilities, entropy, information), strict=True))


def _log(count: int) -> float:
    return float(torch.tensor(float(count)).log())


def _entropy(probabilities: Tensor) -> Tensor:
    """In nats; where a probability is 0 it adds nothing."""
    smallest = torch.finfo(probabilities.dtype).tiny
    return -(probabilities * probabilities.clamp_min(smallest).log()).sum(-1)


def graph_of(predictor: Predictor, samples: int | None = None, compressed: bool = False) -> tuple[Graph, list[str]]:
    """The graph of the mean network, or of so many weight samples, those of an evaluation; and what is to be said of
    it, in lines.

    Of a method without a mean network (chains, ensembles) the former is the average over all networks that it has.

    Raises:
        UserError: if the network has parts that do not become a graph, or says what is no number.
    """
    count, said = samples, []
    averaged = samples is None and not predictor.method.predictive.has_mean
    if averaged:
        count = sys.maxsize
    full_float32()
    with modes.evaluating(predictor.model):
        images = _images(predictor)
        x = Graph(nn.Identity(), predictor.card.inputs).outputs(images)
        nets, expected = _states(predictor, count, x)
        if averaged:
            said.append(
                f"there is no mean network: probabilities are averages over all {len(nets)} networks, logits their logs"
            )
        elif samples is not None and len(nets) < samples:
            said.append(f"{samples} samples were asked for, and there are {len(nets)}")
        if compressed:
            result = compress(nets, x[:1])
            nets = result.networks
            said.append(str(result))
        alone = samples is None and not averaged
        kind = OneGraph if alone else AverageGraph if averaged else SamplesGraph
        graph = kind(nets[0] if alone else together(nets), predictor.card.inputs).eval().requires_grad_(False)
        _check(predictor, graph, images, expected)
    return graph, said


def _images(predictor: Predictor) -> Tensor:
    inputs = predictor.card.inputs
    shape = (TRIED, inputs.channels, inputs.image_size, inputs.image_size)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _states(predictor: Predictor, samples: int | None, x: Tensor) -> tuple[list[nn.Module], list[Tensor]]:
    """The mean network, or the networks of weight samples, as plain ones on the CPU; and the logits of each for x."""
    model, predictive, device = predictor.model, predictor.method.predictive, predictor.device
    nets, logits = [], []
    if samples is None:
        predictive.set_mean()
        states: Iterator[object] = iter([None])
    else:
        states = predictive.samples(samples, NormalSource(predictor.card.spec.seed, STREAM, device))
    for _ in states:
        logits.append(model(x.to(device)).float().cpu())
        with _theirs(predictor, "cannot be copied as a plain network"):
            nets.append(plain(model).cpu())
    if not nets:
        raise UserError(f"{_name(predictor)}: has no network that predicts, so there is nothing to export.")
    return nets, logits


def _name(predictor: Predictor) -> str:
    return f"network {predictor.card.spec.model!r}"


@contextmanager
def _theirs(predictor: Predictor, what: str) -> Iterator[None]:
    """Whatever goes wrong with the network is told in a line: its code may be anybody's."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = textwrap.shorten(broken(error), 400, placeholder=" ...")
        raise UserError(f"{_name(predictor)}: {what}: {told}") from error


def _check(predictor: Predictor, graph: Graph, images: Tensor, expected: Sequence[Tensor]) -> None:
    """Compare what a graph computes with what the network does.

    Raises:
        UserError: if that is something else, or no number.
    """
    with _theirs(predictor, "cannot be run as a plain network"):
        found = graph.outputs(images)
    wanted = expected[0] if isinstance(graph, OneGraph) else torch.stack(list(expected))
    if not bool(wanted.isfinite().all()):
        raise UserError(f"{_name(predictor)}: its outputs are not finite, so there is nothing to export.")
    distance = float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")
    if not distance <= TOLERANCE * (1 + float(wanted.abs().max())):
        raise UserError(
            f"{_name(predictor)}: has parts that compute something else in a graph (logits differ by {distance:.3g}) "
            "and cannot be exported; layers of the factory can, and modules that treat each image alike and apart."
        )


# Files ---------------------------------------------------------------------------------------------


def export_onnx(
    path: Path, predictor: Predictor, metadata: Mapping[str, str], samples: int | None = None, compressed: bool = False
) -> list[str]:
    """Write an ONNX file; returns what is to be said of it.

    Args:
        path: of the file.
        predictor: of the network.
        metadata: of the file (`metadata_props`).
        samples: weight samples that are in it, None for the mean network.
        compressed: without channels that do not matter, BatchNorm folded.

    Raises:
        UserError: as `graph_of`, or if it would be larger than such a file can be.
        ModuleNotFoundError: if a package of the extra `export` is not there.
    """
    if Version(torch.__version__) < Version(OLDEST):
        raise UserError(
            f"{path}: ONNX is written by PyTorch {OLDEST} or newer, and this is {torch.__version__}; update it, "
            "or export to a .pt2 file."
        )
    for needed in ("onnx", "onnxscript"):
        # PyTorch's exporter says it otherwise
        importlib.import_module(needed)

    graph, said = graph_of(predictor, samples, compressed)
    _check_size(path, sum(t.numel() * t.element_size() for t in graph.state_dict().values()))
    exported = _exported(predictor, graph)
    with _theirs(predictor, "cannot be written as ONNX"), _quiet():
        program = torch.onnx.export(
            exported, dynamo=True, input_names=["images"], output_names=list(graph.names), verbose=False
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        # whose paths are of this machine
        node.metadata_props.clear()
    program.model.producer_name, program.model.doc_string = "ssvi", None
    program.model.metadata_props.update(metadata)
    proto = program.model_proto
    _check_size(path, proto.ByteSize())
    write_bytes(path, proto.SerializeToString())
    return said


def export_pt2(
    path: Path, predictor: Predictor, metadata: Mapping[str, str], samples: int | None = None, compressed: bool = False
) -> list[str]:
    """Write a file for `torch.export.load`; returns what is to be said of it. As `export_onnx`."""
    graph, said = graph_of(predictor, samples, compressed)
    exported = _exported(predictor, graph)
    written = io.BytesIO()
    with _theirs(predictor, "cannot be written by torch.export"), _quiet():
        torch.export.save(exported, written, extra_files=dict(metadata))
    write_bytes(path, written.getvalue())
    return said


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise UserError(
            f"{path}: would be {size / 1e9:.2f} GB, and an ONNX file is at most 2.15 GB; export fewer samples, with "
            "--compress, or to a .pt2 file."
        )


def _exported(predictor: Predictor, graph: Graph) -> torch.export.ExportedProgram:
    """A graph as PyTorch writes it down, for any number of images."""
    with _theirs(predictor, "cannot be written as a graph"), _quiet():
        dynamic = {"images": {0: torch.export.Dim("n", min=1)}}
        exported = torch.export.export(graph, (_images(predictor),), dynamic_shapes=dynamic, strict=False)
    for part in exported.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                # whose paths are of this machine
                node.meta.pop("stack_trace", None)
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporters say of themselves, and of packages that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)
