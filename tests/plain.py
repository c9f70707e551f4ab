"""A training as one writes it without this package: dense tensors, masks by hand, PyTorch's own optimiser.

What a converted network does in any loop is compared with it. Everything is in float64 and noise is held.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional
from torch.optim import Optimizer

import ssvi
from ssvi.core.active import active_weights
from ssvi.core.layers import MaskedLayer, masked_layers

PRIOR = 0.3
POSTERIORS = {
    "plain": {"posterior": False},
    "local": {"prior_sigma": PRIOR, "sigma_init": 0.1, "sigma_init_sd": 0.05, "mu_init_sd": 0.3},
    "weight": {"prior_sigma": PRIOR, "sigma_init": 0.1, "sigma_init_sd": 0.05, "mu_init_sd": 0.3, "sampling": "weight"},
}
MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
}
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
# Updates after steps 3, 6 and 9.
SCHEDULE = {"total_steps": 12, "update_every": 3, "update_until": 1.0, "drop_fraction": 0.6}


def images(seed: int = 0, n: int = 8) -> tuple[Tensor, Tensor]:
    """Images [n, 2, 4, 4] in float64, and labels of 5 classes."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, 4, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(5, (n,), generator=source)


def unconverted(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Sequential:
    """A convolution and a matrix with normalisation between them, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5)
        )
    return net.double().to(memory_format=memory_format)


def converted(
    kind: str = "local", memory_format: torch.memory_format = torch.contiguous_format, **options
) -> nn.Module:
    """The same in a subspace."""
    options = {"density": 0.3, "seed": 0, "dense_stem": False, **POSTERIORS[kind], **options}
    return ssvi.sparsify(unconverted(memory_format), **options)


def training(net: nn.Module, maker: str = "sgd", **options) -> tuple[Optimizer, ssvi.Subspace]:
    """An optimiser and the subspace's updates."""
    optimizer = MAKERS[maker](ssvi.parameter_groups(net, weight_decay=1e-3))
    return optimizer, ssvi.Subspace(net, optimizer, **{**SCHEDULE, **options})


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor], call: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Cross-entropy, and the KL where there is one."""
    loss = functional.cross_entropy((call or net)(batch[0]), batch[1])
    return loss + ssvi.kl(net) / 500 if active_weights(net)[0].has_posterior else loss


def train(
    net: nn.Module,
    optimizer: Optimizer,
    subspace: ssvi.Subspace,
    steps: int,
    first: int = 0,
    part: slice = slice(None),
) -> list[float]:
    """The losses of so many steps, each on images of its own, of which a part may be left out."""
    losses = []
    for step in range(first, first + steps):
        x, y = images(step)
        loss = loss_of(net, (x[part], y[part]))
        loss.backward()
        subspace.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def masks(net: nn.Module) -> list[Tensor]:
    return [layer.mask.clone() for layer in masked_layers(net).values()]


class PlainLayer(nn.Module):
    """A dense weight [.., ..] with what is known of it: its mask, and rho."""

    def __init__(self, layer: MaskedLayer) -> None:
        super().__init__()
        self.operation, self.noise = layer.operation, getattr(layer, "noise", None)
        self.epsilon, self.sampling = getattr(layer, "epsilon", None), getattr(layer, "sampling", None)
        self.mask = layer.mask.clone()
        self.mean = nn.Parameter(layer.mean.detach().clone())
        self.rho = None if self.noise is None else nn.Parameter(layer.rho.detach().clone())
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.realised: Tensor | None = None

    @property
    def sigma(self) -> Tensor:
        return functional.softplus(self.rho) * self.mask

    def forward(self, x: Tensor) -> Tensor:
        if self.sampling != "local":
            return self.operation(x, self.mean if self.realised is None else self.realised, self.bias)
        out = self.operation(x, self.mean, self.bias)
        variance = self.operation(x.square(), self.sigma.square(), None)
        return out + (variance + self.epsilon).sqrt() * self.noise.normal(out.detach())


class PlainTraining:
    """A copy of a converted network before its training, and its steps."""

    def __init__(self, net: nn.Module, maker: str, together: bool = False) -> None:
        self.net = unconverted()
        for name, layer in masked_layers(net).items():
            self.net[int(name)] = PlainLayer(layer)
        self.layers = [m for m in self.net if isinstance(m, PlainLayer)]
        rhos = [layer.rho for layer in self.layers if layer.rho is not None]
        others = [p for p in self.net.parameters() if not any(p is rho for rho in rhos)]
        groups = [{"params": others, "weight_decay": 1e-3}, {"params": rhos, "weight_decay": 0.0}]
        self.optimizer = MAKERS[maker](groups if rhos else groups[:1])
        self.together, self.steps = together, 0

    def backward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss, and gradients of it, which are dense for the means."""
        if self.layers[0].sampling == "weight":
            counts = [int(layer.mask.sum()) for layer in self.layers]
            drawn = self.layers[0].noise.normal(torch.zeros(sum(counts), dtype=torch.float64))
            for layer, part in zip(self.layers, drawn.split(counts), strict=True):
                noise = torch.zeros_like(layer.mean).masked_scatter(layer.mask, part)
                layer.realised = layer.mean + layer.sigma * noise
        data = functional.cross_entropy(self.net(batch[0]), batch[1])
        data.backward()
        self.dense = [layer.mean.grad.clone() for layer in self.layers]
        loss = data.detach()
        if self.layers[0].rho is not None:
            prior = Normal(*torch.tensor([0.0, PRIOR], dtype=torch.float64))
            posteriors = [Normal(x.mean[x.mask], x.sigma[x.mask]) for x in self.layers]
            kl = sum(kl_divergence(q, prior).sum() for q in posteriors) / 500
            kl.backward()
            loss = loss + kl.detach()
        for layer in self.layers:
            layer.mean.grad *= layer.mask
        return loss

    def step(self) -> None:
        """The optimiser's, and an update of the masks where it is due."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        if self.steps % SCHEDULE["update_every"] == 0 and self.steps < SCHEDULE["total_steps"]:
            self._update()

    def _update(self) -> None:
        turned = math.cos(math.pi * self.steps / SCHEDULE["total_steps"])
        fraction = SCHEDULE["drop_fraction"] / 2 * (1 + turned)
        groups = [range(len(self.layers))] if self.together else [[i] for i in range(len(self.layers))]
        old, new, kept = [x.mask for x in self.layers], [], []
        for group in groups:
            of = [self.layers[i] for i in group]
            active = torch.cat([x.mask.flatten() for x in of])
            score = torch.cat([(x.mean.abs() if x.rho is None else x.mean.abs() / x.sigma).flatten() for x in of])
            gradient = torch.cat([self.dense[i].flatten().abs() for i in group])
            n = int(int(active.sum()) * fraction)
            stays = active.clone()
            stays[torch.where(active, score, math.inf).argsort()[:n]] = False
            changed = stays.clone()
            changed[torch.where(stays, -1.0, gradient).argsort(descending=True)[:n]] = True
            for every, mask in ((kept, stays), (new, changed)):
                every += [
                    p.view(x.mask.shape) for p, x in zip(mask.split([x.mask.numel() for x in of]), of, strict=True)
                ]
        for layer, before, mask, stays in zip(self.layers, old, new, kept, strict=True):
            self._exchange(layer, before, mask, stays)

    @torch.no_grad()
    def _exchange(self, layer: PlainLayer, old: Tensor, new: Tensor, kept: Tensor) -> None:
        if layer.rho is not None:
            layer.rho[new & ~old] = layer.sigma[kept].mean().expm1().log()
        layer.mean *= old & new
        layer.mask = new
        for vector in (layer.mean, layer.rho):
            for value in self.optimizer.state.get(vector, {}).values():
                if value.shape == layer.mean.shape:
                    value *= old & new


def dense_gradient(net: nn.Module) -> list[Tensor]:
    """What a converted network knows of the candidates' gradients, by layer."""
    (weights,) = active_weights(net)
    return [p.view(x.shape) for p, x in zip(weights.gradient.split(weights.sizes.sizes), weights.layers, strict=True)]


def halves(batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(*(part.chunk(2) for part in batch), strict=True)


def held(net: nn.Module) -> ExitStack:
    """Meanwhile every draw is one pattern."""
    stack = ExitStack()
    for layer in masked_layers(net).values():
        if hasattr(layer, "noise"):
            stack.enter_context(layer.noise.held())
    return stack


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether parameters and buffers are equal to the bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
