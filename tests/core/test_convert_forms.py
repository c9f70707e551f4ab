"""`sparsify` on networks of every number type and memory format, on copies and files of them; and bad options."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.layers import masked_layers
from ssvi.errors import Misuse

X = torch.linspace(-1, 1, 4 * 2 * 6 * 6).view(4, 2, 6, 6).sin()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1, 2)
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_network_keeps_its_number_type(dtype, density) -> None:
    net, x = small().to(dtype), X.to(dtype)
    wanted = copy.deepcopy(net).eval()(x)
    ssvi.sparsify(net, density, start="keep", seed=0)
    assert {p.dtype for p in net.parameters()} == {dtype}
    net(x).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    assert ssvi.kl(net).isfinite()
    found = ssvi.sparsify(small().to(dtype), density, start="keep", seed=0).eval()(x)
    assert found.dtype == dtype
    # the strided pointwise convolution is formed without stride, by another kernel
    assert torch.allclose(found, wanted, rtol=16 * torch.finfo(dtype).eps) == (density == 1)


@pytest.mark.parametrize("density", [0.4, 1.0])
def test_a_network_keeps_its_memory_format(density) -> None:
    """The subspace and the start are those of the usual format; so are files."""
    options = {"density": density, "seed": 0, "start": "keep"}
    usual = ssvi.sparsify(small(), **options).eval()
    last = ssvi.sparsify(small().to(memory_format=torch.channels_last), **options).eval()
    used = []
    for number in (0, 3):
        last[number].register_forward_hook(lambda layer, *_: used.append(layer.weight))
    assert torch.allclose(usual(X), last(X.to(memory_format=torch.channels_last)), atol=1e-6)
    assert [weight.is_contiguous(memory_format=torch.channels_last) for weight in used] == [True, True]
    for a, b in zip(masked_layers(usual).values(), masked_layers(last).values(), strict=True):
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.rho, b.rho)
    files = [net.state_dict() for net in (usual, last)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_transposed_weight_is_the_same_weight() -> None:
    net = nn.Linear(5, 3)
    net.weight = nn.Parameter(torch.randn(5, 3).T)
    x = torch.randn(2, 5)
    wanted = net(x)
    assert torch.allclose(ssvi.sparsify(net, 1.0, posterior=False)(x), wanted)


@pytest.mark.parametrize("options", [{}, {"posterior": False}, {"density": 1.0}], ids=str)
def test_copies_and_files_are_networks_of_their_own(options) -> None:
    options = {"density": 0.4, "seed": 0} | options
    net = ssvi.sparsify(small(), **options)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    other = ssvi.sparsify(small(), **options | {"seed": 1})
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    copies = [copy.deepcopy(net), torch.load(file, weights_only=False), other]
    net.eval()
    before = net(X)
    for one in copies:
        assert torch.equal(one.eval()(X), before)
        assert active_weights(one)[0].network is one
        optimizer = torch.optim.SGD(ssvi.parameter_groups(one), lr=0.1)
        subspace = ssvi.Subspace(one.train(), optimizer, total_steps=100, update_every=1)
        one(X).square().sum().backward()
        subspace.step()
        assert not torch.equal(one.eval()(X), before)
        assert torch.equal(net(X), before)


# Bad input ----------------------------------------------------------------------------------------


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())


def frozen() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Linear(3, 3)).requires_grad_(False)


def spoilt() -> nn.Module:
    net = nn.Linear(3, 3)
    nn.init.constant_(net.weight, math.nan)
    return net


NUMBERS = ("mu_init_sd", "sigma_init", "sigma_init_sd", "prior_sigma", "lrt_epsilon")
BAD = [
    *((small, {"density": bad}, "density is ") for bad in (0, -0.1, math.nan, math.inf, "0.1", None, True, [0.1])),
    (small, {"density": 1.01}, "density is 1.01, but must be > 0 and <= 1."),
    *((small, {name: bad}, f"{name} is {bad!r}, but must be >") for name in NUMBERS for bad in (-1.0, math.nan, "1")),
    *((small, {name: 0}, f"{name} is 0, but must be > 0 and finite.") for name in NUMBERS if "_sd" not in name),
    (small, {"start": "kept"}, "start is 'kept', but must be one of published, keep."),
    (small, {"subspace": "best"}, "subspace is 'best', but must be one of random, largest."),
    (small, {"allocation": "even"}, "allocation is 'even', but must be one of uniform, erk, global."),
    (small, {"sampling": None}, "sampling is None, but must be one of local, weight."),
    (small, {"parameterisation": "log"}, "parameterisation is 'log', but must be one of softplus, exp, abs."),
    (small, {"seed": 1.5}, "seed is 1.5, but must be a whole number or None."),
    (small, {"exclude": "classifier"}, "exclude is 'classifier', which is the name of no module in the network."),
    (small, {"include": ["0", "fc*"]}, "include is 'fc*', which is the name of no module in the network."),
    (small, {"include": 3}, "include is 3, but must be a module's name, a type of module, a function of both, or"),
    (small, {"exclude": [nn.Linear(1, 1)]}, "exclude is Linear(in_features=1, out_features=1, bias=True), but must be"),
    (small, {"exclude": nn.Sequential(nn.ReLU())}, "exclude is Sequential("),
    (small, {"exclude": int}, "exclude is <class 'int'>, but must be"),
    (small, {"exclude": "*"}, "Sequential has nothing to convert, no Linear, Conv1d, Conv2d, Conv3d or MultiheadAtt"),
    (spoilt, {"subspace": "largest", "start": "keep"}, "weight has weights that are not a number, of which none is"),
    (nn.ReLU, {}, "ReLU has nothing to convert"),
    (frozen, {}, "that is included; what stays dense: 1.weight (Linear)."),
    (lambda: nn.LSTM(2, 2), {}, "what stays dense: weight_ih_l0 (LSTM), weight_hh_l0 (LSTM)."),
    (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "0 (LazyLinear) does not know its sizes yet; call the network once"),
    (lambda: nn.LazyConv2d(3, 1), {}, "the network (LazyConv2d) does not know its sizes yet"),
    (lambda: nn.Linear(3, 3, device="meta"), {}, "weight has no values yet, it is on the device 'meta'"),
    (mixed, {}, "0.weight is torch.float32 on cpu and 1.weight is torch.float64 on cpu; weights of one subspace"),
    (lambda: nn.DataParallel(small()), {}, "the network is in a DataParallel already; sparsify comes before that."),
    (lambda: ssvi.sparsify(small(), 0.5), {}, "Sequential is converted already; sparsify comes once, before anything"),
    (lambda: nn.Sequential(ssvi.sparsify(small(), 0.5)), {}, "Sequential is converted already"),
    (
        lambda: nn.Sequential(nn.Linear(50, 50), nn.Linear(2, 1)),
        {"density": 0.002, "allocation": "global", "seed": 0},
        "density is 0.002, which leaves 1.weight without a weight; choose a larger one, or allocation='uniform'.",
    ),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD, ids=[f"{n}: {b[2][:40]}" for n, b in enumerate(BAD)])
def test_bad_input_is_one_clear_line_and_changes_nothing(make, options, message) -> None:
    net = make()
    before = {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()}
    kinds = [type(module) for module in net.modules()]
    with pytest.raises(Misuse) as caught:
        ssvi.sparsify(net, **{"density": 0.5, **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()} == before
    assert [type(module) for module in net.modules()] == kinds


def test_a_network_is_a_module() -> None:
    with pytest.raises(Misuse, match=r"^net is \[\], but must be a torch.nn.Module.$"):
        ssvi.sparsify([], 0.5)


def test_what_is_outside_may_be_of_another_type() -> None:
    net = mixed()
    ssvi.sparsify(net, 0.5, exclude="1")
    assert net.subspace_mean.dtype == torch.float32


@pytest.mark.parametrize("density", [1, np.float64(0.3), np.float32(0.5)])
def test_a_density_may_be_any_kind_of_number(density) -> None:
    net = ssvi.sparsify(nn.Linear(5, 2), density, sigma_init=np.float64(0.1), mu_init_sd=0)
    assert len(net.subspace_mean) == round(10 * float(density))


def test_noise_that_the_backward_pass_would_draw_again_is_refused() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=True)

    x = torch.ones(2, 3, requires_grad=True)
    for sampling in ("local", "weight"):
        net = ssvi.sparsify(Checkpointed(), 0.5, sampling=sampling)
        with pytest.raises(Misuse, match="activation checkpointing"):
            net(x).sum().backward()
    plain = ssvi.sparsify(Checkpointed(), 0.5, posterior=False)
    plain(x).sum().backward()
    assert torch.equal(plain.subspace_mean.grad, torch.full((5,), 2.0))


def test_a_second_derivative_is_refused() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    y = ssvi.sparsify(nn.Linear(3, 3), 0.5)(x).square().sum()
    (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
