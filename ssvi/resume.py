"""What a training that goes on has in common with how it began: what is refused, what is kept, what is only said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssvi import checkpoint, runs
from ssvi.errors import UserError
from ssvi.plugins import changes
from ssvi.process import processor, usable_cpus

# Switches on which the order of a checkpoint's numbers depends.
LASTING = ("channels_last", "parallel_noise")
# Those by which kernels round otherwise, and draw otherwise on CUDA; a machine may lack what they need.
DRAWING = ("compile", "capture")
CHECKPOINT_KEYS = frozenset(
    {
        "spec",
        "sessions",
        "good",
        "best",
        "model",
        "method",
        "streams",
        "order",
        "totals",
        "epoch",
        "step",
        "history",
        "topology",
        "seconds",
        "cpu_seconds",
        "epoch_seconds",
    }
)

Say = Callable[[str], None]


def keep_threads(folder: Path, device: torch.device, say: Say) -> None:
    """Compute with as many threads as the training in this folder began with, whatever was asked for.

    Sums over other parts are rounded otherwise, and a training makes other weights of that. Where this process may
    use fewer CPUs its number stays. To be called before anything is computed. On a GPU threads only feed it.

    Raises:
        UserError: as `ssvi.checkpoint.load`.
    """
    state = checkpoint.load(folder, torch.device("cpu"), CHECKPOINT_KEYS, say) if device.type == "cpu" else None
    began = state["spec"]["provenance"].get("threads") if state is not None else None
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


def check_same(
    folder: Path,
    before: Mapping[str, Any],
    *,
    numerics: int,
    data: str,
    dataset: str,
    parents: Mapping[str, str],
    plugins: Sequence[Mapping[str, Any]],
    device: torch.device,
    switches: Mapping[str, bool],
    say: Say,
) -> None:
    """Refuse to go on where that would be another training; say where last digits may differ.

    Args:
        folder: of the run, for messages.
        before: the provenance of how it began.
        numerics: the version of the arithmetic that it would go on with.
        data: the fingerprint of the images at hand.
        dataset: their name.
        parents: the networks it would have started from: fingerprints by run path.
        plugins: those that the run uses, as they are now (`ssvi.plugins.used`).
        device: where it would go on.
        switches: how.
        say: told what is no reason to refuse.

    Raises:
        UserError: naming what is different.
    """
    if before.get("numerics", 1) != numerics:
        raise UserError(
            f"{folder}: this training began by numerics {before.get('numerics', 1)}, which give other numbers "
            f"than this version's ({numerics}); {runs.told_by_version(folder)}"
        )
    if before["data"] != data:
        raise UserError(
            f"{folder}: the data set {dataset!r} has changed since this training began "
            f"(fingerprint {before['data'][:12]}, now {data[:12]}); bring those images back, "
            "or move the folder away."
        )
    # what an earlier version began does not say
    began_from = before.get("parents", parents)
    if other := [run for run in parents if began_from.get(run) != parents[run]]:
        raise UserError(
            f"{folder}: this training began from another training of its parent {other[0]} than lies there now; bring "
            "that one back, or move the folder away."
        )
    if changed := changes(before.get("plugins", ()), plugins):
        raise UserError(
            f"{folder}: {changed[0]}; bring back the file that this training began with, or move the folder away."
        )
    if (before["device"] == "cpu") != (device.type == "cpu"):
        raise UserError(
            f"{folder}: this training began on {before['device']}, whose random numbers no other kind of "
            "device has; go on there (--device), or move the folder away."
        )
    for switch in LASTING:
        then, now = before["switches"][switch], switches[switch]
        if then != now:
            flag = _flag(switch, then)
            raise UserError(f"{folder}: this training began with {flag}; go on with it, or move the folder away.")
    for switch in DRAWING:
        if before["switches"][switch] != switches[switch]:
            say(
                f"this training began with {_flag(switch, before['switches'][switch])} and goes on with "
                f"{_flag(switch, switches[switch])}, which may give other last digits, and other noise on a GPU"
            )
    began, here = before.get("cpu"), processor()
    if device.type == "cpu" and began is not None and began != here:
        say(f"this training began on another processor ({began}, now {here}), which may give other last digits")


def _flag(switch: str, on: bool) -> str:
    return f"--{switch.replace('_', '-')}={'on' if on else 'off'}"
