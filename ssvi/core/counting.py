"""Counted cost: parameters, bytes, multiply-adds. What is counted is not what is measured.

A layer applies each of its weights at `positions` places of one image (1 for a matrix product, height x
width of the output for a convolution), so its multiply-adds are positions x active weights, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ssvi.core.layers import MaskedLayer, masked_layers
from ssvi.core.modes import at_mean, evaluating

Positions = dict[str, int]
Hook = Callable[[MaskedLayer, tuple[Tensor, ...], Tensor], None]

FLOAT_BYTES = 4
# Of a training step, for each multiply-add of a product of its forward pass: 2 x (forward, two products backward).
STEP_FLOPS = 6


def positions(model: nn.Module, image: Tensor) -> Positions:
    """Places at which each masked layer applies its weights to one image [1, C, H, W].

    The network is left as it was: BatchNorm's statistics and the layers' noise are not touched.
    """
    found: Positions = {}

    def count(name: str) -> Hook:
        def hook(layer: MaskedLayer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # a layer may be used more than once
            found[name] = found.get(name, 0) + output[0].numel() // layer.shape[0]

        return hook

    layers = masked_layers(model)
    hooks = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), at_mean(model):
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def active_macs(places: Positions, n_active: Mapping[str, int]) -> int:
    """Multiply-adds of one image's forward pass through the active weights."""
    return sum(places[name] * n for name, n in n_active.items())


def training_flops(layers: Mapping[str, MaskedLayer], places: Positions, n_weights: Mapping[str, int]) -> int:
    """FLOPs of one image in a training step that touches so many weights of each layer: 6 a multiply-add, or 12 where
    the layer computes two products, the mean's and the variance's."""
    return sum(STEP_FLOPS * layers[name].products * places[name] * n for name, n in n_weights.items())


def parameter_counts(
    model: nn.Module, reference: int, dead_numbers: int = 0, paired_numbers: int = 0
) -> dict[str, float | int]:
    """Sizes of a trained network.

    `complexity` counts active weights, a pair (mu, sigma) once, plus the dense remainder (biases,
    BatchNorm). `stored_numbers` counts both of a pair; `stored_bytes` is 4 bytes a number and, for a
    layer that is not dense, one bit a weight for its mask, or one a channel where whole channels are masked.

    Args:
        model: a network with its masks.
        reference: weights of the plain network, of which density is a fraction; an ensemble may exceed it.
        dead_numbers: biases, BatchNorm and gate parameters that went with their channels.
        paired_numbers: parameters beside the weights that are the second of a pair, and so no complexity of their own.
    """
    layers = masked_layers(model).values()
    weights = sum(layer.size for layer in layers)
    counts = [int(layer.mask.sum()) for layer in layers]
    active, stored = sum(counts), sum(layer.numbers * n for layer, n in zip(layers, counts, strict=True))
    stochastic = sum(p.numel() for name, p in model.named_parameters() if name.endswith("rho"))
    remainder = sum(p.numel() for p in model.parameters()) - weights - stochastic - dead_numbers
    numbers = stored + remainder
    mask_bits = sum(_mask_bits(layer.mask) for layer in layers)
    return {
        "density": active / reference,
        "sparsity": 1 - active / reference,
        "active_weights": active,
        "maskable_weights": reference,
        "complexity": active + remainder - paired_numbers,
        "stored_numbers": numbers,
        "stored_bytes": FLOAT_BYTES * numbers + -(-mask_bits // 8),
    }


def _mask_bits(mask: Tensor) -> int:
    """Bits that say which weights of a layer are active: none if all are, one a channel if whole channels are not."""
    if bool(mask.all()):
        return 0
    flat = mask.flatten(2) if mask.dim() > 2 else mask[..., None]
    outputs, inputs = flat.any(2).any(1), flat.any(2).any(0)
    whole = bool((flat == (outputs[:, None] & inputs[None])[..., None]).all())
    return len(outputs) + len(inputs) if whole else mask.numel()
