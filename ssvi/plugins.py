"""What a plugin is to those who write one; how it is found and loaded is in `ssvi.runs.plugins`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssvi.registry import Kind


@dataclass(frozen=True)
class Plugin:
    """What a module brings: names, and where the code of each is, `module:attribute`.

    Attributes:
        criteria: removal criteria, f(mu [s], sigma [s], exp_lambda) -> scores [s]; the lowest go first.
        additions: addition rules, f(gradient [d], mean [d], sigma [d]) -> scores [d]; the highest come in.
        models: networks, f(make, channels, image_size, classes, width) -> nn.Module.
        methods: training methods, each a `Kind`.
    """

    criteria: Mapping[str, str] = field(default_factory=dict)
    additions: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, Kind] = field(default_factory=dict)
