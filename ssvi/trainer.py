"""The training loop, the same for every method, and its way of stopping and going on."""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssvi import checkpoint, plugins, runs, ties
from ssvi.counting import active_macs, positions
from ssvi.data import Data
from ssvi.errors import Diverged, UserError
from ssvi.flat import dense_state
from ssvi.layers import masked_layers
from ssvi.methods.base import Clock, Record, Workbench
from ssvi.network import build, read_parent, reference_weights, save_model
from ssvi.noise import Streams
from ssvi.process import Interrupted, Interrupts
from ssvi.progress import Reporter
from ssvi.provenance import peak_memory, provenance, session
from ssvi.registry import KINDS
from ssvi.resume import CHECKPOINT_KEYS, check_same
from ssvi.selfcheck import self_check
from ssvi.spec import RunSpec, run_path
from ssvi.spec import parents as parents_of
from ssvi.step import Machine, Stepper
from ssvi.versions import numerics
from ssvi.watch import StepWatch

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Settings:
    """How a training runs, not what it computes: none of this is part of a run's identity."""

    machine: Machine
    checkpoint_seconds: float = 60.0
    # Where a checkpoint takes long, the next waits until that was at most this share of the time, but not for ever.
    checkpoint_share: float = 0.01
    checkpoint_stretch: float = 5.0

    def wait(self, cost: float) -> float:
        """Seconds from one checkpoint to the next, if writing one takes `cost` seconds."""
        longest = self.checkpoint_seconds * self.checkpoint_stretch
        return max(self.checkpoint_seconds, min(cost / self.checkpoint_share, longest))


def _batches(n: int, size: int) -> int:
    """Steps of an epoch; a single image left over joins the batch before, since BatchNorm needs two."""
    return math.ceil(n / size) - (1 if n % size == 1 else 0)


def _finite(value: Any) -> bool:
    """Whether all numbers of a record are, at whatever depth."""
    if isinstance(value, dict | list | tuple):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


class Trainer:
    """One run from its first step, or from its checkpoint, to its published files."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        folder: Path,
        settings: Settings,
        reporter: Reporter,
        parents: Sequence[Path] = (),
    ) -> None:
        """`parents` are the folders of the trained runs to start from, as many as `ssvi.spec.parents` gives."""
        self.parents = parents
        self._heritage = [self._read_parent(*p) for p in zip(parents_of(spec), parents, strict=True)]
        self.spec, self.data, self.folder, self.settings = spec, data, folder, settings
        self._check_heritage()
        # what is made of older numbers is as old as they are
        self._numerics = min([numerics(spec), *(record["numerics"] for record in self._heritage)])
        self.reporter = reporter
        self.machine = settings.machine
        self.device = self.machine.device
        self.streams = Streams(spec.seed, self.device, single=not self.machine.parallel_noise)
        self.model, self.method = build(spec, data.channels, data.image_size, data.n_classes, self.streams.noise)
        self.model.to(self.device, memory_format=self.machine.memory_format)
        self.clock = Clock(spec.training_epochs, _batches(data.n_train, spec.batch_size))
        self.take_step = Stepper(
            spec, data, self.model, self.method, self.streams, self.clock, self.machine, reporter.note
        )
        self.history: list[Record] = []
        self.topology: list[Record] = []
        self.seconds = 0.0
        self._order = torch.empty(0, dtype=torch.int64)
        self.cpu_seconds, self._cpu_tick = 0.0, time.process_time()
        self._epoch_seconds, self._tick = 0.0, time.perf_counter()
        self._watch = StepWatch(self.device)
        self._base_lr: list[list[float]] = []
        self._spec_record: Record = {}
        self._save_seconds = 0.0
        self._self_check: Record | None = None
        self._best: Record | None = None
        self._interrupts = Interrupts()
        self._sessions: list[Record] = []

    # The loop -----------------------------------------------------------------------------------

    def run(self) -> Record:
        """Train to the end and publish. Returns what training.json holds.

        Nobody else may be training in the folder (`ssvi.lock.claimed`). A signal that asks to stop when the last step
        is done lets the results be published, which takes no longer than a checkpoint.

        Raises:
            Interrupted: after a signal that asks to stop; the checkpoint is written by then.
            UserError: if there are checkpoints that cannot be gone on from.
        """
        self._open()
        if self.clock.step:
            self.reporter.note(f"going on from the checkpoint of epoch {self.clock.epoch}, step {self.clock.step}")
        for note in self.method.notes():
            self.reporter.note(note)
        self.reporter.start(self.clock, self.data.n_train)
        self._tick, self._cpu_tick = time.perf_counter(), time.process_time()
        diverged: dict[str, Any] = {"status": "complete", "cause": None, "diverged_epoch": None}
        with self._interrupts:
            try:
                if cause := next((r["cause"] for r in self._heritage if r["status"] != "complete"), None):
                    raise Diverged(f"its parent diverged: {cause}")
                self._train()
                self._finish()
            except Diverged as error:
                diverged = {"status": "diverged", "cause": error.cause, "diverged_epoch": self.clock.epoch}
            finally:
                self.reporter.stop()
            return self._publish(diverged)

    def _train(self) -> None:
        """All epochs, or those until a signal, and the checkpoint of where that leads."""
        try:
            while self.clock.epoch <= self.clock.epochs:
                self._epoch()
        except Interrupted as stop:
            self._save()
            raise Interrupted(
                stop.number,
                f"stopped by {signal.Signals(stop.number).name} in epoch {min(self.clock.epoch, self.clock.epochs)}, "
                f"step {self.clock.step}; the same command goes on from there",
            ) from None
        # Of a finished training too: a workflow that was killed just now deletes what it finds published.
        self._save()

    def _finish(self) -> None:
        self.method.finish()
        self._check_finite()

    def _epoch(self) -> None:
        within = self.clock.step - (self.clock.epoch - 1) * self.clock.steps_per_epoch
        if within == 0:
            self._order = torch.randperm(self.data.n_train, generator=self.streams["order"])
            self.take_step.totals.zero_()
        self.take_step.set_lr(self._base_lr, self.method.lr_factor(self.clock))
        self.method.begin_epoch(self.clock)
        self._train_mode()
        order = self._order.to(self.device)
        self._watch.begin()
        for i in range(within, self.clock.steps_per_epoch):
            last = i + 1 == self.clock.steps_per_epoch
            self._step(order[i * self.spec.batch_size : None if last else (i + 1) * self.spec.batch_size])
            self._watch.step()
            self.reporter.step(self.clock)
            if not last:
                self._interrupts.check()
                if self._save_is_due():
                    self._save()
                    self._watch.begin()
        self._close_epoch()
        self._interrupts.check()
        if self._save_is_due():
            self._save()

    def _step(self, index: Tensor) -> None:
        self.clock.step += 1
        batch = self.take_step(index)
        record = self.method.after_step(self.clock, batch)
        if record is not None:
            if not _finite(record):
                raise Diverged(f"a figure of the subspace update of step {self.clock.step} is not finite")
            self.topology.append(record)
            self._append(runs.LIVE_TOPOLOGY, record)

    def _close_epoch(self) -> None:
        # waits for the device
        loss, correct, images = self.take_step.totals.tolist()
        step_seconds = self._watch.median()
        if not math.isfinite(loss):
            raise Diverged(f"the likelihood loss of epoch {self.clock.epoch} is {loss}")
        self._check_finite()
        self.method.end_epoch(self.clock)
        figures = self.method.epoch_figures(self.clock)
        if any(not math.isfinite(value) for value in figures.values()):
            raise Diverged(f"not finite after epoch {self.clock.epoch}: {figures}")
        row: Record = {
            "epoch": self.clock.epoch,
            "step": self.clock.step,
            "loss": loss / images,
            "train_accuracy": correct / images,
            "validation_accuracy": self._accuracy(self.data.val_images, self.data.val_labels),
            "test_accuracy": (
                self._accuracy(self.data.test_images, self.data.test_labels) if self.spec.record_best_test else None
            ),
            "lr": float(self.method.optimizers[0].param_groups[0]["lr"]),
            "active_weights": sum(self.method.n_active().values()),
            "step_seconds": step_seconds,
            **figures,
        }
        self._stop_watch()
        row["seconds"], self._epoch_seconds = self._epoch_seconds, 0.0
        self.history.append({column: row.get(column) for column in runs.HISTORY_COLUMNS})
        self._append(runs.LIVE_HISTORY, self.history[-1])
        self._remember_good()
        if row["test_accuracy"] is not None:
            self._remember_best(row)
        self.reporter.epoch(row)
        self.clock.epoch += 1

    def _check_finite(self) -> None:
        parts = [value.isfinite().all() for value in self.model.state_dict().values()]
        if not bool(torch.stack(parts).all()):
            raise Diverged(f"a parameter is not finite after epoch {self.clock.epoch}")

    def _remember_good(self) -> None:
        """Keep the present state: what a run that diverges from here on is left with."""
        self._good = {name: value.detach().clone() for name, value in dense_state(self.model).items()}

    def _remember_best(self, row: Record) -> None:
        """Keep the epoch with the best test accuracy, the earliest of several, and its network if that is complete."""
        if self._best is None or row["test_accuracy"] > self._best["accuracy"]:
            kept = self.method.tensors() if KINDS[self.spec.method].same_to_the_end else {}
            tensors = {name: value.detach().cpu().clone() for name, value in kept.items()}
            self._best = {"epoch": row["epoch"], "accuracy": row["test_accuracy"], "tensors": tensors}

    def _stop_watch(self) -> None:
        """Add the time since the last look to this epoch's and this run's."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, cpu = time.perf_counter(), time.process_time()
        self._epoch_seconds += now - self._tick
        self.seconds += now - self._tick
        self.cpu_seconds += cpu - self._cpu_tick
        self._tick, self._cpu_tick = now, cpu

    @torch.inference_mode()
    def _accuracy(self, images: Tensor, labels: Tensor) -> float | None:
        """Accuracy of the posterior mean, or None for an empty set."""
        if not len(labels):
            return None
        self.model.eval()
        self.method.set_mean()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, len(labels), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            with self.take_step.autocast():
                logits = self.model(self.take_step.images(images[part]))
            correct += (logits.argmax(1) == labels[part]).sum()
        self._train_mode()
        return int(correct) / len(labels)

    def _train_mode(self) -> None:
        self.model.train()
        self.method.set_train()

    @torch.no_grad()
    def _recalibrate(self) -> None:
        """Take BatchNorm's running statistics anew: averages over the training images, through the present network."""
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # an average over all batches alike
        self._train_mode()
        images = self.data.train_images
        for part in images.tensor_split(math.ceil(len(images) / EVALUATION_BATCH)):
            with self.take_step.autocast():
                self.model(self.take_step.images(part))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    # Stopping and going on ----------------------------------------------------------------------

    def _open(self) -> None:
        """Start, or go on where the checkpoint was taken; the live files then hold just what it knows."""
        places = positions(self.model, self.take_step.images(self.data.train_images[:1]))
        if unused := sorted(masked_layers(self.model).keys() - places.keys()):
            raise UserError(
                f"network {self.spec.model!r}: layer {unused[0]} is not called by its forward, so what it costs is "
                "not known; leave it out, or call it."
            )
        bench = Workbench(
            model=self.model,
            streams=self.streams,
            clock=self.clock,
            n_train=self.data.n_train,
            positions=places,
            data_loss=lambda batch: self.take_step.loss(batch)[0],
            exact_loss=lambda batch: self.take_step.exact_loss(batch)[0],
            fresh_batch=self.take_step.fresh_batch,
            recalibrate=self._recalibrate,
        )
        if (self.folder / runs.SPEC).exists():
            runs.check_spec(self.folder, self.spec)
        state = checkpoint.load(self.folder, self.device, CHECKPOINT_KEYS, self.reporter.note)
        if state is None and (self.folder / runs.LIVE_HISTORY).exists():
            self.reporter.note("starting anew: this training was stopped before its first checkpoint")
        family = zip(self.parents, parents_of(self.spec), strict=True)
        shape = (self.data.channels, self.data.image_size, self.data.n_classes)
        fresh = [read_parent(folder, spec, *shape) for folder, spec in family] if state is None else None
        self.method.attach(bench, fresh)
        self._base_lr = [[group["lr"] for group in o.param_groups] for o in self.method.optimizers]
        if state is not None:
            self._restore(state)
        self._train_mode()
        self._self_check = self_check(self.take_step)
        switches = self.take_step.machine.settings()
        if state is None:
            origin = provenance(self.device, self.data.fingerprint, switches, self.take_step.precision)
            origin |= {"numerics": self._numerics, "content": self.data.content, "parents": self._parents_record()}
            origin |= {"plugins": plugins.used(self.spec)}
            self._spec_record = runs.spec_record(self.spec, origin)
            self._remember_good()
        self._sessions.append(session(self.clock.step, self.device) | {"switches": switches})
        # What was made of another training in this folder, perhaps of other options, is not of this one.
        runs.remove_outdated(self.folder)
        # A workflow that cleans up after a failed job deletes spec.json, so the checkpoint has a copy.
        runs.write_json(self.folder / runs.SPEC, self._spec_record)
        runs.write_text(self.folder / runs.LIVE_HISTORY, runs.to_jsonl(self.history))
        runs.write_text(self.folder / runs.LIVE_TOPOLOGY, runs.to_jsonl(self.topology))
        self._saved = time.monotonic()

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._saved >= self.settings.wait(self._save_seconds)

    def _note_switches(self) -> None:
        """One may have been switched off on the way."""
        self._sessions[-1]["switches"] = self.take_step.machine.settings()

    def _save(self) -> None:
        self._note_switches()
        self._stop_watch()  # waits for the device, which is no cost of the checkpoint
        start = time.monotonic()
        checkpoint.save(
            self.folder,
            {
                "spec": self._spec_record,
                "sessions": self._sessions,
                "good": self._good,
                "best": self._best,
                "model": self.model.state_dict(),
                "method": self.method.state_dict(),
                "streams": self.streams.state_dict(),
                "order": self._order,
                "totals": self.take_step.totals,
                "epoch": self.clock.epoch,
                "step": self.clock.step,
                "history": self.history,
                "topology": self.topology,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "epoch_seconds": self._epoch_seconds,
            },
        )
        self._saved = time.monotonic()
        self._save_seconds = self._saved - start

    def _restore(self, state: dict[str, Any]) -> None:
        self._spec_record, self._sessions = state["spec"] | {"format": runs.FORMAT}, state["sessions"]
        self._good, self._best = state["good"], state["best"]
        runs.compare_specs(RunSpec(**self._spec_record["spec"]), self.spec, self.folder / runs.CHECKPOINT)
        check_same(
            self.folder,
            self._spec_record["provenance"],
            numerics=self._numerics,
            data=self.data.fingerprint,
            dataset=self.spec.dataset,
            parents=self._parents_record(),
            plugins=plugins.used(self.spec),
            device=self.device,
            switches=self.machine.settings(),
            say=self.reporter.note,
        )
        self.model.load_state_dict(state["model"])
        self.method.load_state_dict(state["method"])
        self.streams.load_state_dict(state["streams"])
        self._order = state["order"].cpu()
        self.take_step.totals.copy_(state["totals"])
        self.clock.epoch, self.clock.step = state["epoch"], state["step"]
        self.history, self.topology = state["history"], state["topology"]
        self.seconds, self._epoch_seconds = state["seconds"], state["epoch_seconds"]
        self.cpu_seconds = state["cpu_seconds"]

    def _dense_macs(self) -> int:
        """Multiply-adds of an image through the plain network that the spec names, with all its weights."""
        places, data = self.method.bench.positions, self.data
        weights = reference_weights(self.spec, data.channels, data.image_size, data.n_classes)
        return active_macs(places, weights)

    @staticmethod
    def _read_parent(spec: RunSpec, folder: Path) -> Record:
        """What training.json of a parent says, with the images it was trained on."""
        if not runs.is_trained(folder):
            raise UserError(f"{folder}: the parent of this run is not trained; train it first.")
        runs.check_spec(folder, spec)
        ties.check_ties(folder, runs.TRAINING)
        costs = runs.read_record(folder / runs.TRAINING, training_flops=float, training_seconds=float)
        origin = runs.read_record(folder / runs.SPEC, provenance=dict)["provenance"]
        before = origin.get("numerics", 1)
        if not runs.is_number(before):
            raise UserError(f"{folder / runs.SPEC}: numerics is {before!r}, but must be a number; {runs.ANEW}")
        origin = {"data": runs.read_data(folder), "numerics": before, "model": ties.identity(folder / runs.MODEL)}
        return costs | runs.read_training(folder) | origin

    def _check_heritage(self) -> None:
        for folder, record in zip(self.parents, self._heritage, strict=True):
            if record["data"] != self.data.fingerprint:
                raise UserError(
                    f"{folder}: the parent of this run was trained on other images of {self.spec.dataset!r} "
                    f"(fingerprint {record['data'][:12]}, now {self.data.fingerprint[:12]}); bring those images back, "
                    "or move its folder away."
                )

    def _append(self, name: str, record: Record) -> None:
        runs.append_jsonl(self.folder / name, record)

    def _publish(self, status: dict[str, Any]) -> Record:
        """Write the final files, training.json last. What is needed to go on stays until the run is evaluated."""
        self._stop_watch()
        self._note_switches()
        good = status["status"] == "complete"
        save_model(self.folder, self.method.tensors() if good else self._good)
        best = self._best if good and self._best and self._best["tensors"] else None
        if best is not None:
            save_model(self.folder, best["tensors"], runs.BEST_MODEL)
        runs.write_csv(self.folder / runs.HISTORY, self.history, runs.HISTORY_COLUMNS)
        runs.write_text(self.folder / runs.TOPOLOGY, runs.to_jsonl(self.topology))
        images = self.clock.step / self.clock.steps_per_epoch * self.data.n_train
        # of epochs that an earlier version trained nobody knows
        steps = [row["step_seconds"] for row in self.history if row.get("step_seconds") is not None]
        before = {key: sum(r[key] for r in self._heritage) for key in ("training_flops", "training_seconds")}
        summary = {
            **status,
            "numerics": self._numerics,
            "epochs_done": len(self.history),
            "steps": self.clock.step,
            "accuracy_best_test": self._best and self._best["accuracy"],
            "best_epoch": best and best["epoch"],
            "training_flops": self.method.flops + before["training_flops"],
            "training_flops_dense": round(self.method.passes * self._dense_macs() * images) if images else 0,
            "training_seconds": self.seconds + before["training_seconds"],
            "parent_flops": before["training_flops"],
            "parent_seconds": before["training_seconds"],
            "training_cpu_seconds": self.cpu_seconds,
            "step_seconds": statistics.median(steps) if steps else None,
            "images_per_second": images / max(self.seconds, 1e-9),
            "peak_memory_bytes": peak_memory(self.device),
            "self_check": self._self_check,
            "sessions": self._sessions,
            "positions": self.method.bench.positions,
            "parents": self._parents_record(),
        }
        # Anew, because another process may have deleted it since: a workflow that took this training for a dead one.
        runs.write_json(self.folder / runs.SPEC, self._spec_record)
        ties.write_tied(self.folder, runs.TRAINING, summary)
        return summary

    def _parents_record(self) -> dict[str, str]:
        """Which networks this training started from: fingerprints by run path."""
        started = zip(parents_of(self.spec), self._heritage, strict=True)
        return {run_path(parent): record["model"] for parent, record in started}
