"""96 updates of the published scheduler as values: which weights go and come, with what values and momenta.

Layers of a narrow ResNet-18, four criteria, two steps of a training with a KL strong enough that sigma has spread.
"""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import SGD

from ssvi.exchange import gaussian_births
from ssvi.flat import ActiveWeights
from ssvi.layers import VariationalLayer
from ssvi.methods.base import Clock
from ssvi.methods.ssvi import SSVI
from ssvi.methods.topology import Topology
from ssvi.noise import NormalSource
from ssvi.operations import Operation
from ssvi.spec import make_spec
from ssvi.subspace import UpdateSchedule

VALUES = Path(__file__).parent / "reference" / "published_updates.safetensors"

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
def test_an_update_is_the_published_one(monkeypatch, update: str) -> None:
    given, criterion = values(update), update.split("/")[0]
    spec = make_spec({"method": "ssvi", "preset": "official", "criterion": criterion})
    layer, method = layer_of(given), SSVI(spec, NormalSource(0, "noise"))
    method.layers = {"layer": layer}
    mask = layer.mask.flatten()
    flat = ActiveWeights(layer, [layer])
    optimizer = SGD(flat.parameters(), lr=0.1, momentum=0.9)
    for vector, name in ((flat.mean, "momentum_mu"), (flat.rho, "momentum_rho")):
        optimizer.state[vector]["momentum_buffer"] = given[name][given["mask"]].clone()

    monkeypatch.setattr(UpdateSchedule, "drop_fraction", lambda schedule, step: FRACTIONS[update])
    births = gaussian_births(spec.parameterisation, spec.grow_sigma, spec.grow_sigma_value)
    topology = Topology(spec, method.layers, 100, score=lambda x: method.score(x.mean, x.sigma), births=births)
    topology.load_state_dict({"first": mask, "drift": {}})
    clock = Clock(1, 100, step=7)
    assert topology.update(clock, flat, given["gradient"].flatten(), [optimizer]) is None

    assert torch.equal(layer.mask, given["mask_after"])
    assert torch.equal(layer.mean, given["mu_after"])
    assert torch.allclose(layer.rho, given["rho_after"], rtol=1e-6, atol=0)
    for vector, name in ((flat.mean, "momentum_mu_after"), (flat.rho, "momentum_rho_after")):
        momentum = torch.zeros_like(layer.mean).masked_scatter_(layer.mask, optimizer.state[vector]["momentum_buffer"])
        assert torch.equal(momentum, given[name])
