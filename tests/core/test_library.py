"""The library's loop against the trainer: the same network in anybody's loop is the same training, to the bit."""

from __future__ import annotations

import pytest
import torch
from places import ROOT
from torch import nn
from torch.nn.functional import cross_entropy

import ssvi
from ssvi.bench.contestants import PLAIN
from ssvi.core.models import MODELS
from ssvi.core.prediction import averages
from ssvi.data.sources import import_torchvision
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
STEPS = 16


LAST = {"channels_last": True}
OPTIONS = [
    {"method": "ssvi"},
    {"method": "ssvi", **LAST},
    {"method": "ssvi", "sampling": "weight", "criterion": "e_abs", "grow_sigma": "mean_rho", **LAST},
    {"method": "ssvi", "allocation": "global", "update_step": "skip", "grow_sigma": "constant", **LAST},
    {"method": "rigl", "allocation": "erk", **LAST},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(map(str, o.values())))
def test_an_own_loop_is_the_trainers(tmp_path, digits, options) -> None:
    """Steps of digits with five updates of the subspace: every tensor, the optimiser's included, is the same."""
    options = dict(options)
    machine = Machine(CPU, channels_last=options.pop("channels_last", False))
    layout, data = machine.memory_format, digits
    spec = make_spec({"dataset": "digits", "model": "resnet8", "width": 0.5, "epochs": 2, "batch_size": 64, "lr": 0.1,
                      "delta_t": 3, "density": 0.2, "augment": False, **options})  # fmt: skip
    trainer = Trainer(spec, data, tmp_path / "run", Settings(machine), Lines())
    trainer._open()
    clock, method = trainer.clock, trainer.method
    method.begin_epoch(clock)

    net = MODELS["resnet8"](PLAIN, 1, 8, 10, 0.5).to(memory_format=layout)  # type: ignore[arg-type]
    names = ("allocation", "sampling", "prior_sigma")
    own = {name: getattr(spec, name) for name in names if name in options or spec.method == "ssvi"}
    net = ssvi.sparsify(net, spec.density, posterior=spec.method == "ssvi", seed=1, **own)
    net.load_state_dict(trainer.model.state_dict())
    groups = ssvi.parameter_groups(net, weight_decay=spec.weight_decay, sigma_lr=spec.sigma_lr)
    optimizer = torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=True)
    rules = {name: getattr(spec, name) for name in ("criterion", "grow_sigma", "grow_sigma_value", "update_step")}
    if spec.method == "rigl":
        rules = {}
    subspace = ssvi.Subspace(net, optimizer, total_steps=clock.total_steps, update_every=spec.delta_t, **rules)
    state = subspace.state_dict()
    noise = [trainer.streams.noise.get_state()] if spec.method == "ssvi" else []
    subspace.load_state_dict(state | {"noise": noise})
    weight = 2 / spec.epochs * spec.kl_scale / data.n_train

    masks = []
    for step in range(STEPS):
        index = torch.arange(64 * step, 64 * (step + 1)) % data.n_train
        trainer._step(index)
        images, labels = trainer.take_step.batch(index)
        loss = cross_entropy(net(images), labels)
        if spec.method == "ssvi":
            loss = loss + ssvi.kl(net) * weight
        loss.backward()
        subspace.step()
        optimizer.zero_grad()
        masks.append(net.subspace_index.clone())
    assert subspace.updates == sum(method.subspace.is_due(step + 1) for step in range(STEPS)) >= 4
    assert any(not torch.equal(a, masks[0]) for a in masks)
    expected = trainer.model.state_dict()
    assert expected.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(value, expected[name]), name
    momenta = [o.state[p]["momentum_buffer"] for o, p in ((optimizer, net.subspace_mean),
               (method.optimizers[0], trainer.model.subspace_mean))]  # fmt: skip
    assert torch.equal(*momenta)


def test_predictions_are_the_averages_of_the_samples() -> None:
    net = ssvi.sparsify(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 0.5, sigma_init=0.3, seed=0)
    x = torch.randn(7, 6)
    logits = ssvi.sample(net, x, samples=4, seed=2)
    assert logits.shape == (4, 7, 3)
    found = ssvi.predict(net, x, samples=4, seed=2)
    each = logits.double().softmax(2)
    assert torch.allclose(found.probabilities, each.mean(0))
    entropies = -(each * each.log()).sum(2)
    mean = found.probabilities
    assert torch.allclose(found.entropy, -(mean * mean.log()).sum(1))
    assert torch.allclose(found.mutual_information, found.entropy - entropies.mean(0))
    assert found.mutual_information.min() > 0
    assert [p.samples for p in averages(logits)] == [1, 2, 3, 4]
    assert torch.allclose(found.energy, -logits.double().mean(0).exp().sum(1).log())
    centred = logits.double() - logits.double().mean(2, keepdim=True)
    assert torch.allclose(found.logit_sd, centred.var(0).mean(1).sqrt())
    votes = logits.argmax(2)
    pairs = [(votes[i] != votes[j]).double() for i in range(4) for j in range(4) if i != j]
    assert torch.allclose(found.disagreement, torch.stack(pairs).mean(0))


def test_the_defaults_are_the_pipelines() -> None:
    """What a spec leaves open and what a call leaves open mean the same."""
    import inspect

    spec = RunSpec()
    calls = {**inspect.signature(ssvi.sparsify).parameters, **inspect.signature(ssvi.Subspace).parameters}
    renamed = {"update_every": "delta_t", "drop_fraction": "alpha"}
    same = {name for name, p in calls.items() if hasattr(spec, renamed.get(name, name)) and p.default is not p.empty}
    assert same >= {"allocation", "sampling", "parameterisation", "mu_init_sd", "sigma_init", "sigma_init_sd",
                    "grow_sigma", "prior_sigma", "lrt_epsilon", "update_every", "drop_fraction", "update_until",
                    "exp_lambda"}  # fmt: skip
    for name in same - {"seed", "criterion"}:
        assert calls[name].default == getattr(spec, renamed.get(name, name)), name


def test_readmes_example_works_as_it_stands() -> None:
    """On a few small images; nothing in it is changed but how long it trains."""
    import_torchvision()
    text = (ROOT / "README.md").read_text()
    code = text.split("## In your own code")[1].split("```python\n")[1].split("```")[0]
    source = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 3, 32, 32, generator=source), torch.arange(4)) for _ in range(2)]
    names = {"loader": batches, "epochs": 150, "n_train": 12}
    code = code.replace("for _ in range(epochs)", "for _ in range(1)")
    exec(compile(code.replace("update_every=100", "update_every=2"), "README.md", "exec"), names)
    net, prediction = names["net"], names["prediction"]
    assert names["subspace"].updates == 1
    assert len(net.subspace_mean) == sum(names["subspace"].n_active.values()) < 0.11 * 11.2e6
    assert prediction.probabilities.shape == (4, 10)
    assert prediction.mutual_information.shape == prediction.entropy.shape == (4,)
