"""The trainer: invariants at every step, resumption to the bit, divergence, growth criteria, counted FLOPs."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from stopping import StopAt, Stopped, results
from torch.nn import functional

from ssvi.bench.operations import Operations
from ssvi.cli import main, parser
from ssvi.core.active import dense_state
from ssvi.core.criteria import CRITERIA, scores
from ssvi.core.exchange import UpdateSchedule
from ssvi.core.gaussian import TO_SIGMA
from ssvi.core.noise import NormalSource
from ssvi.core.ranking import places_without_counting
from ssvi.data import Data
from ssvi.errors import Diverged, UserError
from ssvi.machine.disk import write_json
from ssvi.machine.process import Interrupted, Interrupts
from ssvi.runs import files
from ssvi.runs.records import read_json, read_jsonl
from ssvi.runs.runfolder import spec_record
from ssvi.runs.spec import make_spec
from ssvi.runs.versions import EVALUATION, NUMERICS
from ssvi.training import checkpoint
from ssvi.training.evaluate import evaluate
from ssvi.training.network import build
from ssvi.training.progress import Lines
from ssvi.training.resume import LASTING
from ssvi.training.state import State
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
MACHINE = Machine(CPU)
TINY = {"dataset": "digits", "model": "resnet8", "width": 0.25, "epochs": 2, "batch_size": 256}
IVON = {"posterior_optimizer": "ivon", "curvature_init": 0.3, "prior_sigma": 0.1}
OPTIONS = {"dense": {}, "vi": {}, "rigl": {"density": 0.2, "delta_t": 2}, "ssvi": {"density": 0.2, "delta_t": 2}}


def spec_of(method: str, **options):
    return make_spec({**TINY, **OPTIONS[method], "method": method, **options})


def trained(spec, data: Data, folder: Path, reporter=None, every: float = 1e9) -> Trainer:
    trainer = Trainer(spec, data, folder, Settings(MACHINE, every), reporter or Lines())
    trainer.run()
    return trainer


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dense", {}),
        ("vi", {"sampling": "weight", "sigma_optimizer": "adam"}),
        ("rigl", {"allocation": "global"}),
        ("ssvi", {"sigma_optimizer": "adam"}),
        ("rigl", {"optimizer": "adam", "mean_init": "active_fan_in"}),
        ("vi", {**IVON, "sampling": "weight"}),
        ("ssvi", {**IVON, "sampling": "weight", "mean_init": "active_fan_in"}),
        ("ssvi", {**IVON, "step_clip": 1.0, "update_step": "skip", "optimizer": "adam", "allocation": "global"}),
        ("ssvi", {"addition": "mcK", "addition_samples": 2, "addition_average": "signed", "update_step": "skip"}),
        ("ssvi", {"addition": "mcK", "addition_samples": 3, "record_best_test": True}),
    ],
)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(tmp_path, digits, method, options) -> None:
    spec = spec_of(method, **options)
    trained(spec, digits, tmp_path / "whole")
    # a checkpoint after every step; killed three times, in the middle and at the end of an epoch
    for stop in (3, 6, 9):
        with pytest.raises(Stopped):
            trained(spec, digits, tmp_path / "cut", StopAt(stop), every=0.0)
    trained(spec, digits, tmp_path / "cut", every=0.0)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert files.is_trained(tmp_path / "cut")
    sessions = read_json(tmp_path / "cut" / files.TRAINING)["sessions"]
    assert [one["from_step"] for one in sessions] == [0, 2, 5, 8]


def test_a_run_goes_on_after_a_workflow_deleted_its_outputs(tmp_path, digits) -> None:
    """Snakemake deletes the declared outputs of a failed job; what lies under live/ is enough to go on."""
    spec = spec_of("ssvi")
    trained(spec, digits, tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(spec, digits, tmp_path / "cut", StopAt(5), every=0.0)
    started = read_json(tmp_path / "cut" / files.SPEC)
    for name in files.TRAINED:
        (tmp_path / "cut" / name).unlink(missing_ok=True)
    trained(spec, digits, tmp_path / "cut", every=0.0)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert read_json(tmp_path / "cut" / files.SPEC) == started


def test_a_single_image_left_over_joins_the_batch_before(tmp_path, digits) -> None:
    sizes = []
    spec = spec_of("dense", epochs=1, batch_size=19)
    assert digits.n_train % 19 == 1
    trainer = Trainer(spec, digits, tmp_path, Settings(MACHINE), Lines())
    original = trainer._step
    trainer._step = lambda index: sizes.append(len(index)) or original(index)
    trainer.run()
    assert sum(sizes) == digits.n_train
    assert set(sizes) == {19, 20}


def test_what_a_person_should_know_is_noted(tmp_path, digits, capsys) -> None:
    trained(spec_of("ssvi", delta_t=100), digits, tmp_path / "a")
    assert "note: the subspace will never be updated: 12 steps in all, delta_t 100" in capsys.readouterr().err
    with pytest.raises(Stopped):
        trained(spec_of("ssvi"), digits, tmp_path / "b", StopAt(4), every=0.0)
    assert "note:" not in capsys.readouterr().err
    trained(spec_of("ssvi"), digits, tmp_path / "b")
    assert "note: going on from the checkpoint of epoch 1, step 3" in capsys.readouterr().err


def test_same_spec_same_bytes_and_another_seed_another_run(tmp_path, digits) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(spec_of("ssvi", seed=seed), digits, tmp_path / name)
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert results(tmp_path / "a")["model"] != results(tmp_path / "c")["model"]


@pytest.mark.parametrize("allocation", ["uniform", "erk", "global"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rigl", {}),
        ("rigl", {"optimizer": "adam"}),
        ("ssvi", {}),
        ("ssvi", {"sigma_optimizer": "adam"}),
        ("ssvi", IVON),
    ],
)
def test_masked_weights_and_momenta_are_zero_and_counts_stay(tmp_path, digits, method, allocation, options) -> None:
    spec = spec_of(method, allocation=allocation, delta_t=3, epochs=3, **options)
    seen: list[dict[str, int]] = []
    masks: list[torch.Tensor] = []

    class Watch(Lines):
        def step(self, clock) -> None:
            method_ = trainer.method
            flat = method_.flat
            assert torch.equal(flat.mean, torch.cat([x.mean[x.mask] for x in method_.layers.values()]))
            for parameter in flat.parameters():
                for optimizer in method_.optimizers:
                    for value in optimizer.state.get(parameter, {}).values():
                        assert value.shape in (parameter.shape, ())
            seen.append({n: int(x.mask.sum()) for n, x in method_.layers.items()})
            assert seen[-1] == method_.n_active()
            masks.append(torch.cat([x.mask.flatten() for x in method_.layers.values()]).clone())
            for layer in method_.layers.values():
                assert not layer.mean[~layer.mask].any()

    trainer = Trainer(spec, digits, tmp_path / "run", Settings(MACHINE), Watch())
    trainer.run()
    totals = {sum(counts.values()) for counts in seen}
    assert len(totals) == 1
    if allocation != "global":
        assert all(counts == seen[0] for counts in seen)
    changed = [t for t in range(1, len(masks)) if not torch.equal(masks[t], masks[t - 1])]
    schedule = UpdateSchedule(3, 0.3, int(0.75 * len(masks)))
    # nothing moves between updates; the last may be too small to move anything
    assert changed
    assert set(changed) <= {t - 1 for t in range(2, len(masks) + 1) if schedule.is_due(t)}


@pytest.mark.parametrize("preset", [None, "official"])
@pytest.mark.parametrize("grow_sigma", ["mean", "mean_rho", "constant"])
def test_one_update_follows_the_table_of_decisions(tmp_path, digits, preset, grow_sigma) -> None:
    """Mask, mu, rho and momentum after an update, from what stood before it and the batch's gradient."""
    options = {"preset": "official"} if preset else {}
    spec = spec_of("ssvi", delta_t=2, grow_sigma=grow_sigma, **options)
    before: dict[str, dict[str, torch.Tensor]] = {}
    gradient: dict[str, torch.Tensor] = {}
    trainer = Trainer(spec, digits, tmp_path / "run", Settings(MACHINE), Lines())
    trainer._open()
    method = trainer.method

    def state(layer) -> dict[str, torch.Tensor]:
        """Dense, in the order of the layer; the optimiser's momentum holds the active weights of all layers."""
        layers = list(method.layers.values())
        momenta = method.optimizers[0].state[method.flat.mean]["momentum_buffer"]
        parts = momenta.split([int(x.mask.sum()) for x in layers])
        momentum = torch.zeros_like(layer.mean)
        momentum[layer.mask] = next(part for x, part in zip(layers, parts, strict=True) if x is layer)
        return {k: v.detach().clone() for k, v in
                {"mask": layer.mask, "mu": layer.mu, "rho": layer.rho, "momentum": momentum}.items()}  # fmt: skip

    original = method.subspace.update

    def spy(clock, weights, ranking, optimizers):
        before.update({n: state(x) for n, x in method.layers.items()})
        gradient.update(zip(method.layers, ranking.split([x.size for x in method.layers.values()]), strict=True))
        return original(clock, weights, ranking, optimizers)

    method.subspace.update = spy
    order = torch.arange(digits.n_train)
    trainer._step(order[:256])
    weights = [x.mu.detach().clone() for x in method.layers.values()]
    trainer._step(order[256:512])
    stepped = any(not torch.equal(a, before[n]["mu"]) for a, n in zip(weights, before, strict=True))
    assert stepped == (preset is None)  # the official update skips the step

    fraction = UpdateSchedule(2, 0.3, int(0.75 * trainer.clock.total_steps)).drop_fraction(2)
    for name, layer in method.layers.items():
        old, new = before[name], state(layer)
        flat = {k: v.flatten() for k, v in old.items()}
        sigma = TO_SIGMA["softplus"](flat["rho"])
        arithmetic = "naive" if preset else "stable"
        score = scores("snr_abs", flat["mu"][flat["mask"]], sigma[flat["mask"]], 1.0, arithmetic).tolist()
        active = flat["mask"].nonzero().flatten().tolist()
        n_drop = math.floor(len(active) * fraction)
        rank = sorted(range(len(active)), key=lambda i: (-score[i], active[i]))
        kept = {active[i] for i in rank[: len(active) - n_drop]}
        candidates = [i for i in range(len(sigma)) if i not in kept]
        g = gradient[name].tolist()
        added = set(sorted(candidates, key=lambda i: (-g[i], i))[:n_drop])
        assert set(new["mask"].flatten().nonzero().flatten().tolist()) == kept | added
        born = sorted(added - set(active))
        same = sorted((kept | added) & set(active))
        for key in ("mu", "rho", "momentum"):
            assert torch.equal(new[key].flatten()[same], flat[key][same])
        assert not new["mu"].flatten()[born].any()
        assert not new["momentum"].flatten()[born].any()
        survivors = flat["rho"][sorted(kept)].double()
        expected = {
            "mean": TO_SIGMA["softplus"](survivors).mean(),
            "mean_rho": TO_SIGMA["softplus"](flat["rho"][same].double().mean()),
            "constant": torch.tensor(1e-6, dtype=torch.float64),
        }[grow_sigma]
        got = TO_SIGMA["softplus"](new["rho"].flatten()[born]).double()
        assert torch.allclose(got, expected.expand_as(got), rtol=1e-5)


def test_a_training_is_not_finished_by_another_arithmetic(tmp_path, digits, monkeypatch) -> None:
    """Half of it would be of one version and half of the other; what it is of stands in both files."""
    spec = spec_of("vi")
    with pytest.raises(Stopped):
        trained(spec, digits, tmp_path, StopAt(3), every=0.0)
    assert read_json(tmp_path / files.SPEC)["provenance"]["numerics"] == NUMERICS
    monkeypatch.setattr("ssvi.runs.versions.NUMERICS", NUMERICS + 1)
    with pytest.raises(
        UserError, match=rf"began by numerics {NUMERICS}, .* this version's \({NUMERICS + 1}\); this is"
    ):
        trained(spec, digits, tmp_path)
    monkeypatch.undo()
    trained(spec, digits, tmp_path)
    assert read_json(tmp_path / files.TRAINING)["numerics"] == NUMERICS


def test_growth_gradients_of_the_three_addition_criteria(tmp_path, digits) -> None:
    """`mean` against autograd by hand; mcK with K = 1 is mc1; statistics of BatchNorm do not move."""

    def gradients(folder: str, **options):
        trainer = Trainer(spec_of("ssvi", delta_t=1, **options), digits, tmp_path / folder, Settings(MACHINE), Lines())
        trainer._open()
        found = []
        update_ = trainer.method.subspace.update
        trainer.method.subspace.update = lambda c, w, g, o: found.append(g) or update_(c, w, g, o)
        trainer._step(torch.arange(256))
        return found[0], trainer

    one, a = gradients("mc1")
    same, b = gradients("mck", addition="mcK", addition_samples=1)
    assert torch.equal(one, same)
    three, c = gradients("mck3", addition="mcK", addition_samples=3)
    assert not torch.equal(three, one)
    at_mean, d = gradients("mean", addition="mean")
    for trainer in (b, c, d):
        assert torch.equal(trainer.model.bn.running_mean, a.model.bn.running_mean)

    fresh = Trainer(spec_of("ssvi", delta_t=1, addition="mean"), digits, tmp_path / "hand", Settings(MACHINE), Lines())
    fresh._open()
    # the same network, whose layers hold their own weights
    model, method = build(fresh.spec, 1, 8, 10, NormalSource(0, "noise"))
    model.load_state_dict(dense_state(fresh.model))
    model.train()
    method.predictive.set_mean()
    images, labels = fresh.take_step.batch(torch.arange(256))
    loss = functional.cross_entropy(model(images), labels)
    by_hand = torch.autograd.grad(loss, [x.mean for x in method.layers.values()])
    assert torch.allclose(at_mean, torch.cat([g.flatten() for g in by_hand]).abs(), atol=1e-7)


def test_kl_enters_the_gradient_with_its_weight(tmp_path, digits) -> None:
    """d/dmu of beta kl_scale/N KL is beta kl_scale/N mu/prior^2; beta is min(2 epoch/epochs, 1) or 1."""
    for warmup, beta in ((True, min(2 * 1 / 8, 1)), (False, 1.0)):
        spec = spec_of("vi", epochs=8, kl_warmup=warmup, kl_scale=0.5, prior_sigma=0.02)
        trainer = Trainer(spec, digits, tmp_path / str(warmup), Settings(MACHINE), Lines())
        trainer._open()
        method, batch = trainer.method, trainer.take_step.batch(torch.arange(256))
        method.begin_epoch(trainer.clock)
        method.before_step(trainer.clock)
        trainer.take_step.loss(batch)[0].backward()
        data_gradient, data_to_rho = (vector.grad.clone() for vector in method.flat.parameters())
        method.on_gradient(trainer.clock, batch)
        # an independent KL, by torch.distributions and autograd
        mu, rho = (x.detach().double().requires_grad_() for x in method.flat.parameters())
        q = torch.distributions.Normal(mu, functional.softplus(rho))
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 0.02)).sum()
        (beta * 0.5 / digits.n_train * kl).backward()
        assert torch.allclose(method.flat.mean.grad - data_gradient, mu.grad.float(), rtol=1e-3, atol=1e-9)
        assert torch.allclose(method.flat.rho.grad - data_to_rho, rho.grad.float(), rtol=1e-3, atol=1e-7)
        assert float(method.kl(mu.detach(), functional.softplus(rho.detach()))) == pytest.approx(
            float(kl.detach()), rel=1e-6
        )


@pytest.mark.parametrize("method", OPTIONS)
def test_training_flops_are_the_formula(tmp_path, digits, method) -> None:
    spec = spec_of(method, augment=False)
    trainer = trained(spec, digits, tmp_path)
    places, layers = trainer.method.context.positions, trainer.method.layers
    assert places["stem"] == 64
    assert places["head"] == 1
    assert places["blocks.2.conv2"] == 4
    active = sum(places[n] * int(x.mask.sum()) for n, x in layers.items())
    full = sum(places[n] * x.mask.numel() for n, x in layers.items())
    passes = 12 if method in ("vi", "ssvi") else 6
    expected = passes * active * 2 * digits.n_train
    if OPTIONS.get(method):
        total = trainer.clock.total_steps
        per_epoch = trainer.clock.steps_per_epoch
        for step in range(1, total + 1):
            if UpdateSchedule(2, 0.3, int(0.75 * total)).is_due(step):
                last = step % per_epoch == 0
                images = digits.n_train - 256 * (per_epoch - 1) if last else 256
                expected += 2 * (full - active) * images
    summary = read_json(tmp_path / files.TRAINING)
    assert summary["training_flops"] == expected
    assert summary["training_flops_dense"] == passes * full * 2 * digits.n_train


def test_topology_records_add_up(tmp_path, digits) -> None:
    trainer = trained(spec_of("ssvi", epochs=20, delta_t=2), digits, tmp_path)
    records = read_jsonl(tmp_path / files.TOPOLOGY)
    assert len(records) == 20
    assert records[0]["step"] == 2
    for record in records:
        assert record["criteria"] == list(CRITERIA)
        assert len(record["iou"]) == len(record["spearman"]) == len(CRITERIA)
        for i in range(len(CRITERIA)):
            assert record["iou"][i][i] == pytest.approx(1.0)
            assert record["spearman"][i][i] == pytest.approx(1.0)
        for layer in record["layers"]:
            assert layer["removed"] == layer["added"] >= layer["born"]
            assert list(layer["sigma"].values()) == sorted(layer["sigma"].values())
            assert layer["survivors"] <= layer["active"] <= layer["size"]
    # sigma's mean now = at the start + drift by gradient + drift by topology, layer by layer
    fresh = Trainer(trainer.spec, digits, tmp_path / "fresh", Settings(MACHINE), Lines())
    fresh._open()
    drift, start = trainer.method.subspace.records._drift, fresh.method.subspace.records._drift["last"]
    assert torch.allclose(start + drift["gradient"] + drift["topology"], drift["last"], rtol=1e-9)
    assert records[-1]["layers"][0]["sigma_drift_gradient"] == float(drift["gradient"][0])


@pytest.mark.parametrize("method", ["ssvi", "rigl"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_host_hardly_waits_for_the_device_at_an_update(tmp_path, digits, monkeypatch, method, allocation) -> None:
    """Counted here by operations whose result the host reads, as CUDA would have it wait for each."""
    monkeypatch.setattr("ssvi.core.exchange.indices_of", places_without_counting)
    spec = spec_of(method, delta_t=2, allocation=allocation)
    trainer = Trainer(spec, digits, tmp_path, Settings(MACHINE), Lines())
    trainer._open()
    records, layers = trainer.method.subspace.records, len(trainer.method.layers)
    for recorded, operations in (((), 120 + 20 * layers), (range(1000), 700 + 120 * layers)):
        records.recorded = recorded
        trainer._step(torch.arange(256))
        trainer.clock.step += 1
        batch = trainer.take_step(torch.arange(256))
        with Operations() as seen:
            record = trainer.method.after_step(trainer.clock, batch)
        assert bool(record) == bool(recorded)
        # numbers copied to the device are one wait more there
        assert seen.reads <= 1 + bool(recorded) + (allocation == "global"), seen.by_name
        assert seen.count <= operations


def test_a_diverged_run_ends_in_order(tmp_path, digits, capsys) -> None:
    spec = spec_of("dense", lr=1e12, weight_decay=0.0, model="mlp")
    trained(spec, digits, tmp_path)
    summary = read_json(tmp_path / files.TRAINING)
    assert summary["status"] == "diverged"
    assert summary["diverged_epoch"] in (1, 2)
    assert "loss" in summary["cause"]
    assert files.is_trained(tmp_path)
    from safetensors.torch import load_file

    assert all(torch.isfinite(v.float()).all() for v in load_file(tmp_path / files.MODEL).values())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vi", {"lr": 1e18}),
        ("vi", {"sigma_lr": 1e25}),
        ("rigl", {"lr": 1e18}),
        ("ssvi", {"lr": 1e18}),
        ("ssvi", {"sigma_lr": 1e25, "delta_t": 5}),
    ],
)
def test_divergence_is_caught_wherever_it_shows_first(tmp_path, digits, method, options) -> None:
    spec = spec_of(method, model="mlp", **options)
    trained(spec, digits, tmp_path)
    assert read_json(tmp_path / files.TRAINING)["status"] == "diverged"
    assert evaluate(spec, digits, tmp_path, CPU)["accuracy"] is None


def test_divergence_in_the_very_last_step_shows_in_the_evaluation(tmp_path, digits) -> None:
    spec = spec_of("dense", model="mlp", lr=1e30, epochs=1, batch_size=1293)
    trained(spec, digits, tmp_path)
    metrics = evaluate(spec, digits, tmp_path, CPU)
    assert (metrics["status"], metrics["accuracy"]) == ("diverged", None)
    assert metrics["cause"] == "the predictions are not finite"


def test_a_resumed_diverging_run_publishes_what_the_undisturbed_one_does(tmp_path, digits) -> None:
    spec = spec_of("dense", model="mlp", lr=1e12, weight_decay=0.0)
    trained(spec, digits, tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(spec, digits, tmp_path / "cut", StopAt(4), every=0.0)
    trained(spec, digits, tmp_path / "cut", every=0.0)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_without_a_checkpoint_a_run_starts_anew_and_says_so_in_its_spec(tmp_path, digits) -> None:
    write_json(tmp_path / files.SPEC, spec_record(spec_of("dense"), {"data": "0" * 64}))
    trained(spec_of("dense"), digits, tmp_path)
    assert read_json(tmp_path / files.SPEC)["provenance"]["training_data"] == digits.identity.training_data


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (files.TRAINING, "{}", r"training\.json: has no 'files'"),
        (files.TRAINING, "[", r"training\.json: not readable as JSON"),
        (files.SPEC, '{"spec": {"method": "dense"}}', "other options or defaults"),
        (files.SPEC, "{}", r"spec\.json: has no 'spec'"),
    ],
)
def test_a_damaged_run_folder_is_one_line(tmp_path, digits, name, content, line) -> None:
    spec = spec_of("dense", model="mlp", epochs=1)
    trained(spec, digits, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=line):
        evaluate(spec, digits, tmp_path, CPU)


@pytest.mark.parametrize(
    ("spoilt", "line"),
    [
        ("ranking", "a gradient or a parameter is not finite at the subspace update of step 2"),
        ("score", "that is to be ranked is not a number at the subspace update of step 2"),
        ("mean", "a gradient or a parameter is not finite at the subspace update of step 2"),
    ],
)
def test_what_cannot_be_ranked_is_divergence_not_a_crash(tmp_path, digits, monkeypatch, spoilt, line) -> None:
    trainer = Trainer(spec_of("ssvi", delta_t=2), digits, tmp_path, Settings(MACHINE), Lines())
    trainer._open()
    method = trainer.method
    masks = [x.mask.clone() for x in method.layers.values()]
    trainer._step(torch.arange(256))
    if spoilt == "mean":
        with torch.no_grad():
            method.flat.mean[7] = math.nan
    else:
        place, name = (method.subspace.growth, "promise") if spoilt == "ranking" else (method.subspace, "_score")
        whole = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a: whole(*a).index_fill(0, torch.tensor([7]), math.nan))
    with pytest.raises(Diverged, match=line):
        trainer._step(torch.arange(256))
    assert all(torch.equal(a, x.mask) for a, x in zip(masks, method.layers.values(), strict=True))
    # the dense gradient was taken all the same
    places = method.context.positions
    outside = sum(places[name] * int((~x.mask).sum()) for name, x in method.layers.items())
    assert method.flops == 256 * (2 * method.flops_per_image() + 2 * outside)


def test_a_checkpoint_of_other_options_or_data_is_refused(tmp_path, digits) -> None:
    with pytest.raises(Stopped):
        trained(spec_of("ssvi"), digits, tmp_path, StopAt(3), every=0.0)
    with pytest.raises(UserError, match=r"spec\.json.* epochs was 2 and is now 3"):
        trained(spec_of("ssvi", epochs=3), digits, tmp_path)
    (tmp_path / files.SPEC).unlink()
    with pytest.raises(UserError, match=r"checkpoint\.pt.* epochs was 2 and is now 3"):
        trained(spec_of("ssvi", epochs=3), digits, tmp_path)
    state = State.load(tmp_path, CPU)
    state.spec["provenance"]["training_data"] = "0" * 64
    state.save(tmp_path)
    with pytest.raises(UserError, match="this training began on other training images of 'digits'"):
        trained(spec_of("ssvi"), digits, tmp_path)
    # other test images are no other training
    state.spec["provenance"]["training_data"] = digits.identity.training_data
    state.spec["provenance"]["data"] = "0" * 64
    state.save(tmp_path)
    trained(spec_of("ssvi"), digits, tmp_path)
    assert files.is_trained(tmp_path)


@pytest.mark.parametrize("switch", LASTING)
def test_a_checkpoint_in_another_order_is_refused(tmp_path, digits, switch) -> None:
    with pytest.raises(Stopped):
        trained(spec_of("ssvi"), digits, tmp_path, StopAt(3), every=0.0)
    other = Machine(CPU, **{switch: not getattr(MACHINE, switch)})
    flag = f"--{switch.replace('_', '-')}={'on' if getattr(MACHINE, switch) else 'off'}"
    with pytest.raises(UserError, match=f"this training began with {flag}; go on with it"):
        Trainer(spec_of("ssvi"), digits, tmp_path, Settings(other), Lines()).run()


def test_train_and_evaluate_by_command(tmp_path, data_root, capsys) -> None:
    out = tmp_path / "run"
    common = ["--data-root", str(data_root)]
    options = ["--model=mlp", "--epochs=2", "--batch-size=256", "--delta-t=2", "--out", str(out), *common]
    main(["train", *options])
    assert "epoch 2/2" in capsys.readouterr().err
    main(["train", *options])
    assert "already trained" in capsys.readouterr().err
    main(["evaluate", str(out), "--samples=3", *common])
    assert "accuracy" in capsys.readouterr().out
    metrics = json.loads((out / files.METRICS).read_text())
    assert metrics["evaluation"] == {"samples": 3, "bins": 15, "asked": 3}
    assert (metrics["numerics"], metrics["evaluation_numerics"]) == (NUMERICS, EVALUATION)
    assert metrics["complexity"] == metrics["active_weights"] + 256 + 256 + 10
    assert metrics["stored_numbers"] == 2 * metrics["active_weights"] + 522
    assert metrics["inference_flops"] == 2 * metrics["active_weights"] * 3
    first = (out / files.PREDICTIONS).read_bytes()
    main(["evaluate", str(out), "--samples=3", *common])
    assert (out / files.PREDICTIONS).read_bytes() == first
    (out / files.MODEL).write_bytes((out / files.MODEL).read_bytes()[:1000])
    with pytest.raises(SystemExit, match=r"model\.safetensors: truncated or damaged"):
        main(["evaluate", str(out), *common])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--densty=0.1"], "unrecognized arguments: --densty=0.1, did you mean --density?"),
        (["train", "--density=0"], "density is 0, but must be > 0"),
        (["train", "--method=dense", "--density=0.5"], "does not use density"),
        (["train", "--device=tpu"], "--device 'tpu'"),
        (["train", "--threads=0", "--device=cpu"], "--threads is 0"),
        (["train", "--checkpoint-seconds=-3"], "--checkpoint-seconds is -3, but must be >= 0"),
        (["evaluate", "nowhere"], "nowhere/spec.json: no such file"),
        (["evaluate", "nowhere", "--samples=0"], "--samples is 0"),
        (["data", "folder:nowhere"], "nowhere"),
        (["ui", "--config=none.yaml"], "none.yaml: no such file"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys, arguments, line) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    message = caught.value.code if isinstance(caught.value.code, str) else capsys.readouterr().err
    assert caught.value.code != 0
    assert line in message
    assert len(message.strip().splitlines()) == 1
    assert not list(tmp_path.glob("results/runs/**/*.json"))


class Signalled(Lines):
    """A reporter with which a signal comes at a step, or at the end of an epoch."""

    def __init__(self, number: int, step: int = 0, epoch: int = 0) -> None:
        self.number, self.at_step, self.at_epoch = number, step, epoch

    def step(self, clock) -> None:
        if clock.step == self.at_step:
            os.kill(os.getpid(), self.number)

    def epoch(self, row) -> None:
        if row["epoch"] == self.at_epoch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", Interrupts.SIGNALS)
@pytest.mark.parametrize("moment", [{"step": 4}, {"step": 6}, {"epoch": 1}, {"epoch": 2}])
def test_a_signal_ends_a_training_between_two_steps_with_a_checkpoint(tmp_path, digits, number, moment) -> None:
    """Not lost, wherever it comes; afterwards signals do what they did; the training goes on as if nothing was."""
    before = [signal.getsignal(n) for n in Interrupts.SIGNALS]
    spec = spec_of("ssvi")
    trainer = Trainer(spec, digits, tmp_path / "cut", Settings(MACHINE), Signalled(number, **moment))
    with pytest.raises(Interrupted, match=f"stopped by {signal.Signals(number).name} in epoch") as caught:
        trainer.run()
    assert caught.value.exit_code == (130 if number == signal.SIGINT else 75)
    step = moment.get("step") or 6 * moment["epoch"]
    assert trainer.clock.step == step
    assert [signal.getsignal(n) for n in Interrupts.SIGNALS] == before
    assert not (tmp_path / "cut" / files.TRAINING).exists()
    trained(spec, digits, tmp_path / "cut")
    trained(spec, digits, tmp_path / "whole")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    sessions = read_json(tmp_path / "cut" / files.TRAINING)["sessions"]
    assert [one["from_step"] for one in sessions] == [0, step]


def test_an_echo_of_a_signal_is_no_second_wish(tmp_path, digits) -> None:
    """Slurm sends SIGTERM twice at a time limit."""

    class Echo(Signalled):
        def step(self, clock) -> None:
            super().step(clock)
            super().step(clock)

    trainer = Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE), Echo(signal.SIGTERM, step=4))
    with pytest.raises(Interrupted, match="stopped by SIGTERM in epoch"):
        trainer.run()


def test_the_environment_sets_the_time_between_checkpoints(monkeypatch) -> None:
    monkeypatch.delenv("SSVI_CHECKPOINT_SECONDS", raising=False)
    assert parser().parse_args(["train"]).checkpoint_seconds == 60
    monkeypatch.setenv("SSVI_CHECKPOINT_SECONDS", "2.5")
    assert parser().parse_args(["train"]).checkpoint_seconds == 2.5
    assert parser().parse_args(["train", "--checkpoint-seconds=7"]).checkpoint_seconds == 7


@pytest.mark.parametrize("number", Interrupts.SIGNALS)
def test_a_signal_after_the_last_step_lets_the_results_be_published(tmp_path, digits, monkeypatch, number) -> None:
    save = checkpoint.save

    def interrupted(folder, state) -> None:
        os.kill(os.getpid(), number)
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    trained(spec_of("ssvi"), digits, tmp_path / "cut")
    monkeypatch.undo()
    trained(spec_of("ssvi"), digits, tmp_path / "whole")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert (tmp_path / "cut" / files.CHECKPOINT).exists()


@pytest.mark.parametrize(("seconds", "cost", "wait"), [(60, 0.1, 60), (60, 1, 100), (60, 30, 300), (0, 3, 0)])
def test_costly_checkpoints_are_spaced_but_not_for_ever(seconds: float, cost: float, wait: float) -> None:
    assert Settings(MACHINE, seconds).wait(cost) == pytest.approx(wait)


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_published_can_be_published_again(tmp_path, digits) -> None:
    """A killed workflow takes what was published meanwhile for unfinished and deletes it: nothing is trained again."""
    trained(spec_of("ssvi"), digits, tmp_path)
    before = results(tmp_path)
    for name in files.TRAINED:
        (tmp_path / name).unlink()
    again = trained(spec_of("ssvi"), digits, tmp_path, StopAt(12))
    assert results(tmp_path) == before
    assert again.clock.step == 12
    evaluate(spec_of("ssvi"), digits, tmp_path, CPU)
    assert not (tmp_path / files.LIVE).exists()


def test_a_checkpoint_of_another_kind_of_device_is_refused(tmp_path, digits) -> None:
    with pytest.raises(Stopped):
        trained(spec_of("ssvi"), digits, tmp_path, StopAt(4), every=0)
    state = State.load(tmp_path, CPU)
    state.spec["provenance"]["device"] = "NVIDIA H200"
    state.save(tmp_path)
    with pytest.raises(UserError, match="began on NVIDIA H200, whose random numbers no other kind of device has"):
        Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE), Lines()).run()
