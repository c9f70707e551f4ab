"""How a claim is judged: the rule it makes of a number, the verdict on an interval, a finding of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssvi.analysis.comparing import Sample, join
from ssvi.analysis.stats import Estimate

# The last is what such runs cannot answer, however many seeds there are.
HOLDS, FAILS, UNDECIDED, INCOMPARABLE = "holds", "fails", "undecided", "not comparable"


@dataclass(frozen=True)
class Rule:
    """What a claim says of a number: in words, and whether an interval settles it."""

    text: str
    test: Callable[[Estimate], bool | None]

    def verdict(self, estimate: Estimate) -> str:
        """*holds*, *fails*, or *undecided* while the interval is unknown or on both sides of the bound."""
        settled = None if math.isnan(estimate.low) else self.test(estimate)
        return UNDECIDED if settled is None else HOLDS if settled else FAILS


def above(bound: float) -> Rule:
    """Larger than the bound."""
    return Rule(f"> {bound:g}", lambda e: e.above(bound))


def below(bound: float) -> Rule:
    """Smaller than the bound."""

    def test(estimate: Estimate) -> bool | None:
        larger = estimate.above(bound)
        return None if larger is None else not larger

    return Rule(f"< {bound:g}", test)


def within(margin: float) -> Rule:
    """Equivalent: no further from 0 than the margin, either way."""

    def test(estimate: Estimate) -> bool | None:
        if estimate.low > margin or estimate.high < -margin:
            return False
        return True if -margin < estimate.low and estimate.high < margin else None

    return Rule(f"within ±{margin:g}", test)


@dataclass(frozen=True)
class Finding:
    """What was measured for a part of a claim, and the verdict."""

    measured: str
    estimate: Estimate
    verdict: str
    reason: str = ""
    bound: str = ""
    style: str = ".2f"
    signed: bool = True
    counted: bool = False

    def but(self, **changes: Any) -> Finding:
        """The finding with these fields changed."""
        return replace(self, **changes)

    def saying(self, *more: str) -> Finding:
        """The finding with more said of what was measured, where there is anything to say."""
        return self.but(measured="; ".join([self.measured, *filter(None, more)]))

    def incomparable(self, reason: str) -> Finding:
        """The finding as one that these runs cannot answer; what is undecided stays so."""
        if self.verdict == UNDECIDED:
            return self
        return self.but(verdict=INCOMPARABLE, reason=join(reason, self.reason))


def unknown(measured: str, reason: str) -> Finding:
    """Nothing was measured."""
    return Finding(measured, Estimate(math.nan, math.nan, math.nan, 0), UNDECIDED, reason)


def judge(measured: str, rule: Rule, estimate: Estimate, problem: str = "", style: str = ".2f") -> Finding:
    """The finding that a rule makes of an estimate, with the reason if it is undecided or runs are missing."""
    verdict = rule.verdict(estimate)
    why = ""
    if verdict == UNDECIDED:
        few = "too few seeds" if estimate.n else "nothing to compare"
        why = few if math.isnan(estimate.low) else "the interval contains the bound"
    return Finding(measured, estimate, verdict, join(why, problem), rule.text, style)


# Which verdict decides a claim that all findings have to support, and one that a single finding does.
ALL, ANY = (FAILS, UNDECIDED, INCOMPARABLE, HOLDS), (HOLDS, UNDECIDED, INCOMPARABLE, FAILS)


def decisive(findings: Sequence[Finding], weight: Callable[[Finding], float], order: Sequence[str] = ALL) -> Finding:
    """The finding that decides a claim: of the verdict that comes first in the order the one of the greatest weight."""
    met = {finding.verdict for finding in findings}
    verdict = next(v for v in order if v in met)
    deciding = [finding for finding in findings if finding.verdict == verdict]
    return max(deciding, key=lambda f: -math.inf if math.isnan(f.estimate.mean) else weight(f))


def judge_difference(measured: str, rule: Rule, first: Sample, second: Sample, style: str = ".2f") -> Finding:
    """The finding of a difference of means, with what is wrong with either."""
    return judge(measured, rule, first.against(second), join(first.problem, second.problem), style)
