"""The tests of claims N: what is due to the natural gradient, to the start, to having a posterior at all.

Of a way of learning that was run at several temperatures, or otherwise varied, the setting of the least NLL on the
held-out images speaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ssvi.analysis.quantities import INFORMATION_SHARE, VALIDATION_NLL, Quantity
from ssvi.analysis.stats import interval
from ssvi.analysis.tables import judging
from ssvi.analysis.tables.choices import BLOCK
from ssvi.analysis.tables.evidence import Evidence, Test, Which, which
from ssvi.analysis.tables.judging import Finding, Rule, above, below
from ssvi.analysis.tables.options import departures
from ssvi.analysis.ways import NATURAL, OPTIMISERS, STARTS, learned_by, start
from ssvi.runs.evaluated import POINT_SHARE

SGD = OPTIMISERS["sgd"]


def _rows(evidence: Evidence, method: str, density: float, by: str, begun: str | None = None) -> list[dict[str, Any]]:
    """The settings of a way of learning."""
    return [
        row
        for row in evidence.rows
        if row["method"] == method
        and row["density"] == density
        and learned_by(row) == by
        and begun in (None, start(row))
    ]


def _chosen(evidence: Evidence, rows: Iterable[dict[str, Any]]) -> Which | None:
    """The setting of the least NLL on the held-out images."""
    usual = evidence.usual
    named = [
        which(row["method"], **departures(row, usual[row["method"]], BLOCK) | {"density": row["density"]})
        for row in rows
    ]
    held_out = {one: evidence.sample(VALIDATION_NLL, one).values for one in named}
    tried = [one for one in named if len(held_out[one])]
    return min(tried, key=lambda one: float(held_out[one].mean())) if tried else None


def _densities(evidence: Evidence) -> list[float]:
    """Where SSVI was learned by the natural gradient."""
    return sorted(
        {r["density"] for r in evidence.rows if r["method"] == "ssvi" and learned_by(r) == NATURAL}, reverse=True
    )


def _gap(evidence: Evidence, quantity: Quantity, ours: Which, theirs: Which, rule: Rule, said: str) -> Finding:
    return evidence.gap(quantity, ours, theirs, rule).but(measured=f"{quantity.difference}: {said}")


def natural_against_sgd(quantity: Quantity) -> Test:
    """SSVI by the natural gradient minus by SGD, from the same start, at each density."""
    rule = above(0) if quantity.better > 0 else below(0)

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            for begun in STARTS.values():
                ours, theirs = (_chosen(evidence, _rows(evidence, "ssvi", density, by, begun)) for by in (NATURAL, SGD))
                if ours and theirs:
                    said = f"SSVI at density {density:g}, start {begun}: natural gradient − SGD"
                    found.append(_gap(evidence, quantity, ours, theirs, rule, said))
        return found

    return test


def natural_against_points(quantity: Quantity) -> Test:
    """SSVI by the natural gradient against RigL of its density, by each optimiser at its best start."""
    rule = above(0) if quantity.better > 0 else below(0)

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            ours = _chosen(evidence, _rows(evidence, "ssvi", density, NATURAL))
            for by in OPTIMISERS.values():
                theirs = _chosen(evidence, _rows(evidence, "rigl", density, by))
                if ours and theirs:
                    said = f"density {density:g}: SSVI by natural gradient − RigL by {by}"
                    found.append(_gap(evidence, quantity, ours, theirs, rule, said))
        return found

    return test


def start_by_fan_in(quantity: Quantity) -> Test:
    """SSVI by SGD from means by the active fan-in, minus from the published start."""
    rule = above(0) if quantity.better > 0 else below(0)

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            ours, theirs = (
                _chosen(evidence, _rows(evidence, "ssvi", density, SGD, STARTS[name]))
                for name in ("active_fan_in", "published")
            )
            if ours and theirs:
                said = f"SSVI by SGD at density {density:g}: start active fan-in − published"
                found.append(_gap(evidence, quantity, ours, theirs, rule, said))
        return found

    return test


def posterior_in_use(evidence: Evidence) -> list[Finding]:
    """What share of the predictive entropy is of the weights, by the natural gradient."""
    found = []
    for density in _densities(evidence):
        if ours := _chosen(evidence, _rows(evidence, "ssvi", density, NATURAL)):
            sample = evidence.sample(INFORMATION_SHARE, ours)
            measured = f"mutual information (% of the entropy): SSVI by natural gradient at density {density:g}"
            rule = above(100 * POINT_SHARE)
            found.append(replace(judging.judge(measured, rule, interval(sample.values), sample.problem), signed=False))
    return found
