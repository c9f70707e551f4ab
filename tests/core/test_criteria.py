"""Criteria and KL against values computed with 60 digits, and the laws they obey."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssvi.core.criteria import CRITERIA, NAIVE, scores, snr, snr_abs
from ssvi.core.gaussian import TO_RHO, TO_SIGMA, gaussian_kl

REFERENCE = json.loads(Path(__file__).with_name("criteria.json").read_text())
PAPERS = ("abs_mu", "snr", "e_abs", "snr_abs", "e_exp", "snr_exp")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}


def expected(row: dict, name: str) -> float:
    return row["e_exp_minus_1"] if name == "e_exp" else row[name]


def natural(name: str, score: torch.Tensor) -> torch.Tensor:
    """The exponential criteria are given as logarithms."""
    return score.exp() if name in ("e_exp", "snr_exp") else score


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", PAPERS)
def test_criteria_meet_the_reference(name: str, dtype: torch.dtype) -> None:
    for row in REFERENCE["removal_criteria"]:
        mu, sigma = (torch.tensor(row[k], dtype=dtype) for k in ("mu", "sigma"))
        got = natural(name, CRITERIA[name](mu, sigma, row["lambda"]))
        assert float(got) == pytest.approx(expected(row, name), rel=TOLERANCE[dtype]), row


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_kl_meets_the_reference(dtype: torch.dtype) -> None:
    for row in REFERENCE["gaussian_kl"]:
        mu = torch.tensor([row["mu"] - row["prior_mean"]], dtype=dtype)
        got = gaussian_kl(mu, torch.tensor([row["sigma"]], dtype=dtype), row["prior_std"])
        assert float(got) == pytest.approx(row["kl"], rel=TOLERANCE[dtype])


@pytest.mark.parametrize("name", PAPERS)
def test_criteria_equal_quadrature(name: str) -> None:
    from scipy.integrate import quad
    from scipy.stats import norm

    for mu, sigma, lam in [(0.3, 0.2, 1.0), (-0.05, 0.4, 2.0), (0.0, 0.7, 0.5), (1.0, 0.1, 3.0)]:

        def moment(f, mu=mu, sigma=sigma):
            density = norm(mu, sigma).pdf
            spread = 12 * sigma
            return quad(lambda x: f(abs(x)) * density(x), mu - spread, mu + spread, points=[0.0], limit=400)[0]

        def ratio(f, moment=moment):
            mean = moment(f)
            return mean / math.sqrt(moment(lambda x: (f(x) - mean) ** 2))

        truth = {
            "abs_mu": abs(mu),
            "snr": abs(mu) / sigma,
            "e_abs": moment(lambda x: x),
            "snr_abs": ratio(lambda x: x),
            "e_exp": moment(lambda x, lam=lam: math.expm1(lam * x)),
            "snr_exp": ratio(lambda x, lam=lam: math.exp(lam * x)),
        }
        got = natural(name, CRITERIA[name](torch.tensor(mu), torch.tensor(sigma), lam))
        assert float(got) == pytest.approx(truth[name], rel=1e-5)


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_are_finite_from_the_surest_weight_to_the_noisiest(name: str) -> None:
    mu = torch.tensor([0.0, 1e-20, 1e-8, 1e-3, 1.0, 30.0, 900.0])
    sigma = torch.tensor([1e-38, 1e-12, 1e-6, 1e-2, 1.0, 50.0])
    grid = [x.flatten() for x in torch.meshgrid(mu, sigma, indexing="ij")]
    assert torch.isfinite(CRITERIA[name](*grid, 1.0)).all()
    assert torch.isfinite(CRITERIA[name](torch.tensor([1.0, 0.0]), torch.zeros(2), 1.0)[0])


floats = st.floats(2.0**-26, 10.0, width=32)


@given(st.lists(st.tuples(floats, floats), min_size=2, max_size=30))
def test_snr_abs_never_inverts_an_order_of_snr(pairs: list[tuple[float, float]]) -> None:
    mu, sigma = (torch.tensor(x, dtype=torch.float32) for x in zip(*pairs, strict=True))
    order = snr(mu, sigma).argsort(stable=True)
    ranked = snr_abs(mu, sigma)[order]
    assert (ranked.diff() >= 0).all()


@pytest.mark.parametrize("exponent", range(-9, 5))
def test_snr_abs_inverts_nothing_on_a_dense_grid(exponent: int) -> None:
    ratio = torch.logspace(exponent, exponent + 1, 200_000, dtype=torch.float64).float().sort().values
    assert (snr_abs(ratio, torch.ones_like(ratio)).diff() >= 0).all()


@given(st.floats(0.0, 5.0), st.floats(1e-6, 1.0), st.floats(1.001, 2.0))
def test_every_score_but_snr_exp_grows_with_the_mean(mu: float, sigma: float, factor: float) -> None:
    values = torch.tensor([mu, mu * factor + 1e-9], dtype=torch.float64)
    for name in ("abs_mu", "snr", "e_abs", "snr_abs", "e_exp"):
        low, high = CRITERIA[name](values, torch.full_like(values, sigma), 1.0)
        assert high >= low - 1e-12 * abs(low) - 1e-9 * (name == "e_exp"), name


def test_naive_scores_put_a_sure_weight_last_and_stable_ones_do_not() -> None:
    """The published arithmetic in float32: the variance cancels to a negative number, NaN becomes 0."""
    mu = torch.linspace(0.4, 0.6, 4001)
    sigma = torch.full_like(mu, 1e-5)
    naive = scores("snr_exp", mu, sigma, arithmetic="naive")
    assert (naive == 0).any()
    assert torch.isfinite(scores("snr_exp", mu, sigma)).all()


@pytest.mark.parametrize("name", NAIVE)
def test_naive_scores_agree_where_nothing_cancels(name: str) -> None:
    mu, sigma = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor([0.5, 0.4], dtype=torch.float64)
    stable = natural(name, CRITERIA[name](mu, sigma, 1.0)) + (1.0 if name == "e_exp" else 0.0)
    assert torch.allclose(scores(name, mu, sigma, arithmetic="naive"), stable)


@pytest.mark.parametrize("name", TO_SIGMA)
def test_rho_gives_back_sigma(name: str) -> None:
    sigma = torch.tensor([1e-9, 6e-4, 0.01, 0.7, 30.0])
    assert torch.allclose(TO_SIGMA[name](TO_RHO[name](sigma)), sigma, rtol=1e-5)
