"""What runs cannot answer is no failure of theirs, and no success: the verdict "not comparable", and who is a rival."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_claims import Setting, agreement, findings, made, rigl, ssvi, study, vd, vi
from hypothesis import given
from hypothesis import strategies as st

from ssvi.analysis import tables
from ssvi.analysis.quantities import COMPLEXITY, QUANTITIES, TRAINING_FLOPS
from ssvi.analysis.stats import Estimate
from ssvi.analysis.tables.findings import ON_PAPERS_NETWORK
from ssvi.analysis.tables.judging import HOLDS, INCOMPARABLE, UNDECIDED, Finding
from ssvi.analysis.tables.start import REMOVED, start_agreement
from ssvi.core import overlap
from ssvi.core.allocation import LayerShape, uniform
from ssvi.core.counting import active_macs, positions
from ssvi.core.exchange import UpdateSchedule
from ssvi.core.layers import LayerFactory, MaskedLayer, masked_layers
from ssvi.core.models import MODELS
from ssvi.runs.spec import RunSpec

COUNTED = {"C1c": "complexity", "C1d": "training_flops", "C1g": "complexity", "C1h": "training_flops"}


def aeb(accuracy: float, **rest: Any) -> Setting:
    return made("aeb", accuracy, False, {"parent": "dense", **rest})


def mbnn(accuracy: float, **rest: Any) -> Setting:
    return made("mbnn", accuracy, False, {"sparsity": 0.9, **rest})


# Counted ratios --------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [{}, {"model": "mlp"}, {"model": "resnet18", "width": 0.5}])
@pytest.mark.parametrize("share", [0.01, 0.2])
def test_counted_ratios_are_judged_on_the_papers_network_alone(
    tmp_path: Path, network: dict[str, Any], share: float
) -> None:
    costs = {"complexity": 1000 * share, "training_flops": 1e9 * share, **network}
    dense = vi(0.9, complexity=1000, training_flops=1e9, **network)
    frames = study(tmp_path, dense, ssvi(0.9, **costs), ssvi(0.9, density=0.05, **costs))
    for key, source in COUNTED.items():
        (row,) = findings(frames, key).to_dict("records")
        assert (row["verdict"], row["value"]) == ("not comparable", pytest.approx(share))
        there = ON_PAPERS_NETWORK[0.05 if key in "C1c C1d" else 0.1][QUANTITIES[source]]
        assert f"weighs otherwise in {network.get('model', 'resnet8')}" in row["reason"]
        assert ("at width 0.5" in row["reason"]) == ("width" in network)
        assert row["reason"].endswith(f"the paper's resnet18, where the same counting gives {there:.4f}")


def test_nothing_to_compare_stays_undecided_on_any_network(tmp_path: Path) -> None:
    frames = study(tmp_path, ssvi(0.9), ssvi(0.9, density=0.05))
    assert {findings(frames, key)["verdict"].item() for key in COUNTED} == {"undecided"}


def papers_ratios(density: float, classes: int) -> tuple[float, float]:
    """Size and training FLOPs of SSVI over those of the dense BNN on the CIFAR ResNet-18, 50,000 images."""
    spec, n_images, epochs = RunSpec(method="ssvi", density=density), 50_000, 200
    network = MODELS["resnet18"](LayerFactory(MaskedLayer), 3, 32, classes, 1.0)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    layers = masked_layers(network)
    places = positions(network, torch.zeros(1, 3, 32, 32))
    full = {name: layer.mean.numel() for name, layer in layers.items()}
    shapes = [LayerShape(tuple(layer.mean.shape), layer.dense_stem) for layer in layers.values()]
    kept = dict(zip(layers, uniform(shapes, density), strict=True))
    rest = sum(p.numel() for p in network.parameters()) - sum(full.values())
    steps = epochs * -(-n_images // spec.batch_size)
    updates = UpdateSchedule(spec.delta_t, spec.alpha, int(spec.update_until * steps)).n_updates
    dense, sparse = active_macs(places, full), active_macs(places, kept)
    growth = updates * spec.batch_size * 2 * (dense - sparse)
    flops = (12 * sparse * n_images * epochs + growth) / (12 * dense * n_images * epochs)
    return (sum(kept.values()) + rest) / (sum(full.values()) + rest), flops


@pytest.mark.parametrize(("density", "classes", "bound"), [(0.05, 10, 0.055), (0.1, 100, 0.105)])
def test_the_ratios_named_for_the_papers_network_are_counted_there_and_hold(
    density: float, classes: int, bound: float
) -> None:
    size, flops = papers_ratios(density, classes)
    assert {COMPLEXITY: round(size, 4), TRAINING_FLOPS: round(flops, 4)} == ON_PAPERS_NETWORK[density]
    assert max(size, flops) < bound


# Rivals ----------------------------------------------------------------------------------------------


def test_two_sizes_that_were_chosen_decide_nothing(tmp_path: Path) -> None:
    """AEB is given its density as SSVI is; 8,403 numbers against 8,523 is the stem of the one."""
    chosen = ssvi(0.95, complexity=8523, training_flops=1e9), aeb(0.94, complexity=8403, training_flops=2e9)
    (row,) = findings(study(tmp_path / "a", *chosen), "C9c").to_dict("records")
    assert (row["verdict"], row["value"]) == ("not comparable", -120)
    assert row["reason"] == "AEB has the size that was chosen with its density, as SSVI has"
    for name, found, verdict in (("b", 9702, "holds"), ("c", 8500, "fails")):
        frames = study(tmp_path / name, *chosen, vd(0.9, complexity=found), mbnn(0.9, complexity=9999))
        (row,) = findings(frames, "C9c").to_dict("records")
        assert (row["verdict"], row["value"]) == (verdict, found - 8523)
        assert row["measured"] == (
            "complexity: SSVI − VD; negated, as less is better; decides among VD, mBNN; not run: SBP; "
            "SSVI's size is chosen, with its density; left out, as chosen too: AEB"
        )
        # In accuracy it is a rival like all others.
        assert "decides among VD, AEB, mBNN" in findings(frames, "C2a")["measured"].item()


@pytest.mark.parametrize(
    ("whole", "epochs", "parents", "verdict"),
    [
        (4e9, 3, 0, "holds"),
        (4e9, 30, 0, "not comparable"),  # longer, but cheaper by the epoch
        (4e9, 3, 3.5e9, "not comparable"),  # it is the parents that cost
        (2e9, 1, 0, "not comparable"),  # cheaper for being short
        (2e9, 3, 0, "fails"),
    ],
)
def test_lengths_of_training_do_not_decide_what_is_cheapest(
    tmp_path: Path, whole: float, epochs: int, parents: float, verdict: str
) -> None:
    ours = ssvi(0.95, training_flops=3e9)
    frames = study(tmp_path, ours, mbnn(0.9, training_flops=whole, parent_flops=parents, epochs=epochs))
    (row,) = findings(frames, "C2b").to_dict("records")
    epoch = (whole - parents) / epochs - 1e9
    assert (row["verdict"], row["value"]) == (verdict, whole - 3e9)
    assert f"in an epoch, parents left out, {'+' if epoch > 0 else '−'}{abs(epoch):.3g}" in row["measured"]
    assert ("numbers of epochs" in row["reason"]) == (verdict == "not comparable")


def test_a_rival_that_is_cheaper_at_any_length_decides_over_one_that_cannot_be_compared(tmp_path: Path) -> None:
    ours, long = ssvi(0.95, training_flops=3e9), mbnn(0.9, training_flops=4e9, epochs=30)
    frames = study(tmp_path / "a", ours, long, vd(0.9, training_flops=2e9))
    assert findings(frames, "C2b")["verdict"].item() == "fails"
    frames = study(tmp_path / "b", ours, long, vd(0.9, training_flops=9e9))
    assert findings(frames, "C2b")["verdict"].item() == "not comparable"


def test_a_row_names_the_rivals_it_lacks_and_waits_for_those_that_are_not_finished(tmp_path: Path) -> None:
    frames = study(tmp_path, ssvi(0.95), aeb(0.9), vd(0.9), mbnn(0.9, sparsity=0.0))
    (row,) = findings(frames, "C2a").to_dict("records")
    assert row["verdict"] == "holds"
    assert row["measured"].endswith("; decides among VD, AEB; not run: SBP; not sparse: mBNN")
    lost = frames.runs.copy()
    lost.loc[lost["method"] == "vd", ["status", "accuracy", "sparsity"]] = ["diverged", None, None]
    (row,) = findings(dataclasses.replace(frames, runs=lost), "C2a").to_dict("records")
    assert (row["verdict"], row["reason"]) == ("undecided", "nothing to compare; VD: 3 diverged")


# Decided by several ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "narrow",
    [
        rigl(0.90, noisy=True, density=0.05),  # furthest and open, but at 0.1 it is certain
        rigl(0.95, noisy=True, density=0.05),
    ],
)
def test_one_density_that_fails_is_enough(tmp_path: Path, narrow: Setting) -> None:
    frames = study(tmp_path, ssvi(0.95), ssvi(0.95, density=0.05), rigl(0.93), narrow)
    (row,) = findings(frames, "C3c").to_dict("records")
    assert (row["verdict"], row["value"]) == ("fails", pytest.approx(2))
    assert "decides among density 0.05, 0.1" in row["measured"]


def test_one_density_that_is_open_leaves_it_open(tmp_path: Path) -> None:
    frames = study(tmp_path, ssvi(0.95), ssvi(0.95, density=0.05), rigl(0.948), rigl(0.95, noisy=True, density=0.05))
    assert findings(frames, "C3c")["verdict"].tolist() == ["undecided"]


def test_every_number_of_samples_has_to_be_no_better(tmp_path: Path) -> None:
    two, four = ({"addition": "mcK", "addition_samples": k} for k in (2, 4))
    frames = study(tmp_path, ssvi(0.95), ssvi(0.951, **two), ssvi(0.94, noisy=True, **four))
    assert findings(frames, "C6b")["verdict"].tolist() == ["undecided"]


def test_an_open_claim_shows_a_density_that_leaves_it_open(tmp_path: Path) -> None:
    """At 0.1 SSVI is the more accurate and has the larger NLL: it is 0.05 that could still win."""
    frames = study(tmp_path, vi(0.9, nll=0.4), ssvi(0.95, nll=0.6), ssvi(0.9, noisy=True, density=0.05, nll=0.2))
    (row,) = findings(frames, "A2").to_dict("records")
    assert (row["verdict"], row["reason"]) == ("undecided", "the interval contains the bound")
    assert row["measured"].startswith("accuracy (points): SSVI, density 0.05 − dense BNN; NLL: −0.200")
    assert row["measured"].endswith("; of density 0.05, 0.1, chosen by its result and so favoured")


@pytest.mark.parametrize(
    ("ece", "verdict", "said"),
    [
        (
            (0.0, 0.0),
            "not comparable",
            "every run of both is cut; SSVI, density 0.05: 3 of 3 cut at 0; dense BNN: 3 of",
        ),
        ((0.0, 0.001), "holds", "SSVI, density 0.05: 3 of 3 cut at 0"),
        ((0.001, 0.001), "holds", ""),
    ],
)
def test_calibration_errors_that_are_all_cut_hold_nothing(
    tmp_path: Path, ece: tuple[float, float], verdict: str, said: str
) -> None:
    frames = study(tmp_path, ssvi(0.9, density=0.05, ece_marginal=ece[0]), vi(0.9, ece_marginal=ece[1]))
    (row,) = findings(frames, "C1b").to_dict("records")
    assert row["verdict"] == verdict
    assert row["reason"].startswith(said)
    assert bool(row["reason"]) == bool(said)


def test_what_is_measured_is_not_called_counted(tmp_path: Path) -> None:
    costs = {"complexity": 10, "model": "resnet18"}
    frames = study(tmp_path, ssvi(0.9, density=0.05, ece_marginal=0.001, **costs), vi(0.9, ece_marginal=0.001, **costs))
    shown = tables.make_table("claims", frames).frame.set_index("claim")["95 % interval"]
    assert (shown["C1b"], shown["C1c"]) == ("[0.0000, 0.0000]", "counted")


# The random start ------------------------------------------------------------------------------------


def by_drawing(sigma_mean: float, sigma_sd: float, n: int = 1_000_000) -> float:
    """The IoU of the lowest three tenths by |mu| and by |mu|/sigma of n weights at the start."""
    random = np.random.default_rng(0)
    mu, sigma = abs(random.normal(0, 0.01, n)), abs(random.normal(sigma_mean, sigma_sd, n))
    lowest = [set(np.argsort(score)[: 3 * n // 10].tolist()) for score in (mu, mu / sigma)]
    return len(lowest[0] & lowest[1]) / len(lowest[0] | lowest[1])


@pytest.mark.parametrize(("mean", "sd"), [(0.0006, 0.0005), (0.001, 0.0005), (0.01, 0.0005), (0.0001, 0.01)])
def test_agreement_at_the_start_is_what_drawing_gives(mean: float, sd: float) -> None:
    assert start_agreement(0.01, mean, sd) == pytest.approx(by_drawing(mean, sd), abs=0.003)


def test_agreement_at_the_start_is_of_the_part_that_is_recorded() -> None:
    assert overlap.REMOVED_FRACTION == REMOVED
    assert start_agreement(0.01, 0.0006, 0.0005) == pytest.approx(0.5976, abs=5e-5)
    assert start_agreement(0.0, 0.0006, 0.0005) == start_agreement(0.01, 0.0006, 0.0) == 1.0


@given(st.floats(1e-4, 1.0), st.floats(1e-3, 1e3), st.floats(1e-6, 1e3))
def test_agreement_at_the_start_is_of_the_spread_of_sigma_alone_and_falls_with_it(
    mean: float, relative: float, scale: float
) -> None:
    found = start_agreement(1.0, mean, relative * mean)
    assert found == pytest.approx(start_agreement(scale, scale * mean, scale * relative * mean), abs=1e-7)
    assert start_agreement(1.0, mean, 1.1 * relative * mean) <= found + 1e-7
    # Never below that of sigma = |N(0, sd^2)|, nor of two orders that know nothing of each other.
    assert 0.09 / 0.51 < start_agreement(1.0, 1e-9, 1.0) - 1e-7 <= found <= 1 + 1e-7


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ([0.590, 0.600, 0.605], "undecided"),  # the random start itself: "above a half" held for it
        ([0.54, 0.55, 0.56], "fails"),
        ([0.64, 0.65, 0.66], "holds"),
    ],
)
def test_agreement_is_judged_against_the_random_start(tmp_path: Path, first: list[float], verdict: str) -> None:
    frames = agreement(study(tmp_path, ssvi(0.95)), first, first)
    (row,) = findings(frames, "C8a").to_dict("records")
    assert row["verdict"] == verdict
    assert row["value"] == pytest.approx(np.mean(first) - start_agreement(0.01, 0.0006, 0.0005))


def test_agreement_knows_the_runs_own_start(tmp_path: Path) -> None:
    wide = agreement(study(tmp_path / "a", ssvi(0.95, sigma_init=0.01)), [0.8, 0.81, 0.82], [0.5] * 3)
    assert findings(wide, "C8a")["verdict"].tolist() == ["fails"]
    for name, options in (
        ("b", {"sigma_init_sd": 0.0}),
        ("c", {"posterior_optimizer": "ivon", "curvature_init": 2.0, "mean_init": "active_fan_in"}),
    ):
        equal = agreement(study(tmp_path / name, ssvi(0.95, **options)), [0.8, 0.81, 0.82], [0.5] * 3)
        (row,) = findings(equal, "C8a").to_dict("records")
        assert (row["verdict"], row["reason"]) == (
            "not comparable",
            "the two agree fully at the random start, and cannot agree more",
        )
    uniform = agreement(study(tmp_path / "d", ssvi(0.95, mean_init="fan_in")), [0.8, 0.81, 0.82], [0.5] * 3)
    (row,) = findings(uniform, "C8a").to_dict("records")
    assert (row["verdict"], row["n"]) == ("not comparable", 0)
    assert row["measured"] == "IoU of |μ| and SNR at the first recorded update (0.810) − at the random start"
    assert "is not computed" in row["reason"]


# What is said of them all ----------------------------------------------------------------------------


def test_what_is_undecided_does_not_change_its_name() -> None:
    nothing = Finding("x", Estimate(0.0, -1.0, 1.0, 3), UNDECIDED, "the interval contains the bound")
    assert nothing.incomparable("another network") == nothing
    decided = nothing.but(verdict=HOLDS, reason="1 diverged").incomparable("another network")
    assert (decided.verdict, decided.reason) == (INCOMPARABLE, "another network; 1 diverged")


def test_verdicts_are_counted_over_every_line(tmp_path: Path) -> None:
    settings = [vi(0.95, complexity=10), ssvi(0.95, complexity=1), ssvi(0.94, density=0.05, complexity=1)]
    table = tables.make_table("claims", study(tmp_path, *settings, ssvi(0.95, criterion="snr")))
    added = table.numbers["claim"].str.startswith("D")
    counts = table.numbers.loc[~added, "verdict"].value_counts()
    assert set(counts.index) == {"holds", "fails", "undecided", "not comparable"}
    # the list of the paper's claims is counted by itself, so that it can be compared with what was counted before
    assert added.sum() == 3
    assert table.notes[1] == (
        f"Verdicts of {len(table.frame) - 3} lines: {counts['holds']} hold, {counts['fails']} fail, "
        f"{counts['undecided']} undecided, {counts['not comparable']} not comparable. Of the uncertainty suite (D1a to "
        "D1c), 3 lines: 0 hold, 0 fail, 3 undecided, 0 not comparable."
    )
    assert len(table.frame) == counts.sum() + added.sum()
    for text in (tables.to_markdown(table), tables.to_html(table), tables.to_latex(table)):
        assert text.count("not comparable: what stays dense") == 4
