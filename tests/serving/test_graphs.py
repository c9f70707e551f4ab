"""A trained network as a graph says what the network says: every method, both formats, any number of images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from trained import CASES, CPU, spec_of, train

from ssvi.core.gates import NoisyGate
from ssvi.core.gaussian import TO_RHO
from ssvi.core.layers import VariationalLayer, choose_masks
from ssvi.core.models import MODELS
from ssvi.core.noise import NormalSource
from ssvi.errors import UserError
from ssvi.machine import extras
from ssvi.methods.chain import Snapshots
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.card import Card, Inputs
from ssvi.runs.paths import run_path
from ssvi.serving import graphs
from ssvi.serving.graphs import export_onnx, export_pt2, graph_of
from ssvi.serving.plain import OneByOne, Together
from ssvi.serving.predictor import Predictor, load
from ssvi.training.evaluate import evaluate
from ssvi.training.network import build

CLOSE = {"rtol": 0, "atol": 2e-5}
INPUTS = Inputs(tuple("0123456789"), 1, 8, (0.3,), (0.4,))
METADATA = {"card": '{"model": "é"}', "licence": "none"}
DENSITY = {"density": 0.3}
UNTRAINED = ("dense", "rigl", "vi", "ssvi", "ensemble", "vd", "sbp", "aeb", "mbnn")


def pixels(n: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@torch.no_grad()
def shaken(model: nn.Module, source: torch.Generator) -> None:
    """Parameters and statistics as a training might have left them, and noise that is seen in what is predicted."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.dim() and value.is_floating_point():
            noise = torch.randn(value.shape, generator=source)
            value.copy_(noise.abs() + 0.5 if name.endswith("var") else value + 0.1 * noise)
    for module in model.modules():
        if isinstance(module, VariationalLayer):
            module.rho.copy_(TO_RHO[module.parameterisation](torch.full(module.shape, 0.1)))
        elif isinstance(module, NoisyGate):
            module.log_sigma.fill_(1.0)


def untrained(method: str, model: str = "resnet8", **options) -> Predictor:
    """A network of a method, with sparse masks and values that are not those of the start."""
    spec = spec_of(method, model=model, **options)
    made, own = build(spec, 1, 8, 10, NormalSource(0, "evaluation"))
    source = torch.Generator().manual_seed(0)
    shaken(made, source)
    if hasattr(own, "channels"):
        for gate in own.gates:
            if method == "sbp":
                gate.keep.copy_(torch.rand(len(gate.keep), generator=source) < 0.6)
            else:
                gate.nodes.copy_(torch.rand(len(gate.nodes), generator=source) < 0.6)
        own.channels.update_masks()
    elif method not in ("dense", "vi"):
        choose_masks(own.layers.values(), 0.3, "uniform", source)
    for layer in own.layers.values():
        layer.apply_mask()
    if isinstance(own.predictive, Snapshots):
        for _ in range(3):
            shaken(made, source)
            for layer in own.layers.values():
                layer.apply_mask()
            own.predictive.keep()
    return Predictor(Card(spec, INPUTS, 5, None, {}, None, {}), made, own, CPU)


def check(found: dict[str, Tensor], predictor: Predictor, images: Tensor, samples: int) -> None:
    """What a graph says of images is what the network says under the samples of an evaluation."""
    expected = predictor.average(images, samples)
    assert [*found] == ["logits", "probabilities", "entropy", "mutual_information"]
    assert found["logits"].shape == (expected.samples, len(images), 10)
    for name in ("probabilities", "entropy", "mutual_information"):
        torch.testing.assert_close(found[name].double(), getattr(expected, name), **CLOSE)
    torch.testing.assert_close(found["logits"].softmax(2).mean(0), found["probabilities"], **CLOSE)


@torch.no_grad()
def check_mean(found: dict[str, Tensor], predictor: Predictor, images: Tensor, inputs: Tensor) -> None:
    """The mean network's, or of all networks together where there is none."""
    assert [*found] == ["logits", "probabilities"]
    if predictor.method.predictive.has_mean:
        predictor.method.predictive.set_mean()
        logits = predictor.model(inputs)
        torch.testing.assert_close(found["logits"], logits, **CLOSE)
        expected = logits.softmax(1)
    else:
        expected = predictor.average(images, 1000).probabilities.float()
        torch.testing.assert_close(found["logits"].exp(), expected, **CLOSE)
    torch.testing.assert_close(found["probabilities"], expected, **CLOSE)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("method", UNTRAINED)
@torch.no_grad()
def test_a_graph_says_what_the_network_says(method, compressed) -> None:
    images = pixels(7)
    graph, said = graph_of(untrained(method, **DENSITY), 3, compressed)
    found = graph(images)
    check(found, untrained(method, **DENSITY), images, 3)
    assert isinstance(graph.net, Together)
    states = {"ensemble": 2, "dense": 1, "rigl": 1}.get(method, 3)
    assert len(found["logits"]) == states
    assert (f"3 samples were asked for, and there are {states}" in said) == (states < 3)
    # another state is only another one where there are several
    assert (found["mutual_information"] > 1e-5).all() == (states > 1)
    mean, said = graph_of(untrained(method, **DENSITY), None, compressed)
    check_mean(mean(images), untrained(method, **DENSITY), images, (images / 255 - 0.3) / 0.4)
    assert ("there is no mean network" in " ".join(said)) == (method in ("ensemble", "aeb", "mbnn"))


def need_onnx() -> None:
    pytest.importorskip("onnxscript")
    if Version(torch.__version__) < Version(graphs.OLDEST):
        pytest.skip(f"PyTorch is older than {graphs.OLDEST}")


def run_onnx(path: Path, images: Tensor) -> dict[str, Tensor]:
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    values = session.run(None, {"images": images.numpy()})
    return {one.name: torch.tensor(value) for one, value in zip(session.get_outputs(), values, strict=True)}


def run_pt2(path: Path, images: Tensor) -> dict[str, Tensor]:
    return torch.export.load(path).module()(images)


FORMATS = {".onnx": (export_onnx, run_onnx), ".pt2": (export_pt2, run_pt2)}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_runs_without_the_package_for_any_number_of_images(run, tmp_path, capfd, ending) -> None:
    """Its metadata are there, and neither paths of this machine nor the exporter's own talk."""
    if ending == ".onnx":
        need_onnx()
    write, executed = FORMATS[ending]
    path, predictor = tmp_path / f"net{ending}", load(run)
    capfd.readouterr()
    assert write(path, predictor, METADATA, 2) == []
    assert capfd.readouterr() == ("", "")
    for n in (1, 7):
        check(executed(path, pixels(n)), predictor, pixels(n), 2)
    content = path.read_bytes()
    assert str(Path(graphs.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    if ending == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        assert session.get_modelmeta().custom_metadata_map.items() >= METADATA.items()
        assert [(one.name, one.type, one.shape[1:]) for one in session.get_inputs()] == [
            ("images", "tensor(uint8)", [1, 8, 8])
        ]
    else:
        found = dict.fromkeys(METADATA, "")
        torch.export.load(path, extra_files=found)
        assert found == METADATA


@pytest.mark.fault("a trained network outside the package", quick=0)
@pytest.mark.parametrize(
    ("method", "ending"),
    [(m, ".pt2") for m in KINDS] + [(m, ".onnx") for m in ("rigl", "ssvi", "sbp", "mbnn", "ensemble")],
)
def test_files_of_trained_runs_say_what_evaluations_say(tmp_path, tmp_path_factory, digits, method, ending) -> None:
    if ending == ".onnx":
        need_onnx()
    write, executed = FORMATS[ending]
    results = tmp_path_factory.getbasetemp() / "trained-for-graphs"
    spec = spec_of(method, **({} if "density" in CASES.get(method, {}) else DENSITY))
    folder = results / run_path(spec)
    if not files.is_trained(folder):
        train(spec, digits, results, folder)
    evaluate(spec, digits, folder, CPU, samples=3)
    evaluated = torch.tensor(np.load(folder / files.PREDICTIONS)["probabilities"])
    predictor, images = load(folder), digits.test_images
    for compressed in (False, True):
        path = tmp_path / f"{compressed}{ending}"
        write(path, load(folder), METADATA, 3, compressed)
        found = executed(path, images)
        torch.testing.assert_close(found["probabilities"], evaluated, **CLOSE)
        check(found, predictor, images, 3)
        for n in (1, 7):
            torch.testing.assert_close(executed(path, images[:n])["probabilities"], evaluated[:n], **CLOSE)
    write(path, load(folder), METADATA, None, True)
    check_mean(executed(path, images), load(folder), images, digits.normalise(images))


# Networks of others --------------------------------------------------------------------------------


class Small(nn.Module):
    """What a plugin's network may be: modules of PyTorch's, which are taken over."""

    def __init__(self, make, channels, image_size, classes, width) -> None:
        super().__init__()
        self.make = make.layer((6, channels * image_size**2), True, None, False)  # one that it reads
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.norm(nn.functional.linear(x.flatten(1), self.make.weight, self.make.bias))))


class Convolutions(nn.Module):
    """Everything that PyTorch's convolutions can be asked for."""

    def __init__(self, make, channels, image_size, classes, width) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, (3, 2), padding="same", padding_mode="replicate"),
            nn.Conv2d(4, 8, 3, stride=(2, 1), padding=(1, 2), dilation=2, groups=2, padding_mode="reflect"),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 4, 1, stride=2, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Flatten(2),
            nn.Conv1d(4, 3, 2, padding="same", padding_mode="circular"),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
            nn.Linear(6, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ReadsMeans(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.head.mean.sum()


class Blends(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out - out.mean(0)


class Random(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(())


class Branches(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class NotFinite(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.inf


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("method", ["static_vi", "ensemble"])
@pytest.mark.parametrize(("network", "form"), [(Small, OneByOne), (Convolutions, Together)])
@torch.no_grad()
def test_networks_of_plugins_work(monkeypatch, network, form, method, compressed) -> None:
    monkeypatch.setitem(MODELS, "mine", network)
    graph, _ = graph_of(untrained(method, model="mine"), 3, compressed)
    check(graph(pixels(7)), untrained(method, model="mine"), pixels(7), 3)
    assert isinstance(graph.net, form)


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (ReadsMeans, r"cannot be run as a plain network: AttributeError: 'Linear' object has no attribute 'mean'"),
        (
            Blends,
            r"has parts that compute something else in a graph \(logits differ by [\d.e-]+\) and cannot be exported",
        ),
        (Random, "has parts that compute something else in a graph"),
        (NotFinite, "its outputs are not finite, so there is nothing to export"),
        (Branches, "cannot be written as a graph: "),
    ],
)
def test_what_cannot_be_a_graph_is_refused_in_a_line_and_nothing_is_written(
    monkeypatch, tmp_path, network, line
) -> None:
    monkeypatch.setitem(MODELS, "mine", network)
    with pytest.raises(UserError, match=f"^network 'mine': {line}") as raised:
        export_pt2(tmp_path / "net.pt2", untrained("ensemble", model="mine"), METADATA, 2)
    assert len(str(raised.value)) < 600
    assert not [*tmp_path.iterdir()]


def test_a_chain_without_states_has_nothing_to_export(tmp_path) -> None:
    predictor = untrained("aeb", **DENSITY)
    predictor.method.predictive.kept.clear()
    with pytest.raises(UserError, match="has no network that predicts, so there is nothing to export"):
        export_pt2(tmp_path / "net.pt2", predictor, METADATA)


def test_an_onnx_file_that_would_be_too_large_is_refused(monkeypatch, tmp_path) -> None:
    need_onnx()
    monkeypatch.setattr(graphs, "LARGEST", 100_000)
    with pytest.raises(
        UserError, match=r"net.onnx: would be 0.00 GB, and an ONNX file is at most 2.15 GB; export fewer"
    ):
        export_onnx(tmp_path / "net.onnx", untrained("ssvi", model="mlp", width=1, **DENSITY), METADATA, 2)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path, package) -> None:
    monkeypatch.setattr(graphs, "OLDEST", "2.6")
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(ModuleNotFoundError) as raised:
        export_onnx(tmp_path / "net.onnx", untrained("ssvi", model="mlp", **DENSITY), METADATA)
    assert (
        extras.told(raised.value, "it")
        == f"it needs {package}, which is not installed here: {extras.install('export')}"
    )
    assert not [*tmp_path.iterdir()]


def test_an_older_pytorch_writes_no_onnx(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(UserError, match=r"ONNX is written by PyTorch 2.11 or newer, and this is 2.6.0"):
        export_onnx(tmp_path / "net.onnx", untrained("ssvi", model="mlp", **DENSITY), METADATA)
