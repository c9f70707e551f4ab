"""Options that commands share: where the data are, on which machine; and what they come to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ssvi.cli.arguments import to_path, to_words
from ssvi.errors import UserError
from ssvi.machine.devices import claim_gpu

if TYPE_CHECKING:
    import torch

DATA_HELP = "where data sets are kept (default: $SSVI_DATA, or data)"
LINKS_HELP = "links in folder:PATH may lead out of it (default: where $SSVI_FOLLOW_LINKS is true)"
# More samples, bins or images at once than these say nothing more; more threads than that the system does not start.
MOST = {"samples": 1_000_000, "bins": 1_000_000, "batch_size": 1_000_000, "threads": 4096}


def _data_root() -> str:
    return os.environ.get("SSVI_DATA") or "data"


def add_data_options(parser: Any, *names: str) -> None:
    """Where data sets are; `names` are other flags of the same."""
    follow = os.environ.get("SSVI_FOLLOW_LINKS") == "true"
    parser.add_argument(*names, "--data-root", dest="data_root", type=to_path, default=_data_root(), help=DATA_HELP)
    parser.add_argument("--follow-links", action="store_true", default=follow, help=LINKS_HELP)


def add_plugins_option(parser: Any) -> None:
    """Which plugins are trusted and loaded."""
    parser.add_argument(
        "--plugins",
        type=to_words,
        default=os.environ.get("SSVI_PLUGINS", ""),
        metavar="MODULE,...",
        help="Python modules that bring criteria, networks or methods (default: $SSVI_PLUGINS)",
    )


def check_number(name: str, value: int) -> None:
    """Refuse a number that is none, or more than `MOST`."""
    if not 1 <= value <= MOST[name]:
        raise UserError(f"--{name.replace('_', '-')} is {value}, but must be >= 1 and <= {MOST[name]}.")


def device_of(name: str, threads: int | None) -> torch.device:
    """The device that `--device` and `--threads` ask for, as torch is to use it from here on.

    Raises:
        UserError: if it is unknown, or not there.
    """
    import torch

    if threads is not None:
        check_number("threads", threads)
        torch.set_num_threads(threads)
    if name == "auto":
        # A GPU of its own beside the trainings that already run here.
        name = f"cuda:{claim_gpu(torch.cuda.device_count())}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name!r} is unknown; choose auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r} is not supported; choose auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices.")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device
