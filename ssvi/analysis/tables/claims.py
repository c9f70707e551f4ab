"""What the paper's text claims, each claim a line in `CLAIMS`, tested on whatever was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ssvi.analysis.collect import Frames
from ssvi.analysis.quantities import (
    ACCURACY,
    COMPLEXITY,
    ECE_MARGINAL,
    NLL,
    NLL_FAIR,
    SHIFT_ACCURACY,
    SHIFT_ECE,
    TRAINING_FLOPS,
)
from ssvi.analysis.settings import METHOD_NAMES, caveats
from ssvi.analysis.stats import DIFFERENCES, Estimate, noise_floor
from ssvi.analysis.tables import findings, learned
from ssvi.analysis.tables.evidence import Evidence, Test, gather
from ssvi.analysis.tables.findings import LARGE_SIGMA, MARGIN, MINIMAL_LOSS, NARROWEST, SSVI, VI, WIDEST, gap
from ssvi.analysis.tables.format import COUNTED, Table, format_interval, format_signed
from ssvi.analysis.tables.judging import FAILS, HOLDS, INCOMPARABLE, UNDECIDED, Finding, above, below
from ssvi.analysis.tables.published import is_papers, published, published_rows, what_was_run
from ssvi.analysis.uncertain import with_figures
from ssvi.errors import UserError

PROSE = ("claimed", "measured", "verdict")
VERDICTS = {HOLDS: "hold", FAILS: "fail", UNDECIDED: "undecided", INCOMPARABLE: "not comparable"}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's text.

    Attributes:
        key: what it is called here; a letter for each of its parts.
        section: where the paper makes it.
        text: what is claimed, in our words.
        test: the findings on one data set.
        dataset: the paper's data set of which alone it is claimed; on data that are not the paper's it is tested
            all the same.
    """

    key: str
    section: str
    text: str
    test: Test
    dataset: str | None = None

    def concerns(self, dataset: str) -> bool:
        """Whether the claim is to be tested on this data set."""
        return self.dataset in (None, dataset) or dataset not in published()["datasets"]


def _savings(keys: str, density: float, points: float, ece: float, share: float, dataset: str) -> tuple[Claim, ...]:
    """The text on Table 1 about one data set; a printed number holds whatever rounds to it."""
    sparse, name = SSVI.but(density=density), f"at {1 / density:.0f}x compression on {published()['names'][dataset]}"
    last = 10 ** -(len(f"{ece:f}".rstrip("0").partition(".")[2]))
    return (
        Claim(f"C1{keys[0]}", "4.1", f"accuracy falls by under {points:g} points {name}",
              gap(ACCURACY, VI, sparse, below(points)), dataset),
        Claim(f"C1{keys[1]}", "4.1", f"ECE rises by {ece:g}, as rounded, {name}",
              gap(ECE_MARGINAL, sparse, VI, below(ece + last / 2)), dataset),
        Claim(f"C1{keys[2]}", "4.1", f"the model is {share:g} of the dense one's size, as rounded",
              findings.counted_share(COMPLEXITY, density, below(share + 0.005)), dataset),
        Claim(f"C1{keys[3]}", "4.1", f"training costs {share:g} of the dense BNN's FLOPs, as rounded",
              findings.counted_share(TRAINING_FLOPS, density, below(share + 0.005)), dataset),
    )  # fmt: skip


def _ablations(*claims: Claim) -> tuple[Claim, ...]:
    """Claims of section 4.2, all of whose figures are of CIFAR-100."""
    return tuple(replace(claim, dataset="cifar100") for claim in claims)


CLAIMS: tuple[Claim, ...] = (
    Claim("A1", "abstract", "10–20x compression costs under 3 points of accuracy", findings.compression),
    Claim("A2", "abstract", "SSVI occasionally surpasses the dense BNN in accuracy and uncertainty",
          findings.surpasses),
    *_savings("abcd", 0.05, 2, 0.002, 0.05, "cifar10"),
    *_savings("efgh", 0.1, 3, 0.0001, 0.1, "cifar100"),
    Claim("C2a", "Figure 1, 4.1", "SSVI is the most accurate sparse BNN", findings.against_rivals(ACCURACY)),
    Claim("C2b", "Figure 1, 4.1", "SSVI costs the fewest training FLOPs of all sparse BNNs",
          findings.against_rivals(TRAINING_FLOPS, Evidence.flops_gap)),
    *_ablations(
        Claim("C3a", "4.2", "accuracy falls minimally from 50 % to 1 % of the weights",
              gap(ACCURACY, SSVI.but(density=WIDEST), SSVI.but(density=NARROWEST), below(MINIMAL_LOSS))),
        Claim("C3b", "4.2", "accuracy falls less with sparsity than RigL's", findings.flatter_than_rigl),
        Claim("C3c", "4.2", "SSVI closely mirrors RigL at every density", findings.mirrors_rigl),
        Claim("C4a", "4.2", "the dense BNN deteriorates as sigma_init grows", findings.sigma_drop(VI, above)),
        Claim("C4b", "4.2", "SSVI does not deteriorate, whatever the criterion",
              findings.sigma_drop(SSVI, below, True)),
        Claim("C4c", "4.2", "SSVI is the less sensitive of the two", findings.less_sensitive),
        Claim("C4d", "Figure 2", "SSVI beats the dense BNN at the largest sigma_init",
              gap(ACCURACY, SSVI.but(sigma_init=LARGE_SIGMA), VI.but(sigma_init=LARGE_SIGMA), above(0))),
        Claim("C4e", "Figure 2", "the dense BNN needs the KL warm-up", findings.warm_up(VI, above(MARGIN))),
        Claim("C4f", "Figure 2", "SSVI does not need it", findings.warm_up(SSVI, below(MARGIN))),
        Claim("C4g", "our question", "the dense BNN still deteriorates where σ can learn (another optimiser or rate)",
              findings.drop_by_recipe),
        Claim("C4h", "our question", "SSVI still beats it at the largest sigma_init there", findings.lead_by_recipe),
        Claim("C5a", "4.2", "SNR(|θ|) is the most accurate criterion at every density", findings.best_criterion),
        Claim("C5b", "4.2", "SNR(|θ|) is more accurate than |μ|/σ", findings.same_criterion),
        Claim("C6a", "Figure 3", "the addition criteria differ minimally", findings.alike_additions),
        Claim("C6b", "4.2", "multi-step addition is not better than one step", findings.multi_step),
        Claim("C7", "4.2", "the best constant for σ of added weights matches their mean", findings.best_constant),
    ),
    Claim("C8a", "appendix D.2, at second hand", "|μ| and SNR remove much the same weights early "
          "(our reading: more alike than at the random start)", findings.early_agreement),
    Claim("C8b", "appendix D.2, at second hand", "they agree less later", findings.later_divergence),
    Claim("B1", "our question", "SSVI is more accurate than a fixed subspace, pruning or an ensemble of its density",
          findings.against_baselines(ACCURACY)),
    Claim("B2", "our question", "SSVI has a lower NLL than they", findings.against_baselines(NLL)),
    # Besides accuracy and FLOPs, which are C2.
    Claim("C9a", "4.1", "SSVI has the best NLL of all sparse BNNs", findings.against_rivals(NLL)),
    Claim("C9b", "4.1", "SSVI has the best marginal ECE of all sparse BNNs", findings.against_rivals(ECE_MARGINAL)),
    Claim("C9c", "4.1", "SSVI has the best complexity of all sparse BNNs", findings.smallest),
)  # fmt: skip

# Of runs that the uncertainty suite evaluated; counted by themselves, so that the counts of the others stay comparable.
UNCERTAIN_CLAIMS: tuple[Claim, ...] = (
    Claim("D1a", "appendix D.1, at second hand", "under corruptions SSVI is as accurate as the dense BNN (our reading: "
          f"by mean accuracy not worse by over {MARGIN:g} points)",
          findings.at_each_density(SHIFT_ACCURACY, above(-MARGIN))),
    Claim("D1b", "appendix D.1, at second hand", "under corruptions SSVI is as well calibrated as the dense BNN (our "
          "reading: by mean ECE no worse)", findings.at_each_density(SHIFT_ECE, below(0))),
    Claim("D1c", "our question", "SSVI detects OOD images better than temperature-scaled RigL of its density",
          findings.detection),
)  # fmt: skip

# Of studies that learn by the natural gradient; without such a run they have no lines.
LEARNING_CLAIMS: tuple[Claim, ...] = (
    Claim("N1a", "our question", "SSVI by the natural gradient is more accurate than by SGD from the same start, each "
          "at its own rates", learned.natural_against(learned.SGD, ACCURACY)),
    Claim("N1b", "our question", "it has a lower NLL", learned.natural_against(learned.SGD, NLL)),
    Claim("N1c", "our question", "it is more accurate than by AdamW from the same start",
          learned.natural_against(learned.ADAM, ACCURACY)),
    Claim("N1d", "our question", "it has a lower NLL", learned.natural_against(learned.ADAM, NLL)),
    Claim("N2a", "our question", "SSVI by the natural gradient is more accurate than RigL, by SGD or AdamW",
          learned.natural_against_points(ACCURACY)),
    Claim("N2b", "our question", "it has a lower NLL than temperature-scaled RigL",
          learned.natural_against_points(NLL_FAIR)),
    Claim("N3", "our question", "the active fan-in makes SSVI by SGD more accurate than the published start, all "
          "else the same", learned.start_by_fan_in(ACCURACY)),
    Claim("N4", "our question", "the posterior that the natural gradient learns is in use, not practically a point",
          learned.posterior_in_use),
)  # fmt: skip
# What may be asked, and the verdicts of which are counted by themselves, with what they are of.
COUNTED_APART = {"the uncertainty suite": UNCERTAIN_CLAIMS, "ways of learning": LEARNING_CLAIMS}


def claims(frames: Frames) -> Table:
    """Every claim on every data set: what was measured, its interval, and whether the claim holds.

    Raises:
        UserError: if there are no runs.
    """
    if frames.runs.empty:
        raise UserError("claims: needs a run, but the collected experiments have none.")
    everything = gather(with_figures(frames), frames.overlap)
    shown, numbers = _tested((*CLAIMS, *UNCERTAIN_CLAIMS, *LEARNING_CLAIMS), everything)
    caption = "What the paper claims, and what these runs say."
    first, *notes = _notes(frames.runs, everything)
    notes = (first, _counts(numbers), *notes, *_learned(everything), *_not_used(frames), *caveats(frames.runs))
    return Table(pd.DataFrame(shown), pd.DataFrame(numbers), caption, notes, prose=PROSE)


def learning_claims(frames: Frames) -> Table:
    """The claims N alone, on every data set.

    Raises:
        UserError: if no SSVI was learned by the natural gradient, with images held out.
    """
    everything = gather(frames.runs, frames.overlap) if len(frames.runs) else []
    shown, numbers = _tested(LEARNING_CLAIMS, everything)
    if not shown:
        raise UserError(
            "learning_claims: needs a finished SSVI run with posterior_optimizer ivon and a validation NLL; none is."
        )
    caption = "What ways of learning are worth: verdicts."
    notes = (
        _counts(numbers),
        f"Holds or fails: the whole 95 % interval is on one side of the bound. {DIFFERENCES}",
        "Where a way of learning was run at several temperatures, or otherwise varied, the finished setting of the "
        "least NLL on the held-out images speaks, before temperature scaling; of how many is said. The more, the "
        "better the best of them looks. NLL, points scaled: that of a network without a posterior is after temperature "
        "scaling.",
        *caveats(frames.runs),
    )
    return Table(pd.DataFrame(shown), pd.DataFrame(numbers), caption, notes, prose=PROSE)


def _tested(
    those: Sequence[Claim], everything: Sequence[Evidence]
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The findings of some claims on every data set, as text and as numbers."""
    several = len({e.model for e in everything}) > 1
    shown, numbers = [], []
    for evidence in everything:
        for claim in those:
            if claim.concerns(evidence.dataset):
                for position, finding in enumerate(claim.test(evidence)):
                    shown.append(_text(claim, evidence, finding, several, first=position == 0))
                    numbers.append(_number(claim, evidence, finding))
    return shown, numbers


def _counts(numbers: Sequence[Mapping[str, Any]]) -> str:
    """How many lines have each verdict, of `CLAIMS` and of those that are counted apart."""

    def words(those: Sequence[Claim]) -> str:
        keys = {claim.key for claim in those}
        verdicts = [number["verdict"] for number in numbers if number["claim"] in keys]
        told = ", ".join(f"{verdicts.count(v)} {word}" for v, word in VERDICTS.items())
        return f"{len(verdicts)} lines: {told}" if verdicts else ""

    apart = [(f"Of {what} ({_keys(those)})", words(those)) for what, those in COUNTED_APART.items()]
    told = [("Verdicts of", words(CLAIMS)), *((f"{of},", said) for of, said in apart)]
    return " ".join(f"{of} {said}." for of, said in told if said)


def _keys(those: Sequence[Claim]) -> str:
    return f"{those[0].key} to {those[-1].key}"


def _learned(everything: Sequence[Evidence]) -> list[str]:
    """Of which methods a claim is about natural gradient where it says nothing else, because most runs are."""
    return [
        f"Where nothing else is said, {METHOD_NAMES[method]} ({evidence.dataset}, {evidence.model}) learned its "
        "posterior by natural gradient (IVON), not as published."
        for evidence in everything
        for method, usual in evidence.usual.items()
        if usual["posterior_optimizer"] == "ivon"
    ]


def _not_used(frames: Frames) -> list[str]:
    """The runs whose figures of the suite cannot be used, the first with the cause."""
    causes = list(frames.left_out.values())
    more = f", and {len(causes) - 1} more" if len(causes) > 1 else ""
    return [f"Not used in {_keys(UNCERTAIN_CLAIMS)}: {causes[0].rstrip('.')}{more}."] if causes else []


def _text(claim: Claim, evidence: Evidence, finding: Finding, several: bool, first: bool) -> dict[str, str]:
    """A row; what is claimed stands in the first of a claim's rows only."""
    estimate, signed = finding.estimate, finding.signed
    why = f": {finding.reason}" if finding.reason else ""
    ends = COUNTED if finding.counted and estimate.low == estimate.high else format_interval(estimate, finding.style)
    value = format_signed(estimate.mean, finding.style)
    return {
        "claim": claim.key,
        "claimed": f"{claim.text} ({claim.section})" if first else "",
        "data set": f"{evidence.dataset}, {evidence.model}" if several else evidence.dataset,
        "verdict": finding.verdict + why,
        "measured": finding.measured,
        "claimed bound": finding.bound,
        "value": value if signed else value.replace("+", ""),
        "95 % interval": ends if signed else ends.replace("+", ""),
        "n": str(estimate.n),
    }


def _number(claim: Claim, evidence: Evidence, finding: Finding) -> dict[str, Any]:
    estimate: Estimate = finding.estimate
    where = {"claim": claim.key, "section": claim.section, "claimed": claim.text}
    where |= {"dataset": evidence.dataset, "model": evidence.model, "measured": finding.measured}
    ends = {"value": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}
    return where | ends | {"bound": finding.bound, "verdict": finding.verdict, "reason": finding.reason}


def _notes(runs: pd.DataFrame, everything: list[Evidence]) -> list[str]:
    paper = published()
    run, theirs = what_was_run(runs), f"{' and '.join(paper['datasets'])} with {paper['model']}"
    if not runs["dataset"].isin(paper["datasets"]).any():
        first = f"Nothing here was run on the paper's data: verdicts are about {run}, not about {theirs}."
    elif not all(is_papers(row) for _, row in runs.iterrows()):
        first = (
            f"Not all of this is the paper's setting ({theirs}, {paper['epochs']} epochs, no images held out): {run}."
        )
    else:
        first = f"Data, network and epochs are the paper's: {run}."
    return [
        first,
        f"Holds or fails: the whole 95 % interval is on one side of the bound. {DIFFERENCES} A counted ratio has no "
        "noise. With so many intervals, one in twenty misses the true value.",
        "Undecided: more runs of the kind could decide. Not comparable: they could not, for the reason that is given; "
        "the value is shown all the same.",
        f"“Mirrors”, “robust”, “matches” and “differ minimally” are read as within {MARGIN:g} points, “falls "
        f"minimally” (C3a) as by under {MINIMAL_LOSS} points. ECE is the marginal, debiased one, as published; "
        "uncertainty in A2 is the NLL.",
        "C3 to C7 are claimed of CIFAR-100 (section 4.2): of the paper's data sets they are tested on that one alone. "
        "On data that are not the paper's every claim is tested.",
        "D1: means over corruptions and severities 1 to 5, and over OOD sets of the AUROC by entropy, of "
        "Bayesian networks before temperature scaling and of others after it.",
        *(note for evidence in everything if (note := _noise(evidence))),
        *_own_numbers(),
    ]


def _noise(evidence: Evidence) -> str:
    """What seeds alone do to the accuracy of the default setting."""
    values = evidence.sample(ACCURACY, SSVI).values
    if len(values) < 2:
        return ""
    floor = noise_floor(values, 3)
    more = f"; two means of three such seeds differ by up to {floor:.2f} points" if floor == floor else ""
    return (
        f"Noise on {evidence.dataset}: the standard deviation of the accuracy of {SSVI} over {len(values)} seeds is "
        f"{values.std(ddof=1):.2f} points{more}."
    )


def _own_numbers() -> list[str]:
    """Where the paper's own Table 1 is against its abstract."""
    found = []
    for dataset in published()["datasets"]:
        rows = {row["density"]: row["accuracy_percent"] for row in published_rows("table1", dataset)}
        for density in (0.1, 0.05):
            if (lost := rows[1.0] - rows[density]) >= 3:
                name = published()["names"][dataset]
                found.append(
                    f"A1 fails in the paper's own Table 1 on {name} at {1 / density:.0f}x: {lost:.2f} points are lost."
                )
    return found
