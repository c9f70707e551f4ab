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


def interval(values: pd.Series) -> Estimate:
    """Mean of the values with Student's t interval for it."""
    numbers = pd.to_numeric(values, errors="coerce").dropna().astype(float)
    n = len(numbers)
    mean = float(numbers.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    half = _t(n - 1) * float(numbers.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def difference(first: pd.Series, second: pd.Series) -> Estimate:
    """Mean of `first` minus mean of `second`, with its interval.

    Both series are indexed by seed. Where they hold the same seeds the difference is taken seed by seed, which
    removes what the seeds share; otherwise the interval is Welch's. `n` is the smaller number of values.
    """
    a = pd.to_numeric(first, errors="coerce").dropna().astype(float)
    b = pd.to_numeric(second, errors="coerce").dropna().astype(float)
    if len(a) and a.index.is_unique and b.index.is_unique and set(a.index) == set(b.index):
        return interval(a - b.loc[a.index])
    n = min(len(a), len(b))
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(a.mean() - b.mean())
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    if va + vb == 0:
        return Estimate(mean, mean, mean, n)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = _t(freedom) * math.sqrt(va + vb)
    return Estimate(mean, mean - half, mean + half, n)


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


def paired(first: pd.Series, second: pd.Series, resolution: float = 0.0) -> Estimate:
    """Mean of `first` minus `second`, seed by seed over the seeds that both have; `n` counts those.

    Both are indexed by seed. Where they have too few seeds in common for that, it is `difference`.

    Args:
        first: a number a seed.
        second: what is subtracted.
        resolution: the smallest step by which a value can change, such as one test image. The differences are not
            taken to scatter less than rounding to such steps makes them: three seeds that agree by chance are
            no proof.
    """
    a, b = (pd.to_numeric(values, errors="coerce").dropna().astype(float) for values in (first, second))
    common = a.index.intersection(b.index)
    by_seed = len(common) >= max(1, min(2, len(a), len(b))) and a.index.is_unique and b.index.is_unique
    estimate = interval(a[common] - b[common]) if by_seed else difference(a, b)
    if math.isnan(estimate.low):
        return estimate
    # Rounding to steps of r has the standard deviation r/sqrt(12); a difference has it twice.
    half = max(
        (estimate.high - estimate.low) / 2, _t(estimate.n - 1) * resolution / math.sqrt(6) / math.sqrt(estimate.n)
    )
    return Estimate(estimate.mean, estimate.mean - half, estimate.mean + half, estimate.n)
