"""Means over seeds, and what can be said from few of them: Student's t, never bold inside the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from random import Random

import pandas as pd

LEVEL = 0.95


def mean_sd(values: pd.Series, factor: float = 1.0) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1); the latter NaN for fewer than two values."""
    numbers = pd.to_numeric(values, errors="coerce").dropna() * factor
    return (float(numbers.mean()), float(numbers.std(ddof=1))) if len(numbers) else (math.nan, math.nan)


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval at `LEVEL`; the interval is NaN where a single value leaves it unknown."""

    mean: float
    low: float
    high: float
    n: int

    def above(self, bound: float) -> bool | None:
        """Whether the true value is above (True) or below (False) the bound; None while the interval holds it."""
        if math.isnan(self.low):
            return None
        return True if self.low > bound else False if self.high < bound else None


def interval(values: pd.Series, least_sd: float = 0.0) -> Estimate:
    """Mean of the values with Student's t interval for it.

    Args:
        values: a number a seed.
        least_sd: the values are not taken to scatter less than this.
    """
    numbers = _numbers(values)
    n = len(numbers)
    mean = float(numbers.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    # Of equal numbers pandas finds a standard deviation that is not quite 0; what is counted has none.
    sd = float(numbers.std(ddof=1)) if numbers.nunique() > 1 else 0.0
    half = _t(n - 1) * max(sd, least_sd) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def with_interval(value: Estimate, style: str = ".2f", *, signed: bool = False) -> str:
    """`mean [low, high]` in this style; the mean alone where the interval is unknown, a dash where there is no mean."""
    if math.isnan(value.mean):
        return "–"
    style = f"+{style}" if signed else style
    ends = "" if math.isnan(value.low) else f" [{value.low:{style}}, {value.high:{style}}]"
    return f"{value.mean:{style}}{ends}".replace("-", "−")


# What `difference` does, in the words of every table, figure and page that uses it.
DIFFERENCES = (
    "Intervals of differences are Student's t, seed by seed over the seeds that both settings have (n), or Welch's "
    "where they share too few; an accuracy is not taken to be known better than to a test image."
)


def difference(first: pd.Series, second: pd.Series, resolution: float = 0.0, roundings: int = 2) -> Estimate:
    """Mean of `first` minus mean of `second`, with its interval.

    Both series are indexed by seed. The difference is taken seed by seed over the seeds that both have, which removes
    what the seeds share, and `n` counts those (`seed_differences`). Where these are too few the interval is Welch's,
    and `n` is the smaller number of values.

    Args:
        first: a number a seed.
        second: what is subtracted.
        resolution: the smallest step by which a measured number can change, such as one test image. Nothing is taken
            to scatter less than rounding to such steps makes it: three seeds that agree by chance are no proof.
        roundings: how many measured numbers a difference is made of: 2, or 4 if `first` and `second` are themselves
            differences.
    """
    # Rounding to steps of r has the standard deviation r/sqrt(12).
    least_sd = resolution * math.sqrt(roundings / 12)
    pairs = seed_differences(first, second)
    if len(pairs):
        return interval(pairs, least_sd)
    a, b = _numbers(first), _numbers(second)
    n = min(len(a), len(b))
    mean = float(a.mean() - b.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    # Each side makes half of the roundings.
    va, vb = (max(float(side.var(ddof=1)), least_sd**2 / 2) / len(side) for side in (a, b))
    if va + vb == 0:
        return Estimate(mean, mean, mean, n)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = _t(freedom) * math.sqrt(va + vb)
    return Estimate(mean, mean - half, mean + half, n)


def seed_differences(first: pd.Series, second: pd.Series) -> pd.Series:
    """`first` minus `second` for each seed that both have.

    None where these are too few: a single one although both have more values, whose scatter it would throw away.
    """
    a, b = _numbers(first), _numbers(second)
    common = a.index.intersection(b.index)
    enough = len(common) >= max(1, min(2, len(a), len(b))) and a.index.is_unique and b.index.is_unique
    return a[common] - b[common] if enough else pd.Series(dtype=float)


def _numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").dropna().astype(float)


def _t(freedom: float) -> float:
    """The two-sided quantile of Student's t at `LEVEL`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


# Beyond so many pairs of groups, as many random ones stand for all.
MAX_SPLITS = 20_000


def split_differences(values: pd.Series, n: int) -> list[float]:
    """How far the means of two disjoint groups of `n` of the values are apart, for every such pair of groups.

    Of more than `MAX_SPLITS` pairs, as many are drawn at random, always the same.

    Args:
        values: a number a seed, of one setting.
        n: the size of both groups, at least 1.

    Returns:
        The absolute differences, in no particular order; none if there are fewer than 2n values.
    """
    numbers = [float(v) for v in pd.to_numeric(values, errors="coerce").dropna()]
    if n < 1 or len(numbers) < 2 * n:
        return []
    pairs = math.comb(len(numbers), 2 * n) * math.comb(2 * n, n) // 2
    if pairs > MAX_SPLITS:
        random = Random(0)
        drawn = (random.sample(numbers, 2 * n) for _ in range(MAX_SPLITS))
        return [abs(sum(chosen[:n]) - sum(chosen[n:])) / n for chosen in drawn]
    differences = []
    for chosen in combinations(numbers, 2 * n):
        # The group with the first value names the pair: each pair of groups comes once.
        for rest in combinations(chosen[1:], n - 1):
            differences.append(abs(2 * (chosen[0] + sum(rest)) - sum(chosen)) / n)
    return differences


def noise_floor(values: pd.Series, n: int) -> float:
    """The difference between two means of `n` seeds that nothing but the seeds makes.

    Args:
        values: a number a seed, of one setting.
        n: seeds in each of the two means.

    Returns:
        The smallest bound that holds `LEVEL` of the differences between the means of two disjoint groups of `n`
        of the values; NaN if there are fewer than 2n of them.
    """
    differences = sorted(split_differences(values, n))
    return differences[math.ceil(LEVEL * len(differences)) - 1] if differences else math.nan
