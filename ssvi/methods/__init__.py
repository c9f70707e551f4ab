"""Training methods. A new one is a file here, a line below, and its factors in `ssvi.spec.FACTORS`."""

from __future__ import annotations

from ssvi.methods.base import Method
from ssvi.methods.rigl import RigL
from ssvi.methods.ssvi import SSVI
from ssvi.methods.vi import VI

METHODS: dict[str, type[Method]] = {
    "dense": Method,
    "vi": VI,
    "rigl": RigL,
    "ssvi": SSVI,
}
