"""Trainings of one network that are timed step by step: this package's, and those of other packages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from ssvi.core.models import MODELS
from ssvi.core.noise import NormalSource
from ssvi.data import Data
from ssvi.runs.identity import Identity
from ssvi.runs.spec import RunSpec
from ssvi.training.measure import predictions
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

Step = Callable[[], None]
CLASSES = 10


def images(n: int, device: torch.device, held_out: int = 1000) -> Data:
    """CIFAR-sized noise with labels; the content changes no time."""
    source = torch.Generator().manual_seed(0)
    every = torch.randint(256, (n + held_out, 3, 32, 32), dtype=torch.uint8, generator=source).to(device)
    labels = torch.randint(CLASSES, (n + held_out,), generator=source).to(device)
    half = torch.full((3,), 0.5, device=device)
    held = every[n:], labels[n:]
    names = tuple(str(i) for i in range(CLASSES))
    none = Identity("bench", "bench", "bench")
    return Data(every[:n], labels[:n], *held, *held, every[:0], names, none, half, half / 2, padding=4, flip=True)


class Training:
    """A training of this package, opened and ready to take steps, in a folder that goes with it."""

    def __init__(self, data: Data, machine: Machine, spec: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ssvi-bench-")
        # long enough that subspace updates do not run out
        given = RunSpec(**{"dataset": "cifar10", "model": "resnet18", "batch_size": 64, "epochs": 100_000, **spec})
        self.trainer = Trainer(given, data, Path(self._folder.name), Settings(machine, 1e9), Lines())
        self.trainer._open()
        self.trainer.model.train()
        # half-way through a training, where the KL has its full weight
        self.clock = self.trainer.clock
        self.clock.epoch = self.clock.epochs // 2
        self.clock.step = (self.clock.epoch - 1) * self.clock.steps_per_epoch + 1
        self.trainer.take_step.set_lr(0.5)
        self.trainer.method.begin_epoch(self.clock)
        self.index = torch.arange(given.batch_size, device=machine.device)

    def step(self) -> None:
        """A step without a subspace update."""
        method = self.trainer.method
        while method.subspace.is_due(self.clock.step + 1) or not method.routine(self.clock.step + 1):
            self.clock.step += 1
        self.trainer._step(self.index)

    def update_step(self) -> None:
        """The next step at which an update is due."""
        self.to_update()
        self.clock.step -= 1
        self.trainer._step(self.index)

    def to_update(self) -> None:
        """Go to the next step at which an update is due, which is yet to be taken."""
        self.clock.step += 1
        while not self.trainer.method.subspace.is_due(self.clock.step):
            self.clock.step += 1


class _OtherLayers:
    """What a network asks for its layers, answered by PyTorch's or another package's."""

    def __init__(self, linear: Callable[..., nn.Module], conv: Callable[..., nn.Module]) -> None:
        self._linear, self._conv = linear, conv

    def gate(self, channels: int, site: str) -> nn.Module:
        return nn.Identity()

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return self._linear(inputs, outputs)

    def conv2d(self, inputs: int, outputs: int, kernel: int, *, stride=1, padding=0, stem=False) -> nn.Module:
        return self._conv(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)


PLAIN = _OtherLayers(nn.Linear, nn.Conv2d)


class _OutputOnly(nn.Module):
    """A layer that returns (output, KL), of which it keeps the KL."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.kl = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        out, self.kl = self.layer(x)
        return out


def _torchbnn() -> tuple[_OtherLayers, Callable[[nn.Module], Tensor]]:
    import torchbnn

    def linear(inputs: int, outputs: int) -> nn.Module:
        return torchbnn.BayesLinear(0.0, 0.1, inputs, outputs)

    def conv(*sizes: int, **options: Any) -> nn.Module:
        return torchbnn.BayesConv2d(0.0, 0.1, *sizes, **options)

    loss = torchbnn.BKLLoss(reduction="sum")
    return _OtherLayers(linear, conv), loss


def _bayesian_torch(kind: str) -> tuple[_OtherLayers, Callable[[nn.Module], Tensor]]:
    from bayesian_torch import layers

    def wrap(name: str) -> Callable[..., nn.Module]:
        make = getattr(layers, f"{name}{kind}")
        return lambda *sizes, **options: _OutputOnly(make(*sizes, **options))

    def kl(model: nn.Module) -> Tensor:
        return torch.stack([m.kl for m in model.modules() if isinstance(m, _OutputOnly)]).sum()

    return _OtherLayers(wrap("Linear"), wrap("Conv2d")), kl


LAYERS: dict[str, Callable[[], tuple[_OtherLayers, Callable[[nn.Module], Tensor]]]] = {
    "torchbnn": _torchbnn,
    "bayesian_torch": lambda: _bayesian_torch("Reparameterization"),
    "flipout": lambda: _bayesian_torch("Flipout"),
}


def peer_step(name: str, data: Data, batch_size: int) -> Step:
    """A training step of the same network made of another package's layers: same images, loss and optimiser."""
    layers, kl = LAYERS[name]()
    model = MODELS["resnet18"](layers, 3, 32, CLASSES, 1.0).train()  # type: ignore[arg-type]
    spec = RunSpec(dataset="cifar10")
    optimizer = SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True)
    index, source = torch.arange(batch_size), torch.Generator().manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        x = data.normalise(data.augment(data.train_images[index], source))
        loss = functional.cross_entropy(model(x), data.train_labels[index])
        (loss + kl(model).squeeze() / data.n_train).backward()
        optimizer.step()

    return step


def library_step(data: Data, spec: Mapping[str, Any]) -> Step:
    """A training step of the same network, of PyTorch's layers, converted and in a loop as anybody would write it."""
    import ssvi

    layout = torch.channels_last
    plain = MODELS["resnet18"](PLAIN, 3, 32, CLASSES, 1.0)  # type: ignore[arg-type]
    given = RunSpec(dataset="cifar10", **spec)
    net = ssvi.sparsify(plain.to(memory_format=layout), given.density, sampling=given.sampling, seed=0).train()
    groups = ssvi.parameter_groups(net, weight_decay=given.weight_decay)
    optimizer = SGD(groups, lr=given.lr, momentum=given.momentum, fused=True)
    # a step without an update, as those of the trainer are timed
    subspace = ssvi.Subspace(net, optimizer, total_steps=10**9, update_every=10**8)
    index, source = torch.arange(given.batch_size), torch.Generator().manual_seed(0)

    def step() -> None:
        x = data.normalise(data.augment(data.train_images[index], source)).contiguous(memory_format=layout)
        loss = functional.cross_entropy(net(x), data.train_labels[index])
        (loss + ssvi.kl(net) * (given.kl_scale / data.n_train)).backward()
        subspace.step()
        optimizer.zero_grad()

    return step


def predict(training: Training, samples: int) -> Step:
    """Predict 1,000 images with some weight samples, as an evaluation does."""
    trainer = training.trainer
    source = NormalSource(0, "evaluation")

    def step() -> None:
        for _ in predictions(trainer.model, trainer.method, trainer.data, trainer.data.test_images, samples, source):
            pass

    return step


def in_turn(
    steps: Mapping[str, Step], repeats: int, warm_up: int = 2, sync: Step | None = None
) -> dict[str, list[float]]:
    """Seconds of each step in this process, A B A B ..., after `warm_up` rounds; `sync` waits for the device."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(warm_up + repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if sync:
                sync()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], above: str, below: str) -> tuple[float, ...]:
    """Round by round."""
    return tuple(a / b for a, b in zip(seconds[above], seconds[below], strict=True))
