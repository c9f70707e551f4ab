"""What a training that goes on has in common with how it began: what is refused, what is kept, what is only said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ssvi.errors import UserError
from ssvi.machine.process import processor, usable_cpus
from ssvi.runs.identity import TRAINED_ON, Identity, other_images
from ssvi.runs.plugins import changes
from ssvi.runs.records import told_by_version
from ssvi.runs.spec import RunSpec
from ssvi.training.provenance import provenance
from ssvi.training.state import State

# Switches on which the order of a checkpoint's numbers depends.
LASTING = ("channels_last", "parallel_noise")
# Those by which kernels round otherwise, and draw otherwise on CUDA; a machine may lack what they need.
DRAWING = ("compile", "capture")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """What a training is made of beside its spec: written down when it begins, compared when it goes on.

    Attributes:
        numerics: the version of the arithmetic.
        images: what identifies them.
        parents: the networks that it starts from: fingerprints by run path.
        plugins: those that the run uses (`ssvi.runs.plugins.used`).
        device: where it is computed.
        switches: how.
        precision: of the passes.
    """

    numerics: int
    images: Identity
    parents: Mapping[str, str]
    plugins: Sequence[Mapping[str, Any]]
    device: torch.device
    switches: Mapping[str, bool]
    precision: str

    def provenance(self) -> dict[str, Any]:
        """What spec.json says beside the spec."""
        return provenance(self.device, dict(self.switches), self.precision) | {
            **self.images.of(TRAINED_ON),
            "numerics": self.numerics,
            "parents": self.parents,
            "plugins": self.plugins,
        }


def keep_threads(folder: Path, device: torch.device, say: Say) -> None:
    """Compute with as many threads as the training in this folder began with, whatever was asked for.

    Sums over other parts are rounded otherwise, and a training makes other weights of that. Where this process may
    use fewer CPUs its number stays. To be called before anything is computed. On a GPU threads only feed it.

    Raises:
        UserError: as `ssvi.training.checkpoint.load`.
    """
    state = State.load(folder, torch.device("cpu"), say) if device.type == "cpu" else None
    began = state.spec["provenance"].get("threads") if state is not None else None
    if began in (None, now := torch.get_num_threads()):
        return
    if began > (usable := usable_cpus()):
        say(
            f"threads: {began} when this training began, but this process may use only {usable} CPUs; it goes on with "
            f"{now}, which gives other last digits"
        )
        return
    torch.set_num_threads(began)
    say(f"threads: {began} as when this training began, not {now}, which would give other last digits")


def check_same(folder: Path, before: Mapping[str, Any], now: Origin, spec: RunSpec, say: Say) -> None:
    """Refuse to go on where that would be another training; say where last digits may differ.

    Args:
        folder: of the run, for messages.
        before: the provenance of how it began.
        now: how it would go on.
        spec: the run's.
        say: told what is no reason to refuse.

    Raises:
        UserError: naming what is different.
    """
    if before.get("numerics", 1) != now.numerics:
        raise UserError(
            f"{folder}: this training began by numerics {before.get('numerics', 1)}, which give other numbers "
            f"than this version's ({now.numerics}); {told_by_version(folder)}"
        )
    for problem in chain(_made_of_another(before, now, spec), _computed_otherwise(before, now)):
        raise UserError(f"{folder}: {problem}, or move the folder away.")
    for note in _rounded_otherwise(before, now):
        say(f"this training began {note}")


def _made_of_another(before: Mapping[str, Any], now: Origin, spec: RunSpec) -> Iterator[str]:
    """Images, parents or plugins that have changed, and what to do."""
    if others := other_images(before, spec, now.images):
        yield f"this training began on {others}; bring those images back"
    # what an earlier version began does not say
    began_from = before.get("parents", now.parents)
    for run in now.parents:
        if began_from.get(run) != now.parents[run]:
            yield (
                f"this training began from another training of its parent {run} than lies there now; bring that one "
                "back"
            )
    for change in changes(before.get("plugins", ()), now.plugins):
        yield f"{change}; bring back the file that this training began with"


def _computed_otherwise(before: Mapping[str, Any], now: Origin) -> Iterator[str]:
    """What of the machine and its settings the numbers in a checkpoint depend on, and what to do."""
    if (before["device"] == "cpu") != (now.device.type == "cpu"):
        yield (
            f"this training began on {before['device']}, whose random numbers no other kind of device has; go on "
            "there (--device)"
        )
    for switch in LASTING:
        if before["switches"][switch] != now.switches[switch]:
            yield f"this training began with {_flag(switch, before['switches'])}; go on with it"


def _rounded_otherwise(before: Mapping[str, Any], now: Origin) -> Iterator[str]:
    """How it began, and what may come of it that this is another way."""
    for switch in DRAWING:
        if before["switches"][switch] != now.switches[switch]:
            yield (
                f"with {_flag(switch, before['switches'])} and goes on with {_flag(switch, now.switches)}, which may "
                "give other last digits, and other noise on a GPU"
            )
    began, here = before.get("cpu"), processor()
    if now.device.type == "cpu" and began is not None and began != here:
        yield f"on another processor ({began}, now {here}), which may give other last digits"


def _flag(switch: str, switches: Mapping[str, bool]) -> str:
    return f"--{switch.replace('_', '-')}={'on' if switches[switch] else 'off'}"
