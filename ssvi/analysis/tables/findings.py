"""The tests of the claims: what each of them compares, on whatever was run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pandas as pd

from ssvi.analysis.comparing import join
from ssvi.analysis.quantities import ACCURACY, COMPLEXITY, NLL, OOD_AUROC_FAIR, TRAINING_FLOPS, Quantity
from ssvi.analysis.settings import RECIPE, option_text
from ssvi.analysis.stats import difference, interval
from ssvi.analysis.tables import judging
from ssvi.analysis.tables.choices import BLOCK
from ssvi.analysis.tables.evidence import Evidence, Gap, Test, Which, which
from ssvi.analysis.tables.format import format_difference
from ssvi.analysis.tables.judging import Finding, Rule, above, below, within
from ssvi.analysis.tables.options import departures
from ssvi.analysis.tables.published import is_papers_network, published, published_rows
from ssvi.analysis.tables.start import agreement_at_start
from ssvi.registry import SPARSE

# Points of accuracy that count as no difference where the text says "mirrors", "robust", "matches", or that settings
# differ minimally: about what the seeds alone do to a mean of three (the notes of the table print how much that is).
MARGIN = 0.5
# Points of accuracy that may be lost where the text says that the loss from 50 % to 1 % of the weights is minimal:
# what the abstract allows for 10–20x compression.
MINIMAL_LOSS = 3
# The sigma_init at which the paper's Figure 2 (right) begins and ends.
SMALL_SIGMA, LARGE_SIGMA = 0.001, 0.01
# What is always said of a recipe that has it; of the rest, what is not usual.
ALWAYS_SAID = ("sigma_optimizer", "sigma_lr")
# The densities at which its Figure 2 (left) begins and ends.
WIDEST, NARROWEST = 0.5, 0.01
# What else gives a sparse network with uncertainties: not in the paper, asked for by its reviewers.
BASELINES = ("static_vi", "pruned", "ensemble")
VI, SSVI, RIGL = which("vi"), which("ssvi"), which("rigl")
IDENTICAL = "the two order weights identically, so there is no difference to measure"
# What SSVI at its defaults counts on the paper's network, by density, in parts of what the dense BNN does. A test
# counts it anew.
ON_PAPERS_NETWORK = {
    0.1: {COMPLEXITY: 0.1009, TRAINING_FLOPS: 0.1040},
    0.05: {COMPLEXITY: 0.0510, TRAINING_FLOPS: 0.0542},
}


def gap(quantity: Quantity, first: Which, second: Which, rule: Rule) -> Test:
    """One difference between two settings, paired by seed."""
    return lambda evidence: [evidence.gap(quantity, first, second, rule)]


def compression(evidence: Evidence) -> list[Finding]:
    """The accuracy lost at the two densities of the abstract."""
    return [evidence.gap(ACCURACY, VI, SSVI.but(density=d), below(3)) for d in (0.1, 0.05)]


def counted_share(quantity: Quantity, density: float, rule: Rule) -> Test:
    """What SSVI counts over what the dense BNN does, judged on the paper's network alone."""

    def test(evidence: Evidence) -> list[Finding]:
        sparse = SSVI.but(density=density)
        finding = evidence.ratio(quantity, sparse, VI, rule)
        runs = pd.concat([evidence.setting(sparse), evidence.setting(VI)])
        if is_papers_network(runs).all():
            return [finding]
        widths = [f" at width {width:g}" for width in sorted(runs["width"].unique()) if width != 1]
        there = f"{ON_PAPERS_NETWORK[density][quantity]:.4f}"
        reason = (
            f"what stays dense (stem, biases, BatchNorm) weighs otherwise in {evidence.model}{''.join(widths)} than in "
            f"the paper's {published()['model']}, where the same counting gives {there}"
        )
        return [finding.incomparable(reason)]

    return test


def surpasses(evidence: Evidence) -> list[Finding]:
    """The density at which SSVI does best against the dense BNN; it has to win in accuracy and NLL at once."""
    densities = evidence.variants(SSVI, "density")
    if not densities:
        return [judging.unknown("accuracy and NLL: SSVI against dense BNN", "SSVI: not run")]
    looks = [_surpasses(evidence, SSVI.but(density=density)) for density in densities]
    # One density is enough to hold, and all of them are needed to fail.
    best = judging.decisive(looks, lambda look: look.estimate.mean, judging.ANY)
    return [_favoured(best, "density", densities)]


def _surpasses(evidence: Evidence, ours: Which) -> Finding:
    accuracy, nll = (evidence.gap(q, ours, VI, r) for q, r in ((ACCURACY, above(0)), (NLL, below(0))))
    verdict = next(v for v in judging.ALL if v in (accuracy.verdict, nll.verdict))
    reason = join(*(finding.reason for finding in (accuracy, nll) if finding.verdict == verdict))
    finding = accuracy.but(verdict=verdict, reason=reason, bound="> 0 and NLL < 0")
    return finding.saying(f"NLL: {format_difference(nll.estimate, '.3f')}")


def best_criterion(evidence: Evidence) -> list[Finding]:
    """At each density the default criterion against those that order weights otherwise."""
    found = []
    for density in evidence.variants(SSVI, "density"):
        ours = SSVI.but(density=density, criterion="snr_abs")
        others = [ours.but(criterion=c) for c in evidence.variants(ours, "criterion") if c not in ("snr", "snr_abs")]
        if others:
            found.append(evidence.lead(ACCURACY, ours, others))
    return found or [judging.unknown("accuracy of the criteria", "no other criterion was run")]


def same_criterion(evidence: Evidence) -> list[Finding]:
    """`snr_abs` minus `snr`: two scores with one order, so whatever is measured is noise."""
    found = []
    for density in evidence.variants(SSVI.but(criterion="snr"), "density"):
        ours = SSVI.but(density=density, criterion="snr_abs")
        finding = evidence.gap(ACCURACY, ours, ours.but(criterion="snr"), above(0))
        if finding.estimate.n:
            reason = join(IDENTICAL, "" if finding.verdict == judging.UNDECIDED else "what is measured is noise")
            finding = finding.but(verdict=judging.INCOMPARABLE, reason=reason)
        found.append(finding)
    return found or [judging.unknown("accuracy: snr_abs − snr", "criterion snr: not run")]


def flatter_than_rigl(evidence: Evidence) -> list[Finding]:
    """The accuracy that SSVI loses over the paper's densities, less what RigL loses, at each of its rates."""
    ours = evidence.drop(SSVI.but(density=WIDEST), SSVI.but(density=NARROWEST))
    found = []
    for lr in evidence.variants(RIGL, "lr") or [None]:
        rigl = RIGL if lr is None else RIGL.but(lr=lr)
        theirs = evidence.drop(rigl.but(density=WIDEST), rigl.but(density=NARROWEST))
        measured = f"accuracy lost from density {WIDEST:g} to {NARROWEST:g} (points): SSVI − {rigl}"
        found.append(judging.judge_difference(measured, below(0), ours, theirs))
    return found


def mirrors_rigl(evidence: Evidence) -> list[Finding]:
    """The density at which SSVI is furthest from RigL, at RigL's better learning rate."""
    densities = evidence.variants(SSVI, "density")
    both = {}
    for rigl in [RIGL.but(lr=lr) for lr in evidence.variants(RIGL, "lr")]:
        pairs = {d: (SSVI.but(density=d), rigl.but(density=d)) for d in densities}
        if there := {d: pair for d, pair in pairs.items() if all(_finished(evidence, setting) for setting in pair)}:
            both[rigl] = there
    if not both:
        return [judging.unknown("accuracy: SSVI − RigL, density by density", "no density was run with both")]
    # Rates are compared by the densities that all of them have.
    shared = set.intersection(*(set(pairs) for pairs in both.values()))

    def accuracy(rigl: Which) -> float:
        means = [_mean(evidence, theirs) for d, (_, theirs) in both[rigl].items() if d in shared or not shared]
        return sum(means) / len(means)

    better = max(both, key=accuracy)
    gaps = [evidence.gap(ACCURACY, ours, theirs, within(MARGIN)) for ours, theirs in both[better].values()]
    decides = judging.decisive(gaps, lambda finding: abs(finding.estimate.mean))
    rates = [rigl.beside(RIGL).removeprefix("lr ") for rigl in both]
    return [
        decides.saying(
            f"decides among {_values('density', both[better])}" if len(gaps) > 1 else "",
            f"RigL at the better of {_values('lr', rates)}" if len(both) > 1 else "",
        )
    ]


def start_of_sweep(evidence: Evidence, *bases: Which) -> float | None:
    """Where the sweep of sigma_init begins that all these settings have; None if it does not reach the large one.

    It is the smallest sigma_init of the paper's sweep or, if that was not run, the smallest that was.
    """
    swept = set.intersection(*(set(evidence.variants(base, "sigma_init")) for base in bases))
    smaller = {value for value in swept if value < LARGE_SIGMA}
    if LARGE_SIGMA not in swept or not smaller:
        return None
    return SMALL_SIGMA if SMALL_SIGMA in smaller else min(smaller)


def sigma_drop(base: Which, rule: Callable[[float], Any], criteria: bool = False) -> Test:
    """The accuracy lost from a small sigma_init to the large one, of each criterion if asked for."""

    def test(evidence: Evidence) -> list[Finding]:
        settings = [base.but(criterion=c) for c in evidence.variants(base, "criterion")] if criteria else [base]
        swept = [setting for setting in settings if start_of_sweep(evidence, setting) is not None]
        return [_sigma_drop(evidence, setting, rule(MARGIN)) for setting in swept or [base]]

    return test


def _sigma_drop(evidence: Evidence, setting: Which, rule: Rule) -> Finding:
    small = start_of_sweep(evidence, setting)
    if small is None:
        return judging.unknown(f"accuracy of {setting} against sigma_init", "sigma_init was not varied")
    return evidence.gap(ACCURACY, setting.but(sigma_init=small), setting.but(sigma_init=LARGE_SIGMA), rule)


def other_recipes(evidence: Evidence) -> list[dict[str, Any]]:
    """The ways of learning sigma, but for the default one, that the dense BNN was run with at the large sigma_init."""
    both = [evidence.usual[base.method] for base in (VI, SSVI) if base.method in evidence.usual]
    return [
        {name: v for name, v in recipe.items() if name in ALWAYS_SAID or any(v != usual[name] for usual in both)}
        for recipe in evidence.combinations(VI.but(sigma_init=LARGE_SIGMA), RECIPE)
        if any(value != evidence.usual[VI.method][name] for name, value in recipe.items())
    ]


def drop_by_recipe(evidence: Evidence) -> list[Finding]:
    """The accuracy that the dense BNN loses to a large sigma_init, for each other way of learning sigma."""
    return [_sigma_drop(evidence, VI.but(**recipe), above(MARGIN)) for recipe in other_recipes(evidence)]


def lead_by_recipe(evidence: Evidence) -> list[Finding]:
    """SSVI minus the dense BNN at the large sigma_init, both with each other way of learning sigma."""
    large = [{**recipe, "sigma_init": LARGE_SIGMA} for recipe in other_recipes(evidence)]
    return [evidence.gap(ACCURACY, SSVI.but(**options), VI.but(**options), above(0)) for options in large]


def less_sensitive(evidence: Evidence) -> list[Finding]:
    """What the dense BNN loses to a large sigma_init, less what SSVI loses."""
    small = start_of_sweep(evidence, VI, SSVI)
    if small is None:
        return [judging.unknown("accuracy against sigma_init", "sigma_init was not varied for both")]
    theirs, ours = (evidence.drop(base.but(sigma_init=small), base.but(sigma_init=LARGE_SIGMA)) for base in (VI, SSVI))
    measured = f"accuracy lost from sigma_init {small:g} to {LARGE_SIGMA:g} (points): dense BNN − SSVI"
    return [judging.judge_difference(measured, above(0), theirs, ours)]


def warm_up(base: Which, rule: Any) -> Test:
    """The accuracy with the KL warm-up minus that without, at the smallest and the large sigma_init."""

    def test(evidence: Evidence) -> list[Finding]:
        off = base.but(kl_warmup=False)
        values = evidence.variants(off, "sigma_init")
        settings = [base.but(sigma_init=v, kl_warmup=True) for v in dict.fromkeys([*values[:1], *values[-1:]])]
        if not values and len(evidence.setting(off)):  # sigma starts from something else
            settings = [base.but(kl_warmup=True)]
        found = [evidence.gap(ACCURACY, s, s.but(kl_warmup=False), rule) for s in settings]
        return found or [judging.unknown(f"accuracy: {base}, warm-up on − off", "never switched off")]

    return test


def additions(evidence: Evidence) -> list[Which]:
    """The settings with another addition criterion than the one-step sample."""
    names = [a for a in evidence.variants(SSVI, "addition") if a not in ("mc1", "mcK")]
    multi = SSVI.but(addition="mcK")
    several = [multi.but(addition_samples=k) for k in evidence.variants(multi, "addition_samples")]
    return [*(SSVI.but(addition=a) for a in names), *several]


def alike_additions(evidence: Evidence) -> list[Finding]:
    """Every addition criterion against the one-step sample."""
    base = SSVI.but(addition="mc1")
    found = [evidence.gap(ACCURACY, other, base, within(MARGIN)) for other in additions(evidence)]
    return found or [judging.unknown("accuracy of additions", "no other addition criterion was run")]


def multi_step(evidence: Evidence) -> list[Finding]:
    """Every multi-step addition, minus the one-step sample; the best of them may not be better."""
    several = {dict(w.options)["addition_samples"]: w for w in additions(evidence) if ("addition", "mcK") in w.options}
    if not several:
        return [judging.unknown("accuracy: mcK − mc1", "addition mcK: not run")]
    base = SSVI.but(addition="mc1")
    gaps = [evidence.gap(ACCURACY, w, base, below(MARGIN)) for w in several.values()]
    return [_favoured(judging.decisive(gaps, lambda finding: finding.estimate.mean), "addition_samples", several)]


def against_baselines(quantity: Quantity) -> Test:
    """SSVI against what a reader would try first: at each density the best of all fixed subspaces, pruned networks,
    trained on or not, and ensembles."""

    def test(evidence: Evidence) -> list[Finding]:
        found = []
        for density in evidence.variants(SSVI, "density"):
            others = [
                which(row["method"], **departures(row, evidence.usual[row["method"]], BLOCK) | {"density": density})
                for row in evidence.rows
                if row["method"] in BASELINES and row["density"] == density
            ]
            if others:
                found.append(evidence.lead(quantity, SSVI.but(density=density), others))
        nobody = judging.unknown(f"{quantity.name}: SSVI − baselines", "no baseline was run at a density of SSVI's")
        return found or [nobody]

    return test


def at_each_density(quantity: Quantity, rule: Rule) -> Test:
    """SSVI minus the dense BNN, at each density at which SSVI has that figure."""

    def test(evidence: Evidence) -> list[Finding]:
        ours = [SSVI.but(density=density) for density in evidence.variants(SSVI, "density")]
        found = [evidence.gap(quantity, one, VI, rule) for one in ours if _finished(evidence, one, quantity)]
        return found or [judging.unknown(f"{quantity.name}: SSVI − dense BNN", _nothing(ours))]

    return test


def detection(evidence: Evidence) -> list[Finding]:
    """SSVI against temperature-scaled RigL of its density, at each of RigL's learning rates, where both were tried."""
    found, densities = [], evidence.variants(SSVI, "density")
    for density in densities:
        ours, rigl = SSVI.but(density=density), RIGL.but(density=density)
        theirs = [rigl.but(lr=lr) for lr in evidence.variants(rigl, "lr")]
        tried = [one for one in theirs if _finished(evidence, one, OOD_AUROC_FAIR)]
        if tried and _finished(evidence, ours, OOD_AUROC_FAIR):
            found.append(evidence.lead(OOD_AUROC_FAIR, ours, tried))
    return found or [judging.unknown(f"{OOD_AUROC_FAIR.name}: SSVI − RigL", _nothing(densities))]


def best_constant(evidence: Evidence) -> list[Finding]:
    """The constant for grown sigma that does best, minus the mean of the module."""
    constant = SSVI.but(grow_sigma="constant")
    values = evidence.variants(constant, "grow_sigma_value")
    if not values:
        return [judging.unknown("accuracy: constant − mean", "grow_sigma constant: not run")]
    best = max((constant.but(grow_sigma_value=v) for v in values), key=lambda w: _mean(evidence, w))
    finding = evidence.gap(ACCURACY, best, SSVI.but(grow_sigma="mean"), within(MARGIN))
    return [_favoured(finding, "grow_sigma_value", values)]


def _favoured(finding: Finding, option: str, tried: Collection[Any]) -> Finding:
    """The finding of one of several values of an option, with that said."""
    return finding.saying(
        f"of {_values(option, tried)}, chosen by its result and so favoured" if len(tried) > 1 else ""
    )


def _values(option: str, values: Iterable[Any]) -> str:
    """Values of an option in words: `density 0.1, 0.05`."""
    return f"{option} {', '.join(map(option_text, values))}"


def _finished(evidence: Evidence, setting: Which, quantity: Quantity = ACCURACY) -> bool:
    return len(evidence.sample(quantity, setting).values) > 0


def _nothing(ours: Collection[object]) -> str:
    return "no density was evaluated for it" if ours else "SSVI: not run"


def _mean(evidence: Evidence, setting: Which) -> float:
    values = evidence.sample(ACCURACY, setting).values
    return float(values.mean()) if len(values) else float("-inf")


def _agreement(evidence: Evidence) -> tuple[pd.Series, pd.Series, str]:
    """The IoU of |μ| and SNR at the first and at the last recorded update, by seed, and what is wrong."""
    runs = evidence.setting(SSVI)
    pair = evidence.overlap
    pair = pair[(pair["first"] == "abs_mu") & (pair["second"] == "snr") & pair["iou"].notna()].sort_values("step")
    ends = pair.groupby("run")["iou"].agg(["first", "last"]).reindex(runs["run"])
    ends.index = pd.Index(runs["seed"])
    return ends["first"].dropna(), ends["last"].dropna(), evidence.sample(ACCURACY, SSVI).problem


def early_agreement(evidence: Evidence) -> list[Finding]:
    """How much more |μ| and SNR agree on what to remove at the first recorded update than at the random start."""
    first, _, problem = _agreement(evidence)
    measured = "IoU of |μ| and SNR at the first recorded update"
    if first.empty:
        return [judging.judge(measured, above(0), interval(first), problem)]
    start = agreement_at_start(evidence.setting(SSVI).iloc[0])
    if start is None:
        reason = join("how far the two agree at a random start other than the published one is not computed", problem)
        finding = judging.unknown(f"{measured} ({first.mean():.3f}) − at the random start", reason)
        return [finding.but(verdict=judging.INCOMPARABLE)]
    measured = f"{measured} ({first.mean():.3f}) − at the random start ({start:.3f}, computed)"
    finding = judging.judge(measured, above(0), interval(first - start), problem, ".3f")
    full = "the two agree fully at the random start, and cannot agree more"
    return [finding.incomparable(full) if start > 1 - 1e-6 else finding]


def later_divergence(evidence: Evidence) -> list[Finding]:
    """How that agreement changes to the last recorded update."""
    first, last, problem = _agreement(evidence)
    measured = "IoU of |μ| and SNR: last − first recorded update"
    return [judging.judge(measured, below(0), difference(last, first), problem)]


def against_rivals(quantity: Quantity, gap: Gap = Evidence.gap) -> Test:
    """SSVI, at the density of the paper's Table 2, against every other sparse Bayesian method."""
    return lambda evidence: [_against(evidence, quantity, evidence.rivals(), gap)]


def smallest(evidence: Evidence) -> list[Finding]:
    """SSVI's size against the methods that find theirs.

    What is given a density, as SSVI is, has the size that was chosen for it, and two such sizes differ by what one of
    them counts in: the dense stem.
    """
    given = [rival for rival in evidence.rivals() if rival.method in SPARSE]
    found = [rival for rival in evidence.rivals() if rival.method not in SPARSE]
    finding = _against(evidence, COMPLEXITY, found or given)
    names = ", ".join(map(str, given))
    if found:
        left = f"left out, as chosen too: {names}" if given else ""
        return [finding.saying("SSVI's size is chosen, with its density", left)]
    return [finding.incomparable(f"{names} has the size that was chosen with its density, as SSVI has")]


def _against(evidence: Evidence, quantity: Quantity, rivals: list[Which], gap: Gap = Evidence.gap) -> Finding:
    printed = [r["density"] for r in published_rows("table2", evidence.dataset) if r["method"] == "ssvi"]
    ours = SSVI.but(density=printed[0]) if printed else SSVI
    nobody = "no other sparse Bayesian method was run"
    finding = evidence.lead(quantity, ours, rivals, gap, nobody)
    return finding.saying(*evidence.absent()) if rivals else finding
