"""What the runs of one data set and network say: each setting that claims speak of, and its numbers by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ssvi.analysis import comparing
from ssvi.analysis.collect import COMPLETE, RUN_COLUMNS
from ssvi.analysis.comparing import Sample
from ssvi.analysis.made import MADE
from ssvi.analysis.quantities import ACCURACY, Quantity
from ssvi.analysis.settings import METHOD_NAMES, SETTING, in_words, is_missing, split, task, without_effect
from ssvi.analysis.stats import Estimate, interval
from ssvi.analysis.tables.choices import BLOCK, default_settings
from ssvi.analysis.tables.format import format_difference
from ssvi.analysis.tables.judging import Finding, Rule, above, decisive, judge, judge_difference, unknown
from ssvi.analysis.tables.published import rivals
from ssvi.analysis.tables.rows import reading_order
from ssvi.registry import POINT


@dataclass(frozen=True)
class Which:
    """A setting: a method's default one but for these options."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self._name}, {_words(self.options)}" if self.options else self._name

    @property
    def _name(self) -> str:
        return METHOD_NAMES[self.method]

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
    return ", ".join(in_words(name, value) for name, value in options)


def which(method: str, **options: Any) -> Which:
    """The default setting of a method but for these options."""
    return Which(method, tuple(options.items()))


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
            found = [group for group, alike in zip(self.groups, self._alike(wanted), strict=True) if alike]
            self.cache[wanted] = pd.concat(found) if found else self.runs.iloc[:0]
        return self.cache[wanted]

    def _alike(self, wanted: Which, but: Sequence[str] = ()) -> list[bool]:
        """Which of the settings are the wanted one; none where that names an option without effect."""
        target = self.usual.get(wanted.method, {}) | dict(wanted.options)
        idle = without_effect(target)
        ignored = {*BLOCK, *but, *idle}
        told = {n: target[n] for n in SETTING if n in target and n not in ignored and not is_missing(target[n])}
        none = not idle.isdisjoint(dict(wanted.options))
        return [
            not none and row["method"] == wanted.method and all(row[name] == value for name, value in told.items())
            for row in self.rows
        ]

    def sample(self, quantity: Quantity, wanted: Which) -> Sample:
        """A metric of a setting by seed."""
        runs = self.setting(wanted)
        if runs.empty:
            otherwise = any(self._alike(wanted, MADE))
            problem = f"{wanted}: {'run in another arithmetic than the rest' if otherwise else 'not run'}"
            return Sample(pd.Series(dtype=float), problem=problem)
        counts = runs.loc[runs["status"] != COMPLETE, "status"].value_counts()
        problem = f"{wanted}: {', '.join(f'{n} {status}' for status, n in counts.items())}" if len(counts) else ""
        sample, done = comparing.sample(runs, quantity), int((runs["status"] == COMPLETE).sum())
        if quantity.column not in RUN_COLUMNS and (lacking := done - len(sample.values)):
            problem = comparing.join(problem, f"{wanted}: {lacking} of {done} not evaluated for it")
        if cut := int((sample.values == quantity.cut_at).sum()):
            problem = comparing.join(problem, f"{wanted}: {cut} of {len(sample.values)} cut at {quantity.cut_at:g}")
        return replace(sample, problem=problem)

    def variants(self, wanted: Which, option: str) -> list[Any]:
        """The values of an option among the settings that are otherwise the wanted one, in order."""
        if wanted.method not in self.usual:
            return []
        own = {row[option] for row in self.rows if row["method"] == wanted.method}
        return sorted(v for v in own if not is_missing(v) and len(self.setting(wanted.but(**{option: v}))))

    def combinations(self, wanted: Which, options: Sequence[str]) -> list[dict[str, Any]]:
        """The values that several options have together, those of them that have an effect, among the settings that are
        otherwise the wanted one."""
        own = [(row, without_effect(row)) for row in self.rows if row["method"] == wanted.method]
        met = dict.fromkeys(tuple((name, row[name]) for name in options if name not in idle) for row, idle in own)
        named = [dict(pairs) for pairs in met if not any(is_missing(value) for _, value in pairs)]
        return [values for values in named if len(self.setting(wanted.but(**values)))]

    def rivals(self) -> list[Which]:
        """The methods of the paper's Table 2 that are sparse here or not yet finished, each in its default setting."""
        sparse = {group.iloc[0]["method"] for group in self.groups if comparing.is_sparse_bnn(group)}
        planned = [which(method) for method in rivals() if method in self.usual]
        return [w for w in planned if w.method in sparse or comparing.complete(self.setting(w)).empty]

    def absent(self) -> list[str]:
        """The methods of the paper's Table 2 that are no rivals here, in words: `not run: VD, SBP`."""
        there = {rival.method for rival in self.rivals()}
        missing = [method for method in rivals() if method not in there]
        by_cause = split(missing, lambda method: "not sparse" if method in self.usual else "not run")
        return [f"{why}: {', '.join(METHOD_NAMES[m] for m in methods)}" for why, methods in by_cause.items()]

    def gap(self, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
        """The difference between two settings, judged."""
        a, b = self.sample(quantity, first), self.sample(quantity, second)
        measured = f"{quantity.difference}: {first.minus(second)}"
        finding = judge_difference(measured, rule, a, b, quantity.exact_style)
        finding = finding.but(counted=quantity.counted)
        # Numbers that are all cut agree exactly, which is no knowledge of a difference without noise.
        all_cut = all((sample.values == quantity.cut_at).all() for sample in (a, b))
        return finding.incomparable("every run of both is cut") if all_cut else finding

    def flops_gap(self, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
        """The difference in training FLOPs; it has to be there in an epoch too, as their numbers are a choice."""
        whole = self.gap(quantity, first, second, rule)
        epoch = self.gap(replace(quantity, column="flops_per_epoch"), first, second, rule)
        finding = whole.saying(f"in an epoch, parents left out, {format_difference(epoch.estimate, epoch.style)}")
        lengths = "the numbers of epochs, which were chosen, decide it"
        return finding if whole.verdict == epoch.verdict else finding.incomparable(lengths)

    def ratio(self, quantity: Quantity, first: Which, second: Which, rule: Rule) -> Finding:
        """A ratio of what is counted: without noise where every run has the same."""
        a, b = self.sample(quantity, first), self.sample(quantity, second)
        values = (a.values / b.values).dropna()
        same = len(values) > 0 and values.max() - values.min() <= 1e-9 * values.max()
        estimate = Estimate(values.iloc[0], values.iloc[0], values.iloc[0], len(values)) if same else interval(values)
        measured = f"{quantity.name}: {first} / {second}"
        finding = judge(measured, rule, estimate, comparing.join(a.problem, b.problem), quantity.exact_style)
        return finding.but(signed=False, counted=quantity.counted)

    def lead(
        self, quantity: Quantity, ours: Which, others: Sequence[Which], gap: Gap | None = None, nobody: str = ""
    ) -> Finding:
        """Our setting against the other that comes nearest: it has to be the better one of every pair."""
        if not others:
            return unknown(f"{quantity.name}: {ours} against the others", nobody)
        signed = replace(quantity, factor=quantity.factor * quantity.better)
        found = [(gap or Evidence.gap)(self, signed, ours, other, above(0)) for other in others]
        nearest = decisive(found, lambda finding: -finding.estimate.mean)
        less = "negated, as less is better" if quantity.better < 0 else ""
        more = f"decides among {', '.join(other.beside(ours) for other in others)}" if len(others) > 1 else ""
        return nearest.saying(less, more)

    def drop(self, start: Which, end: Which) -> Sample:
        """The accuracy that is lost from one setting to another, in points by seed."""
        return self.sample(ACCURACY, start).minus(self.sample(ACCURACY, end))


def gather(runs: pd.DataFrame, overlap: pd.DataFrame) -> list[Evidence]:
    """The evidence of each data set and network among the runs."""
    # An epoch of its own training: what a method costs whatever the number of epochs, and without its parents.
    epochs = pd.to_numeric(runs["epochs"], errors="coerce")
    own = pd.to_numeric(runs["training_flops"]) - pd.to_numeric(runs["parent_flops"]).fillna(0.0)
    fair = runs["nll"].where(~runs["method"].isin(POINT), runs["nll_scaled"])
    groups = reading_order(runs.assign(flops_per_epoch=own / epochs.where(epochs > 0), nll_fair=fair))
    found = []
    for (dataset, model, *_), block in split(groups, task).items():
        together = pd.concat(block)
        usual = {method: dict(setting.iloc[0]) for method, setting in default_settings(block).items()}
        records = overlap[overlap["run"].isin(together["run"])]
        found.append(Evidence(dataset, model, together, records, block, [dict(g.iloc[0]) for g in block], usual))
    return found


Gap = Callable[[Evidence, Quantity, Which, Which, Rule], Finding]
Test = Callable[[Evidence], list[Finding]]
