"""Each metric once: names, units and ranges agree with each other; settings in words; the best beyond the noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_runs
from hypothesis import given
from hypothesis import strategies as st

from ssvi.analysis import comparing, ranges, stats
from ssvi.analysis import quantities as q
from ssvi.analysis.collect import load_frames
from ssvi.analysis.quantities import QUANTITIES, Quantity
from ssvi.analysis.settings import in_words, split
from ssvi.analysis.tables import make_table
from ssvi.runs.spec import RunSpec

ALL = [value for value in vars(q).values() if isinstance(value, Quantity)]


def test_every_quantity_is_registered_once_and_no_two_are_mistaken_for_each_other() -> None:
    assert list(QUANTITIES.values()) == ALL
    assert len({one.column for one in ALL}) == len({one.key for one in ALL}) == len({one.heading for one in ALL})


@pytest.mark.parametrize("quantity", ALL, ids=lambda one: one.column)
def test_units_agree_with_factors_and_ranges(quantity: Quantity) -> None:
    assert (quantity.unit == "%") == (quantity.factor == 100.0) == quantity.key.endswith("_percent")
    assert quantity.unit.strip("%") in quantity.title or quantity is q.FLOPS_RATIO or quantity is q.TRAINING_FLOPS
    low, high = ranges.bounds(quantity.column)
    assert quantity.bounds == (low * quantity.factor, high * quantity.factor)
    if "accuracy" in quantity.column:
        assert quantity.bounds == (0.0, 100.0)


@pytest.mark.parametrize(
    ("quantity", "heading", "difference", "title"),
    [
        (q.ACCURACY, "accuracy (%)", "accuracy (points)", "test accuracy (%)"),
        (q.NLL, "NLL", "NLL", "NLL (nats)"),
        (q.INFERENCE_FLOPS, "inference FLOPs per image", "inference FLOPs per image", None),
        (replace(q.MEMORY, unit="MB"), "peak memory (MB)", "peak memory (MB)", "peak memory (MB)"),
    ],
)
def test_headings(quantity: Quantity, heading: str, difference: str, title: str | None) -> None:
    assert (quantity.heading, quantity.difference) == (heading, difference)
    assert title is None or quantity.title == title


def runs_of(values: dict[int, float | None], images: int = 100, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"seed": list(values), "accuracy": list(values.values())})
    return frame.assign(status="complete", test_images=images, method="ssvi", density=0.1, **columns)


def test_numbers_by_seed_are_those_of_finished_runs_in_the_unit() -> None:
    runs = runs_of({3: 0.5, 1: None, 2: 0.25, 0: 0.9})
    runs.loc[3, "status"] = "diverged"
    assert comparing.by_seed(runs, q.ACCURACY).to_dict() == {3: 50.0, 2: 25.0}


@pytest.mark.parametrize(("images", "others"), [(1, 1), (100, 10_000), (10_000, 7)])
def test_an_accuracy_is_known_to_a_test_image_and_other_metrics_have_no_step(images: int, others: int) -> None:
    first, second = runs_of({0: 0.5, 1: 0.75}, images), runs_of({0: 0.5, 1: 0.5}, others)
    found = comparing.compare(first, second, q.ACCURACY)
    step = 100 / min(images, others)
    truth = stats.difference(pd.Series([50.0, 75.0]), pd.Series([50.0, 50.0]), step)
    assert np.allclose([found.mean, found.low, found.high], [truth.mean, truth.low, truth.high])
    assert comparing.sample(first.assign(nll=1.0), q.NLL).step == 0


@pytest.mark.parametrize("better", [1, -1])
def test_the_best_is_better_than_every_other_beyond_the_noise(better: int) -> None:
    quantity = replace(q.ACCURACY, better=better)
    low, middle, high = (runs_of({seed: base + seed / 1000 for seed in range(4)}, 10_000) for base in (0.3, 0.5, 0.7))
    assert comparing.best([low, high, middle], quantity) == (1 if better == 1 else 0)
    assert comparing.best([low, low], quantity) is None
    assert comparing.best([low.iloc[:1], high.iloc[:1]], quantity) is None
    assert comparing.best([low, high.assign(status="missing")], quantity) is None


@pytest.mark.parametrize(
    ("name", "value", "table", "figure"),
    [
        ("batch_size", 64, "batch_size 64", "batch size 64"),
        ("epochs", 0, "not trained on", "not trained on"),
        ("epochs", 12, "epochs 12", "epochs 12"),
        ("kl_warmup", False, "kl_warmup false", "kl warmup false"),
        ("computed_precision", "bf16", "computed in bf16", "computed precision bf16"),
        ("lr", 0.1, "lr 0.1", "lr 0.1"),
    ],
)
def test_a_setting_in_words(name: str, value: Any, table: str, figure: str) -> None:
    assert (in_words(name, value), in_words(name, value, spaced=True)) == (table, figure)


@given(st.lists(st.integers(0, 3)))
def test_split_keeps_everything_in_order(values: list[int]) -> None:
    found = split(enumerate(values), lambda pair: pair[1])
    assert sorted(pair for group in found.values() for pair in group) == list(enumerate(values))
    assert list(found) == list(dict.fromkeys(values))


def test_an_untrained_pruned_network_is_told_in_tables(tmp_path: Path) -> None:
    first = RunSpec("digits", "resnet8", "pruned", parent="vi,epochs=12", epochs=0)
    specs = [first, *(replace(first, epochs=12, seed=seed) for seed in range(2))]
    table = make_table("baselines", load_frames(tmp_path, write_runs(tmp_path, specs)))
    assert set(table.frame["options"]) == {"", "not trained on"}
