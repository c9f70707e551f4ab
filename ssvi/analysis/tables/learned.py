"""The tests of claims N: SSVI by the natural gradient beside SGD, AdamW and networks without a posterior.

Of a way of learning that was run at several temperatures, or otherwise varied, the finished setting of the least NLL on
the held-out images speaks, before any temperature scaling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssvi.analysis.quantities import INFORMATION_SHARE, VALIDATION_NLL, Quantity
from ssvi.analysis.settings import in_words, is_missing
from ssvi.analysis.stats import interval
from ssvi.analysis.tables import judging
from ssvi.analysis.tables.choices import BLOCK
from ssvi.analysis.tables.evidence import Evidence, Test, Which, which
from ssvi.analysis.tables.judging import Finding, Rule, above, below
from ssvi.analysis.tables.options import departures
from ssvi.analysis.ways import NATURAL, OPTIMISERS, STARTS, learned_by, start
from ssvi.runs.evaluated import POINT_SHARE

SGD, ADAM = OPTIMISERS["sgd"], OPTIMISERS["adam"]
Row = dict[str, Any]
# What the start of means is, and where it is drawn.
OF_START = ("mean_init", "mu_init_sd")


@dataclass(frozen=True)
class Chosen:
    """The setting that speaks for a way of learning, and of how many it is the best."""

    setting: Which
    row: Row
    tried: int

    def __str__(self) -> str:
        heat = "" if is_missing(self.row["kl_scale"]) else f"T {self.row['kl_scale']:g}, "
        return f"{heat}best of {self.tried}"


def _rows(evidence: Evidence, method: str, density: float, by: str, begun: str | None = None) -> list[Row]:
    """The settings of a way of learning."""
    return [
        row
        for row in evidence.rows
        if row["method"] == method
        and row["density"] == density
        and learned_by(row) == by
        and begun in (None, start(row))
    ]


def _which(evidence: Evidence, row: Row) -> Which:
    usual = evidence.usual[row["method"]]
    return which(row["method"], **departures(row, usual, BLOCK) | {"density": row["density"]})


def _chosen(evidence: Evidence, rows: Sequence[Row]) -> Chosen | None:
    """The setting of the least NLL on the held-out images, of those whose runs all finished."""
    found = []
    for row in rows:
        sample = evidence.sample(VALIDATION_NLL, setting := _which(evidence, row))
        if len(sample.values) and not sample.problem:
            found.append((float(sample.values.mean()), setting, row))
    if not found:
        return None
    _, setting, row = min(found, key=lambda one: one[0])
    return Chosen(setting, row, len(found))


def _densities(evidence: Evidence) -> list[float]:
    """Where SSVI was learned by the natural gradient."""
    found = {row["density"] for row in evidence.rows if row["method"] == "ssvi" and learned_by(row) == NATURAL}
    return sorted(found, reverse=True)


def _rule(quantity: Quantity) -> Rule:
    return above(0) if quantity.better > 0 else below(0)


def _gap(evidence: Evidence, quantity: Quantity, ours: Chosen, theirs: Chosen, said: str) -> Finding:
    """Ours has to be better; with the temperatures that were chosen, and of how many settings."""
    finding = evidence.gap(quantity, ours.setting, theirs.setting, _rule(quantity))
    return finding.but(measured=f"{quantity.difference}: {said}").saying(f"{ours} against {theirs}")


def natural_against(by: str, quantity: Quantity) -> Test:
    """SSVI by the natural gradient minus by another optimiser, from the same start, at each density."""

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            for begun in STARTS.values():
                ours, theirs = (
                    _chosen(evidence, _rows(evidence, "ssvi", density, one, begun)) for one in (NATURAL, by)
                )
                if ours and theirs:
                    said = f"SSVI at density {density:g}, start {begun}: natural gradient − {by}"
                    found.append(_gap(evidence, quantity, ours, theirs, said))
        return found

    return test


def natural_against_points(quantity: Quantity) -> Test:
    """SSVI by the natural gradient against RigL of its density, by each optimiser at its best start."""

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            ours = _chosen(evidence, _rows(evidence, "ssvi", density, NATURAL))
            for by in OPTIMISERS.values():
                theirs = _chosen(evidence, _rows(evidence, "rigl", density, by))
                if ours and theirs:
                    said = f"density {density:g}: SSVI by natural gradient − RigL by {by}"
                    found.append(_gap(evidence, quantity, ours, theirs, said))
        return found

    return test


def _pairs(evidence: Evidence, rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Settings from the active fan-in, each with the one from the published start that differs in nothing else."""
    rows = list(rows)
    usual = evidence.usual["ssvi"]

    def rest(row: Row) -> dict[str, Any]:
        return departures(row, usual, (*BLOCK, *OF_START))

    ours = [row for row in rows if start(row) == STARTS["active_fan_in"]]
    theirs = [row for row in rows if start(row) == STARTS["published"]]
    return [(one, other) for one in ours for other in theirs if rest(one) == rest(other)]


def start_by_fan_in(quantity: Quantity) -> Test:
    """SSVI by SGD from means by the active fan-in minus from the published start, all else the same."""

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in _densities(evidence):
            for ours, theirs in _pairs(evidence, _rows(evidence, "ssvi", density, SGD)):
                finding = evidence.gap(quantity, _which(evidence, ours), _which(evidence, theirs), _rule(quantity))
                alike = ", ".join(in_words(name, ours[name]) for name in ("lr", "kl_scale"))
                said = f"SSVI by SGD at density {density:g}, {alike}: start active fan-in − published"
                found.append(finding.but(measured=f"{quantity.difference}: {said}"))
        return found

    return test


def posterior_in_use(evidence: Evidence) -> list[Finding]:
    """What share of the predictive entropy is of the weights, by the natural gradient."""
    found = []
    for density in _densities(evidence):
        if ours := _chosen(evidence, _rows(evidence, "ssvi", density, NATURAL)):
            sample = evidence.sample(INFORMATION_SHARE, ours.setting)
            measured = (
                f"mutual information (% of the entropy): SSVI by natural gradient at density {density:g}, "
                f"T {ours.row['kl_scale']:g}"
            )
            rule = above(100 * POINT_SHARE)
            found.append(replace(judging.judge(measured, rule, interval(sample.values), sample.problem), signed=False))
    return found
