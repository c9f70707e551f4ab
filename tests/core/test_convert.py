"""`sparsify` on networks of every kind: they compute what they did, on a subspace, and nothing is lost silently."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim import SGD

import ssvi
from ssvi.core.active import active_weights, dense_state
from ssvi.core.layers import MaskedLayer, masked_layers

# As little noise as float64 has room for.
QUIET = {"start": "keep", "density": 1.0, "sigma_init": 1e-12, "sigma_init_sd": 0.0, "lrt_epsilon": 1e-24}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Tokens(nn.Module):
    """Every place is a token: [n, channels, ...] to [n, ..., channels]."""

    def forward(self, x):
        return x.movedim(1, -1)


@st.composite
def networks(draw) -> tuple[nn.Module, torch.Tensor]:
    """A convolutional network, nested and with shortcuts, that ends in matrix products on tokens; and its input."""
    dims = draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 999)))

    def block(inputs: int, outputs: int, depth: int, kinds=("plain", "norm", "residual", "nested", "strided")):
        kind = draw(st.sampled_from(kinds if depth else ("plain",)))
        if kind == "residual":
            inner = block(inputs, inputs, depth - 1, kinds[:4])
            return nn.Sequential(Residual(inner), block(inputs, outputs, depth - 1, kinds))
        if kind == "nested":
            return nn.Sequential(nn.Sequential(block(inputs, outputs, depth - 1, kinds)), nn.GELU())
        if kind == "norm":
            return nn.Sequential(block(inputs, outputs, depth - 1, kinds), NORMS[dims](outputs))
        if kind == "strided":
            return CONVOLUTIONS[dims](inputs, outputs, draw(st.sampled_from([1, 3])), 2, 1)
        groups, mode = draw(st.sampled_from([1, 2])), draw(st.sampled_from(["zeros", "circular"]))
        return CONVOLUTIONS[dims](inputs, outputs, 3, 1, "same", 1, groups, draw(st.booleans()), mode)

    body = [block(2, 4, 2), nn.ReLU(), block(4, 4, 2)]
    net = nn.Sequential(
        nn.Sequential(*body), Tokens(), nn.Linear(4, 6, draw(st.booleans())), nn.ReLU(), nn.Linear(6, 3)
    )
    return net.double(), torch.randn(3, 2, *[5] * dims, dtype=torch.float64)


@given(networks(), st.sampled_from(["local", "weight"]), st.booleans())
def test_a_converted_network_computes_what_it_did(made, sampling, posterior) -> None:
    net, x = made
    plain = copy.deepcopy(net)
    assert ssvi.sparsify(net, sampling=sampling, posterior=posterior, **QUIET) is net
    assert not [m for m in net.modules() if type(m) in (nn.Linear, *CONVOLUTIONS.values())]
    for mode in (True, False):
        wanted, found = plain.train(mode)(x), net.train(mode)(x)
        assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-7 if mode else 1e-12)
        wanted.square().sum().backward()
        found.square().sum().backward()
    # the vector holds the layers one after the other
    own = masked_layers(net)
    gradient = torch.cat([dict(plain.named_modules())[name].weight.grad.flatten() for name in own])
    assert torch.allclose(net.subspace_mean.grad, gradient, rtol=1e-6, atol=1e-6)
    for name, parameter in plain.named_parameters():
        if not name.endswith("weight") or name.removesuffix(".weight") not in own:
            assert torch.allclose(net.get_parameter(name).grad, parameter.grad, rtol=1e-6, atol=1e-6)


def small() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, bias=False))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


X = torch.linspace(-1, 1, 4 * 2 * 5 * 5).view(4, 2, 5, 5).sin()


def gradients(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and the gradients of all parameters and of the input."""
    x = x.clone().requires_grad_()
    y = net(x)
    return [y, *torch.autograd.grad(y.square().sum(), [*net.parameters(), x], materialize_grads=True)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"sampling": "weight"}, {"posterior": False}], ids=str)
def test_what_lies_outside_the_subspace_has_no_effect(options, training) -> None:
    """Not even if it is not a number."""
    options = {"start": "keep", "density": 0.3, "seed": 5, **options}
    net = ssvi.sparsify(small(), **options).train(training)
    spoilt = small()
    with torch.no_grad():
        for name, layer in masked_layers(net).items():
            spoilt.get_submodule(name).weight[~layer.mask] = math.nan
    ssvi.sparsify(spoilt, **options).train(training)
    assert all(torch.equal(a, b) for a, b in zip(gradients(net, X), gradients(spoilt, X), strict=True))


SIZES = {"0.0": 72, "0.2": 108, "3": 48, "5": 24}


@pytest.mark.parametrize(
    ("allocation", "density", "counts"),
    [
        ("uniform", 0.3, [72, 33, 15, 8]),  # n - floor((1 - 0.3) n), the first convolution whole
        ("uniform", 1.0, [72, 108, 48, 24]),
        ("erk", 1.0, [72, 108, 48, 24]),
        ("erk", 0.3, None),
        ("global", 0.3, None),
    ],
)
def test_active_counts_are_the_allocations_and_stay_so(allocation, density, counts) -> None:
    net = ssvi.sparsify(small(), density, allocation=allocation, seed=0)
    optimizer = SGD(ssvi.parameter_groups(net), lr=0.1, momentum=0.9)
    subspace = ssvi.Subspace(net, optimizer, total_steps=100, update_every=2)
    start, before = subspace.n_active, net.subspace_mean.numel()
    total = 252 - math.floor((1 - density) * 252 + 1e-9)
    assert {name: layer.size for name, layer in masked_layers(net).items()} == SIZES
    assert abs(sum(start.values()) - total) <= {"uniform": 252, "erk": 4, "global": 0}[allocation]
    assert counts is None or list(start.values()) == counts
    for _ in range(8):
        optimizer.zero_grad()
        (net(X).square().mean() + ssvi.kl(net) / 1e4).backward()
        subspace.step()
    assert subspace.updates == 4
    assert net.subspace_mean.numel() == before == sum(subspace.n_active.values())
    assert (subspace.n_active == start) == (allocation != "global")
    assert subspace.n_active == {name: int(layer.mask.sum()) if density < 1 else layer.size
                                 for name, layer in masked_layers(net).items()}  # fmt: skip
    if density < 1:
        assert (net.subspace_index.diff() > 0).all()


def test_the_largest_weights_are_chosen_by_layer_or_over_the_network() -> None:
    plain = small()
    weights = [m.weight.detach() for m in plain.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    net = ssvi.sparsify(copy.deepcopy(plain), 0.25, subspace="largest", start="keep", dense_stem=False)
    for layer, weight in zip(masked_layers(net).values(), weights, strict=True):
        wanted = weight.abs() >= weight.abs().flatten().sort(descending=True).values[weight.numel() // 4 - 1]
        assert torch.equal(layer.mask, wanted)
        assert torch.equal(layer.mean, weight * wanted)
    net = ssvi.sparsify(plain, 0.25, subspace="largest", allocation="global", posterior=False)
    every = torch.cat([w.flatten() for w in weights])
    assert net.subspace_mean.abs().min() >= every.abs().sort().values[-63]
    assert "subspace_rho" not in dict(net.named_parameters())
    assert torch.equal(net.train()(X), net.eval()(X))


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_only_a_convolution_that_is_the_networks_first_layer_is_a_stem(allocation) -> None:
    def shares(net: nn.Module, **options) -> list[float]:
        layers = masked_layers(ssvi.sparsify(net, 0.1, allocation=allocation, seed=0, **options)).values()
        return [layer.mask.float().mean().item() for layer in layers]

    uniform = allocation == "uniform"
    assert (shares(small())[0] == 1) == uniform
    assert shares(small(), dense_stem=False)[0] < 1
    # what comes second is none, whatever becomes of the first
    assert shares(small(), exclude="0.0")[0] < 1
    embedded = nn.Sequential(nn.Embedding(9, 40), nn.Conv1d(40, 40, 3))
    assert shares(embedded, exclude=nn.Embedding)[0] < 1
    assert shares(nn.Sequential(nn.Linear(20, 20), nn.Conv2d(20, 20, 1)))[1] < 1


def test_start_values_and_subspace_follow_the_seed_alone() -> None:
    first, again, other = (ssvi.sparsify(small(), 0.5, seed=seed) for seed in (1, np.int64(1), 2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert torch.equal(first(X), again(X))
    assert not torch.equal(first.subspace_index, other.subspace_index)
    torch.manual_seed(0)
    drawn = [ssvi.sparsify(small(), 0.5).subspace_mean for _ in range(2)]
    assert torch.equal(*drawn)  # small() seeds PyTorch, from which an unnamed seed comes


# What modules are to each other -------------------------------------------------------------------


class Twice(nn.Module):
    """One layer at two places, in a list that is no module, and in a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = nn.Sequential(self.first, nn.ReLU())
        self.listed = [self.first]
        self.bound = self.first.forward

    def forward(self, x):
        return self.listed[0](self.again(self.first(x)))


def test_a_shared_module_is_converted_once_wherever_it_is_held() -> None:
    torch.manual_seed(0)
    net, x = Twice().double(), torch.randn(3, 4, dtype=torch.float64)
    plain = copy.deepcopy(net)
    ssvi.sparsify(net, 1.0, posterior=False)
    assert net.subspace_mean.shape == (16,)
    assert net.first is net.again[0] is net.listed[0]
    found, wanted = net(x), plain(x)
    assert torch.equal(found, wanted)
    found.sum().backward()
    wanted.sum().backward()
    assert torch.allclose(net.subspace_mean.grad.view(4, 4), plain.first.weight.grad)
    assert torch.allclose(net.first.bias.grad, plain.first.bias.grad)
    assert net.first.in_features == 4


def test_everything_else_is_what_it_was() -> None:
    """Parameters are the same objects, and modules are in the mode that they were in."""
    net = small().eval()
    net[0].train()
    kept = {name: p for name, p in net.named_parameters() if name.endswith("bias")}
    modes = {name: module.training for name, module in net.named_modules()}
    ssvi.sparsify(net, 0.5)
    after = dict(net.named_parameters())
    assert set(after) == {*kept, "subspace_mean", "subspace_rho"}
    assert all(after[name] is p for name, p in kept.items())
    assert {name: module.training for name, module in net.named_modules()} == modes


def test_a_network_that_is_a_layer_stays_the_same_object() -> None:
    net, x = nn.Linear(6, 4), torch.randn(3, 6)
    assert ssvi.sparsify(net, 0.5, posterior=False, seed=0) is net
    assert isinstance(net, MaskedLayer)
    assert sorted(dense_state(net)) == ["bias", "mask", "mean"]
    assert torch.equal(net(x), functional.linear(x, net.mean, net.bias))


class ReadsItsChild(nn.Module):
    """As attentions do that compute with `self.qkv.weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 4)
        self.never = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        return torch.cat([functional.linear(x, self.qkv.weight, self.qkv.bias) for _ in range(2)])


@pytest.mark.parametrize("sampling", ["local", "weight"])
def test_a_weight_that_is_read_is_one_sample_a_pass(sampling) -> None:
    """Its gradient reaches mean and rho as autograd says of the sample."""
    x = torch.randn(3, 4, dtype=torch.float64)
    options = {"start": "keep", "sigma_init": 0.5, "sampling": sampling, "seed": 0}
    net = ssvi.sparsify(ReadsItsChild().double(), 0.5, **options)
    source, sigma = net.qkv.noise, active_weights(net)[0].sigma.detach()
    state = source.get_state()
    y = net(x)
    assert torch.equal(y[:3], y[3:])
    assert not torch.equal(net(x), y)
    y.square().sum().backward()
    source.set_state(state)
    noise = source.normal(sigma)
    dense = torch.zeros(32, dtype=torch.float64)
    dense[net.subspace_index] = net.subspace_mean.detach() + sigma * noise
    weight = dense[:16].view(4, 4).requires_grad_()
    wanted = functional.linear(x, weight, net.qkv.bias.detach()).repeat(2, 1)
    assert torch.allclose(y, wanted)
    wanted.square().sum().backward()
    gradient = torch.cat([weight.grad.flatten(), torch.zeros(16)])[net.subspace_index]
    assert torch.allclose(net.subspace_mean.grad, gradient)
    # d softplus(rho) / d rho = 1 - exp(-sigma)
    assert torch.allclose(net.subspace_rho.grad, gradient * noise * -torch.expm1(-sigma))
    assert torch.equal(net.eval()(x)[:3], functional.linear(x, net.qkv.mean, net.qkv.bias))


def test_a_layer_that_is_never_called_trains_by_the_kl_alone() -> None:
    net = ssvi.sparsify(ReadsItsChild(), 0.5, seed=0)
    optimizer = SGD(ssvi.parameter_groups(net), lr=0.1)
    subspace = ssvi.Subspace(net, optimizer, total_steps=10, update_every=2)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
        assert not net.subspace_mean.grad[net.subspace_index >= 16].any()
        subspace.step()
    assert subspace.n_active == {"qkv": 8, "never.0": 8}


# What is left as it is ----------------------------------------------------------------------------


class OwnForward(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Renamed(nn.Linear):
    """A subclass that computes as its parent does."""


def odd(change) -> nn.Module:
    module = nn.Linear(4, 4)
    return change(module) or module


ODD = {
    "frozen": (lambda: odd(lambda m: m.requires_grad_(False)), "odd.weight (Linear)"),
    "forward hook": (lambda: odd(lambda m: m.register_forward_hook(lambda *_: None) and None), "odd.weight (Linear)"),
    "pre-hook": (lambda: odd(lambda m: m.register_forward_pre_hook(lambda *_: None) and None), "odd.weight (Linear)"),
    "backward hook": (
        lambda: odd(lambda m: m.register_full_backward_hook(lambda *_: None) and None),
        "odd.weight (Linear)",
    ),
    "hook of the weight": (lambda: odd(lambda m: m.weight.register_hook(lambda g: g) and None), "odd.weight (Linear)"),
    "forward of its own": (
        lambda: odd(lambda m: setattr(m, "forward", lambda x: functional.linear(x, m.weight))),
        "odd.weight (Linear)",
    ),
    "weight_norm": (lambda: odd(parametrizations.weight_norm), "odd.parametrizations.weight.original1"),
    "spectral_norm": (lambda: odd(parametrizations.spectral_norm), "odd.parametrizations.weight.original"),
    "old weight_norm": (lambda: odd(weight_norm), "odd.weight_v (Linear)"),
    "old spectral_norm": (lambda: odd(spectral_norm), "odd.weight_orig (Linear)"),
    "pruned": (lambda: odd(lambda m: prune.l1_unstructured(m, "weight", 2) and None), "odd.weight_orig (Linear)"),
    "subclass": (lambda: OwnForward(4, 4), "odd.weight (OwnForward)"),
    "subclass of a convolution": (lambda: OwnConvolution(4, 4, 1), "odd.weight (OwnConvolution)"),
    "complex": (lambda: nn.Linear(4, 4, dtype=torch.complex64), "odd.weight (Linear)"),
    "LSTM": (lambda: nn.LSTM(4, 4), "odd.weight_ih_l0 (LSTM), odd.weight_hh_l0 (LSTM)"),
    "GRU": (lambda: nn.GRU(4, 4), "odd.weight_ih_l0 (GRU), odd.weight_hh_l0 (GRU)"),
    "Embedding": (lambda: nn.Embedding(4, 4), "odd.weight (Embedding)"),
    "ConvTranspose": (lambda: nn.ConvTranspose2d(4, 4, 1), "odd.weight (ConvTranspose2d)"),
    "Bilinear": (lambda: nn.Bilinear(4, 4, 4), "odd.weight (Bilinear)"),
    "bare parameter": (lambda: nn.ParameterList([nn.Parameter(torch.ones(4, 4))]), "odd.0 (ParameterList)"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_cannot_be_converted_stays_as_it_is_and_is_named(name) -> None:
    make, told = ODD[name]
    net = nn.ModuleDict({"odd": make(), "fc": Renamed(4, 4)})
    kind, kept = type(net["odd"]), dict(net["odd"].named_parameters())
    with pytest.warns(UserWarning, match="stay dense and without a posterior") as seen:
        ssvi.sparsify(net, 0.5)
    assert told in str(seen[0].message)
    assert "fc" not in str(seen[0].message)
    assert type(net["odd"]) is kind
    assert {n: id(p) for n, p in net["odd"].named_parameters()} == {n: id(p) for n, p in kept.items()}
    assert list(masked_layers(net)) == ["fc"]


def test_tied_parameters_stay_dense_and_are_named() -> None:
    net = nn.ModuleDict({"words": nn.Embedding(5, 4), "fc": nn.Linear(4, 4), "out": nn.Linear(4, 5)})
    net["out"].weight = net["words"].weight
    net["out"].bias = nn.Parameter(torch.zeros(5))
    with pytest.warns(UserWarning, match=r"dense .*: words.weight \(Embedding\), out.weight \(Linear\)$"):
        ssvi.sparsify(net, 0.5)
    assert net["out"].weight is net["words"].weight
    assert list(masked_layers(net)) == ["fc"]


def test_the_warning_is_short_and_at_the_callers_line() -> None:
    net = nn.ModuleDict({f"e{i}": nn.Embedding(3, 3) for i in range(12)} | {"fc": nn.Linear(3, 3)})
    with pytest.warns(UserWarning, match=r"e7.weight \(Embedding\) and 4 more$") as seen:
        ssvi.sparsify(net, 0.5)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssvi.sparsify(small(), 0.5)
        ssvi.sparsify(nn.ModuleDict({"e": nn.Embedding(3, 3), "fc": nn.Linear(3, 3)}), 0.5, exclude=nn.Embedding)


@pytest.mark.parametrize(
    ("options", "converted"),
    [
        ({}, ["a.0", "a.1.fc", "b"]),
        ({"include": "a"}, ["a.0", "a.1.fc"]),
        ({"include": "a.*"}, ["a.0", "a.1.fc"]),
        ({"include": "*.fc"}, ["a.1.fc"]),
        ({"include": "shared"}, ["b"]),
        ({"exclude": "shared"}, ["a.0", "a.1.fc"]),
        ({"include": nn.Conv2d}, ["a.0"]),
        ({"include": nn.Sequential, "exclude": "a.0"}, ["a.1.fc"]),
        ({"include": ["b", nn.Conv2d]}, ["a.0", "b"]),
        ({"include": ("a.1", "b"), "exclude": [nn.Conv2d]}, ["a.1.fc", "b"]),
        ({"exclude": lambda name, module: name.startswith("a") and isinstance(module, nn.Linear)}, ["a.0", "b"]),
        ({"include": lambda name, module: not isinstance(module, nn.Linear)}, ["a.0"]),
    ],
)
def test_what_is_included_and_excluded(options, converted) -> None:
    inner = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    net = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(3, 3, 1), inner), "b": nn.Linear(3, 3)})
    net["shared"] = net["b"]
    ssvi.sparsify(net, 0.5, **options)
    assert list(masked_layers(net)) == converted


def test_two_parts_may_be_converted_by_themselves() -> None:
    net = small()
    ssvi.sparsify(net[0], 0.2, seed=0)
    ssvi.sparsify(net[5], 0.5, seed=0)
    assert [len(x.mean) for x in active_weights(net)] == [72 + 22, 12]
    net(X).sum().backward()
    assert net[0].subspace_mean.grad.any()
    assert ssvi.predict(net, X).probabilities.shape == (4, 3)
