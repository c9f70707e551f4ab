"""What the runs of one data set and network say: samples by seed, rules that judge them, and tests made of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.settings import METHOD_NAMES, SETTING, is_missing, option_text
from ssvi.analysis.stats import Estimate, difference, interval
from ssvi.analysis.tables.choices import BLOCK, default_setting
from ssvi.analysis.tables.published import rivals
from ssvi.analysis.tables.rows import by_seed, is_sparse_bnn, reading_order, resolution
from ssvi.spec import FIELDS, idle

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@dataclass(frozen=True)
class Quantity:
    """A metric as claims speak of it."""

    name: str
    source: str
    factor: float = 1.0
    unit: str = ""
    style: str = ".4f"
    better: int = 1


ACCURACY = Quantity("accuracy", "accuracy", 100.0, "points", ".2f")
NLL = Quantity("NLL", "nll", better=-1)
ECE = Quantity("marginal ECE", "ece_marginal", better=-1)
COMPLEXITY = Quantity("complexity", "complexity", style=".3g", better=-1)
FLOPS = Quantity("training FLOPs", "training_flops", style=".3g", better=-1)


@dataclass(frozen=True)
class Which:
    """A setting: a method's default one but for these options."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [f"{name} {option_text(value)}" for name, value in self.options]
        return ", ".join([METHOD_NAMES.get(self.method, self.method), *words])

    def but(self, **options: Any) -> Which:
        """The setting with these options changed as well."""
        return Which(self.method, tuple((dict(self.options) | options).items()))

    def minus(self, other: Which) -> str:
        """The difference to another setting in words; what both have is said once."""
        if self.method != other.method:
            return f"{self} − {other}"
        shared = tuple(pair for pair in self.options if pair in other.options)
        ends = [
            ", ".join(f"{name} {option_text(value)}" for name, value in end.options if (name, value) not in shared)
            for end in (self, other)
        ]
        return f"{Which(self.method, shared)}: {ends[0] or 'default'} − {ends[1] or 'default'}"


def which(method: str, **options: Any) -> Which:
    """The default setting of a method but for these options."""
    return Which(method, tuple(options.items()))


@dataclass(frozen=True)
class Sample:
    """A number a seed, and what is known of it.

    Attributes:
        values: the numbers, indexed by seed.
        step: the smallest by which a measured number changes.
        problem: what is wrong with the runs behind them.
        roundings: of how many measured numbers each value is made.
    """

    values: pd.Series
    step: float = 0.0
    problem: str = ""
    roundings: int = 1

    def minus(self, other: Sample) -> Sample:
        """The differences of the seeds that both have."""
        common = self.values.index.intersection(other.values.index)
        values = self.values[common] - other.values[common]
        problem = join(self.problem, other.problem)
        return Sample(values, max(self.step, other.step), problem, self.roundings + other.roundings)

    def against(self, other: Sample) -> Estimate:
        """The difference of the means."""
        roundings = self.roundings + other.roundings
        return difference(self.values, other.values, max(self.step, other.step), roundings)


@dataclass(frozen=True)
class Evidence:
    """The runs of one data set and network, and the default setting of each method among them."""

    dataset: str
    model: str
    runs: pd.DataFrame
    overlap: pd.DataFrame
    groups: list[pd.DataFrame]
    rows: list[dict[str, Any]]  # the options of each group
    usual: dict[str, dict[str, Any]]
    cache: dict[Which, pd.DataFrame] = field(default_factory=dict)

    def setting(self, wanted: Which) -> pd.DataFrame:
        """The runs of a setting, finished or not; empty if it was not planned."""
        if wanted not in self.cache:
            found = [g for g, row in zip(self.groups, self.rows, strict=True) if self._is(row, wanted)]
            self.cache[wanted] = pd.concat(found) if found else self.runs.iloc[:0]
        return self.cache[wanted]

    def _is(self, row: Mapping[str, Any], wanted: Which) -> bool:
        if row["method"] != wanted.method:
            return False
        target = self.usual[wanted.method] | dict(wanted.options)
        ignored = {*BLOCK, *idle({name: target[name] for name in FIELDS})}
        return all(row[n] == target[n] for n in SETTING if n not in ignored and not is_missing(target[n]))

    def sample(self, quantity: Quantity, wanted: Which) -> Sample:
        """A metric of a setting by seed."""
        runs = self.setting(wanted)
        counts = runs.loc[runs["status"] != COMPLETE, "status"].value_counts()
        problem = f"{wanted}: {', '.join(f'{n} {status}' for status, n in counts.items())}" if len(counts) else ""
        values = by_seed(runs, quantity.source, quantity.factor)
        step = resolution(runs, quantity.source, quantity.factor)
        return Sample(values, step, problem if len(runs) else f"{wanted}: not run")

    def variants(self, wanted: Which, option: str) -> list[Any]:
        """The values of an option among the settings that are otherwise the wanted one, in order."""
        if wanted.method not in self.usual:
            return []
        own = {row[option] for row in self.rows if row["method"] == wanted.method}
        return sorted(v for v in own if not is_missing(v) and len(self.setting(wanted.but(**{option: v}))))

    def combinations(self, wanted: Which, options: Sequence[str]) -> list[dict[str, Any]]:
        """The values that several options have together among the settings that are otherwise the wanted one."""
        own = [row for row in self.rows if row["method"] == wanted.method]
        met = dict.fromkeys(tuple(row[name] for name in options) for row in own)
        named = [dict(zip(options, values, strict=True)) for values in met if not any(map(is_missing, values))]
        return [values for values in named if len(self.setting(wanted.but(**values)))]

    def rivals(self) -> list[Which]:
        """The methods of the paper's Table 2 that were run and are sparse, each in its default setting."""
        methods = dict.fromkeys(group.iloc[0]["method"] for group in self.groups if is_sparse_bnn(group))
        return [which(method) for method in methods if method in rivals()]


def gather(runs: pd.DataFrame, overlap: pd.DataFrame) -> list[Evidence]:
    """The evidence of each data set and network among the runs."""
    groups = reading_order(runs)
    blocks: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for group in groups:
        blocks.setdefault((group.iloc[0]["dataset"], group.iloc[0]["model"]), []).append(group)
    found = []
    for (dataset, model), own in blocks.items():
        together = pd.concat(own)
        rows = [dict(group.iloc[0]) for group in own]
        of_method: dict[str, list[pd.DataFrame]] = {}
        for group, row in zip(own, rows, strict=True):
            of_method.setdefault(row["method"], []).append(group)
        usual = {method: dict(default_setting(those).iloc[0]) for method, those in of_method.items()}
        records = overlap[overlap["run"].isin(together["run"])]
        found.append(Evidence(dataset, model, together, records, own, rows, usual))
    return found


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

    def but(self, **changes: Any) -> Finding:
        """The finding with these fields changed."""
        return replace(self, **changes)


def unknown(measured: str, reason: str) -> Finding:
    """Nothing was measured."""
    return Finding(measured, Estimate(math.nan, math.nan, math.nan, 0), UNDECIDED, reason)


Test = Callable[[Evidence], list[Finding]]


def judge(measured: str, rule: Rule, estimate: Estimate, problem: str = "", style: str = ".2f") -> Finding:
    """The finding that a rule makes of an estimate, with the reason if it is undecided or runs are missing."""
    verdict = rule.verdict(estimate)
    why = ""
    if verdict == UNDECIDED:
        few = "too few seeds" if estimate.n else "nothing to compare"
        why = few if math.isnan(estimate.low) else "the interval contains the bound"
    return Finding(measured, estimate, verdict, join(why, problem), rule.text, style)


def join(*parts: str) -> str:
    """What is not empty, each once."""
    return "; ".join(dict.fromkeys(part for whole in parts for part in whole.split("; ") if part))


def gap(quantity: Quantity, first: Which, second: Which, rule: Rule) -> Test:
    """One difference between two settings, paired by seed."""
    return lambda evidence: [gap_of(evidence, quantity, first, second, rule)]


def gap_of(evidence: Evidence, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
    """The difference between two settings, judged."""
    a, b = evidence.sample(quantity, first), evidence.sample(quantity, second)
    unit = f" ({quantity.unit})" if quantity.unit else ""
    measured = f"{quantity.name}{unit}: {first.minus(second)}"
    return judge(measured, rule, a.against(b), join(a.problem, b.problem), quantity.style)


def ratio(quantity: Quantity, first: Which, second: Which, rule: Rule) -> Test:
    """A ratio of what is counted: without noise where every run has the same."""

    def test(evidence: Evidence) -> list[Finding]:
        a, b = evidence.sample(quantity, first), evidence.sample(quantity, second)
        values = (a.values / b.values).dropna()
        same = len(values) > 0 and values.max() - values.min() <= 1e-9 * values.max()
        estimate = Estimate(values.iloc[0], values.iloc[0], values.iloc[0], len(values)) if same else interval(values)
        measured = f"{quantity.name}: {first} / {second}"
        return [judge(measured, rule, estimate, join(a.problem, b.problem), quantity.style).but(signed=False)]

    return test


def best_of(
    quantity: Quantity, ours: Which, others: Sequence[Which], rule: Rule, evidence: Evidence, nobody: str
) -> Finding:
    """Our setting against the other that comes nearest: the rule has to hold against every one of them."""
    if not others:
        return unknown(f"{quantity.name}: {ours} against the others", nobody)
    signed = Quantity(quantity.name, quantity.source, quantity.factor * quantity.better, quantity.unit, quantity.style)
    findings = [gap_of(evidence, signed, ours, other, rule) for other in others]
    verdicts = {finding.verdict for finding in findings}
    verdict = FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts else HOLDS
    deciding = [finding for finding in findings if finding.verdict == verdict]
    nearest = min(deciding, key=lambda f: math.inf if math.isnan(f.estimate.mean) else f.estimate.mean)
    more = f"; of {len(others)} compared, the one that decides" if len(others) > 1 else ""
    less = "; negated, as less is better" if quantity.better < 0 else ""
    return nearest.but(measured=f"{nearest.measured}{less}{more}")


def drop(evidence: Evidence, start: Which, end: Which) -> Sample:
    """The accuracy that is lost from one setting to another, in points by seed."""
    return evidence.sample(ACCURACY, start).minus(evidence.sample(ACCURACY, end))
