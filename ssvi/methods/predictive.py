"""What a trained network is to those who use it: the states in which it predicts, what it counts, what is stored."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ssvi.core import modes
from ssvi.core.active import dense_state
from ssvi.core.layers import masked_layers
from ssvi.core.noise import NormalSource


class Predictive:
    """A network whose predictive states are draws of its noise; without any it has one."""

    has_mean = True  # whether `set_mean` gives one network that stands for all of its states
    samples_are_parts = False  # whether a sample runs a part of the active weights, all samples each of them once

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers = masked_layers(model)

    # States -------------------------------------------------------------------------------------

    def set_mean(self) -> None:
        """Predict with the network's mean parameters."""
        modes.use_mean(self.model)

    def set_train(self) -> None:
        """Predict as in training."""
        modes.as_in_training(self.model)

    def samples(self, n: int, source: NormalSource) -> Iterator[int]:
        """Put the network into each of its predictive states in turn, at most n; deterministic ones have one."""
        yield from modes.samples(self.model, n, source)

    # Counting -----------------------------------------------------------------------------------

    def states(self) -> Iterator[None]:
        """Put the network into each of the states that its size is an average over; most have one."""
        yield

    def uncounted(self) -> tuple[int, int]:
        """Numbers beside the weights that fell away with their channels, and those that are the second of a pair."""
        return 0, 0

    # Files --------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What is published of a trained run."""
        return dense_state(self.model)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take what was published.

        Raises:
            RuntimeError, KeyError, ValueError: if it is of another network.
        """
        load_state(self.model, tensors)


def load_state(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """`load_state_dict`, which also refuses tensors of another type.

    Raises:
        RuntimeError: if a tensor is missing, one too many, of another shape or of another type.
    """
    types = {name: value.dtype for name, value in model.state_dict().items()}
    model.load_state_dict(tensors)
    if wrong := [name for name, value in tensors.items() if value.dtype != types[name]]:
        raise RuntimeError(f"{wrong[0]} is of type {tensors[wrong[0]].dtype} instead of {types[wrong[0]]}")
