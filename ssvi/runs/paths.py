"""A run's path, an injective function of its spec and so its identity, and the flags that give just this spec.

Standard library only. A path holds the factors of the run's method and whatever else differs from the defaults, so a
new option leaves the paths of old runs as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from ssvi.registry import KINDS
from ssvi.runs.options import non_defaults
from ssvi.runs.spec import RunSpec
from ssvi.runs.values import flag_text


def run_path(spec: RunSpec) -> str:
    """The run's identity as a readable relative path, an injective function of the spec.

    `digits/resnet8/ssvi/density=0.1/criterion=snr_abs/sigma_init=0.0006/epochs=20/seed=0`: data set,
    model and method, the method's factors, then every other option that is not at its default.
    """
    factors = KINDS[spec.method].factors
    parts = [component(spec.dataset), spec.model, spec.method]
    parts += [f"{name}={_value(getattr(spec, name))}" for name in factors]
    apart = (*factors, "dataset", "model", "method", "seed", "parent")
    if spec.parent:
        parts.append(f"parent={_readable(spec.parent)}")
    others = {k: v for k, v in non_defaults(spec).items() if k not in apart}
    line = ""
    for item in (f"{k}={_value(v)}" for k, v in others.items()):
        if line and len(line) + len(item) > 150:
            parts.append(line)
            line = ""
        line = f"{line}+{item}" if line else item
    if line:
        parts.append(line)
    return "/".join([*parts, f"seed={spec.seed}"])


def component(text: str) -> str:
    """A path component from any text, injectively: unsafe bytes become %XX, long ones end in a hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), text)
    if len(safe) <= 120:
        return safe
    return f"{safe[:80]}%~{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _readable(parent: str) -> str:
    """A parent's text as a path component: a comma and an equals sign do no harm there."""
    if len(parent) <= 200:
        return parent
    return f"{parent[:150]},~{hashlib.sha256(parent.encode()).hexdigest()[:24]}"


def _value(value: Any) -> str:
    return component(value) if isinstance(value, str) else repr(value)


def to_flags(spec: RunSpec) -> list[str]:
    """Command-line flags of `ssvi train` that give exactly this spec (only what is not a default)."""
    return [f"--{name.replace('_', '-')}={flag_text(v)}" for name, v in non_defaults(spec).items()]


def unique(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """Map run paths to specs, each once.

    Raises:
        RuntimeError: if two different specs share a path (a bug in `run_path`, never the user's).
    """
    runs: dict[str, RunSpec] = {}
    for spec in specs:
        path = run_path(spec)
        if runs.setdefault(path, spec) != spec:
            raise RuntimeError(f"two specs share the path {path}: {spec} and {runs[path]}")
    return runs
