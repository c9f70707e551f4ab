"""A deterministic dense network: what a method is that overrides nothing."""

from __future__ import annotations

from ssvi.methods.base import Method


class Dense(Method):
    """SGD with momentum and weight decay on every weight; the learning rate falls along a cosine."""
