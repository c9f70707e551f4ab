"""Networks, built from whatever layers the method makes.

One more is a function here and a line in `MODELS` (`ssvi.registry`); of your own, without an edit, a plugin's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ssvi.core.layers import LayerFactory
from ssvi.registry import MODELS as MODELS  # they are looked up by this module's name too


class Block(nn.Module):
    """Two 3x3 convolutions with a residual connection (He et al. 2016, the basic block)."""

    def __init__(self, make: LayerFactory, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = make.conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = make.conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.hidden, self.branch = make.gate(outputs, "hidden"), make.gate(outputs, "branch")
        self.stream = make.gate(outputs, "stream")
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(make.conv2d(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.hidden(functional.relu(self.bn1(self.conv1(x))))
        y = self.branch(self.bn2(self.conv2(y)))
        return self.stream(functional.relu(y + self.shortcut(x)))


class ResNet(nn.Module):
    """A 3x3 stem without pooling, stages of blocks that halve the image, global average, one dense layer."""

    def __init__(self, make: LayerFactory, channels: int, widths: list[int], depth: int, classes: int) -> None:
        super().__init__()
        self.stem = make.conv2d(channels, widths[0], 3, padding=1, stem=True)
        self.bn = nn.BatchNorm2d(widths[0])
        self.stream = make.gate(widths[0], "stream")
        blocks, inputs = [], widths[0]
        for stage, outputs in enumerate(widths):
            for i in range(depth):
                blocks.append(Block(make, inputs, outputs, 2 if stage and not i else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = make.linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stream(functional.relu(self.bn(self.stem(x))))
        return self.head(self.blocks(y).mean((2, 3)))


class MLP(nn.Module):
    """Two hidden layers with ReLU on the flattened image."""

    def __init__(self, make: LayerFactory, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([make.linear(inputs, hidden), make.linear(hidden, hidden)])
        self.gates = nn.ModuleList([make.gate(hidden, "hidden") for _ in self.layers])
        self.head = make.linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            x = gate(functional.relu(layer(x)))
        return self.head(x)


def _scaled(width: float, *channels: int) -> list[int]:
    return [max(1, round(width * c)) for c in channels]


def resnet18(make: LayerFactory, channels: int, image_size: int, classes: int, width: float) -> nn.Module:
    """The CIFAR ResNet-18: 11,173,962 parameters at 3 channels, 10 classes and width 1."""
    return ResNet(make, channels, _scaled(width, 64, 128, 256, 512), 2, classes)


def resnet8(make: LayerFactory, channels: int, image_size: int, classes: int, width: float) -> nn.Module:
    """A small ResNet for small images (8x8): stages of 16, 32 and 64 channels, one block each."""
    return ResNet(make, channels, _scaled(width, 16, 32, 64), 1, classes)


def mlp(make: LayerFactory, channels: int, image_size: int, classes: int, width: float) -> nn.Module:
    """Two hidden layers of 256 units (times width)."""
    return MLP(make, channels * image_size**2, _scaled(width, 256)[0], classes)
