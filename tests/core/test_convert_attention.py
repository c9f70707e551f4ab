"""Attentions and transformers, which read weights in functions of PyTorch's, as converted by `sparsify`."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import ssvi
from ssvi.core.active import active_weights, dense_state
from ssvi.core.layers import masked_layers

QUIET = {"start": "keep", "density": 1.0, "sigma_init": 1e-12, "sigma_init_sd": 0.0, "lrt_epsilon": 1e-24}
KINDS = [
    pytest.param({}, id="usual"),
    pytest.param({"batch_first": True}, id="batch first"),
    pytest.param({"bias": False}, id="no bias"),
    pytest.param({"kdim": 6, "vdim": 10}, id="separate weights"),
    pytest.param({"kdim": 6, "vdim": 10, "bias": False, "batch_first": True}, id="separate, no bias, batch first"),
    pytest.param(
        {"add_bias_kv": True, "add_zero_attn": True},
        id="added keys",  # which stay dense
        marks=pytest.mark.filterwarnings("ignore:these weights stay dense"),
    ),
]


def attention(**options) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, dtype=torch.float64, **options)


def queries(net: nn.MultiheadAttention) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    sizes = (net.embed_dim, net.kdim, net.vdim)
    return tuple(torch.randn(3, 3, size, dtype=torch.float64) for size in sizes)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", KINDS)
def test_an_attention_computes_what_it_did(options, need_weights) -> None:
    plain = attention(**options)
    net = ssvi.sparsify(copy.deepcopy(plain), **QUIET)
    assert isinstance(net, nn.MultiheadAttention)
    mask = torch.ones(3, 3, dtype=torch.bool).triu(1)
    for mode in (True, False):
        wanted = plain.train(mode)(*queries(plain), need_weights=need_weights, attn_mask=mask)
        found = net.train(mode)(*queries(net), need_weights=need_weights, attn_mask=mask)
        for a, b in zip(found, wanted, strict=True):
            assert (a is None and b is None) or torch.allclose(a, b, atol=1e-9 if mode else 1e-14)
        wanted[0].square().sum().backward()
        found[0].square().sum().backward()
    with torch.no_grad():  # where PyTorch has a fast path
        alone = queries(net)[:1] * 3
        if net.kdim == net.vdim == net.embed_dim:
            assert torch.equal(net(*alone, need_weights=need_weights)[0], plain(*alone, need_weights=need_weights)[0])
    own = masked_layers(net)
    gradient = [(plain.out_proj.weight if name == "out_proj" else getattr(plain, name)).grad for name in own]
    assert torch.allclose(net.subspace_mean.grad, torch.cat([g.flatten() for g in gradient]), atol=1e-9)
    for name, parameter in net.named_parameters():
        if not name.startswith("subspace"):
            assert torch.allclose(parameter.grad, plain.get_parameter(name).grad, atol=1e-9)


@pytest.mark.parametrize("sampling", ["local", "weight"])
@pytest.mark.parametrize("options", KINDS[:5])
def test_in_training_it_attends_with_one_weight_sample(options, sampling) -> None:
    """Against PyTorch's function called by hand with that sample, and autograd of it."""
    net = attention(**options)
    given = {"start": "keep", "density": 0.5, "sigma_init": 0.3, "sigma_init_sd": 0.1, "sampling": sampling, "seed": 0}
    ssvi.sparsify(net, **given)
    weights = active_weights(net)[0]
    source, sigma = weights.layers[0].noise, weights.sigma.detach()
    state = source.get_state()
    y, _ = net(*queries(net))
    y.square().sum().backward()
    source.set_state(state)
    noise = source.normal(sigma)
    vector = (net.subspace_mean.detach() + sigma * noise).requires_grad_()
    sizes = [layer.size for layer in weights.layers]
    dense = torch.zeros(sum(sizes), dtype=torch.float64).index_copy(0, net.subspace_index, vector)
    parts = [part.view(x.shape) for part, x in zip(dense.split(sizes), weights.layers, strict=True)]
    own = dict(zip(masked_layers(net), parts, strict=True))
    inputs = queries(net)
    if net.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    projections = {f"{n}_proj_weight": own[f"{n}_proj_weight"] for n in "qkv" if f"{n}_proj_weight" in own}
    wanted, _ = functional.multi_head_attention_forward(
        *inputs, 8, 2, own.get("in_proj_weight"), net.in_proj_bias, None, None, False, 0.0, own["out_proj"],
        net.out_proj.bias, use_separate_proj_weight=bool(projections), **projections,
    )  # fmt: skip
    assert torch.allclose(y, wanted.transpose(0, 1) if net.batch_first else wanted)
    (gradient,) = torch.autograd.grad(wanted.square().sum(), vector)
    assert torch.allclose(net.subspace_mean.grad, gradient)
    # d softplus(rho) / d rho = 1 - exp(-sigma)
    assert torch.allclose(net.subspace_rho.grad, gradient * noise * -torch.expm1(-sigma))
    assert not torch.equal(net(*queries(net))[0], y)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = attention()

    def forward(self, x):
        return torch.stack([self.attention(x, x, x)[0] for _ in range(2)])


def test_the_sample_is_the_same_all_through_a_pass() -> None:
    net, x = ssvi.sparsify(Twice(), 0.5, sigma_init=0.3), queries(attention())[0]
    first, second = net(x), net(x)
    assert torch.equal(*first)
    assert not torch.equal(first, second)


def transformer(kind: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    options = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
    x, memory = (torch.randn(2, n, 8, dtype=torch.float64) for n in (5, 3))
    if kind == "encoder":
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, **options), 2), (x,)
    if kind == "decoder":
        return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, **options), 2), (x, memory)
    return nn.Transformer(8, 2, 1, 1, 12, **options), (x, memory)


@pytest.mark.parametrize(("kind", "layers"), [("encoder", 8), ("decoder", 12), ("whole", 10)])
def test_transformers_compute_what_they_did(kind, layers) -> None:
    plain, inputs = transformer(kind)
    net = ssvi.sparsify(copy.deepcopy(plain), **QUIET)
    assert len(masked_layers(net)) == layers
    assert not [name for name, p in net.named_parameters() if p.dim() > 1]
    assert torch.allclose(net(*inputs), plain(*inputs), atol=1e-9)
    assert torch.equal(net.eval()(*inputs), plain.eval()(*inputs))
    with torch.no_grad():
        assert torch.equal(net(*inputs), plain(*inputs))


def test_the_fast_path_of_an_encoder_is_taken_with_the_weights_of_the_moment(monkeypatch) -> None:
    net, inputs = transformer("encoder")
    ssvi.sparsify(net, 0.5, start="keep", sigma_init=0.3)
    calls, whole = [], torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or whole(*a))
    fast = ssvi.sample(net, *inputs, samples=3)
    assert len(calls) == 6
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        slow = ssvi.sample(net, *inputs, samples=3)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(calls) == 6
    assert torch.allclose(fast, slow)
    assert not torch.allclose(fast[0], fast[1], atol=0.01)


def test_copies_files_and_names_of_an_attention() -> None:
    net, inputs = transformer("encoder")
    ssvi.sparsify(net, 0.5, seed=0)
    other = ssvi.sparsify(transformer("encoder")[0], 0.5, seed=1)
    other.load_state_dict(net.state_dict())
    for one in (copy.deepcopy(net), other):
        assert torch.equal(one.eval()(*inputs), net.eval()(*inputs))
        one.layers[0].self_attn(*inputs * 3)[0].sum().backward()
        assert one.subspace_mean.grad.any()
        assert net.subspace_mean.grad is None
    assert "layers.0.self_attn.in_proj_weight.mean" in dense_state(net)
    assert net.layers[0].self_attn.in_proj_weight.shape == (24, 8)


class OwnForward(nn.MultiheadAttention):
    def forward(self, *inputs):
        return super().forward(*inputs, need_weights=False)[0]


def test_an_attention_with_a_forward_of_its_own_keeps_its_weights() -> None:
    net = OwnForward(8, 2)
    with pytest.warns(UserWarning, match=r"dense .*: in_proj_weight \(OwnForward\)$"):
        ssvi.sparsify(net, 0.5)
    assert list(masked_layers(net)) == ["out_proj"]
    assert type(net) is OwnForward
