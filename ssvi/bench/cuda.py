"""What a GPU can tell: steps in every way they can be taken, epochs as a user has them, several runs on one device.

Each part yields its figures as they come. On a CPU, and with `TINY` sizes, the parts only try their own code: names
then begin with `try.` in place of `gpu.`.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ssvi.bench.contestants import Step, Training, images, in_turn, ratios
from ssvi.bench.record import Figure
from ssvi.data import Data
from ssvi.runs.spec import RunSpec
from ssvi.training.passes import accuracy
from ssvi.training.progress import Lines
from ssvi.training.provenance import device_name, peak_memory
from ssvi.training.step import Machine, choose_machine
from ssvi.training.trainer import Settings, Trainer

CONTESTANTS = {
    "dense": {"method": "dense"},
    "ssvi": {"method": "ssvi", "density": 0.1},
    "vi": {"method": "vi"},
    "sampling": {"method": "ssvi", "density": 0.1, "sampling": "weight"},
}
# The ways to take a step, by the switches that are on.
WAYS = {
    "eager": {"compile": False, "capture": False},
    "captured": {"compile": False, "capture": True},
    "compiled": {"compile": True, "capture": False},
    "both": {"compile": True, "capture": True},
}
PACKED = 3


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        steps: of a round.
    """

    model: str
    width: float
    batch: int
    images: int
    steps: int


FULL = Size("resnet18", 1.0, 128, 50_000, 50)
TINY = Size("resnet8", 0.25, 16, 160, 2)


@dataclass(frozen=True)
class Place:
    """Where and how much is measured."""

    device: torch.device
    size: Size = FULL

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def note(self) -> str:
        """What stands beside the figures."""
        network = {"resnet18": "ResNet-18"}.get(self.size.model, self.size.model)
        return f"{network}, batch {self.size.batch}, {device_name(self.device)}"

    def figure(self, name: str, unit: str, values: Iterable[float], note: str = "") -> Figure:
        """A figure whose name says that a GPU has measured it only if one has, at full size."""
        measured = self.cuda and self.size is FULL
        return Figure(f"{'gpu' if measured else 'try'}.{name}", unit, tuple(values), note or self.note)

    def told(self, trainings: Mapping[str, Training]) -> str:
        """The note of figures of these, with what was switched off of a training on its way, because it failed."""
        off = [
            f"{name} without {switch}, which was switched off"
            for name, training in trainings.items()
            for switch in ("compile", "capture")
            if getattr(training.trainer.settings.machine, switch)
            and not getattr(training.trainer.take_step.machine, switch)
        ]
        return "; ".join([self.note, *off])

    def options(self, contestant: str) -> dict[str, str | float | int]:
        """Of a run, by the contestant's name."""
        size = self.size
        return {"model": size.model, "width": size.width, "batch_size": size.batch, **CONTESTANTS[contestant]}

    def data(self) -> Data:
        """Images of noise, a tenth as many held out."""
        return images(self.size.images, self.device, self.size.images // 10)

    def machine(self, way: str | None = None) -> Machine:
        """The fastest of the device, or a way of `WAYS`."""
        return choose_machine(self.device, None if way is None else WAYS[way])

    def ways(self) -> tuple[str, ...]:
        """Those that `ssvi train` may take here: nothing is captured without CUDA, or compiled without a compiler."""
        best = choose_machine(self.device)
        return tuple(way for way, on in WAYS.items() if all(getattr(best, switch) >= on[switch] for switch in on))

    def sync(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def many(self, training: Training) -> Step:
        """A round of steps without a subspace update."""

        def work() -> None:
            for _ in range(self.size.steps):
                training.step()

        return work

    def profiled(self, work: Step) -> profile:
        """What the host and the device did in `work`, up to the end of a wait that is put there to be seen."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.cuda
        with profile(activities=activities) as seen:
            work()
            torch.ones((), device=self.device).item()
        return seen


def waits(work: Step) -> int:
    """How often the host waits for the device in `work`.

    Raises:
        RuntimeError: if a wait that is put there to be seen is not.
    """

    def seen(piece: Step) -> int:
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                piece()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        # the mode itself warns once that it is young
        return sum("called a synchronizing CUDA operation" in str(one.message) for one in said)

    probe = torch.ones((), device="cuda")
    if seen(lambda: probe.item()) != 1:
        raise RuntimeError("the one wait that was put there to be seen was not, so none would be")
    return seen(work)


def against_plain(place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """SSVI's step over the plain network's, in turn, as `ssvi train` takes them; how often one waits for the device."""
    say("steps of dense and ssvi in turn")
    data, machine = place.data(), place.machine()
    trainings = {name: Training(data, machine, place.options(name)) for name in ("dense", "ssvi")}
    # each round ends when the device is done, so that rounds do not run into each other
    seconds = in_turn({n: place.many(t) for n, t in trainings.items()}, repeats, sync=place.sync)
    yield place.figure("lrt_over_plain", "", ratios(seconds, "ssvi", "dense"), place.told(trainings))
    for name, each in seconds.items():
        note = place.told({name: trainings[name]})
        yield place.figure(f"seconds.{name}", "s", (t / place.size.steps for t in each), note)
    if place.cuda:
        yield place.figure("syncs_per_step", "", (waits(place.many(trainings["ssvi"])) / place.size.steps,))


def ways(contestant: str, place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Milliseconds, kernels and peak memory of a contestant's step in every way that the device has."""
    data = place.data()
    for way in place.ways():
        say(f"steps of {contestant}, {way}")
        torch._dynamo.reset()
        gc.collect()  # the training before, whose parts know each other
        if place.cuda:
            torch.cuda.reset_peak_memory_stats(place.device)
        training = Training(data, place.machine(way), place.options(contestant))
        seconds = in_turn({way: place.many(training)}, repeats, sync=place.sync)[way]
        note = place.told({contestant: training})
        yield place.figure(f"ms.{contestant}.{way}", "ms", (1e3 * t / place.size.steps for t in seconds), note)
        yield place.figure(f"bytes.{contestant}.{way}", "B", (peak_memory(place.device),))
        if place.cuda:
            seen = place.profiled(place.many(training)).key_averages()
            kernels = sum(event.count for event in seen if event.device_type == DeviceType.CUDA)
            if not kernels:
                raise RuntimeError("the profiler saw no kernel, though one was there for it to see")
            yield place.figure(f"kernels.{contestant}.{way}", "", (kernels / place.size.steps,))
        del training


def beside(place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Milliseconds of what stands beside the routine steps: an update, a batch of another size, a validation."""
    say("an update, an odd batch, a validation")
    training = Training(place.data(), place.machine(), place.options("ssvi"))
    trainer, data = training.trainer, training.trainer.data
    index = torch.arange(place.size.batch * 9 // 16, device=place.device)

    def odd_batch() -> None:
        while trainer.method.subspace.is_due(training.clock.step + 1):
            training.clock.step += 1
        trainer._step(index)

    def validation() -> None:
        accuracy(trainer.take_step, data.val_images, data.val_labels)

    steps = {"update": training.update_step, "odd_batch": odd_batch, "validation": validation}
    subspace = trainer.method.subspace
    kept, subspace.records.recorded = subspace.records.recorded, set()
    for name, seconds in in_turn(steps, repeats, sync=place.sync).items():
        yield place.figure(f"ms.{name}", "ms", (1e3 * t for t in seconds))
    if place.cuda:
        yield place.figure("syncs_per_update", "", (waits(training.update_step),))
    subspace.records.recorded = range(subspace.schedule.n_updates)
    recorded = in_turn({"it": training.update_step}, repeats, sync=place.sync)["it"]
    yield place.figure("ms.recorded_update", "ms", (1e3 * t for t in recorded))
    subspace.records.recorded = kept


def repeatable(place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """A step with kernels that give the same bytes each time, as all trainings have them, over one with any."""
    say("steps with kernels that give the same bytes, and with any")
    data, way = place.data(), "captured" if place.cuda else None
    for name in ("dense", "ssvi"):
        trainings = {}
        for kind in (True, False):
            trainings[kind] = Training(data, place.machine(way), place.options(name))
            torch.backends.cudnn.deterministic = kind
            place.many(trainings[kind])()  # what is captured keeps its kernels
        torch.backends.cudnn.deterministic = True
        works = {str(kind): place.many(training) for kind, training in trainings.items()}
        seconds = in_turn(works, repeats, sync=place.sync)
        yield place.figure(f"repeatable_over_any.{name}", "", ratios(seconds, "True", "False"))


def epochs(place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """With augmentation, validation, logging and updates; the first is not counted."""
    say(f"{repeats} epochs of ssvi")
    with tempfile.TemporaryDirectory(prefix="ssvi-bench-") as name:
        spec = RunSpec(dataset="cifar10", epochs=repeats + 1, **place.options("ssvi"))
        trainer = Trainer(spec, place.data(), Path(name), Settings(place.machine()), Lines())
        trainer.run()
    seconds = [row["seconds"] for row in trainer.journal.history[1:]]
    yield place.figure("seconds_per_epoch", "s", seconds, f"{place.size.images:,} images, {place.note}")


def packed(place: Place, repeats: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Images a second of several processes on one device over those of one; measured once."""
    say(f"{PACKED} trainings on one device")
    alone, together = _images_per_second(1, place), _images_per_second(PACKED, place)
    yield place.figure("packed_speedup", "", (together / alone,), f"{place.note}, {PACKED} processes")


# The most telling first: a trial may not have the time for all.
PARTS: dict[str, Callable[[Place, int, Callable[[str], None]], Iterator[Figure]]] = {
    "against_plain": against_plain,
    "beside": beside,
    "ways.ssvi": partial(ways, "ssvi"),
    "repeatable": repeatable,
    "epochs": epochs,
    "ways.dense": partial(ways, "dense"),
    "packed": packed,
    **{f"ways.{contestant}": partial(ways, contestant) for contestant in ("sampling", "vi")},
}


def figures(repeats: int, say: Callable[[str], None], place: Place | None = None) -> Iterator[Figure]:
    """All of them as they come, on the current device; a part that fails takes no other with it.

    Raises:
        RuntimeError: at the end, if a part failed.
    """
    place, failed = place or Place(torch.device("cuda")), []
    for name, part in PARTS.items():
        torch._dynamo.reset()  # which keeps few compiled versions of a function, and goes on without beyond them
        try:
            yield from part(place, repeats, say)
        except RuntimeError as error:
            failed.append(f"{name}: {error}")
            say(f"{failed[-1]}; going on without")
    if failed:
        raise RuntimeError("; ".join(failed))


def _images_per_second(n: int, place: Place) -> float:
    """Of n processes together, on one device.

    Raises:
        RuntimeError: if one of them ends before its time; the others are then ended too.
    """
    command = [sys.executable, "-m", "ssvi.bench.cuda", place.device.type, "full" if place.size is FULL else "tiny"]
    with ExitStack() as ending:
        jobs = []
        for _ in range(n):
            job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ending.callback(_end, job)
            jobs.append(job)
        for job in jobs:
            _answer(job)  # compiled and captured
        for job in jobs:
            _tell(job)
        return sum(json.loads(_answer(job)) for job in jobs)


def _answer(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    if line := job.stdout.readline():
        return line
    raise RuntimeError(f"a training ended with exit code {job.wait()}; its error stands above")


def _tell(job: subprocess.Popen[str]) -> None:
    assert job.stdin is not None
    try:
        job.stdin.write("go\n")
        job.stdin.flush()
    except BrokenPipeError:
        raise RuntimeError(f"a training ended with exit code {job.wait()}; its error stands above") from None


def _end(job: subprocess.Popen[str]) -> None:
    """End a process that has nothing more to say, or must not go on; what was not read is not missed."""
    job.kill()
    job.wait()
    for pipe in (job.stdin, job.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


def _worker(place: Place) -> None:
    training = Training(place.data(), place.machine(), place.options("ssvi"))
    work = place.many(training)
    work()
    place.sync()
    print("ready", flush=True)
    sys.stdin.readline()
    start, rounds = time.perf_counter(), 20
    for _ in range(rounds):
        work()
    place.sync()
    done = rounds * place.size.steps * place.size.batch
    print(json.dumps(done / (time.perf_counter() - start)), flush=True)


if __name__ == "__main__":
    _worker(Place(torch.device(sys.argv[1]), {"full": FULL, "tiny": TINY}[sys.argv[2]]))
