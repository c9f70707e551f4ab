"""What a training that goes on keeps of how it began: threads, and a word about the processor."""

import pytest
import torch
from stopping import StopAt, Stopped
from test_trainer import CPU, MACHINE, spec_of

from ssvi import checkpoint, provenance, resume, runs
from ssvi.data import load
from ssvi.network import build
from ssvi.noise import Streams
from ssvi.progress import Lines
from ssvi.resume import CHECKPOINT_KEYS, keep_threads
from ssvi.trainer import Settings, Trainer


class Notes(Lines):
    """A reporter that keeps what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def threads():
    """Sets the number of threads, which is as it was afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def begun(tmp_path, digits):
    """A folder with a training's checkpoint, and a way to say how it began."""
    with pytest.raises(Stopped):
        Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE, 0), StopAt(4)).run()

    def say(**provenance: object) -> None:
        state = checkpoint.load(tmp_path, CPU, CHECKPOINT_KEYS)
        state["spec"]["provenance"] |= provenance
        checkpoint.save(tmp_path, state)

    return say


@pytest.mark.parametrize(
    ("began", "asked", "usable", "then", "word"),
    [
        (2, 1, 2, 2, "2 as when this training began, not 1"),
        (1, 2, 2, 1, "1 as when this training began, not 2"),
        (2, 2, 1, 2, None),
        (3, 1, 2, 1, "3 when this training began, but this process may use only 2 CPUs; it goes on with 1"),
        (None, 1, 2, 1, None),
    ],
)
def test_a_training_keeps_its_threads(tmp_path, monkeypatch, threads, begun, began, asked, usable, then, word) -> None:
    monkeypatch.setattr(resume, "usable_cpus", lambda: usable)
    begun(threads=began)
    threads(asked)
    said: list[str] = []
    keep_threads(tmp_path, CPU, said.append)
    assert torch.get_num_threads() == then
    assert (word in said[0]) if word else not said


def test_what_has_no_checkpoint_has_no_threads_to_keep(tmp_path, threads) -> None:
    threads(1)
    keep_threads(tmp_path, CPU, pytest.fail)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("cpu", "notes"), [("A Processor 3000", 1), (None, 0), (provenance.processor(), 0)])
def test_another_processor_is_noted(tmp_path, digits, begun, cpu, notes: int) -> None:
    begun(cpu=cpu)
    reporter = Notes()
    Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE), reporter).run()
    said = [line for line in reporter.said if "processor" in line]
    assert len(said) == notes
    assert all("A Processor 3000" in line for line in said)
    sessions = runs.read_json(tmp_path / runs.TRAINING)["sessions"]
    now = (provenance.processor(), torch.get_num_threads())
    assert [(session["cpu"], session["threads"]) for session in sessions] == [now, now]


def test_nothing_drawn_depends_on_the_threads(tmp_path_factory, threads) -> None:
    """Start values, order, augmentation, noise: what is left to differ is how sums are rounded."""
    spec = spec_of("ssvi", model="resnet18", width=0.5, augment=True)
    found = []
    for n in (1, 2):
        threads(n)
        data = load(spec, tmp_path_factory.getbasetemp() / "data", CPU)
        streams = Streams(spec.seed, CPU)
        model, _ = build(spec, data.channels, data.image_size, data.n_classes, streams.noise)
        order = torch.randperm(data.n_train, generator=streams["order"])
        images = data.augment(data.train_images[order[:256]], streams["augmentation"])
        noise = streams.noise.normal(torch.empty(300_000))
        found.append([*model.state_dict().values(), order, images, noise, *streams.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
