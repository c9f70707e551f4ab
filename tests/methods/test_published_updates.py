"""96 updates of the published scheduler as values: which weights go and come, with what values and momenta.

Layers of a narrow ResNet-18, four criteria, two steps of a training with a KL strong enough that sigma has spread.
"""

import pytest
import torch
from places import TESTS
from safetensors import safe_open
from torch import Tensor
from torch.optim import SGD

from ssvi.core.active import ActiveWeights
from ssvi.core.exchange import decide, exchange, gaussian_births
from ssvi.core.layers import VariationalLayer
from ssvi.core.noise import NormalSource
from ssvi.core.operations import Operation
from ssvi.methods.ssvi import importance
from ssvi.runs.spec import make_spec

VALUES = TESTS / "reference" / "published_updates.safetensors"

with safe_open(VALUES, framework="pt") as _file:
    FRACTIONS = {key.rstrip("/"): float(value) for key, value in (_file.metadata() or {}).items()}


def values(update: str) -> dict[str, Tensor]:
    with safe_open(VALUES, framework="pt") as file:
        return {k.rsplit("/", 1)[1]: file.get_tensor(k) for k in file.keys() if k.rsplit("/", 1)[0] == update}  # noqa: SIM118


def layer_of(given: dict[str, Tensor]) -> VariationalLayer:
    settings = {"parameterisation": "softplus", "sampling": "local", "epsilon": 1e-8, "start": (1.0, 1.0, 1.0)}
    layer = VariationalLayer(
        tuple(given["mu"].shape), False, Operation(), False, noise=NormalSource(0, "noise"), **settings
    )
    with torch.no_grad():
        layer.mean.copy_(given["mu"])
        layer.rho.copy_(given["rho"])
        layer.mask.copy_(given["mask"])
    return layer


def test_the_values_are_all_there() -> None:
    assert len(FRACTIONS) == 96


@pytest.mark.parametrize("update", sorted(FRACTIONS))
def test_an_update_is_the_published_one(update: str) -> None:
    given, criterion = values(update), update.split("/")[0]
    spec = make_spec({"method": "ssvi", "preset": "official", "criterion": criterion})
    layer = layer_of(given)
    flat = ActiveWeights(layer, [layer])
    optimizer = SGD(flat.parameters(), lr=0.1, momentum=0.9)
    for vector, name in ((flat.mean, "momentum_mu"), (flat.rho, "momentum_rho")):
        optimizer.state[vector]["momentum_buffer"] = given[name][given["mask"]].clone()

    births = gaussian_births(spec.parameterisation, spec.grow_sigma, spec.grow_sigma_value)
    active, score = flat.counts(), importance(spec, flat.mean, flat.sigma)
    change = decide(flat, active, score, given["gradient"].flatten(), FRACTIONS[update], step=7)
    exchange(flat, change, births, active, [optimizer])

    assert torch.equal(layer.mask, given["mask_after"])
    assert torch.equal(layer.mean, given["mu_after"])
    assert torch.allclose(layer.rho, given["rho_after"], rtol=1e-6, atol=0)
    for vector, name in ((flat.mean, "momentum_mu_after"), (flat.rho, "momentum_rho_after")):
        momentum = torch.zeros_like(layer.mean).masked_scatter_(layer.mask, optimizer.state[vector]["momentum_buffer"])
        assert torch.equal(momentum, given[name])
