"""The normal numbers of a training: their distribution, and that the same stream gives the same numbers."""

import math

import pytest
import torch
from scipy import stats

from ssvi.core.noise import GENERATORS, PIECE, NormalSource, Streams

N = 2 * GENERATORS * PIECE + 12345


@pytest.fixture(scope="module")
def draws() -> torch.Tensor:
    return NormalSource(0, "noise").normal(torch.empty(N))


def test_draws_are_standard_normal(draws) -> None:
    """Kolmogorov-Smirnov, moments and tails, at five standard errors."""
    x = draws.double()
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-4
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((x**power).mean()) - moment) < 5 * math.sqrt(variance / N)
    for threshold in (2.0, 3.0, 4.0):
        expected = N * 2 * stats.norm.sf(threshold)
        assert abs(int((x.abs() > threshold).sum()) - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("lag", [1, 2, 7, PIECE, GENERATORS * PIECE, GENERATORS * PIECE + 1])
def test_draws_are_uncorrelated_also_across_pieces_and_generators(draws, lag) -> None:
    for x in (draws.double(), draws.double().square() - 1):
        product = x[:-lag] * x[lag:]
        assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(len(product))


def test_no_number_comes_twice_in_different_pieces(draws) -> None:
    starts = draws[: 2 * GENERATORS * PIECE].view(-1, PIECE)[:, :8]
    assert len({tuple(row.tolist()) for row in starts}) == len(starts)


def test_draws_do_not_depend_on_the_number_of_threads(draws) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(NormalSource(0, "noise").normal(torch.empty(N)), draws)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 10, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("single", [False, True])
def test_a_stream_goes_on_where_its_state_was_taken(n, single) -> None:
    source = NormalSource(3, "noise", single=single)
    source.normal(torch.empty(n))
    state = source.get_state()
    first = source.normal(torch.empty(n))
    second = source.normal(torch.empty(n))
    assert not torch.equal(first, second)
    other = NormalSource(4, "noise", single=single)
    other.set_state(state)
    assert torch.equal(other.normal(torch.empty(n)), first)
    assert torch.equal(other.normal(torch.empty(n)), second)


def test_seeds_and_purposes_give_different_numbers() -> None:
    found = [NormalSource(s, p).normal(torch.empty(8)) for s in (0, 1) for p in ("noise", "evaluation")]
    assert len({tuple(x.tolist()) for x in found}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_noise_is_added_with_the_sd_of_each_output(dtype, layout) -> None:
    """out - mean = sd z and slope = z / (2 sd) with one and the same z, whatever type and layout."""
    shape, epsilon = (16, 8, 24, 24), 1e-8
    mean = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    variance = torch.rand(shape).add_(0.05).to(dtype).contiguous(memory_format=layout)
    sd = (variance.double() + epsilon).sqrt()
    out, slope = NormalSource(1, "noise").add_noise(mean.clone(), variance.clone(), epsilon)
    z = NormalSource(1, "noise").normal(torch.empty_like(mean, dtype=torch.float64 if dtype.itemsize > 4 else None))
    rough = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    assert torch.allclose(out.double(), mean.double() + sd * z.double(), rtol=rough, atol=rough)
    assert torch.allclose(slope.double(), z.double() / (2 * sd), rtol=rough, atol=rough)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_held_noise_is_one_pattern_in_eager_and_in_compiled_code(layout) -> None:
    """Without a new graph, and as CUDA's code path has it, which draws inside the graph."""
    source = NormalSource(1, "noise")

    def draw(like):
        return source.normal(like), *source.add_noise(like.clone(), like.abs() + 1.0, 0.0)

    like = torch.randn(20, 5, 16, 8).contiguous(memory_format=layout)
    sd = (like.abs() + 1).sqrt()
    with source.held():
        pattern = source.normal(torch.empty(20, 5, 16, 8))
    assert float(pattern.mean()) == pytest.approx(0, abs=0.01)
    assert float(pattern.std()) == pytest.approx(1, abs=0.01)
    assert pattern.unique().numel() > 10_000
    held = (pattern, like + sd * pattern, pattern / (2 * sd))
    for device in ("cpu", "cuda"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        source.device = torch.device(device)
        compiled = torch.compile(draw, backend="eager", fullgraph=True)
        compiled(like)
        for f in (draw, compiled):
            with source.held():
                assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(f(like), held, strict=True))
            assert not torch.equal(f(like)[0], pattern)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_no_stream_disturbs_another() -> None:
    a, b = Streams(0, torch.device("cpu")), Streams(0, torch.device("cpu"))
    a.noise.normal(torch.empty(100))
    torch.rand(5, generator=a["growth"])
    assert torch.equal(torch.randperm(50, generator=a["order"]), torch.randperm(50, generator=b["order"]))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.noise.normal(torch.empty(9)), b.noise.normal(torch.empty(9)))


def test_draws_are_the_same_while_predicting():
    """Predictions run under inference mode, which every drawing thread has to be in."""
    like, before = torch.empty(5 * PIECE + 7), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        expected = NormalSource(3, "noise").normal(like)
        with torch.inference_mode():
            assert torch.equal(NormalSource(3, "noise").normal(like), expected)
    finally:
        torch.set_num_threads(before)
