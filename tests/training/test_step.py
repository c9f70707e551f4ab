"""Every fast way to take a step against the plain one: the same arithmetic, and compiled once."""

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ssvi.core.reparameterisation import _LocalReparameterisation
from ssvi.data import Data, load
from ssvi.errors import UserError
from ssvi.machine.process import SWITCHES
from ssvi.methods.context import Batch
from ssvi.registry import KINDS
from ssvi.runs.options import options_of
from ssvi.runs.parents import parents_of
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.training.progress import Lines
from ssvi.training.selfcheck import self_check
from ssvi.training.step import WARM_UP_STEPS, Machine, Passes, choose_machine, told_cause
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
PLAIN = Machine(CPU, parallel_noise=False)
TINY = {"dataset": "digits", "model": "resnet8", "width": 0.5, "epochs": 2, "batch_size": 128, "density": 0.3,
        "delta_t": 3, "lr": 0.1, "sigma_init": 0.02}  # fmt: skip


def spec_of(method: str = "ssvi", **options) -> RunSpec:
    given = {**TINY, "method": method, **options}
    return make_spec({k: v for k, v in given.items() if k in options_of(method)})


def start(digits: Data, folder: Path, machine: Machine, family: Sequence[Path] = (), **options) -> Trainer:
    trainer = Trainer(spec_of(**options), digits, folder, Settings(machine), Lines(), family)
    trainer._open()
    trainer.method.begin_epoch(trainer.clock)
    return trainer


def trained(digits: Data, folder: Path, spec: RunSpec) -> Path:
    Trainer(spec, digits, folder, Settings(Machine(CPU)), Lines()).run()
    return folder


def take(trainer: Trainer, steps: int) -> dict[str, torch.Tensor]:
    """The network after some steps, and the sums of loss, hits and images over them."""
    for i in range(steps):
        trainer._step(torch.arange(128 * i, 128 * (i + 1)).to(trainer.device))
    return {**trainer.model.state_dict(), "totals": trainer.take_step.totals}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rtol: float, atol: float) -> None:
    for name in a:
        if a[name].dtype == torch.bool:
            assert torch.equal(a[name].cpu(), b[name].cpu()), name
        else:
            assert torch.allclose(a[name].double().cpu(), b[name].double().cpu(), rtol=rtol, atol=atol), name


def assert_near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Not number by number: Adam makes a step of the sign of a gradient that is almost 0, and of weights that score
    alike after some steps rounding keeps the one or the other."""
    for name in a:
        if a[name].dtype == torch.bool:
            assert float((a[name] != b[name]).double().mean()) <= 0.02, name
        else:
            away = float((a[name].double() - b[name].double()).norm())
            assert away <= 2e-2 * float(a[name].double().norm()) + 1e-5 * a[name].numel() ** 0.5, name


@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling needs a C++ compiler")
def test_compiled_steps_are_the_eager_ones_and_are_compiled_once(tmp_path, digits) -> None:
    """Eight steps with two subspace updates among them. Noise is held: a compiler may draw for a later layer first."""
    torch._dynamo.reset()
    found = []
    for compile in (False, True):
        torch._dynamo.utils.counters.clear()
        trainer = start(digits, tmp_path / str(compile), Machine(CPU, channels_last=True, compile=compile))
        with trainer.streams.noise.held():
            found.append(take(trainer, 8))
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert_near(*found)


@pytest.mark.parametrize("method", [name for name, kind in KINDS.items() if "epochs" in kind.uses])
def test_every_method_compiled_is_the_eager_one(tmp_path, request, monkeypatch, digits, method) -> None:
    """Through the compiler's own derivation of gradients, and with --all-trials the code that it generates, too."""
    backend = "inductor" if request.config.getoption("--all-trials") else "aot_eager"
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    found, starts = [], {}
    for compile in (False, True):
        folder = tmp_path / str(compile)
        if method == "pruned":
            starts = {"parent": "vi,epochs=1"}
            family = [trained(digits, folder / "parent", spec) for spec in parents_of(spec_of(method, **starts))]
        else:
            family = []
        trainer = start(digits, folder, Machine(CPU, compile=compile), family, method=method, lr=0.01, **starts)
        assert trainer._self_check is None or trainer._self_check["compile"]["agrees"]
        found.append(take(trainer, 2))  # before an update, where rounding may decide which weight is kept
    assert_near(*found)


def breaking(which: Callable[[torch.Size], bool], name: str, factor: float):
    """Local reparameterisation as a compiler leaves it that spoils a gradient of the layers of some shapes."""
    true = _LocalReparameterisation.backward

    def backward(ctx, grad):
        found = list(true(ctx, grad))
        if torch.compiler.is_compiling() and which(ctx.saved_tensors[1].shape):
            found[["x", "mean", "variance"].index(name)] *= factor
        return tuple(found)

    return staticmethod(backward)


def is_stem(shape: torch.Size) -> bool:
    return len(shape) == 4 and shape[1] == 1


def is_3x3(shape: torch.Size) -> bool:
    return shape[2:] == (3, 3)


@pytest.mark.parametrize(
    ("which", "name", "factor", "off", "precision"),
    [
        (lambda shape: True, "mean", 0.0, "1", "fp32"),
        (is_stem, "mean", 0.0, "1", "bf16"),  # one layer alone
        (is_3x3, "variance", 0.0, "1", "fp32"),  # all but the largest gradient of its kind
        (is_3x3, "variance", 0.0, "1", "bf16"),
        (is_stem, "mean", -1.0, "2", "bf16"),
        (lambda shape: len(shape) == 2, "mean", 0.5, "0.5", "bf16"),
    ],
)
def test_a_lost_gradient_is_noticed_before_the_first_step(
    tmp_path, monkeypatch, capsys, digits, which, name, factor, off, precision
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(_LocalReparameterisation, "backward", breaking(which, name, factor))
    torch._dynamo.reset()
    trainer = start(digits, tmp_path / "run", Machine(CPU, compile=True), precision=precision)
    said = capsys.readouterr().err
    assert said.count("WARNING: --compile is switched off: VariationalLayer") == 1
    kind = "rho" if name == "variance" else "mean"
    assert re.search(rf"\) {kind} of [\w.]+ is {off} from where it should be \(allowed: 0\.\d+\)", said), said
    assert not trainer.take_step.machine.compile
    assert not json.loads((tmp_path / "run" / "spec.json").read_text())["provenance"]["switches"]["compile"]


def test_a_training_whose_compiler_is_wrong_is_the_plain_one(tmp_path, monkeypatch, digits) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(_LocalReparameterisation, "backward", breaking(lambda shape: True, "mean", 0.0))
    torch._dynamo.reset()
    compiled = Settings(Machine(CPU, compile=True))
    summary = Trainer(spec_of(), digits, tmp_path / "run", compiled, Lines()).run()
    assert not summary["self_check"]["compile"]["agrees"]
    assert not summary["sessions"][-1]["switches"]["compile"]
    trained(digits, tmp_path / "plain", spec_of())
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "plain"))
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", [{"density": 0.01, "width": 0.25}, {"method": "dense", "batch_size": 2}])
def test_right_passes_are_believed_where_gradients_are_mostly_rounding(
    tmp_path, monkeypatch, digits, precision, options
) -> None:
    """Channels without weights, whose constants BatchNorm blows up; batches that BatchNorm can hardly normalise."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    found = start(digits, tmp_path, Machine(CPU, compile=True), precision=precision, **options)._self_check
    assert found["compile"]["agrees"], found["compile"]["said"]
    assert 0 < found["judged"] <= found["tensors"]


def test_nothing_is_checked_where_no_step_is_left(tmp_path, monkeypatch, digits) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    trained(digits, tmp_path / "parent", parents_of(spec_of("pruned", parent="vi,epochs=1"))[0])
    monkeypatch.setattr(torch, "compile", lambda passes, **_: never)
    spec = spec_of("pruned", parent="vi,epochs=1", epochs=0)
    compiled = Settings(Machine(CPU, compile=True))
    summary = Trainer(spec, digits, tmp_path / "run", compiled, Lines(), [tmp_path / "parent"]).run()
    assert (summary["status"], summary["self_check"]) == ("complete", None)


def test_a_compiler_that_fails_is_switched_off(tmp_path, monkeypatch, capsys, digits) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction: vfoo\nand forty lines more")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    torch._dynamo.reset()
    trainer = start(digits, tmp_path, Machine(CPU, compile=True))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "WARNING: --compile is switched off: it failed with BackendCompilerFailed" in said
    assert not trainer.take_step.machine.compile


def test_a_capture_that_fails_is_switched_off_and_costs_no_step(tmp_path, monkeypatch, capsys, digits) -> None:
    """By a CUDA of paper, whose graphs have no memory: the training is the plain one, random numbers and all."""
    plain = start(digits, tmp_path / "plain", Machine(CPU))
    trainer = start(digits, tmp_path / "captured", Machine(CPU))
    stepper, asked = trainer.take_step, []

    @contextmanager
    def graph(_: object) -> Iterator[None]:
        asked.append(True)
        yield
        raise torch.OutOfMemoryError("CUDA out of memory.\nand more")

    def step(index: torch.Tensor, passes: Passes) -> Batch:
        # what a capture records is not carried out, but random numbers are taken
        if asked == [True]:
            asked.append(False)
            stepper.streams.noise.normal(torch.empty(3))
            return stepper.batch(index)
        return whole(index, passes)

    whole = stepper._step
    monkeypatch.setattr(stepper, "_step", step)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(register_generator_state=lambda s: None))
    stepper.machine = dataclasses.replace(stepper.machine, capture=True)
    stepper._warm = WARM_UP_STEPS
    capsys.readouterr()
    assert_same(take(plain, 4), take(trainer, 4), rtol=0, atol=0)
    assert (
        capsys.readouterr().err.count("WARNING: --capture is switched off: it failed with OutOfMemoryError: CUDA") == 1
    )
    assert asked == [True, False]
    trainer._note_switches()
    assert trainer.journal.sessions[-1]["switches"]["capture"] is False


def test_the_self_check_leaves_everything_as_it_was(tmp_path, monkeypatch, digits) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    trainer = start(digits, tmp_path, Machine(CPU, compile=True), method="sbp")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    streams = trainer.streams.state_dict()
    assert self_check(trainer.take_step)["compile"]["agrees"]
    assert_same(before, trainer.model.state_dict(), rtol=0, atol=0)
    assert all(torch.equal(value, trainer.streams.state_dict()[name]) for name, value in streams.items())
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize("method", ["dense", "rigl", "ssvi"])
def test_memory_order_does_not_matter(tmp_path, digits, method) -> None:
    """Where the noise is not laid out with the activations; with a subspace update where rounding cannot turn it."""
    options = {"method": method, "lr": 0.001} | ({"sampling": "weight"} if method == "ssvi" else {})
    steps = 2 if method == "ssvi" else 4
    a, b = (take(start(digits, tmp_path / str(cl), Machine(CPU, channels_last=cl), **options), steps) for cl in (0, 1))
    for name in a:
        x, y = a[name].double(), b[name].double()
        # rounding may flip a ReLU; misplaced gradients are found in test_flat, misplaced weights here
        assert float((x - y).norm()) <= 1e-2 * float(x.norm()) + 1e-5 * x.numel() ** 0.5, name


def test_layers_in_either_memory_order_compute_the_same_distribution(tmp_path, digits) -> None:
    """With local reparameterisation the draws are laid out with the outputs: same law, other numbers."""
    losses = []
    for channels_last in (False, True):
        trainer = start(digits, tmp_path / str(channels_last), Machine(CPU, channels_last=channels_last))
        batch = trainer.take_step.batch(torch.arange(128))
        with torch.no_grad():
            trainer.method.before_step(trainer.clock)
            losses.append(torch.stack([trainer.take_step.loss(batch)[0] for _ in range(200)]))
    a, b = losses
    assert abs(float(a.mean() - b.mean())) < 5 * float((a.var() + b.var()).div(200).sqrt())
    assert float(a.std()) > 0


def test_half_precision_follows_the_full_one(tmp_path, digits) -> None:
    full = take(start(digits, tmp_path / "full", Machine(CPU)), 6)
    other = take(start(digits, tmp_path / "other", Machine(CPU), precision="bf16"), 6)
    loss = [float(x["totals"][0] / x["totals"][2]) for x in (full, other)]
    assert loss[1] == pytest.approx(loss[0], rel=0.02)
    assert other["subspace_rho"].dtype == torch.float32


def test_short_trainings_are_not_compiled_by_themselves(monkeypatch) -> None:
    """Compiling costs a minute; asked for, it is done however few the steps."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("ssvi.training.step.sysconfig.get_path", lambda name: "")
    monkeypatch.setattr("ssvi.training.step.Path.exists", lambda path: True)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    cuda = torch.device("cuda")
    assert choose_machine(cuda, steps=78_200).compile
    assert not choose_machine(cuda, steps=240).compile
    assert choose_machine(cuda, {"compile": True}, steps=240).compile
    assert choose_machine(cuda, steps=240).capture


def test_the_telling_line_of_a_compilers_error_is_told() -> None:
    """As PyTorch's compile workers and Triton say it."""
    said = """SubprocException: An exception occurred in a subprocess:

Name=triton_red_fused_7
Traceback (most recent call last):
  File "worker.py", line 3, in work
    raise OutOfResources(required, limit)
triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 300000, Hardware limit: 232448

Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"""
    told = told_cause(RuntimeError(said))
    assert told.startswith("RuntimeError: triton.runtime.errors.OutOfResources: out of resource: shared memory")
    assert told_cause(RuntimeError("no such instruction\nand more")) == "RuntimeError: no such instruction"
    assert told_cause(RuntimeError()) == "RuntimeError: "


def test_what_a_machine_cannot_do_is_one_line(monkeypatch) -> None:
    with pytest.raises(UserError, match="--capture=on: the device is cpu, but only CUDA has graphs"):
        choose_machine(CPU, {"capture": True})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"--compile=on: no C or C\+\+ compiler is found"):
        choose_machine(CPU, {"compile": True})
    assert not choose_machine(CPU).compile


def test_every_switch_turns_its_part_off() -> None:
    for name in SWITCHES:
        assert not getattr(choose_machine(CPU, {name: False}), name)
    assert set(choose_machine(CPU).settings()) == set(SWITCHES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compile", [False, True])
def test_captured_steps_are_the_eager_ones(tmp_path, compile) -> None:
    """On CUDA, without noise of the weights' (RigL), where eager and captured steps must agree to rounding."""
    device = torch.device("cuda")
    options = {"method": "rigl", "precision": "fp32", "lr": 0.001}
    data = load(spec_of(**options), tmp_path / "data", device)
    found = []
    for machine in (Machine(device), Machine(device, capture=True, compile=compile, channels_last=True)):
        trainer = start(data, tmp_path / str(machine.capture), machine, **options)
        trainer.take_step.set_lr(1.0)
        found.append(take(trainer, 8))
    assert_same(found[0], found[1], rtol=1e-3, atol=1e-4)
