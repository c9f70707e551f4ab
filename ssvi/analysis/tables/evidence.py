"""What the runs of one data set and network say: samples by seed, rules that judge them, and tests made of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ssvi.analysis.collect import COMPLETE
from ssvi.analysis.made import MADE
from ssvi.analysis.settings import METHOD_NAMES, SETTING, is_missing, option_text
from ssvi.analysis.stats import Estimate, difference, interval
from ssvi.analysis.tables.choices import BLOCK, default_setting
from ssvi.analysis.tables.format import format_difference
from ssvi.analysis.tables.published import rivals
from ssvi.analysis.tables.rows import by_seed, complete, is_sparse_bnn, reading_order, resolution
from ssvi.spec import FIELDS, idle

# The last is what such runs cannot answer, however many seeds there are.
HOLDS, FAILS, UNDECIDED, INCOMPARABLE = "holds", "fails", "undecided", "not comparable"


@dataclass(frozen=True)
class Quantity:
    """A metric as claims speak of it.

    Attributes:
        better: 1 where more is better, -1 where less is.
        counted: whether it is counted, not measured.
        floor: the value at which it is cut, None where it is not.
    """

    name: str
    source: str
    factor: float = 1.0
    unit: str = ""
    style: str = ".4f"
    better: int = 1
    counted: bool = False
    floor: float | None = None


ACCURACY = Quantity("accuracy", "accuracy", 100.0, "points", ".2f")
NLL = Quantity("NLL", "nll", better=-1)
ECE = Quantity("marginal ECE", "ece_marginal", better=-1, floor=0.0)
COMPLEXITY = Quantity("complexity", "complexity", style=".3g", better=-1, counted=True)
FLOPS = Quantity("training FLOPs", "training_flops", style=".3g", better=-1, counted=True)
FLOPS_PER_EPOCH = replace(FLOPS, source="flops_per_epoch")


@dataclass(frozen=True)
class Which:
    """A setting: a method's default one but for these options."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self._name}, {_words(self.options)}" if self.options else self._name

    @property
    def _name(self) -> str:
        return METHOD_NAMES.get(self.method, self.method)

    def but(self, **options: Any) -> Which:
        """The setting with these options changed as well."""
        return Which(self.method, tuple((dict(self.options) | options).items()))

    def minus(self, other: Which) -> str:
        """The difference to another setting in words; what both have is said once."""
        if self.method != other.method:
            return f"{self} − {other}"
        shared = tuple(pair for pair in self.options if pair in other.options)
        return f"{Which(self.method, shared)}: {self.beside(other)} − {other.beside(self)}"

    def beside(self, other: Which) -> str:
        """What sets it apart from another setting: its method if that is another, and the options not shared."""
        own = _words(pair for pair in self.options if pair not in other.options)
        if self.method == other.method:
            return own or "default"
        return f"{self._name} ({own})" if own else self._name


def _words(options: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {option_text(value)}" for name, value in options)


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

    def _is(self, row: Mapping[str, Any], wanted: Which, but: Sequence[str] = ()) -> bool:
        if row["method"] != wanted.method:
            return False
        target = self.usual[wanted.method] | dict(wanted.options)
        ignored = {*BLOCK, *but, *idle({name: target[name] for name in FIELDS})}
        return all(row[n] == target[n] for n in SETTING if n not in ignored and not is_missing(target[n]))

    def sample(self, quantity: Quantity, wanted: Which) -> Sample:
        """A metric of a setting by seed."""
        runs = self.setting(wanted)
        counts = runs.loc[runs["status"] != COMPLETE, "status"].value_counts()
        problem = f"{wanted}: {', '.join(f'{n} {status}' for status, n in counts.items())}" if len(counts) else ""
        values = by_seed(runs, quantity.source, quantity.factor)
        if cut := int((values == quantity.floor).sum()):
            problem = join(problem, f"{wanted}: {cut} of {len(values)} cut at {quantity.floor:g}")
        step = resolution(runs, quantity.source, quantity.factor)
        if runs.empty:
            otherwise = any(self._is(row, wanted, MADE) for row in self.rows)
            problem = f"{wanted}: {'run in another arithmetic than the rest' if otherwise else 'not run'}"
        return Sample(values, step, problem)

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
        """The methods of the paper's Table 2 that are sparse here or not yet finished, each in its default setting."""
        sparse = {group.iloc[0]["method"] for group in self.groups if is_sparse_bnn(group)}
        planned = [which(method) for method in rivals() if method in self.usual]
        return [w for w in planned if w.method in sparse or complete(self.setting(w)).empty]

    def absent(self) -> list[str]:
        """The methods of the paper's Table 2 that are no rivals here, in words: `not run: VD, SBP`."""
        there = {rival.method for rival in self.rivals()}
        missing: dict[str, list[str]] = {}
        for method in rivals():
            if method not in there:
                why = "not sparse" if method in self.usual else "not run"
                missing.setdefault(why, []).append(METHOD_NAMES[method])
        return [f"{why}: {', '.join(names)}" for why, names in missing.items()]


def gather(runs: pd.DataFrame, overlap: pd.DataFrame) -> list[Evidence]:
    """The evidence of each data set and network among the runs."""
    # An epoch of its own training: what a method costs whatever the number of epochs, and without its parents.
    epochs = pd.to_numeric(runs["epochs"], errors="coerce")
    own = pd.to_numeric(runs["training_flops"]) - pd.to_numeric(runs["parent_flops"]).fillna(0.0)
    groups = reading_order(runs.assign(flops_per_epoch=own / epochs.where(epochs > 0)))
    blocks: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for group in groups:
        blocks.setdefault((group.iloc[0]["dataset"], group.iloc[0]["model"]), []).append(group)
    found = []
    for (dataset, model), block in blocks.items():
        together = pd.concat(block)
        rows = [dict(group.iloc[0]) for group in block]
        of_method: dict[str, list[pd.DataFrame]] = {}
        for group, row in zip(block, rows, strict=True):
            of_method.setdefault(row["method"], []).append(group)
        usual = {method: dict(default_setting(those).iloc[0]) for method, those in of_method.items()}
        records = overlap[overlap["run"].isin(together["run"])]
        found.append(Evidence(dataset, model, together, records, block, rows, usual))
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
    finding = judge(measured, rule, a.against(b), join(a.problem, b.problem), quantity.style)
    finding = finding.but(counted=quantity.counted)
    # Numbers that are all cut agree exactly, which is no knowledge of a difference without noise.
    all_cut = all((sample.values == quantity.floor).all() for sample in (a, b))
    return finding.incomparable("every run of both is cut") if all_cut else finding


Compare = Callable[[Evidence, Quantity, Which, Which, Rule], Finding]


def flops_gap(evidence: Evidence, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
    """The difference in training FLOPs; it has to be there in an epoch too, as the numbers of epochs are a choice."""
    whole = gap_of(evidence, quantity, first, second, rule)
    epoch = gap_of(evidence, replace(quantity, source=FLOPS_PER_EPOCH.source), first, second, rule)
    finding = whole.saying(f"in an epoch, parents left out, {format_difference(epoch.estimate, epoch.style)}")
    lengths = "the numbers of epochs, which were chosen, decide it"
    return finding if whole.verdict == epoch.verdict else finding.incomparable(lengths)


def ratio_of(evidence: Evidence, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
    """A ratio of what is counted: without noise where every run has the same."""
    a, b = evidence.sample(quantity, first), evidence.sample(quantity, second)
    values = (a.values / b.values).dropna()
    same = len(values) > 0 and values.max() - values.min() <= 1e-9 * values.max()
    estimate = Estimate(values.iloc[0], values.iloc[0], values.iloc[0], len(values)) if same else interval(values)
    measured = f"{quantity.name}: {first} / {second}"
    finding = judge(measured, rule, estimate, join(a.problem, b.problem), quantity.style)
    return finding.but(signed=False, counted=quantity.counted)


def decisive(findings: Sequence[Finding], badness: Callable[[Finding], float]) -> Finding:
    """The finding that decides a claim which all of them have to support.

    One that fails decides; then one that is open; then one that cannot be compared. Of several that say the same it is
    the one of the greatest badness.
    """
    met = {finding.verdict for finding in findings}
    verdict = next(v for v in (FAILS, UNDECIDED, INCOMPARABLE, HOLDS) if v in met)
    deciding = [finding for finding in findings if finding.verdict == verdict]
    return max(deciding, key=lambda f: -math.inf if math.isnan(f.estimate.mean) else badness(f))


def best_of(
    quantity: Quantity,
    ours: Which,
    others: Sequence[Which],
    rule: Rule,
    evidence: Evidence,
    nobody: str,
    compare: Compare = gap_of,
) -> Finding:
    """Our setting against the other that comes nearest: the rule has to hold against every one of them."""
    if not others:
        return unknown(f"{quantity.name}: {ours} against the others", nobody)
    signed = replace(quantity, factor=quantity.factor * quantity.better)
    findings = [compare(evidence, signed, ours, other, rule) for other in others]
    nearest = decisive(findings, lambda finding: -finding.estimate.mean)
    less = "negated, as less is better" if quantity.better < 0 else ""
    more = f"decides among {', '.join(other.beside(ours) for other in others)}" if len(others) > 1 else ""
    return nearest.saying(less, more)


def drop(evidence: Evidence, start: Which, end: Which) -> Sample:
    """The accuracy that is lost from one setting to another, in points by seed."""
    return evidence.sample(ACCURACY, start).minus(evidence.sample(ACCURACY, end))
