"""What a training step costs by where the optimised numbers live (docs/design.md).

In two vectors of the network, in two of each layer, or in dense parameters with masked gradients:

    python benchmarks/parameters.py [--repeats 9] [--model resnet18]

One process takes the steps in turn; the median of the rounds' ratios to the network's vectors is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

from ssvi.machine import process

process.calm_threads()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.optim import SGD  # noqa: E402

import ssvi  # noqa: E402
from ssvi.bench.contestants import PLAIN, in_turn, ratios  # noqa: E402
from ssvi.bench.worker import BATCH, THREADS  # noqa: E402
from ssvi.core.active import ActiveWeights  # noqa: E402
from ssvi.core.allocation import LayerShape, random_masks  # noqa: E402
from ssvi.core.convert import take_over  # noqa: E402
from ssvi.core.gaussian import gaussian_kl_gradient  # noqa: E402
from ssvi.core.layers import VariationalLayer, masked_layers  # noqa: E402
from ssvi.core.models import MODELS  # noqa: E402
from ssvi.core.noise import NormalSource, generator  # noqa: E402

DENSITY, PRIOR, WEIGHT = 0.1, 0.005, 1e-7
# Channels and side of an image.
IMAGES = {"resnet18": (3, 32), "resnet8": (1, 8)}


def plain(model: str) -> nn.Module:
    """The network of PyTorch's own layers."""
    channels, side = IMAGES[model]
    return MODELS[model](PLAIN, channels, side, 10, 1.0).to(memory_format=torch.channels_last)


def with_layers(model: str) -> nn.Module:
    """The network of variational layers that hold their own weights, dense, with random masks."""
    noise, source = NormalSource(0, "noise"), generator(0, "weights")

    def make(shape, bias, operation, stem) -> VariationalLayer:
        settings = {"parameterisation": "softplus", "sampling": "local", "epsilon": 1e-8}
        layer = VariationalLayer(shape, bias, operation, stem, start=(0.01, 6e-4, 5e-4), noise=noise, **settings)
        layer.reset(source)
        return layer

    net = plain(model)
    take_over(net, make)
    layers = list(masked_layers(net).values())
    shapes = [LayerShape(layer.shape, layer.dense_stem) for layer in layers]
    for layer, mask in zip(layers, random_masks(shapes, DENSITY, "uniform", generator(0, "masks")), strict=True):
        layer.mask.copy_(mask)
        layer.apply_mask()
    return net


def vectors(model: str) -> nn.Module:
    """As this package has it."""
    return ssvi.sparsify(plain(model), DENSITY, prior_sigma=PRIOR, seed=0)


def vectors_of_layers(model: str) -> nn.Module:
    """The same for each layer by itself."""
    net = with_layers(model)
    for layer in masked_layers(net).values():
        ActiveWeights(layer, [layer], prior_sigma=PRIOR)
    return net


@torch.no_grad()
def mask_gradients(net: nn.Module) -> None:
    """Of dense parameters: add the KL's, and leave those of the active weights."""
    for layer in masked_layers(net).values():
        with torch.enable_grad():
            sigma = layer.sigma
        to_mean, to_sigma = gaussian_kl_gradient(layer.mean, sigma.clamp_min(1e-12), PRIOR)
        layer.mean.grad.add_(to_mean, alpha=WEIGHT).mul_(layer.mask)
        sigma.backward(to_sigma.mul_(WEIGHT))


def step_of(net: nn.Module, model: str, *, dense: bool) -> Callable[[], None]:
    """A training step on images of noise."""
    channels, side = IMAGES[model]
    source = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, channels, side, side, generator=source).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,), generator=source)
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step() -> None:
        loss = cross_entropy(net(images), labels)
        if dense:
            loss.backward()
            mask_gradients(net)
        else:
            (loss + ssvi.kl(net) * WEIGHT).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Take the steps and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--model", choices=IMAGES, default="resnet18")
    asked = parser.parse_args()
    process.hold_memory()
    torch.set_num_threads(THREADS)
    made = {"vectors": vectors, "vectors of layers": vectors_of_layers, "dense parameters": with_layers}
    steps = {
        name: step_of(make(asked.model), asked.model, dense=name == "dense parameters") for name, make in made.items()
    }
    seconds = in_turn(steps, asked.repeats, warm_up=3)
    for name in made:
        print(f"{name:<18} {median(seconds[name]) * 1e3:9.2f} ms  {median(ratios(seconds, name, 'vectors')):.3f}")


if __name__ == "__main__":
    main()
