"""Scores by which images from outside the training distribution are told from those of inside: higher is more foreign.

Each is a function of what is known of the predictions of n images (`Scored`); all are in nats but `max_probability`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Scored(Protocol):
    """What scores are made of: predictions averaged over weight samples.

    Attributes:
        least_confidence: [n]: 1 less the largest of the probabilities, averaged over the samples.
        entropy: [n], in nats, of these probabilities.
        expected_entropy: [n], in nats: the entropy of one sample's probabilities, averaged over the samples.
        mutual_information: [n], in nats: of label and weights.
        energy: [n]: minus the logarithm of the sum of the exponentials of the logits averaged over the samples.
    """

    @property
    def least_confidence(self) -> Tensor: ...

    @property
    def entropy(self) -> Tensor: ...

    @property
    def expected_entropy(self) -> Tensor: ...

    @property
    def mutual_information(self) -> Tensor: ...

    @property
    def energy(self) -> Tensor: ...


# By name, as functions from predictions to a score [n].
SCORES: dict[str, Callable[[Scored], Tensor]] = {
    "max_probability": lambda of: of.least_confidence,
    "entropy": lambda of: of.entropy,
    "mutual_information": lambda of: of.mutual_information,
    "expected_entropy": lambda of: of.expected_entropy,
    "energy": lambda of: of.energy,
}
