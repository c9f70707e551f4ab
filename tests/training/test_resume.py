"""What a training that goes on keeps of how it began: threads, and a word about the processor."""

import hashlib
import io

import pytest
import torch
from stopping import StopAt, Stopped
from test_trainer import CPU, MACHINE, spec_of

from ssvi.core.noise import Streams
from ssvi.data import load
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.identity import TRAINED_ON, Identity
from ssvi.runs.records import read_json
from ssvi.training import checkpoint, provenance, resume
from ssvi.training.journal import Journal
from ssvi.training.network import build
from ssvi.training.progress import Lines
from ssvi.training.resume import Origin, check_same, keep_threads
from ssvi.training.state import State
from ssvi.training.trainer import Settings, Trainer
from ssvi.training.watch import Spent


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
        state = State.load(tmp_path, CPU)
        state.spec["provenance"] |= provenance
        state.save(tmp_path)

    return say


def test_the_fields_of_a_state_are_the_keys_of_this_version(tmp_path, begun) -> None:
    """Whoever changes one changes what the checkpoints of others' trainings are read as."""
    content = (tmp_path / files.CHECKPOINT).read_bytes()
    raw = torch.load(io.BytesIO(content[content.index(b"\n") + 1 :]), weights_only=True)
    assert checkpoint.VERSION == 5
    assert set(raw) == {
        *("spec", "sessions", "good", "best", "model", "method", "streams", "order", "totals", "epoch", "step"),
        *("history", "topology", "seconds", "cpu_seconds", "epoch_seconds"),
    }
    state = State.load(tmp_path, CPU)
    assert (state.step, state.seconds) == (raw["step"], raw["seconds"]) == (3, raw["epoch_seconds"])
    assert vars(state.part(Spent)) == {key: raw[key] for key in ("seconds", "cpu_seconds", "epoch_seconds")}
    assert state.part(Journal).topology == raw["topology"] != []


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


SWITCHES = {"channels_last": True, "parallel_noise": True, "compile": False, "capture": False}
PLUGIN = [{"module": "mine", "files": {"mine.py": "a" * 64}}]
IMAGES = Identity("b" * 64, "e" * 64, "f" * 64)
NOW = Origin(2, IMAGES, {"dense/seed=0": "c"}, PLUGIN, CPU, SWITCHES, "fp32")
BEGAN = {"numerics": 2, **IMAGES.of(TRAINED_ON), "parents": NOW.parents, "plugins": PLUGIN, "device": "cpu",
         "switches": SWITCHES}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"numerics": 1}, r"began by numerics 1, which give other numbers than this version's \(2\); this is ssvi"),
        (
            {"training_data": "d" * 64},
            r"began on other training images of 'digits' \(fingerprint d{12}, now e{12}\); bring those images back, or",
        ),
        # of a version that recorded the whole alone
        (
            {"training_data": None, "data": "d" * 64},
            "began on other images of 'digits' .* now b{12}",
        ),
        ({"parents": {}}, "another training of its parent dense/seed=0 than lies there now; bring that one back, or"),
        (
            {"plugins": []},
            "'mine' was not there and is now SHA-256 a{16}; bring back the file that this training .*, or",
        ),
        ({"device": "H200"}, r"began on H200, .*; go on there \(--device\), or move the folder away\.$"),
        ({"switches": SWITCHES | {"channels_last": False}}, "with --channels-last=off; go on with it, or move"),
    ],
)
def test_another_training_is_refused(tmp_path, change, line) -> None:
    check_same(tmp_path, BEGAN, NOW, spec_of("ssvi"), pytest.fail)
    with pytest.raises(UserError, match=f"^{tmp_path}: .*{line}"):
        check_same(tmp_path, BEGAN | change, NOW, spec_of("ssvi"), pytest.fail)


def test_other_test_images_are_another_training_only_where_it_looks_at_them(tmp_path) -> None:
    began = BEGAN | {"data": "d" * 64}
    check_same(tmp_path, began, NOW, spec_of("ssvi"), pytest.fail)
    with pytest.raises(UserError, match=r"now b{12}; record_best_test has looked at the test images"):
        check_same(tmp_path, began, NOW, spec_of("ssvi", record_best_test=True), pytest.fail)


def test_other_last_digits_are_said(tmp_path) -> None:
    said: list[str] = []
    check_same(tmp_path, BEGAN | {"switches": SWITCHES | {"compile": True}}, NOW, spec_of("ssvi"), said.append)
    assert said == [
        "this training began with --compile=on and goes on with --compile=off, which may give other last digits, and "
        "other noise on a GPU"
    ]


@pytest.mark.parametrize(("cpu", "notes"), [("A Processor 3000", 1), (None, 0), (provenance.processor(), 0)])
def test_another_processor_is_noted(tmp_path, digits, begun, cpu, notes: int) -> None:
    begun(cpu=cpu)
    reporter = Notes()
    Trainer(spec_of("ssvi"), digits, tmp_path, Settings(MACHINE), reporter).run()
    said = [line for line in reporter.said if "processor" in line]
    assert len(said) == notes
    assert all("A Processor 3000" in line for line in said)
    sessions = read_json(tmp_path / files.TRAINING)["sessions"]
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


def test_a_checkpoint_of_the_version_before_is_gone_on_with(tmp_path, begun) -> None:
    """Nothing was packed in it."""
    state = State.load(tmp_path, CPU)
    buffer = io.BytesIO()
    torch.save(vars(state), buffer)
    content = buffer.getvalue()
    checksum = hashlib.sha256(b"4\n" + content).hexdigest()
    head = f"{checkpoint.MAGIC} 4 {checksum}\n".encode()
    assert len(content) > 1.15 * (tmp_path / files.CHECKPOINT).stat().st_size
    (tmp_path / files.CHECKPOINT).write_bytes(head + content)
    again = State.load(tmp_path, CPU)
    assert all(torch.equal(again.good[name], value) for name, value in state.good.items())
    assert all(torch.equal(again.model[name], value) for name, value in state.model.items())
