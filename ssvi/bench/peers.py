"""Who else is timed: other packages, where they are installed, and this one in a loop of one's own."""

from __future__ import annotations

import importlib.util

# By the contestant's name, the package that it needs.
PEERS = {"torchbnn": "torchbnn", "bayesian_torch": "bayesian_torch", "flipout": "bayesian_torch"}
LIBRARY = "library"


def installed_peers() -> list[str]:
    """Names in `PEERS` whose package is installed."""
    return [name for name, package in PEERS.items() if importlib.util.find_spec(package)]
