"""What the random start of a posterior gives already, before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from ssvi.analysis.settings import without_effect

# The part of the weights that each criterion would remove, as the recorded overlap has it.
REMOVED = 0.3
# Standard deviations beyond which a normal variable is not followed.
TAIL = 10.0


def agreement_at_start(row: Mapping[str, Any]) -> float | None:
    """`start_agreement` of a run, None where its mu is not normal.

    A start from `curvature_init` gives all weights one sigma, with which the two order them alike whatever mu is.
    """
    idle = without_effect(row)
    if "sigma_init" in idle:
        return 1.0
    if "mu_init_sd" in idle:
        return None
    return start_agreement(*(float(row[name]) for name in ("mu_init_sd", "sigma_init", "sigma_init_sd")))


@cache
def start_agreement(mu_sd: float, sigma_mean: float, sigma_sd: float) -> float:
    """IoU of what |mu| and |mu|/sigma would remove at the start: mu ~ N(0, mu_sd^2), sigma = |N(mean, sd^2)|.

    With z = |mu|/mu_sd and w proportional to sigma, |mu| removes z < q and SNR z < c w, where P(z < q) = E P(z < c w) =
    `REMOVED`; both remove E min(P(z < q), P(z < c w)). It is a matter of sigma_sd / sigma_mean alone. This is a layer
    of infinite size; layers of tens of weights agree less by thousandths (0.597 for 0.598 at a density of 0.1, 0.594 at
    0.01, in the small ResNet), a fraction of what the seeds differ by.

    Returns:
        The IoU, 1 where all mu or all sigma are equal: then the two order weights alike.
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    if mu_sd == 0 or sigma_sd == 0:
        return 1.0
    size = math.hypot(sigma_mean, sigma_sd)
    mean, sd = sigma_mean / size, sigma_sd / size
    q = float(ndtri((1 + REMOVED) / 2))

    def removed(c: float, most: float) -> float:
        """E min(P(z < c w), most) over w = |mean + sd v|, v standard normal; split where it is not smooth."""
        kinks = [(w - mean) / sd for w in (0.0, q / c, -q / c)]

        def integrand(v: float) -> float:
            share = 2 * float(ndtr(c * abs(mean + sd * v))) - 1
            return min(share, most) * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)

        inside = [v for v in kinks if abs(v) < TAIL]
        return float(quad(integrand, -TAIL, TAIL, points=inside or None, limit=200, epsabs=1e-10)[0])

    c = brentq(lambda c: removed(c, 1.0) - REMOVED, 1e-3, 1e3)
    both = removed(c, REMOVED)
    return both / (2 * REMOVED - both)
