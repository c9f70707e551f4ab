"""What many settings show together of how far seeds scatter: variances moderated by empirical Bayes.

Three or five seeds tell little of a variance, and Student's t pays for it: with two degrees of freedom an interval is
2.2 times as wide as if the variance were known. The settings of a study mostly scatter alike, and a prior fitted to all
of them lends its degrees of freedom to each: G. Smyth, Linear models and empirical Bayes methods for assessing
differential expression in microarray experiments, Statistical Applications in Genetics and Molecular Biology 3 (2004),
sections 3 and 6.2. Two cautions are ours: a setting that scatters beyond the rest neither gives nor takes, and no
difference is taken to scatter less than it did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from ssvi.analysis.stats import Scatter, seed_differences

# Fewer settings do not tell a law of their variances.
FEWEST_SETTINGS = 10
# The chance at which a setting that scatters as the typical one does is taken for one that scatters more.
BEYOND = 0.01
# Degrees of freedom as good as a known variance.
KNOWN = 1e6


@dataclass(frozen=True)
class Prior:
    """The prior of the variance of a difference over seeds: scaled inverse chi-square.

    Attributes:
        variance: its scale, s0².
        freedom: its degrees of freedom, d0: what it is worth in observations.
        pairs: of how many pairs of settings it was fitted.
        alone: the numbers of the settings, in the order they were given, that scatter beyond the rest.
    """

    variance: float
    freedom: float
    pairs: int
    alone: frozenset[int]

    def moderate(self, own: Scatter) -> Scatter:
        """What a variance is taken to be: (d0 s0² + d s²)/(d0 + d) with d0 + d degrees of freedom, or s² if larger."""
        freedom = self.freedom + own.freedom
        together = (self.freedom * self.variance + own.freedom * own.variance) / freedom
        return Scatter(max(own.variance, together), freedom)


def fit(settings: Sequence[pd.Series], least_sd: float = 0.0) -> Prior | None:
    """The prior that the seed-by-seed differences of all pairs of settings give.

    Args:
        settings: the numbers of each setting, indexed by seed.
        least_sd: no difference is taken to scatter less than this.

    Returns:
        The prior, or None if fewer than `FEWEST_SETTINGS` settings of two seeds or more scatter alike.
    """
    several = {i: values for i, values in enumerate(settings) if len(values) > 1 and values.index.is_unique}
    alone = _beyond(several, least_sd / math.sqrt(2))
    alike = [values for i, values in several.items() if i not in alone]
    if len(alike) < FEWEST_SETTINGS:
        return None
    pairs = [d for first, second in combinations(alike, 2) if len(d := seed_differences(first, second)) > 1]
    scatter = [Scatter(max(float(d.var(ddof=1)), least_sd**2), len(d) - 1) for d in pairs]
    # Settings that are the same training by two names differ by nothing, which says nothing of the others.
    scatter = [one for one in scatter if one.variance > 0]
    if len(scatter) < FEWEST_SETTINGS:
        return None
    return Prior(*_moments(scatter), len(scatter), alone)


def _beyond(settings: dict[int, pd.Series], least_sd: float) -> frozenset[int]:
    """The settings whose variance, less what a seed does to all, is beyond that of the typical one: chi-square."""
    from scipy.special import chdtrc, chdtri

    if not settings:
        return frozenset()
    centred = pd.DataFrame({i: values - values.mean() for i, values in settings.items()})
    rest = centred.sub(centred.median(axis=1), axis=0)
    variance = rest.var(ddof=1).clip(lower=least_sd**2)
    freedom = rest.count() - 1
    # The median of chi-square is less than its mean.
    typical = float((variance / (chdtri(freedom, 0.5) / freedom)).median())
    if typical == 0:
        return frozenset()
    return frozenset(int(i) for i in settings if chdtrc(freedom[i], freedom[i] * variance[i] / typical) < BEYOND)


def _moments(scatter: Sequence[Scatter]) -> tuple[float, float]:
    """s0² and d0 by the mean and the variance of log s², whose laws are known (section 6.2 there)."""
    from scipy.special import digamma, polygamma

    halves = [one.freedom / 2 for one in scatter]
    logs = [math.log(one.variance) - float(digamma(h)) + math.log(h) for one, h in zip(scatter, halves, strict=True)]
    centre = sum(logs) / len(logs)
    found = sum((x - centre) ** 2 for x in logs) / (len(logs) - 1)
    half = _trigamma_inverse(found - sum(float(polygamma(1, h)) for h in halves) / len(halves))
    if half >= KNOWN / 2:
        return math.exp(centre), KNOWN
    return math.exp(centre + float(digamma(half)) - math.log(half)), 2 * half


def _trigamma_inverse(value: float) -> float:
    """Where the trigamma function, which falls, has this value; `KNOWN` where it would be beyond that."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    if value <= float(polygamma(1, KNOWN)):
        return KNOWN
    return float(brentq(lambda x: float(polygamma(1, x)) - value, 1e-8, KNOWN))
