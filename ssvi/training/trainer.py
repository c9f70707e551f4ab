"""The training loop, the same for every method, and its way of stopping and going on."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvi.core.noise import Streams
from ssvi.data import Data
from ssvi.errors import Diverged
from ssvi.machine.process import Interrupted, Interrupts
from ssvi.methods.context import Clock, Context, Record
from ssvi.registry import KINDS
from ssvi.runs import files, plugins
from ssvi.runs.runfolder import FORMAT, check_spec, compare_specs, spec_record
from ssvi.runs.spec import RunSpec
from ssvi.training.checkpoint import Pace
from ssvi.training.heritage import Heritage
from ssvi.training.journal import Journal
from ssvi.training.network import build, places_of
from ssvi.training.passes import accuracy, recalibrate, train_mode
from ssvi.training.progress import Reporter
from ssvi.training.provenance import session
from ssvi.training.publish import Ending, publish
from ssvi.training.resume import Origin, check_same
from ssvi.training.selfcheck import self_check
from ssvi.training.state import State
from ssvi.training.step import Machine, Stepper
from ssvi.training.watch import Spent, Stopwatch


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
    """One run from its first step, or from its checkpoint, to its published files.

    Attributes:
        heritage: the runs that it starts from.
        streams: of all random numbers.
        clock: where it stands.
        take_step: takes a step of `clock`.
        journal: what is kept of its way.
        stopwatch: how long it takes.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        folder: Path,
        settings: Settings,
        reporter: Reporter,
        parents: Sequence[Path] = (),
    ) -> None:
        """`parents` are the folders of the trained runs to start from, as many as `Heritage` asks for."""
        self.heritage = Heritage.read(spec, parents, data)
        self.spec, self.data, self.folder, self.settings, self.reporter = spec, data, folder, settings, reporter
        machine = settings.machine
        self.streams = Streams(spec.seed, machine.device, single=not machine.parallel_noise)
        self.model, self.method = build(spec, data.channels, data.image_size, data.n_classes, self.streams.noise)
        self.model.to(machine.device, memory_format=machine.memory_format)
        self.clock = Clock(spec.training_epochs, _batches(data.n_train, spec.batch_size))
        self.take_step = Stepper(spec, data, self.model, self.method, self.streams, self.clock, machine, reporter.note)
        self.journal = Journal()
        self.stopwatch = Stopwatch(machine.device)
        self._order = torch.empty(0, dtype=torch.int64)
        self._pace = Pace(settings.wait)
        self._interrupts = Interrupts()
        self._self_check: Record | None = None

    # The loop -----------------------------------------------------------------------------------

    def run(self) -> Record:
        """Train to the end and publish. Returns what training.json holds.

        Nobody else may be training in the folder (`ssvi.training.lock.claimed`). A signal that asks to stop when the
        last step is done lets the results be published, which takes no longer than a checkpoint.

        Raises:
            Interrupted: after a signal that asks to stop; the checkpoint is written by then.
            UserError: if there are checkpoints that cannot be gone on from.
        """
        said: list[str] = []
        self._open(said.append)
        if self.clock.step:
            self.reporter.note(f"going on from the checkpoint of epoch {self.clock.epoch}, step {self.clock.step}")
        for line in said:
            self.reporter.note(line)
        self.reporter.start(self.clock, self.data.n_train)
        self.stopwatch.start()
        cause = diverged_epoch = None
        with self._interrupts:
            try:
                if lost := self.heritage.cause:
                    raise Diverged(f"its parent diverged: {lost}")
                self._train()
                self._finish()
            except Diverged as error:
                cause, diverged_epoch = error.cause, self.clock.epoch
            finally:
                self.reporter.stop()
            return self._publish(cause, diverged_epoch)

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

    def _epoch(self) -> None:
        within = self.clock.step - (self.clock.epoch - 1) * self.clock.steps_per_epoch
        if within == 0:
            self._order = torch.randperm(self.data.n_train, generator=self.streams["order"])
            self.take_step.totals.zero_()
        self.take_step.set_lr(self.method.lr_factor(self.clock))
        self.method.begin_epoch(self.clock)
        train_mode(self.take_step)
        order = self._order.to(self.device)
        self.stopwatch.steps.begin()
        for i in range(within, self.clock.steps_per_epoch):
            last = i + 1 == self.clock.steps_per_epoch
            self._step(order[i * self.spec.batch_size : None if last else (i + 1) * self.spec.batch_size])
            self.stopwatch.steps.step()
            self.reporter.step(self.clock)
            if not last:
                self._interrupts.check()
                if self._pace.is_due:
                    self._save()
                    self.stopwatch.steps.begin()
        self._close_epoch()
        self._interrupts.check()
        if self._pace.is_due:
            self._save()

    def _step(self, index: Tensor) -> None:
        self.clock.step += 1
        batch = self.take_step(index)
        record = self.method.after_step(self.clock, batch)
        if record is not None:
            if not _finite(record):
                raise Diverged(f"a figure of the subspace update of step {self.clock.step} is not finite")
            self.journal.add_update(self.folder, record)

    def _close_epoch(self) -> None:
        # waits for the device
        loss, correct, images = self.take_step.totals.tolist()
        step_seconds = self.stopwatch.steps.median()
        if not math.isfinite(loss):
            raise Diverged(f"the likelihood loss of epoch {self.clock.epoch} is {loss}")
        self._check_finite()
        self.method.end_epoch(self.clock)
        row = self._figures(loss / images, correct / images, step_seconds)
        self.journal.add_epoch(self.folder, row)
        self.journal.remember_good(self.model)
        if row["test_accuracy"] is not None:
            whole = KINDS[self.spec.method].same_to_the_end
            self.journal.remember_best(row, self.method.predictive.tensors if whole else dict)
        self.reporter.epoch(row)
        self.clock.epoch += 1

    def _figures(self, loss: float, train_accuracy: float, step_seconds: float | None) -> Record:
        """What the history says of the epoch that ends now."""
        figures = self.method.epoch_figures(self.clock)
        if any(not math.isfinite(value) for value in figures.values()):
            raise Diverged(f"not finite after epoch {self.clock.epoch}: {figures}")
        data, tested = self.data, self.spec.record_best_test
        return {
            "epoch": self.clock.epoch,
            "step": self.clock.step,
            "loss": loss,
            "train_accuracy": train_accuracy,
            "validation_accuracy": accuracy(self.take_step, data.val_images, data.val_labels),
            "test_accuracy": accuracy(self.take_step, data.test_images, data.test_labels) if tested else None,
            "lr": float(self.method.optimizers[0].param_groups[0]["lr"]),
            "active_weights": sum(self.method.n_active().values()),
            "step_seconds": step_seconds,
            **figures,
            "seconds": self.stopwatch.end_epoch(),
        }

    def _finish(self) -> None:
        self.method.finish()
        self._check_finite()

    def _check_finite(self) -> None:
        parts = [value.isfinite().all() for value in self.model.state_dict().values()]
        if not bool(torch.stack(parts).all()):
            raise Diverged(f"a parameter is not finite after epoch {self.clock.epoch}")

    def _publish(self, cause: str | None, diverged_epoch: int | None) -> Record:
        spent = self.stopwatch.look()
        self._note_switches()
        ending = Ending(
            spec=self.spec,
            data=self.data,
            heritage=self.heritage,
            clock=self.clock,
            method=self.method,
            journal=self.journal,
            spent=spent,
            device=self.device,
            self_check=self._self_check,
            cause=cause,
            diverged_epoch=diverged_epoch,
        )
        return publish(self.folder, ending)

    # Stopping and going on ----------------------------------------------------------------------

    def _open(self, say: Callable[[str], None] | None = None) -> None:
        """Start, or go on where the checkpoint was taken; the live files then hold just what it knows.

        `say` is told what the method has to say, which is of no interest where the training is refused.
        """
        context = self._context(say or self.reporter.note)
        if (self.folder / files.SPEC).exists():
            check_spec(self.folder, self.spec)
        state = State.load(self.folder, self.device, self.reporter.note)
        if state is None and (self.folder / files.LIVE_HISTORY).exists():
            self.reporter.note("starting anew: this training was stopped before its first checkpoint")
        self.method.attach(context, self.heritage.tensors(self.data) if state is None else None)
        self.take_step.keep_lr()
        if state is not None:
            self._restore(state)
        train_mode(self.take_step)
        self._self_check = self_check(self.take_step)
        if state is None:
            self.journal.spec = spec_record(self.spec, self._origin().provenance())
            self.journal.remember_good(self.model)
        self.journal.sessions.append(session(self.clock.step, self.device))
        self._note_switches()
        # What was made of another training in this folder, perhaps of other options, is not of this one.
        files.remove_outdated(self.folder)
        self.journal.write(self.folder)
        self._pace.restart()

    def _context(self, say: Callable[[str], None]) -> Context:
        """What the method may use."""
        step = self.take_step
        return Context(
            model=self.model,
            streams=self.streams,
            clock=self.clock,
            n_train=self.data.n_train,
            positions=places_of(self.model, step.images(self.data.train_images[:1]), self.spec.model),
            data_loss=lambda batch: step.loss(batch)[0],
            exact_loss=lambda batch: step.exact_loss(batch)[0],
            fresh_batch=step.fresh_batch,
            recalibrate=lambda: recalibrate(step),
            say=say,
        )

    def _origin(self) -> Origin:
        """What this training is made of, as its steps are taken now."""
        return Origin(
            numerics=self.heritage.numerics,
            images=self.data.identity,
            parents=self.heritage.networks(),
            plugins=plugins.used(self.spec),
            device=self.device,
            switches=self.take_step.machine.settings(),
            precision=self.take_step.precision,
        )

    def _save(self) -> None:
        self._note_switches()
        spent = self.stopwatch.look()  # waits for the device, which is no cost of the checkpoint
        with self._pace.saving():
            state = State(
                **vars(self.journal),
                **vars(spent),
                model=self.model.state_dict(),
                method=self.method.state_dict(),
                streams=self.streams.state_dict(),
                order=self._order,
                totals=self.take_step.totals,
                epoch=self.clock.epoch,
                step=self.clock.step,
            )
            state.save(self.folder)

    def _restore(self, state: State) -> None:
        self.journal, self.stopwatch.spent = state.part(Journal), state.part(Spent)
        self.journal.spec |= {"format": FORMAT}
        began = self.journal.spec
        compare_specs(RunSpec(**began["spec"]), self.spec, self.folder / files.CHECKPOINT)
        check_same(self.folder, began["provenance"], self._origin(), self.spec, self.reporter.note)
        self.model.load_state_dict(state.model)
        self.method.load_state_dict(state.method)
        self.streams.load_state_dict(state.streams)
        self._order = state.order.cpu()
        self.take_step.totals.copy_(state.totals)
        self.clock.epoch, self.clock.step = state.epoch, state.step

    def _note_switches(self) -> None:
        self.journal.note_switches(self.take_step.machine.settings())

    @property
    def device(self) -> torch.device:
        """Where the training is computed."""
        return self.settings.machine.device
