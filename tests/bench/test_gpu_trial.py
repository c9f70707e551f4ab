"""The trial on a GPU, on the CPU with next to nothing: what it finds, and that faults of any kind are told as such."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from images import make_image_folder
from places import ROOT

from benchmarks.gpu import __main__ as trial
from benchmarks.gpu import checks, commands, gradients, job, plan, trainings
from benchmarks.gpu.draws import draws
from benchmarks.gpu.given import SKIPPED, Fault, Given
from benchmarks.gpu.record import record
from benchmarks.gpu.running import Outcome, Runner, read_found
from ssvi.cli import main
from ssvi.core.noise import NormalSource
from ssvi.doctor import agreement, passes, precision
from ssvi.registry import KINDS


@pytest.fixture
def given(tmp_path) -> Given:
    return Given("cpu", True, tmp_path, 100.0, tmp_path / "found.jsonl", "aot_eager")


# ---------------------------------------------------------------- the whole, with a method that is broken

# RigL whose logits are others where the passes are compiled.
BROKEN = """
import torch
from ssvi.methods.rigl import RigL

class Broken(RigL):
    def build(self, network):
        model = super().build(network)
        forward = model.forward
        model.forward = lambda x: forward(x) * (2.0 if torch.compiler.is_compiling() else 1.0)
        return model
"""
ENTERED = """
import dataclasses
from ssvi import registry
registry.KINDS["rigl"] = dataclasses.replace(registry.KINDS["rigl"], code="broken:Broken")
"""


@pytest.mark.fault("a method that is wrong only when compiled, in a trial of a GPU", quick=0)
def test_a_method_that_is_wrong_only_when_compiled_fails_and_the_rest_goes_on(tmp_path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "sitecustomize.py").write_text(ENTERED)
    only = ["agreement.rigl", "warm.ssvi", "training.rigl"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--at-once", "2"]
    command += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "gpu.json"), "--only", *only]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1, done.stderr
    written = json.loads((tmp_path / "out/record.json").read_text())
    outcomes = {row["name"]: row["outcome"] for row in written["jobs"]}
    assert outcomes == {
        **dict.fromkeys(("probe", "digits", "training.rigl"), "passed"),
        "agreement.rigl": "failed",
        "warm.ssvi": "skipped",
    }, done.stdout
    (reason,) = (row["reason"] for row in written["jobs"] if row["name"] == "agreement.rigl")
    # by the self-check, which is why the losses agree
    assert reason == "compiled: compile was switched off on the way"
    assert f"agreement.rigl: failed: {reason}" in done.stdout
    assert written["hardware"]
    assert written["torch"] == torch.__version__
    assert written["when"]
    assert written["environment"]["gpu"] is None
    rows = [line["history"] for row in written["jobs"] for line in row["found"] if "history" in line]
    assert [row["epoch"] for row in rows] == [1, 2]
    # nothing that a CPU found is a record of a GPU
    assert not (tmp_path / "gpu.json").exists()
    assert "not written: only a whole trial on a GPU" in done.stdout


def test_without_a_gpu_the_trial_of_one_says_so_and_plays_nothing(tmp_path, capfd) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert trial.main(["--out", str(tmp_path), "--json", str(tmp_path / "gpu.json")]) == 1
    assert "torch sees no GPU; without one, --device cpu --tiny plays the trial through" in capfd.readouterr().out
    jobs = json.loads((tmp_path / "record.json").read_text())["jobs"]
    assert {row["name"] for row in jobs} == set(plan.stage("first"))
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--device=cpu"], "--device cpu: full sizes take hours there; give --tiny"),
        (["--seconds=0"], "--seconds is 0, but must be > 0"),
        (["--seconds=nan"], "--seconds is nan, but must be > 0"),
        (["--at-once=-1"], "--at-once is -1, but must be >= 0"),
        (["--images=no/such"], "--images no/such: no such file or folder"),
        (["--only", "gradientz"], "job 'gradientz' is unknown, did you mean 'gradients'"),
    ],
)
def test_mistakes_are_one_line(arguments, line) -> None:
    with pytest.raises(SystemExit) as caught:
        trial.main(arguments)
    assert line in caught.value.code
    assert "\n" not in caught.value.code


def test_every_method_is_tried_as_a_command_and_every_one_with_steps_in_all_ways() -> None:
    assert {name.removeprefix("smoke.") for name in plan.JOBS if name.startswith("smoke.")} >= set(KINDS)
    without_steps = {"ensemble", "pruned"}
    tried = {name.split(".")[1] for name in plan.JOBS if name.startswith("agreement.")}
    assert tried == set(KINDS) - without_steps
    stages = ("first", "beside", "checks", "figures", "trainings")
    assert [name for stage in stages for name in plan.stage(stage)] == list(plan.JOBS)


def test_only_what_a_whole_trial_on_a_gpu_found_is_its_record(tmp_path) -> None:
    found = [{"hardware": "G", "torch": "9", "when": "2001"}]
    for i, (device, tiny, only, outcome, counts) in enumerate(
        [
            ("cuda", False, ["*"], "passed", True),
            ("cuda", False, ["*"], "failed", False),
            ("cuda", True, ["*"], "passed", False),
            ("cuda", False, ["smoke.*"], "passed", False),
            ("cpu", True, ["*"], "passed", False),
        ]
    ):
        out, target = tmp_path / str(i), tmp_path / f"{i}.json"
        options = {"device": device, "tiny": tiny, "only": only, "out": out, "json": target, "images": None}
        played = trial.Trial(Namespace(**options, seconds=60.0, at_once=1, backend="aot_eager"), tmp_path / "room")
        played._ended(Outcome("probe", outcome, found=found))
        assert (out / "record.json").exists()
        assert not target.exists()  # a trial that is stopped leaves the record that is there
        assert played.publish() == counts
        assert target.exists() == counts


# ---------------------------------------------------------------- processes

SAYS = "open(found, 'a').write('{\"x\": 1}\\n{\"half'); import time; "


def play(folder: Path, programs: dict[str, str], limit: float = 60.0, until: float = 60.0, at_once: int = 2):
    """The outcomes of jobs that run Python programs, which know the path `found`."""
    outcomes: dict[str, Outcome] = {}
    runner = Runner(
        lambda name, limit, found: [sys.executable, "-c", f"found = {str(found)!r}; {programs[name]}"],
        folder,
        lambda outcome: outcomes.update({outcome.name: outcome}),
        dict(os.environ),
        folder,
    )
    runner.play(dict.fromkeys(programs, limit), time.monotonic() + until, at_once)
    return outcomes


def test_each_way_in_which_a_job_can_end_is_told(tmp_path) -> None:
    outcomes = play(
        tmp_path,
        {
            "good": SAYS + "print('done')",
            "bad": "print('before'); raise ValueError('nonsense')",
            "fault": "open(found, 'a').write('{\"fault\": \"it is so\"}\\n'); raise SystemExit(1)",
            "skipped": f"open(found, 'a').write('{{\"skipped\": \"no GPU\"}}\\n'); raise SystemExit({SKIPPED})",
            "killed": "import os; os.kill(os.getpid(), 9)",
        },
    )
    assert {name: outcome.outcome for name, outcome in outcomes.items()} == {
        **{"good": "passed", "bad": "failed", "fault": "failed", "skipped": "skipped", "killed": "failed"}
    }
    assert outcomes["good"].found == [{"x": 1}]  # the line that it was killed in is left out
    assert outcomes["bad"].reason == "exit code 1: ValueError: nonsense"
    assert outcomes["bad"].log[0] == "before"
    assert outcomes["fault"].reason == "it is so"
    assert outcomes["skipped"].reason == "no GPU"
    assert outcomes["killed"].reason.startswith("exit code -9")
    assert {name for name, outcome in outcomes.items() if outcome.good} == {"good", "skipped"}


def test_a_job_beyond_its_limit_is_ended_with_all_that_it_started(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.running.LEAST", 0.0)
    child = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); "
    outcomes = play(tmp_path, {"slow": child + SAYS + "time.sleep(600)", "next": "pass"}, limit=3.0, at_once=1)
    assert outcomes["slow"].outcome == "timed out"
    assert outcomes["slow"].reason == "it was ended after 3 s"
    assert outcomes["slow"].found == [{"x": 1}]
    assert outcomes["next"].outcome == "passed"
    state = Path("/proc", outcomes["slow"].log[0], "stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_what_no_time_is_left_for_is_not_started_and_has_not_passed(tmp_path) -> None:
    outcomes = play(tmp_path, {"late": "open('started', 'w')"}, until=1.0)
    assert outcomes["late"].outcome == "not started"
    assert not outcomes["late"].good
    assert not (tmp_path / "started").exists()


def test_a_job_tells_its_fault_and_numbers_that_json_does_not_have(given, monkeypatch) -> None:
    def work(given: Given, text: str) -> None:
        given.say(value=[float("nan"), float("-inf"), 1.0], text=text)
        raise Fault("it is so")

    monkeypatch.setitem(plan.JOBS, "probe", plan.Job(work, "first"))
    options = ["--device=cpu", f"--room={given.room}", "--limit=9", f"--found={given.found}", "--backend=aot_eager"]
    assert job.main(["probe", *options, '--more={"text": "t"}']) == 1
    assert read_found(given.found) == [{"value": ["nan", "-inf", 1.0], "text": "t"}, {"fault": "it is so"}]
    json.dumps(record([Outcome("probe", "failed", found=read_found(given.found))], "cpu", True, True, 1.0))


# ---------------------------------------------------------------- what is checked


def test_gradients_that_the_compiler_drops_are_found(given, monkeypatch) -> None:
    """As a version of torch dropped that of what a custom Function returns, if it was changed in place."""
    true = passes.local_reparameterisation

    def dropped(x, mean, *rest):
        return true(x, mean.detach() + 0 * mean if torch.compiler.is_compiling() else mean, *rest)

    gradients.gradients(given)
    monkeypatch.setattr(passes, "local_reparameterisation", dropped)
    with pytest.raises(
        Fault, match="6 of the gradients are not the eager ones: linear, fp32, compiled: mean is off by 1 "
    ):
        gradients.gradients(given)


def test_draws_that_repeat_or_are_not_standard_normal_are_found(given, monkeypatch) -> None:
    draws(given)
    monkeypatch.setattr(NormalSource, "normal", lambda source, like: torch.ones_like(like))
    with pytest.raises(
        Fault, match=r"eager: draws are not standard normal.*eager: draws of steps in turn are correlated"
    ):
        draws(given)


def walked(**changed) -> agreement.Walk:
    notes = {"graphs": 1, "breaks": 0, "finite": True, "captured": True, "switches": {"compile": True, "capture": True}}
    moved = {"a": torch.ones(3), "b": torch.full((2,), 1e-9)}
    steps = agreement.BEFORE + 1 + agreement.AFTER
    return agreement.Walk(**{"losses": [2.0] * steps, "moved": moved, "notes": notes, **changed})


def test_what_a_walk_may_differ_in_and_what_not() -> None:
    notes, eager = walked().notes, walked()
    small = walked(
        losses=[2.0005] * agreement.BEFORE + [2.05] * 5, moved={"a": torch.ones(3) * 1.01, "b": torch.zeros(2)}
    )
    assert agreement.faults("both", small, eager, "fp32") == []
    for text, changed in {
        "a parameter is not finite": {"notes": notes | {"finite": False}},
        "losses are off by 0.01, after": {"losses": [2.01] * 14},
        "losses are off by 0, after the update by 1 nats": {"losses": [2.0] * agreement.BEFORE + [3.0] * 5},
        "losses are off by nan": {"losses": [float("nan")] * 14},
        "1 tensors went another way, a by 1 of its own": {"moved": {**eager.moved, "a": torch.zeros(3)}},
        "2 graph breaks": {"notes": notes | {"breaks": 2}},
        "nothing was compiled": {"notes": notes | {"graphs": 0}},
        "nothing was captured": {"notes": notes | {"captured": False}},
        "compile was switched off on the way": {"notes": notes | {"switches": {"compile": False, "capture": True}}},
    }.items():
        (fault,) = agreement.faults("both", walked(**changed), eager, "fp32")
        assert text in fault


def test_the_bound_on_fp32_lies_between_fp32_and_tf32(monkeypatch) -> None:
    fine = precision.errors("cpu")
    assert max(fine.values()) < precision.FP32 / 10
    convolution, product = torch.nn.functional.conv2d, torch.Tensor.__matmul__

    def rounded(t: torch.Tensor) -> torch.Tensor:
        """To the 10 bits of a mantissa that TF32 has."""
        return t if t.dtype != torch.float32 else t + ((t * 8193) - (t * 8193 - t) - t).detach()

    monkeypatch.setattr(
        precision.functional, "conv2d", lambda x, w, padding: convolution(rounded(x), rounded(w), padding=padding)
    )
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(rounded(a), rounded(b)))
    assert min(precision.errors("cpu").values()) > precision.FP32 * 3


def test_fp32_is_looked_at_in_the_processes_of_both_commands(given, monkeypatch) -> None:
    checks.precision(given)
    (said,) = read_found(given.found)
    assert set(said["relative_errors"]) == {"train", "evaluate"}
    monkeypatch.setattr(checks, "errors", lambda device: {"convolution": 3e-4})
    with pytest.raises(Fault, match=r"fp32 is not fp32 .*: train: convolution 0.0003; evaluate: convolution 0.0003"):
        checks.precision(Given("cpu", True, given.room / "anew", 100.0, given.found, "aot_eager"))


# ---------------------------------------------------------------- trainings side by side


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_images_come_from_a_folder_or_an_archive(given, tmp_path, monkeypatch, capsys, packed, depth) -> None:
    """`ssvi data` in this process, which has torch in memory."""

    def here(words: list[str]) -> str:
        if words[0] == "tar":
            return commands.run(words)
        capsys.readouterr()
        main(words[words.index("data") :])
        return capsys.readouterr().out

    monkeypatch.setattr(trainings, "run", here)
    source = tmp_path / "source"
    make_image_folder(source.joinpath(*"ab"[:depth]))
    if packed:
        subprocess.run(["tar", "-czf", tmp_path / "source.tar.gz", "-C", source, "."], check=True)
        source = tmp_path / "source.tar.gz"
    trainings.images(given, str(source))
    (said,) = read_found(given.found)
    assert said["data"]["train_images"] == 36
    assert said["dataset"].startswith("folder:/")


def test_images_without_the_two_parts_are_a_fault(given, tmp_path) -> None:
    (tmp_path / "source/train").mkdir(parents=True)
    with pytest.raises(Fault, match="has no folders train/ and test/"):
        trainings.images(given, str(tmp_path / "source"))


def test_as_many_epochs_as_fit_by_what_was_measured() -> None:
    fit = trainings.epochs_that_fit
    measured = {"ssvi": 4.0, "dense": 2.0}
    # 352 steps of 8 ms and a tenth more, and 0.3 s each beside them
    assert fit(measured, 50_000, 90 + 4 * 10.01 - 0.01) == 10
    assert fit({"ssvi": 40.0, "dense": 20.0}, 50_000, 200.0) < fit(measured, 50_000, 200.0)
    assert fit({}, 50_000, 200.0) < fit(measured, 50_000, 200.0)
    assert fit(measured, 50_000, 1.0) == 2
    assert fit(measured, 100, 1e9) == trainings.MOST_EPOCHS


def test_trainings_are_planned_by_the_figures_and_not_started_without_images(tmp_path, monkeypatch) -> None:
    options = {"device": "cuda", "tiny": False, "only": ["*"], "out": tmp_path, "json": None, "images": None}
    played = trial.Trial(Namespace(**options, seconds=100.0 + 1e4, at_once=1, backend="inductor"), tmp_path / "room")
    rows = [
        {"name": f"gpu.ms.{name}.both", "value": ms, "unit": "ms"} for name, ms in (("ssvi", 400.0), ("dense", 200.0))
    ]
    played.outcomes = [
        Outcome("digits", "passed", found=[{"data": {"train_images": 50_000}}]),
        Outcome("figures.ways", "passed", found=[{"figures": [row]} for row in rows]),
    ]
    begun: list[str] = []
    monkeypatch.setattr(played.runner, "play", lambda jobs, until, at_once: begun.extend(jobs))
    played._train()
    assert set(begun) == {f"training.{name}" for name in trainings.RUNS}
    # 352 steps of 0.8 s and a tenth more, which leaves a minute over
    assert all(played.more[name] == {"dataset": "digits", "epochs": 32} for name in begun)
    begun.clear()
    played.given.images = Path("broken.tar")
    played._train()
    assert not begun
    assert [o.reason for o in played.outcomes[2:]] == ["the images are not there"] * len(trainings.RUNS)


def test_runs_side_by_side_differ_in_nothing_but_their_method() -> None:
    specs = {name: trainings.spec_of(name, "digits", 7, False) for name in trainings.RUNS}
    assert {(s.model, s.dataset, s.epochs, s.batch_size, s.seed) for s in specs.values()} == {
        ("resnet18", "digits", 7, 128, 0)
    }
    assert specs["ssvi"].density == specs["rigl"].density == 0.1


@pytest.mark.fault("a training that goes on otherwise on a GPU", quick=0)
def test_a_training_that_goes_on_otherwise_is_found(given, monkeypatch) -> None:
    """Undisturbed, stopped, undisturbed again: the one that was stopped ends with other bytes."""
    digests, true, seen = iter(["a", "b", "a"]), commands.results, list[str]()

    def results(folder: Path) -> str:
        seen.append(true(folder))
        return next(digests)

    monkeypatch.setattr(commands, "results", results)
    with pytest.raises(Fault, match="ended with other bytes than two undisturbed ones"):
        commands.resume(given)
    assert read_found(given.found)[-1]["repeatable"]
    # all of them end with the same bytes in truth, but for their seconds
    assert len(seen) == 3
    assert len(set(seen)) == 1
