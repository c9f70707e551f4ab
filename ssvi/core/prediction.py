"""Predictions of a network with a posterior: weight samples, what they say together, and how far they disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ssvi.core import checks, modes
from ssvi.core.active import ActiveWeights, active_weights
from ssvi.core.noise import NormalSource
from ssvi.errors import Misuse

# The weights that are drawn lie in the network.
_one_at_a_time = Lock()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of each row of [n, K], float64 [n]; where a probability is 0 it adds nothing."""
    return torch.special.entr(probabilities.double()).sum(1)


@dataclass(frozen=True)
class Prediction:
    """What some weight samples predict together.

    Attributes:
        samples: how many.
        probabilities: [n, classes], float64, averaged over the samples.
        expected_entropy: [n], in nats: the entropy of one sample's probabilities, averaged over the samples.
        logits: [n, classes], averaged over the samples.
        logit_sd: [n]: standard deviation over the samples of the logits, each sample's centred, root mean square over
            the classes; NaN for one sample.
        disagreement: [n]: probability that two different samples name different classes; NaN for one sample.
    """

    samples: int
    probabilities: Tensor
    expected_entropy: Tensor
    logits: Tensor
    logit_sd: Tensor
    disagreement: Tensor

    @property
    def entropy(self) -> Tensor:
        """Predictive entropy [n] in nats."""
        return entropy(self.probabilities)

    @property
    def least_confidence(self) -> Tensor:
        """1 less the largest probability, [n]."""
        return 1 - self.probabilities.max(1).values

    @property
    def mutual_information(self) -> Tensor:
        """Of label and weights, [n] in nats: the entropy less what each sample has of its own (0 for one sample).

        Of few samples it is too small, on average by about a factor of 1 - 1/samples.
        """
        return (self.entropy - self.expected_entropy).clamp_min(0.0)

    def of(self, images: slice) -> Prediction:
        """The same of some of the images."""
        return Prediction(self.samples, **{name: getattr(self, name)[images] for name in TENSORS})

    @property
    def energy(self) -> Tensor:
        """-log sum exp of the averaged logits, [n]: the larger, the less the network has seen the like (Liu et al.
        2020)."""
        return -self.logits.logsumexp(1)


TENSORS = tuple(field.name for field in dataclasses.fields(Prediction) if field.name != "samples")


def averages(logits: Iterable[Tensor]) -> Iterator[Prediction]:
    """The prediction of the first sample, of the first two together, and so on.

    Args:
        logits: of each sample, [n, classes].
    """
    total: Tensor | float = 0.0
    entropies: Tensor | float = 0.0
    summed: Tensor | float = 0.0
    centre: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    votes: Tensor | int = 0
    for count, one in enumerate(logits, 1):
        z = one.double()
        p = z.softmax(1)
        total, entropies, summed = total + p, entropies + entropy(p), summed + z
        # Welford's: equal samples have no spread, not that of roundings
        centred = z - z.mean(1, keepdim=True)
        before, centre = centred - centre, centre + (centred - centre) / count
        squares = squares + (before * (centred - centre)).mean(1)
        votes = votes + torch.nn.functional.one_hot(p.argmax(1), p.shape[1])
        pairs, agreeing = count * (count - 1), (votes * (votes - 1)).sum(1).double()
        yield Prediction(
            samples=count,
            probabilities=total / count,
            expected_entropy=entropies / count,
            logits=summed / count,
            logit_sd=(squares / (count - 1)).sqrt() if pairs else torch.full_like(squares, torch.nan),
            disagreement=1 - agreeing / pairs if pairs else torch.full_like(squares, torch.nan),
        )


def joined(parts: Sequence[Prediction]) -> Prediction:
    """The prediction of all images, of which these are parts, by as many samples."""
    return Prediction(
        parts[0].samples, **{name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
    )


def network_weights(net: nn.Module) -> list[ActiveWeights]:
    """The active weights of a converted network.

    Raises:
        Misuse: if it is none.
    """
    if not (found := active_weights(net)):
        raise Misuse(f"{type(net).__name__} has no subspace: ssvi.sparsify(net, density=...) comes first.")
    return found


def sample(net: nn.Module, *inputs: Any, samples: int = 5, seed: int = 0, **named: Any) -> Any:
    """The outputs of a network under weight samples of its posterior, one set of weights for all inputs each.

    Several threads wait for each other here. Nothing else may use the network meanwhile.

    Args:
        net: a network that `sparsify` has converted; it is put into evaluation meanwhile.
        inputs: what the network is called with.
        samples: how many.
        seed: of the weight samples: the same seed gives the same weights. The noise of a training is left alone.
        named: what the network is called with by name.

    Returns:
        [samples, ...]; a network without a posterior has one. Of a network that returns several tensors each like that.

    Raises:
        Misuse: if the network is not converted, or `samples` is not a positive number.
    """
    if not isinstance(net, nn.Module):
        raise Misuse(f"{type(net).__name__} is no network of PyTorch; what ssvi.load gives has a predict of its own.")
    every = network_weights(net)
    checks.whole("samples", samples)
    source = NormalSource(seed, "prediction", every[0].mean.device)
    outputs = []
    with _one_at_a_time, modes.evaluating(net):
        try:
            for _ in modes.samples(net, samples, source):
                outputs.append(net(*inputs, **named))
        finally:
            modes.as_in_training(net)
    return tree_map(lambda *each: torch.stack(each), *outputs)


def predict(net: nn.Module, *inputs: Any, samples: int = 5, seed: int = 0, **named: Any) -> Prediction:
    """What weight samples of a classifier predict together.

    Args:
        net: as in `sample`; its outputs are logits [n, classes].
        inputs: what the network is called with.
        samples: how many.
        seed: of the weight samples.
        named: what the network is called with by name.

    Raises:
        Misuse: as `sample`, or if that is not what the network returns.
    """
    logits = sample(net, *inputs, samples=samples, seed=seed, **named)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[2] < 2:
        shown = list(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
        raise Misuse(f"the network returns {shown}, but predict takes logits [n, classes]; ssvi.sample takes anything.")
    *_, prediction = averages(logits)
    return prediction
