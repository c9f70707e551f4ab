"""Passes over many images between two steps: how often the posterior mean is right, and BatchNorm's statistics."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssvi.training.step import Stepper

BATCH = 1000


def train_mode(stepper: Stepper) -> None:
    """Put the network of a training back to where its steps need it."""
    stepper.model.train()
    stepper.method.predictive.set_train()


@torch.inference_mode()
def accuracy(stepper: Stepper, images: Tensor, labels: Tensor) -> float | None:
    """Accuracy of the posterior mean on images uint8 [n, C, H, W], or None for an empty set."""
    if not len(labels):
        return None
    stepper.model.eval()
    stepper.method.predictive.set_mean()
    correct = torch.zeros((), dtype=torch.int64, device=stepper.machine.device)
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        with stepper.autocast():
            logits = stepper.model(stepper.images(images[part]))
        correct += (logits.argmax(1) == labels[part]).sum()
    train_mode(stepper)
    return int(correct) / len(labels)


@torch.no_grad()
def recalibrate(stepper: Stepper) -> None:
    """Take BatchNorm's running statistics anew: averages over the training images, through the present network."""
    norms = [m for m in stepper.model.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches alike
    train_mode(stepper)
    images = stepper.data.train_images
    for part in images.tensor_split(math.ceil(len(images) / BATCH)):
        with stepper.autocast():
            stepper.model(stepper.images(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
