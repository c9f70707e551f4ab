"""The linear operations, and the node of local reparameterisation that uses them, against PyTorch's own layers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ssvi.core.noise import NormalSource
from ssvi.core.operations import PADDINGS, Convolution, Operation
from ssvi.core.reparameterisation import local_reparameterisation

MODULES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
EPSILON = 1e-8


@st.composite
def convolutions(draw) -> tuple[nn.Module, torch.Tensor]:
    """One of PyTorch's layers with every option drawn, and an input for it."""
    dims = draw(st.integers(1, 3))
    each = st.tuples
    kernel = draw(each(*[st.integers(1, 3)] * dims))
    dilation = draw(each(*[st.integers(1, 2)] * dims))
    seen = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [n + draw(st.integers(1, 3)) for n in seen]
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (0, 1, 0)[:dims], (1, 0, 1)[:dims]]))
    stride = 1 if padding == "same" else draw(st.integers(1, 3) | each(*[st.integers(1, 3)] * dims))
    groups = draw(st.integers(1, 2))
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    mode, bias = draw(st.sampled_from(list(PADDINGS))), draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 99)))
    module = MODULES[dims](inputs, outputs, kernel, stride, padding, dilation, groups, bias, mode).double()
    images = draw(st.sampled_from([(), (1,), (3,)]))
    x = torch.randn(*images, inputs, *size, dtype=torch.float64)
    if dims == 2 and images and draw(st.booleans()):
        x, module = x.to(memory_format=torch.channels_last), module.to(memory_format=torch.channels_last)
    return module, x


@st.composite
def products(draw) -> tuple[nn.Module, torch.Tensor]:
    """A matrix product, and tokens of any rank for it."""
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    tokens = draw(st.lists(st.integers(1, 4), max_size=3))
    torch.manual_seed(draw(st.integers(0, 99)))
    module = nn.Linear(inputs, outputs, draw(st.booleans())).double()
    return module, torch.randn(*tokens, inputs, dtype=torch.float64)


class FixedNoise(NormalSource):
    """The same draws every time, as finite differences need."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.first = self.get_state()

    def add_noise(self, mean, variance, epsilon):
        self.set_state(self.first)
        return super().add_noise(mean, variance, epsilon)

    def drawn_for(self, operation, rows, out) -> torch.Tensor:
        """What the node draws for outputs `rows`, in the shape of `out`."""
        rows = rows.detach().reshape(-1, rows.shape[-1]) if operation.kind == "matrix product" else rows.detach()
        nothing, one = torch.zeros_like(rows), torch.ones_like(rows)
        return self.add_noise(nothing, one, 0.0)[0].reshape(out.shape)


def operation_of(module: nn.Module) -> Operation:
    if isinstance(module, nn.Linear):
        return Operation()
    options = (module.stride, module.padding, module.dilation, module.groups, module.padding_mode)
    return Convolution(module.kernel_size, *options)


def with_gradients(f, *leaves) -> list[torch.Tensor]:
    """A function's value, and the gradients of a sum of it that has weights."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in leaves]
    y = f(*leaves)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x for x in leaves if x is not None])]


def are_close(found, wanted) -> bool:
    return all(a.shape == b.shape and torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", [convolutions(), products()], ids=["convolution", "product"])
@given(st.data())
def test_an_operation_is_the_layers_of_pytorch(kind, data) -> None:
    """Outputs and gradients, with options of every kind."""
    module, x = data.draw(kind)
    operation = operation_of(module)

    def ours(x, weight, bias):
        return operation(operation.seen(x), weight, bias)

    def theirs(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight} | ({} if bias is None else {"bias": bias}), x)

    leaves = (x, module.weight, module.bias)
    assert are_close(with_gradients(ours, *leaves), with_gradients(theirs, *leaves))


@pytest.mark.parametrize("kind", [convolutions(), products()], ids=["convolution", "product"])
@given(st.data())
def test_the_node_of_local_reparameterisation_is_eq_4_in_autograd(kind, data) -> None:
    """Against the formula of eq. 4 written with PyTorch's own layer, which computes in one pass less by hand."""
    module, x = data.draw(kind)
    operation, noise = operation_of(module), FixedNoise(0, "noise")
    variance = torch.rand_like(module.weight)

    def ours(x, mean, variance, bias):
        return local_reparameterisation(operation.seen(x), mean, variance, bias, operation, EPSILON, noise)

    def theirs(x, mean, variance, bias):
        def apply(x, weight, bias):
            own = {"weight": weight, "bias": torch.zeros(len(weight), dtype=x.dtype) if bias is None else bias}
            return torch.func.functional_call(module, {n: own[n] for n, _ in module.named_parameters()}, x)

        out = apply(x, mean, bias)
        rows = out if isinstance(module, nn.Linear) or x.dim() == mean.dim() else out[None]
        return out + (apply(x.square(), variance, None) + EPSILON).sqrt() * noise.drawn_for(operation, rows, out)

    leaves = (x, module.weight, variance, module.bias)
    assert are_close(with_gradients(ours, *leaves), with_gradients(theirs, *leaves))


@pytest.mark.parametrize(
    ("operation", "shape", "weight"),
    [
        (Convolution((3, 3), padding=1), (2, 3, 5, 5), (4, 3, 3, 3)),
        (Convolution((3, 3), 2, padding=1), (3, 5, 5), (4, 3, 3, 3)),
        (Convolution((1, 1), 2), (2, 3, 5, 5), (4, 3, 1, 1)),
        (Convolution((3, 2), (1, 2), "valid", 2, groups=3, padding_mode="reflect"), (2, 3, 5, 5), (6, 1, 3, 2)),
        (Convolution((3,), padding=1, groups=2), (2, 4, 5), (6, 2, 3)),
        (Convolution((2,), padding="same", padding_mode="circular"), (4, 5), (3, 4, 2)),
        (Convolution((2, 2, 2), 2, padding=1, groups=2), (2, 4, 3, 2, 3), (2, 2, 2, 2, 2)),
        (Convolution((2, 1, 2), padding="same", groups=2), (2, 3, 2, 2), (4, 1, 2, 1, 2)),
        (Operation(), (5, 3), (4, 3)),
        (Operation(), (3,), (4, 3)),
        (Operation(), (4, 4, 3), (4, 3)),  # as many tokens as images and outputs: a wrong product would fit too
        (Operation(), (2, 3, 2, 3), (4, 3)),
    ],
    ids=str,
)
def test_gradients_of_the_local_reparameterisation(operation, shape, weight) -> None:
    """Against finite differences in float64, for inputs of every rank that PyTorch's own layers take."""
    torch.manual_seed(0)
    noise = FixedNoise(0, "noise")
    x, mean, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, weight, weight[:1]))
    variance = torch.rand(weight, dtype=torch.float64).add_(0.1).requires_grad_()

    def f(x, mean, variance, bias):
        return local_reparameterisation(operation.seen(x), mean, variance, bias, operation, EPSILON, noise)

    assert torch.autograd.gradcheck(f, (x, mean, variance, bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_strided_pointwise_convolution_is_torchs(stride, padding, layout) -> None:
    """It is formed without stride, from the pixels that it sees."""
    operation = Convolution((1, 1), stride, padding)
    weight = torch.randn(4, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, 7, 7, dtype=torch.float64).contiguous(memory_format=layout)
    assert operation.seen(x).is_contiguous(memory_format=layout)
    ours = with_gradients(lambda x, weight: operation(operation.seen(x), weight, None), x, weight)
    assert are_close(
        ours, with_gradients(lambda x, weight: functional.conv2d(x, weight, stride=stride, padding=padding), x, weight)
    )
