"""Every other method in the common trainer: resumption, prediction, parents, sparsity, counted cost."""

import contextlib
import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import tie
from stopping import StopAt, Stopped
from stopping import results as published
from trained import CASES, CPU, SHORT, TINY, spec_of, train

from ssvi.core.active import dense_state
from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.machine.disk import write_json
from ssvi.methods import aeb
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_json
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.training.evaluate import evaluate
from ssvi.training.network import reference_weights
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.stored import read_model
from ssvi.training.trainer import Settings, Trainer


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Where parents are trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(digits, results) -> dict[str, Path]:
    """One run of every method."""
    folders = {}
    for method in CASES:
        spec = spec_of(method)
        folders[method] = results / run_path(spec)
        train(spec, digits, results, folders[method])
    return folders


@pytest.mark.parametrize("method", [m for m in CASES if m != "ensemble"])
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(tmp_path, digits, results, trained, method) -> None:
    spec = spec_of(method)
    # the chain's first snapshot is kept after step 18
    for stop in (2, 6, 9, 20) if method == "mbnn" else (2, 6, 9):
        with pytest.raises(Stopped):
            train(spec, digits, results, tmp_path, StopAt(stop), every=0.0)
    train(spec, digits, results, tmp_path, every=0.0)
    assert published(tmp_path) == published(trained[method])


@pytest.mark.parametrize("method", CASES)
def test_predictions_are_reproducible_and_sizes_are_those_of_the_file(digits, trained, method) -> None:
    """Sparsity, complexity and multiply-adds recomputed from the published tensors."""
    spec, folder = spec_of(method), trained[method]
    first = evaluate(spec, digits, folder, CPU)
    probabilities = np.load(folder / files.PREDICTIONS)["probabilities"]
    second = evaluate(spec, digits, folder, CPU)
    assert np.array_equal(probabilities, np.load(folder / files.PREDICTIONS)["probabilities"])
    for metrics in (first, second):
        del metrics["files"][files.METRICS]  # of the seconds too
    assert {k: v for k, v in first.items() if "seconds" not in k} == {
        k: v for k, v in second.items() if "seconds" not in k
    }
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    tensors = read_model(folder)
    states = sorted({name.split(".")[1] for name in tensors if name.startswith("snapshot.")}) or [""]
    weights = sum(reference_weights(spec, 1, 8, 10).values())
    active = [
        sum(int(v.sum()) for name, v in tensors.items() if name.endswith(".mask") and name.startswith(prefix))
        for prefix in ([f"snapshot.{i}." for i in states] if states != [""] else [""])
    ]
    assert first["active_weights"] == pytest.approx(np.mean(active))
    assert first["density"] == pytest.approx(np.mean(active) / weights)
    assert first["maskable_weights"] == weights
    expected = 2 if method == "ensemble" else 1 if not KINDS[method].posterior else 5
    kept = {"aeb": 2, "mbnn": 3}  # snapshots of so few epochs
    assert first["evaluation"]["samples"] == kept.get(method, expected)
    for name, mean in ((n, v) for n, v in tensors.items() if n.endswith(".mean") and "snapshot" not in n):
        if method != "mbnn":  # whose chain keeps weights that wait for a birth
            assert not mean[~tensors[name.removesuffix("mean") + "mask"]].any()


@pytest.mark.parametrize(("method", "density"), [("static", 0.3), ("static_vi", 0.3), ("pruned", 0.3), ("aeb", 0.4)])
def test_a_density_that_was_asked_for_is_met(digits, trained, method, density) -> None:
    metrics = evaluate(spec_of(method), digits, trained[method], CPU)
    # the stem dense beside the density under `uniform`; AEB's snapshot before the last was denser, as its schedule is
    assert density - 1e-3 <= metrics["density"] <= density + (0.005 if method == "aeb" else 0.03)


@pytest.mark.parametrize("method", ["vd", "sbp", "mbnn"])
def test_methods_that_find_their_sparsity_prune(digits, trained, method) -> None:
    metrics = evaluate(spec_of(method), digits, trained[method], CPU)
    assert 0.02 < metrics["sparsity"] < 1
    rows = (trained[method] / files.HISTORY).read_text().splitlines()
    column = rows[0].split(",").index("active_weights")
    first, last = (int(rows[i].split(",")[column]) for i in (1, -1))
    assert last < first


def test_static_subspaces_never_change_and_are_those_of_the_moving_ones(tmp_path, digits, results, trained) -> None:
    for method, moving in (("static", "rigl"), ("static_vi", "ssvi")):
        masks = {k: v for k, v in read_model(trained[method]).items() if k.endswith("mask")}
        spec = make_spec({**TINY, **SHORT, "method": moving, "density": 0.3, "update_until": 0.0})
        train(spec, digits, results, tmp_path / moving)
        assert read_model(tmp_path / moving).keys() == read_model(trained[method]).keys()
        assert all(torch.equal(v, read_model(tmp_path / moving)[k]) for k, v in masks.items())
        # without updates it is the very same training
        assert (tmp_path / moving / files.MODEL).read_bytes() == (trained[method] / files.MODEL).read_bytes()


@pytest.mark.parametrize("criterion", ["abs_mu", "snr"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_pruning_keeps_the_best_weights_of_its_parent(tmp_path, digits, results, criterion, allocation) -> None:
    spec = spec_of("pruned", criterion=criterion, allocation=allocation, epochs=0)
    trainer = train(spec, digits, results, tmp_path)
    parent = read_model(results / run_path(parents_of(spec)[0]))
    scores, kept = {}, {}
    for name, layer in trainer.method.layers.items():
        mu, sigma = parent[f"{name}.mean"], torch.nn.functional.softplus(parent[f"{name}.rho"])
        scores[name] = mu.abs() if criterion == "abs_mu" else mu.abs() / sigma
        kept[name] = layer.mask
        assert torch.equal(layer.mean[layer.mask], mu[layer.mask])
        assert torch.equal(layer.rho[layer.mask], parent[f"{name}.rho"][layer.mask])
    groups = [list(scores)] if allocation == "global" else [[n] for n in scores if n != "stem"]
    for group in groups:
        score, mask = (torch.cat([x[n].flatten() for n in group]) for x in (scores, kept))
        assert float(score[mask].min()) >= float(score[~mask].max())
        assert int(mask.sum()) == len(mask) - int((1 - 0.3) * len(mask) + 1e-6)


def test_batch_statistics_are_taken_anew_where_a_network_was_pruned_at_the_end(tmp_path, digits, results) -> None:
    trainer = train(spec_of("pruned", epochs=0), digits, results, tmp_path)
    statistics = trainer.model.bn.running_mean.clone()
    parent = read_model(results / run_path(parents_of(trainer.spec)[0]))["bn.running_mean"]
    assert not torch.allclose(statistics, parent)
    images = digits.normalise(digits.train_images)
    with torch.no_grad():
        trainer.method.predictive.set_mean()
        by_hand = [trainer.model.stem(part).mean((0, 2, 3)) for part in images.tensor_split(2)]
    assert torch.allclose(statistics, torch.stack(by_hand).mean(0), atol=5e-3)
    assert trainer.model.bn.momentum == 0.1


def test_what_is_made_of_an_older_arithmetic_is_of_it(digits, results, tmp_path) -> None:
    """An ensemble averages its parents' numbers, so it is as old as the oldest of them, which tables then say."""
    spec = spec_of("ensemble")
    folders = [tmp_path / run_path(parent) for parent in parents_of(spec)]
    for folder, parent in zip(folders, parents_of(spec), strict=True):
        shutil.copytree(results / run_path(parent), folder)
    record = read_json(folders[0] / files.SPEC)
    record["provenance"]["numerics"] = 1
    write_json(folders[0] / files.SPEC, record)
    tie(folders[0])
    summary = Trainer(spec, digits, tmp_path / "run", Settings(Machine(CPU)), Lines(), folders).run()
    assert summary["numerics"] == 1
    assert read_json(tmp_path / "run" / files.SPEC)["provenance"]["numerics"] == 1
    record["provenance"]["numerics"] = "one"
    write_json(folders[0] / files.SPEC, record)
    tie(folders[0])
    with pytest.raises(UserError, match=r"spec\.json: numerics is 'one', but must be a number"):
        Trainer(spec, digits, tmp_path / "other", Settings(Machine(CPU)), Lines(), folders)


def test_an_ensemble_is_the_average_of_its_members(digits, results, trained) -> None:
    spec = spec_of("ensemble")
    evaluate(spec, digits, trained["ensemble"], CPU)
    together = np.load(trained["ensemble"] / files.PREDICTIONS)["probabilities"]
    single = []
    for parent in parents_of(spec):
        evaluate(parent, digits, results / run_path(parent), CPU)
        single.append(np.load(results / run_path(parent) / files.PREDICTIONS)["probabilities"])
    assert np.allclose(together, np.mean(single, 0), atol=1e-6)
    assert not np.allclose(single[0], single[1], atol=1e-2)
    metrics = read_json(trained["ensemble"] / files.METRICS)
    members = [read_json(results / run_path(p) / files.METRICS) for p in parents_of(spec)]
    for key in ("active_weights", "complexity", "inference_flops", "training_flops"):
        assert metrics[key] == pytest.approx(sum(m[key] for m in members)), key
    assert metrics["parent_seconds"] == pytest.approx(sum(m["training_seconds"] for m in members))
    assert metrics["parent_flops"] == metrics["training_flops"]
    assert metrics["temperature"] > 0


def test_the_cost_of_a_parent_is_its_childs_too(digits, results, trained) -> None:
    for method in ("sbp", "pruned"):
        spec = spec_of(method)
        (parent,) = parents_of(spec)
        before = read_json(results / run_path(parent) / files.TRAINING)
        own = read_json(trained[method] / files.TRAINING)
        assert own["parent_flops"] == before["training_flops"] > 0
        assert own["parent_seconds"] == before["training_seconds"]
        assert own["training_seconds"] > before["training_seconds"]
        assert own["training_flops"] > before["training_flops"]


def test_children_start_from_their_parents_weights(tmp_path, digits, results) -> None:
    for method, options in (("sbp", {}), ("aeb", {"parent": "dense,epochs=2,batch_size=256,lr=0.1"})):
        spec = spec_of(method, **options)
        (parent,) = parents_of(spec)
        train(spec, digits, results, tmp_path / method)  # trains the parent where that is not done yet
        start = Trainer(
            spec, digits, tmp_path / "fresh" / method, Settings(Machine(CPU)), Lines(), [results / run_path(parent)]
        )
        start._open()
        known = read_model(results / run_path(parent))
        state = dense_state(start.model)
        assert all(torch.equal(state[name], known[name]) for name in known)


PARTS = ("test_data", "training_data")
OTHERS = r"the parent of this run was trained on other training images of 'digits' \(fingerprint"


def test_a_parent_that_is_missing_diverged_or_another_is_said(tmp_path, digits, results) -> None:
    spec = spec_of("sbp")
    (parent,) = parents_of(spec)
    with pytest.raises(UserError, match="the parent of this run is not trained; train it first"):
        Trainer(spec, digits, tmp_path / "child", Settings(Machine(CPU)), Lines(), [tmp_path / "nothing"])
    train(spec, digits, results, tmp_path / "good")
    other = dataclasses.replace(parent, lr=0.2)
    train(other, digits, results, tmp_path / "other")
    with pytest.raises(UserError, match=r"lr was 0\.2 and is now 0\.1"):
        Trainer(spec, digits, tmp_path / "child", Settings(Machine(CPU)), Lines(), [tmp_path / "other"])
    retested, retrained = (dataclasses.replace(digits.identity, **{name: "0" * 64, "data": "1" * 64}) for name in PARTS)
    for identity in (retested, retrained):
        others = dataclasses.replace(digits, identity=identity)
        allowed = contextlib.nullcontext() if identity is retested else pytest.raises(UserError, match=OTHERS)
        with allowed:
            Trainer(spec, others, tmp_path / "child", Settings(Machine(CPU)), Lines(), [results / run_path(parent)])
    wild = dataclasses.replace(spec, parent=spec.parent.replace("lr=0.1", "lr=1e+30"))
    (lost,) = parents_of(wild)
    train(lost, digits, results, results / run_path(lost))
    train(wild, digits, results, tmp_path / "wild")
    record = read_json(tmp_path / "wild" / files.TRAINING)
    assert record["status"] == "diverged"
    assert record["cause"].startswith("its parent diverged: ")
    assert record["epochs_done"] == 0
    assert evaluate(wild, digits, tmp_path / "wild", CPU)["accuracy"] is None


@pytest.mark.parametrize(
    ("method", "options"), [("aeb", {"aeb_lr": 1e30}), ("mbnn", {"mbnn_lr": 1e30}), ("vd", {"adam_lr": 1e30})]
)
def test_a_diverged_run_ends_in_order_and_is_evaluated_as_such(tmp_path, digits, results, method, options) -> None:
    spec = spec_of(method, **options)
    train(spec, digits, results, tmp_path)
    assert read_json(tmp_path / files.TRAINING)["status"] == "diverged"
    metrics = evaluate(spec, digits, tmp_path, CPU)
    assert metrics["status"] == "diverged"
    assert metrics["accuracy"] is None
    assert metrics["cause"]


@pytest.mark.parametrize(("method", "own"), [("vd", "exp"), ("pruned", "softplus")])
def test_sigma_is_inherited_whatever_function_of_rho_it_was(tmp_path, digits, results, method, own) -> None:
    spec = spec_of(method, parent="vi,epochs=2,batch_size=256,parameterisation=abs", epochs=1)
    train(spec, digits, results, tmp_path)  # trains the parent
    (parent,) = parents_of(spec)
    start = Trainer(spec, digits, tmp_path / "fresh", Settings(Machine(CPU)), Lines(), [results / run_path(parent)])
    start._open()
    known = read_model(results / run_path(parent))
    for name, layer in start.method.layers.items():
        assert layer.parameterisation == own
        sigma = known[f"{name}.rho"].abs()
        assert torch.allclose(layer.sigma[layer.mask], sigma[layer.mask], rtol=1e-4)


def test_every_method_is_tested_for_resumption() -> None:
    assert {*CASES, "dense", "vi", "rigl", "ssvi"} == set(KINDS)


def test_training_flops_are_the_formulas(digits, results, trained) -> None:
    """What the registry states of each method, by hand from positions and masks."""
    for method in ("static", "static_vi", "vd", "sbp", "aeb", "pruned"):
        record = read_json(trained[method] / files.TRAINING)
        places, weights = record["positions"], reference_weights(spec_of(method), 1, 8, 10)
        masks = {k.removesuffix(".mask"): int(v.sum()) for k, v in read_model(trained[method]).items() if "mask" in k}
        counted = masks if method in ("static", "static_vi", "pruned") else weights
        passes = 12 if method in ("static_vi", "vd", "pruned") else 6
        images = 2 * digits.n_train
        own = record["training_flops"] - record["parent_flops"]
        assert own == passes * images * sum(places[n] * counted[n] for n in places), method


@pytest.mark.parametrize("period", [1, 2, 100])
def test_a_step_of_a_masked_network_costs_its_living_weights_and_a_move_two_more_passes(
    tmp_path, digits, results, period
) -> None:
    expected = 0
    asked: list[int] = []

    class Watch(Lines):
        def step(self, clock) -> None:
            nonlocal expected
            batch = min(256, digits.n_train - 256 * ((clock.step - 1) % clock.steps_per_epoch))
            passes = 6 * (1 + len(asked))  # the likelihood is asked for before and after a move
            expected += passes * batch * before["macs"]
            asked.clear()
            before["macs"] = living()

    def living() -> int:
        places = trainer.method.context.positions
        return sum(places[n] * int(x.mask.sum()) for n, x in trainer.method.layers.items())

    spec = spec_of("mbnn", epochs=2, mask_period=period)
    trainer = Trainer(spec, digits, tmp_path, Settings(Machine(CPU)), Watch())
    before = {"macs": 0}
    likelihood, attach = trainer.method._likelihood, trainer.method.attach
    trainer.method._likelihood = lambda batch: asked.append(1) or likelihood(batch)
    trainer.method.attach = lambda *given: attach(*given) or before.update(macs=living())
    trainer.run()
    assert trainer.method.flops == expected
    assert (period > 12) == (trainer.method.n_active() == start_of(spec, digits, tmp_path))


def start_of(spec: RunSpec, digits: Data, folder: Path) -> dict[str, int]:
    """Living weights before the first step."""
    trainer = Trainer(spec, digits, folder / "start", Settings(Machine(CPU)), Lines())
    trainer._open()
    return trainer.method.n_active()


def test_pruned_weights_of_adaptive_empirical_bayes_stay_pruned(tmp_path, digits, results) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watch(Lines):
        def step(self, clock) -> None:
            seen.append({n: x.mask.clone() for n, x in trainer.method.layers.items()})
            for layer in trainer.method.sparse.values():
                assert not layer.mean[~layer.mask].any()

    spec = spec_of("aeb", epochs=3)
    trainer = Trainer(spec, digits, tmp_path, Settings(Machine(CPU)), Watch())
    trainer.run()
    for before, after in itertools.pairwise(seen):
        assert all(not (after[n] & ~before[n]).any() for n in before)
    sizes = {n: x.mean.numel() for n, x in trainer.method.sparse.items()}
    assert all(int(seen[-1][n].sum()) == sizes[n] - int(trainer.method.target * sizes[n]) for n in sizes)
    assert seen[0]["head"].sum() < sizes["head"]


def test_the_published_latent_variables_follow_their_formulas(tmp_path, digits, results) -> None:
    """One step of rho, d0, d1, delta and sigma, by hand in float64."""
    trainer = Trainer(spec_of("aeb"), digits, tmp_path, Settings(Machine(CPU)), Lines())
    trainer._open()
    trainer.method.begin_epoch(trainer.clock)
    trainer.model.train()
    trainer._step(torch.arange(256))
    m, prior = trainer.method, aeb.PRIORS["published"]
    omega = aeb.step_size(0.0, aeb.PUBLISHED_ITERATIONS / trainer.clock.total_steps)
    beta = m.flat.mean.detach().double()
    # the step pruned after it had approximated, so only weights that are left tell
    left = m._mask.bool()
    rho = (1 - omega) * 0.5 + omega * aeb.inclusion(beta, 0.5, prior)
    assert torch.allclose(m.rho.double()[left], rho[left], atol=1e-6)
    assert torch.allclose(m.d0.double()[left], ((1 - omega) * 5e-4 + omega * (1 - rho) / prior.spike)[left], rtol=1e-4)
    assert torch.allclose(m.d1.double()[left], ((1 - omega) * 5e-4 + omega * rho / prior.slab)[left], rtol=1e-4)
    assert float(m.sigma) != 1.0
    assert bool(((m.delta > 0.4) & (m.delta < 0.6)).all())


def test_a_stem_that_is_larger_than_the_density_is_refused(tmp_path, digits, results) -> None:
    with pytest.raises(UserError, match=r"density is 0\.001, but the stem alone, which method aeb does not prune"):
        train(spec_of("aeb", density=0.001), digits, results, tmp_path)


def test_masks_of_a_masked_network_are_what_its_nodes_leave(digits, trained) -> None:
    """A masked weight of a snapshot may be anything: predictions do not depend on it."""
    tensors = read_model(trained["mbnn"])
    masks = {k: v for k, v in tensors.items() if k.startswith("snapshot.") and k.endswith(".mask")}
    assert not all(bool(v.all()) for v in masks.values())
    for name, mask in masks.items():
        assert not tensors[name.removesuffix("mask") + "mean"][~mask].any()


def test_closed_gates_shrink_the_evaluated_network(digits, trained) -> None:
    """Slim layers give the predictions of the whole network."""
    from ssvi.core.noise import NormalSource
    from ssvi.training.measure import predictions
    from ssvi.training.network import build
    from ssvi.training.stored import load_model

    for method in ("sbp", "mbnn"):
        found = []
        for slim in (False, True):
            source = NormalSource(0, "evaluation")
            model, made = build(spec_of(method), 1, 8, 10, source)
            load_model(trained[method], made)
            if not slim:
                made.channels.slim = lambda: None
            *_, prediction = predictions(model, made, digits, digits.test_images, 3, source)
            assert prediction.samples == 3
            found.append(prediction.probabilities)
            if slim:
                assert any(layer._slim is not None for layer in made.layers.values())
        assert torch.allclose(found[0], found[1], atol=1e-6)
