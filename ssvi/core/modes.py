"""What a whole network computes with: noise as in training, means, or one draw; and what its passes leave alone.

The one place that tells layers and gates with noise (`ssvi.core.layers.Noisy`) which of these it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssvi.core.active import active_weights
from ssvi.core.layers import Noisy
from ssvi.core.noise import NormalSource


def _noisy(net: nn.Module) -> list[Noisy]:
    return [module for module in net.modules() if isinstance(module, Noisy)]


def use_mean(net: nn.Module) -> None:
    """Compute with means from here on, in training, too."""
    for part in _noisy(net):
        part.take_mean()


def use_sample(net: nn.Module, source: NormalSource) -> None:
    """Draw once for all inputs, and compute with that from here on."""
    for weights in active_weights(net):
        if weights.has_posterior:
            weights.draw(source)
    for part in _noisy(net):
        if getattr(part, "home", None) is None:
            part.draw(source)


def as_in_training(net: nn.Module) -> None:
    """Draw noise in each forward pass of training from here on, and compute with means in evaluation."""
    for part in _noisy(net):
        part.forget()


def samples(net: nn.Module, n: int, source: NormalSource) -> Iterator[int]:
    """Put a network into n of its states by `use_sample`, one after the other; one without noise has one."""
    for i in range(n if _noisy(net) else 1):
        use_sample(net, source)
        yield i


@contextmanager
def at_mean(net: nn.Module) -> Iterator[None]:
    """Meanwhile the network computes with means."""
    before = [(part, part.mode, part.drawn) for part in _noisy(net)]
    use_mean(net)
    try:
        yield
    finally:
        for part, mode, drawn in before:
            part.mode = mode
            if drawn is not None:
                part.take_sample(drawn)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Meanwhile the network and all modules in it are in evaluation, without gradients."""
    before = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def frozen_batch_statistics(net: nn.Module) -> Iterator[None]:
    """Meanwhile training passes see the batch's statistics, but leave BatchNorm's running ones alone."""
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
