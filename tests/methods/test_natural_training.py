"""Posteriors that the trainer learns by the natural gradient, and starts by the fan-in."""

import math

import numpy as np
import pytest
import torch
from trained import CPU, spec_of, train

from ssvi.core.gaussian import TO_SIGMA
from ssvi.core.layers import masked_layers
from ssvi.core.natural import IVON
from ssvi.core.noise import NormalSource
from ssvi.runs import files
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_jsonl
from ssvi.training.evaluate import evaluate
from ssvi.training.network import build
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.stored import read_model
from ssvi.training.trainer import Settings, Trainer

NATURAL = {"posterior_optimizer": "ivon", "prior_sigma": 0.1, "curvature_init": 0.3}


@pytest.mark.parametrize("sampling", ["local", "weight"])
@pytest.mark.parametrize("method", ["vi", "static_vi", "ssvi"])
def test_sigma_learns_what_by_its_gradient_it_does_not(tmp_path, digits, method, sampling) -> None:
    """In twelve steps sigma of the active weights spreads by a tenth, all finite; by SGD it does by less than 1 %."""
    spread = {}
    for name, options in {
        "ivon": NATURAL,
        "sgd": {"prior_sigma": 0.1, "sigma_init": 0.01, "sigma_init_sd": 0.0},
    }.items():
        spec = spec_of(method, density=0.3, delta_t=3, sampling=sampling, kl_scale=0.1, mean_init="fan_in", **options)
        trainer = train(spec, digits, tmp_path, tmp_path / name)
        sigma = trainer.method.flat.sigma.detach().double()
        assert sigma.isfinite().all()
        assert (sigma > 0).all()
        spread[name] = float(sigma.log().std())
        metrics = evaluate(spec, digits, tmp_path / name, CPU)
        assert metrics["status"] == "complete"
        assert math.isfinite(metrics["nll"])
    assert spread["ivon"] > 0.1 > 0.01 > spread["sgd"]


def test_the_warm_up_heats_sigma_and_leaves_the_curvature(tmp_path, digits) -> None:
    """At the start h is what was asked for, at the temperature of the first epoch; the last epoch has the whole."""
    spec = spec_of("ssvi", density=0.3, epochs=4, **NATURAL)
    trainer = Trainer(spec, digits, tmp_path, Settings(Machine(CPU)), Lines())
    trainer._open()
    natural = trainer.method.natural
    temperatures = []
    for epoch in range(1, 5):
        trainer.clock.epoch = epoch
        trainer.method.begin_epoch(trainer.clock)
        temperatures.append(natural.param_groups[0]["temperature"])
        np.testing.assert_allclose(natural.curvatures()[0], 0.3, rtol=1e-4)
        rate, prior = digits.n_train / temperatures[-1], 0.1**-2
        np.testing.assert_allclose(trainer.method.flat.sigma.detach(), (rate * 0.3 + prior) ** -0.5, rtol=1e-4)
    np.testing.assert_allclose(temperatures, [0.005, 0.01, 0.01, 0.01])
    # 1 - 1/(a quarter of 24 steps)
    assert natural.param_groups[0]["curvature_beta"] == pytest.approx(1 - 1 / 6)


def test_the_start_by_curvature_is_no_drift_of_sigma(tmp_path, digits) -> None:
    """With a curvature that hardly forgets, what gradients did to sigma by the first update is next to nothing."""
    options = {"kl_warmup": False, "curvature_beta": 0.999999, "delta_t": 3, "sampling": "weight"}
    train(spec_of("ssvi", density=0.3, **NATURAL, **options), digits, tmp_path, tmp_path)
    first = read_jsonl(tmp_path / files.TOPOLOGY)[0]
    start = (digits.n_train / 0.01 * 0.3 + 0.1**-2) ** -0.5
    drifts = [layer["sigma_drift_gradient"] for layer in first["layers"]]
    assert all(0 < abs(drift) < 1e-3 * start for drift in drifts), drifts


def test_options_reach_the_optimiser(tmp_path, digits) -> None:
    options = {"ivon_lr": 0.2, "curvature_beta": 0.97, "step_clip": 3.0, "momentum": 0.8, "kl_warmup": False}
    trainer = Trainer(spec_of("vi", **NATURAL, **options), digits, tmp_path, Settings(Machine(CPU)), Lines())
    trainer._open()
    others, natural = trainer.method.optimizers
    assert isinstance(natural, IVON)
    (group,) = natural.param_groups
    wanted = {"lr": 0.2, "curvature_beta": 0.97, "step_clip": 3.0, "momentum": 0.8, "prior_sigma": 0.1}
    assert {name: group[name] for name in wanted} == wanted
    assert (group["n_train"], group["temperature"]) == (digits.n_train, 0.01)
    trained = [id(p) for one in (others, natural) for g in one.param_groups for p in g["params"]]
    assert sorted(trained) == sorted(id(p) for p in trainer.model.parameters())


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_pruned_network_keeps_the_sigma_of_its_parent(tmp_path, digits, epochs) -> None:
    """Its start is the parent's posterior, whatever curvature_init or sigma_init would be."""
    parent = "vi,epochs=2,batch_size=256,prior_sigma=0.1,sigma_init=0.02,sigma_init_sd=0.01"
    spec = spec_of("pruned", parent=parent, epochs=epochs, posterior_optimizer="ivon", prior_sigma=0.1, kl_warmup=False)
    seen = []

    class Watch(Lines):
        def start(self, clock, n_train) -> None:
            seen.append(trainer.method.flat.sigma.detach().clone())
            super().start(clock, n_train)

    train(spec, digits, tmp_path, tmp_path / "unused")
    lineage = [tmp_path / run_path(parent) for parent in parents_of(spec)]
    trainer = Trainer(spec, digits, tmp_path / run_path(spec), Settings(Machine(CPU)), Watch(), lineage)
    trainer.run()
    before = read_model(lineage[0])
    sigma = torch.cat([TO_SIGMA["softplus"](before[f"{n}.rho"])[x.mask] for n, x in trainer.method.layers.items()])
    np.testing.assert_allclose(seen[0], sigma, rtol=1e-5)
    assert evaluate(spec, digits, tmp_path / run_path(spec), CPU)["status"] == "complete"


@pytest.mark.parametrize("allocation", ["uniform", "erk", "global"])
@pytest.mark.parametrize("method", ["rigl", "static_vi", "ssvi"])
def test_the_active_fan_in_starts_with_the_variance_of_a_dense_layer(tmp_path, digits, method, allocation) -> None:
    """Weights uniform in +-1/sqrt(f) with f the active inputs of an output, on average over the layer."""
    spec = spec_of(method, density=0.1, allocation=allocation, mean_init="active_fan_in", width=1.0)
    trainer = Trainer(spec, digits, tmp_path, Settings(Machine(CPU)), Lines())
    trainer._open()
    for name, layer in trainer.method.layers.items():
        active = layer.mean[layer.mask].detach()
        bound = (layer.size / len(active) / layer.fan_in) ** 0.5
        assert active.abs().max() <= bound * (1 + 1e-6), name
        if len(active) > 300:
            # the variance of a uniform distribution, by its sampling error
            off = float(active.square().mean() / (bound**2 / 3) - 1)
            assert abs(off) < 4.5 * math.sqrt(0.8 / len(active)), name


def test_starts_of_one_seed(digits) -> None:
    """By the fan-in mu has what a plain network's weights have; as published a normal of its own."""
    starts = {}
    for method, mean_init in (("dense", None), ("vi", "fan_in"), ("vi", "published")):
        options = {"mean_init": mean_init} if mean_init else {}
        model, _ = build(spec_of(method, width=1.0, **options), 1, 8, 10, NormalSource(0, "noise"))
        starts[method, mean_init] = torch.cat(
            [x.mean.flatten() / x.fan_in**-0.5 for x in masked_layers(model).values()]
        )
    assert starts["dense", None].abs().max() <= 1
    uniform, published = starts["vi", "fan_in"], starts["vi", "published"]
    assert uniform.abs().max() <= 1
    assert abs(float(uniform.square().mean()) - 1 / 3) < 0.01
    assert published.abs().max() > uniform.abs().max() * 0.5
    assert abs(float(torch.cat([x.mean.flatten() for x in masked_layers(model).values()]).std()) - 0.01) < 0.0005
