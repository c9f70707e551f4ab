"""Variances moderated by those of many settings: the fit against known priors, and what its intervals cover."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_claims import ssvi, study, vi
from scipy import stats as scipy_stats

from ssvi.analysis import pool, tables
from ssvi.analysis.stats import Scatter, difference

SEEDS = 5


def settings(random: np.random.Generator, sds: list[float], shared: float = 0.2) -> list[pd.Series]:
    """Settings of mean 0 that scatter as much, three or five seeds each, with what a seed does to all of them."""
    of_seed = shared * random.normal(size=SEEDS)
    sizes = random.choice([3, SEEDS], len(sds))
    return [pd.Series((of_seed + sd * random.normal(size=SEEDS))[:n]) for sd, n in zip(sds, sizes, strict=True)]


def coverage(repeats: int, sds: list[float], noisy: int = 0) -> tuple[float, float, float]:
    """Of the intervals of differences the share that holds the true 0: all, and those with one of the last `noisy`
    settings; and their width relative to the interval without a prior."""
    random = np.random.default_rng(0)
    inside, of_noisy, widths = [], [], []
    for _ in range(repeats):
        made = settings(random, sds)
        prior = pool.fit(made)
        assert prior is not None
        for i, j in combinations(range(len(made)), 2):
            plain = difference(made[i], made[j])
            mine = plain if {i, j} & prior.alone else difference(made[i], made[j], prior=prior)
            inside.append(mine.low <= 0 <= mine.high)
            widths.append((mine.high - mine.low) / (plain.high - plain.low))
            if j >= len(made) - noisy:
                of_noisy.append(inside[-1])
    return float(np.mean(inside)), float(np.mean(of_noisy or [1])), float(np.median(widths))


def test_settings_that_scatter_alike_are_known_better() -> None:
    covered, _, width = coverage(15, [0.3] * 14)
    assert 0.925 < covered < 0.98
    assert width < 0.85


@pytest.mark.parametrize("sds", [[*np.geomspace(0.15, 0.6, 16), 8.0], [0.3] * 12 + [0.9] * 2])
def test_intervals_hold_their_level_where_settings_scatter_unlike(sds: list[float]) -> None:
    """Not the law that the prior assumes."""
    covered, of_noisy, _ = coverage(15, sds, noisy=2)
    assert covered > 0.925
    assert of_noisy > 0.86


def test_the_freedom_is_that_of_the_prior_that_variances_were_drawn_from() -> None:
    # s² ~ s0² F(d, d0): the law of a sample variance where 1/variance is scaled chi-square.
    random = np.random.default_rng(1)
    freedoms = random.choice([2.0, 4.0], 40_000)
    found = [Scatter(float(v), d) for v, d in zip(0.5 * random.f(freedoms, 8.0), freedoms, strict=True)]
    assert pool._freedom(found) == pytest.approx(8.0, rel=0.15)


def test_the_prior_is_worth_no_more_than_the_settings_know_together() -> None:
    """Of settings that scatter alike it would be worth any number; the variance is that of the pairs."""
    random = np.random.default_rng(2)
    made = [pd.Series(0.5 * random.normal(size=5)) for _ in range(40)]
    prior = pool.fit(made)
    assert prior is not None
    alike = 40 - len(prior.alone)
    assert prior.freedom <= 4 * alike - 4
    assert prior.freedom > 10
    assert prior.variance == pytest.approx(2 * 0.25, rel=0.25)


@pytest.mark.parametrize(("x", "value"), [(1.0, math.pi**2 / 6), (0.5, math.pi**2 / 2), (2.0, math.pi**2 / 6 - 1)])
def test_trigamma_is_inverted(x: float, value: float) -> None:
    assert pool._trigamma_inverse(value) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9])
def test_no_excess_scatter_is_a_known_variance(value: float) -> None:
    assert pool._trigamma_inverse(value) == pool.KNOWN


def test_a_setting_beyond_the_rest_changes_nothing_for_the_others() -> None:
    made = settings(np.random.default_rng(3), [0.3] * 20)
    wild = pd.Series([50.0, 60.0, 40.0, 55.0, 30.0])
    before, after = pool.fit(made), pool.fit([wild, *made])
    assert before is not None
    assert after is not None
    assert 0 in after.alone
    assert len(after.alone) <= len(before.alone) + 1
    assert after.variance == pytest.approx(before.variance, rel=0.3)


@pytest.mark.parametrize("least_sd", [0.0, 0.001])
def test_a_training_by_two_names_changes_little(least_sd: float) -> None:
    made = settings(np.random.default_rng(6), [0.3] * 14)
    before, after = pool.fit(made, least_sd), pool.fit([*made, made[0]], least_sd)
    assert before is not None
    assert after is not None
    assert after.variance == pytest.approx(before.variance, rel=0.15)
    assert after.freedom > 2


def test_a_variance_is_moderated_by_hand_and_never_less_than_it_was() -> None:
    prior = pool.Prior(variance=0.09, freedom=6.0, pairs=45, alone=frozenset())
    assert prior.moderate(Scatter(0.01, 2.0)) == Scatter(pytest.approx((6 * 0.09 + 2 * 0.01) / 8), 8.0)
    assert prior.moderate(Scatter(0.25, 2.0)) == Scatter(0.25, 8.0)


def test_the_interval_of_a_difference_by_hand() -> None:
    prior = pool.Prior(variance=0.09, freedom=6.0, pairs=45, alone=frozenset())
    made = difference(pd.Series([1.0, 2.0, 4.0]), pd.Series([1.1, 2.0, 4.0]), prior=prior)
    own = np.var([-0.1, 0.0, 0.0], ddof=1)
    half = scipy_stats.t.ppf(0.975, 8) * math.sqrt((6 * 0.09 + 2 * own) / 8 / 3)
    assert (made.low, made.high) == pytest.approx((-0.1 / 3 - half, -0.1 / 3 + half))


def test_few_settings_and_single_seeds_have_no_prior() -> None:
    made = settings(np.random.default_rng(4), [0.3] * (pool.FEWEST_SETTINGS - 1))
    assert pool.fit(made) is None
    assert pool.fit([]) is None
    assert pool.fit([pd.Series([0.1])] * 20) is None
    assert pool.fit([*made, pd.Series([1.0])]) is None


def test_settings_without_any_scatter_have_no_prior() -> None:
    same = [pd.Series([1.0, 1.0, 1.0])] * 12
    assert pool.fit(same) is None
    assert pool.fit(same, least_sd=0.1) is None


def test_claims_take_the_prior_and_say_what_is_so_without_it(tmp_path: Path) -> None:
    """Two settings agree by chance among twelve that scatter; one of them is beyond the rest."""
    random = np.random.default_rng(5)
    others = []
    for i in range(10):
        options, metrics = ssvi(0.9, density=0.2 + i / 20)
        others.append((options, metrics | {"accuracy": list(0.9 + 0.01 * random.normal(size=3))}))
    wild = ssvi(0.5, noisy=True, density=0.05)
    wild[1]["accuracy"] = [0.2, 0.5, 0.8]
    frames = study(tmp_path, vi(0.95), ssvi(0.92), wild, *others)
    table = tables.make_table("claims", frames)
    at_ten, at_twenty = table.numbers[table.numbers["claim"] == "A1"].to_dict("records")
    assert at_ten["verdict"] == "undecided"  # its seeds agree by chance, and alone would be as sure as a counted number
    assert at_ten["high"] - at_ten["low"] > 1
    lost = np.array([45.0 + 30, 45.0, 45.0 - 30])
    half = scipy_stats.t.ppf(0.975, 2) * lost.std(ddof=1) / math.sqrt(3)
    assert (at_twenty["low"], at_twenty["high"]) == pytest.approx((45 - half, 45 + half))
    assert sum("alone: 1 of 13 settings" in note for note in table.notes) == 1
    assert sum(note.startswith("With the variance of each difference alone: ") for note in table.notes) == 1
