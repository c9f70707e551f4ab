"""Networks of one's own: what no factory makes is seeded or refused, and what a method needs is asked for."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssvi.cli import main
from ssvi.core.layers import LayerFactory
from ssvi.core.models import MODELS
from ssvi.core.noise import NormalSource
from ssvi.errors import UserError
from ssvi.registry import KINDS
from ssvi.runs.spec import make_spec
from ssvi.training.network import build


class Net(nn.Module):
    """A linear map of the image behind whatever a test adds."""

    def __init__(self, make: LayerFactory, pixels: int, classes: int, more: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.more = more(pixels)
        self.head = make.linear(pixels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more(x.flatten(1)))


class Own(nn.Linear):
    """Does something else with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


class Scaled(nn.Module):
    """A learnt map of one's own, drawn at random."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def image_norm(size: int) -> nn.Module:
    """A normalisation whose parameters have the shape of an image."""
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.LayerNorm([1, 8, 8]), nn.Flatten())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], nn.Module]], None]:
    """Puts a network of one's own in the place of `mlp`."""

    def put(more: Callable[[int], nn.Module]) -> None:
        def make(factory: LayerFactory, channels: int, size: int, classes: int, width: float) -> nn.Module:
            return Net(factory, channels * size**2, classes, more)

        monkeypatch.setitem(MODELS, "mlp", make)

    return put


def built(method: str = "ssvi", seed: int = 0, **options) -> nn.Module:
    parent = {"parent": "dense"} if KINDS[method].needs_parent else {}
    spec = make_spec({"model": "mlp", "method": method, "seed": seed, **parent, **options})
    return build(spec, 1, 8, 10, NormalSource(seed, "noise"))[0]


def test_parameters_of_ones_own_are_drawn_from_the_seed(network) -> None:
    network(Scaled)
    torch.manual_seed(1)
    first = built()
    drawn = torch.rand(3)
    torch.manual_seed(2)
    again, other = built(), built(seed=1)
    assert torch.equal(first.more.scale, again.more.scale)
    assert not torch.equal(first.more.scale, other.more.scale)
    # and a caller's own random numbers are not disturbed
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda n: Own(n, n), "Own"),
        (lambda n: nn.Linear(n, n).requires_grad_(False), "Linear"),
        (lambda n: nn.ConvTranspose1d(n, n, 1), "ConvTranspose1d"),
        (lambda n: nn.MultiheadAttention(n, 1), "MultiheadAttention"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(network, layer, kind) -> None:
    network(layer)
    with pytest.raises(UserError, match=rf"network 'mlp': layer more.* is a {kind} that cannot be taken over"):
        built()


@pytest.mark.parametrize("method", ["dense", "ssvi", "mbnn"])
def test_plain_layers_are_taken_over(monkeypatch, method) -> None:
    """A network of PyTorch's own layers is the one of the factory's, to the start values and the stem."""

    class Small(nn.Module):
        def __init__(self, make: LayerFactory, plain: bool) -> None:
            super().__init__()
            conv = nn.Conv2d(1, 6, 3, padding=1, bias=False) if plain else make.conv2d(1, 6, 3, padding=1, stem=True)
            self.conv, self.gate = conv, make.gate(6, "hidden")
            self.head = nn.Linear(6, 10) if plain else make.linear(6, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.gate(self.conv(x).relu()).mean((2, 3)))

    found = []
    for plain in (True, False):
        monkeypatch.setitem(MODELS, "mlp", lambda factory, *_, plain=plain: Small(factory, plain))
        found.append(built(method))
    plain, made = (model.state_dict() for model in found)
    assert plain.keys() == made.keys()
    assert all(torch.equal(value, made[name]) for name, value in plain.items())
    assert [x.dense_stem for model in found for x in (model.conv, model.head)] == [True, False] * 2


@pytest.mark.parametrize("layer", [lambda n: nn.LazyLinear(n), lambda n: nn.LazyBatchNorm1d()])
def test_a_lazy_layer_is_refused(network, layer) -> None:
    network(layer)
    with pytest.raises(UserError, match=r"network 'mlp': Lazy\w+ more does not know its sizes when it is made"):
        built()


def test_a_layer_by_two_names_is_refused(monkeypatch) -> None:
    """It could be trained, but not be stored."""

    class Twins(nn.Module):
        def __init__(self, make: LayerFactory) -> None:
            super().__init__()
            self.a = self.b = make.linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x.flatten(1))

    monkeypatch.setitem(MODELS, "mlp", lambda factory, *_: Twins(factory))
    with pytest.raises(UserError, match="network 'mlp': layer a is also called b; it needs one name"):
        built()


@pytest.mark.parametrize("method", ["dense", "ssvi", "aeb"])
def test_a_layer_that_is_not_used_is_refused(monkeypatch, tmp_path, method) -> None:
    class Idle(nn.Module):
        def __init__(self, make: LayerFactory) -> None:
            super().__init__()
            self.idle, self.head = make.linear(64, 64), make.linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    monkeypatch.setitem(MODELS, "mlp", lambda factory, *_: Idle(factory))
    with pytest.raises(SystemExit) as stop:
        main(["train", f"--method={method}", "--model=mlp", f"--out={tmp_path / 'run'}", f"--data-root={tmp_path}"])
    assert str(stop.value).startswith("ssvi: network 'mlp': layer idle is not called by its forward, so what it costs")


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.LayerNorm, image_norm, lambda n: nn.PReLU(), Scaled])
@pytest.mark.parametrize("method", ["dense", "ssvi", "aeb"])
def test_normalisation_and_parameters_of_ones_own_are_allowed(network, layer, method) -> None:
    network(layer)
    assert built(method)(torch.rand(5, 1, 8, 8)).shape == (5, 10)


@pytest.mark.parametrize("method", ["sbp", "mbnn"])
def test_a_copied_gate_is_refused(monkeypatch, method) -> None:
    """It would neither open nor close with the others."""

    def copied(make: LayerFactory, channels: int, image_size: int, classes: int, width: float) -> nn.Module:
        size = channels * image_size**2
        block = nn.Sequential(make.linear(size, size), make.gate(size, "hidden"))
        return nn.Sequential(nn.Flatten(), block, copy.deepcopy(block), make.linear(size, classes))

    monkeypatch.setitem(MODELS, "mlp", copied)
    with pytest.raises(UserError, match="network 'mlp': asks the factory for 1 gates and has 2; each stands at one pl"):
        built(method)


@pytest.mark.parametrize(("method", "sites"), [("sbp", "'hidden' or 'branch'"), ("mbnn", "'hidden' or 'stream'")])
def test_a_network_without_gates_is_refused_by_methods_that_close_them(network, method, sites) -> None:
    network(lambda n: nn.Identity())
    with pytest.raises(UserError, match=f"network 'mlp': has no gate at {sites}, where method '{method}'"):
        built(method)


def test_a_network_without_layers_of_the_factory_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(MODELS, "mlp", lambda *_: nn.Sequential(nn.Flatten(), Scaled(64)))
    with pytest.raises(UserError, match=r"network 'mlp': has neither Linear, .* nor a layer of the factory's"):
        built()


def test_it_is_one_line_on_the_command_line(tmp_path, network, capsys) -> None:
    network(lambda n: nn.ConvTranspose1d(n, n, 1))
    with pytest.raises(SystemExit) as stop:
        main(["train", "--dataset=digits", "--model=mlp", f"--out={tmp_path / 'run'}", f"--data-root={tmp_path}"])
    assert str(stop.value).startswith("ssvi: network 'mlp': layer more is a ConvTranspose1d")
    assert "\n" not in str(stop.value)
