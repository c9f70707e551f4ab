"""The scores of a network with known logits are what was worked out by hand."""

import math

import pytest
import torch

from ssvi.core.detection import auroc
from ssvi.core.prediction import Prediction, averages
from ssvi.core.scores import SCORES

# Two weight samples, of three images with two classes: log(odds) of class 0. Both say 3 : 1; one 3 : 1 and one 1 : 3;
# both 1 : 1.
LOGITS = torch.tensor([[[3.0, 1.0], [3.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]]]).double().log()
H = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))

BY_HAND = {
    "max_probability": [1 / 4, 1 / 2, 1 / 2],
    "entropy": [H, math.log(2), math.log(2)],
    "expected_entropy": [H, H, math.log(2)],
    "mutual_information": [0, math.log(2) - H, 0],
    # mean logits: log 3 and 0; half of log 3 twice; 0 twice
    "energy": [-math.log(4), -math.log(2 * math.sqrt(3)), -math.log(2)],
}


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    *_, both = averages(LOGITS)
    return both


@pytest.mark.parametrize("name", SCORES)
def test_by_hand(prediction: Prediction, name: str) -> None:
    assert SCORES[name](prediction).tolist() == pytest.approx(BY_HAND[name], abs=1e-12)


def test_where_the_samples_disagree_only_what_is_of_the_weights_says_so(prediction: Prediction) -> None:
    """The first image against the other two, then the second against the third."""
    found = {name: score(prediction) for name, score in SCORES.items()}
    assert {name: auroc(of[:1], of[1:]) for name, of in found.items()} == {
        **dict.fromkeys(("max_probability", "entropy", "energy"), 1),
        "expected_entropy": pytest.approx(3 / 4),
        "mutual_information": pytest.approx(3 / 4),
    }
    assert auroc(found["mutual_information"][2:], found["mutual_information"][1:2]) == 1
    assert auroc(found["entropy"][2:], found["entropy"][1:2]) == pytest.approx(0.5)
