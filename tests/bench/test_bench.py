"""The benchmark's bookkeeping; its figures are measured by hand, never by a test."""

import json

import pytest
import torch

from ssvi.bench import SUITES, TARGETS, Figure, cuda, record, table
from ssvi.bench.contestants import in_turn, ratios
from ssvi.bench.record import Target
from ssvi.bench.worker import Worker
from ssvi.bench.worker import in_turn as workers_in_turn
from ssvi.cli import main


def test_a_figure_is_quoted_by_its_median_and_judged_by_its_target() -> None:
    figure = Figure("cpu.lrt_over_plain", "", (2.3, 1.9, 2.1), "somewhere")
    (row,) = record([figure])["figures"]
    assert (row["value"], row["minimum"], row["maximum"], row["repeats"]) == (2.1, 1.9, 2.3, 3)
    assert row["target"]["met"] == "yes"
    assert row["versions"]["torch"]
    assert row["hardware"]
    lines = table([figure, Figure("cpu.seconds.plain", "s", (1.0,))]).splitlines()
    assert lines[1].split() == ["cpu.lrt_over_plain", "2.1", "1.9", "2.3", "3", "<=", "2.2", "yes", "somewhere"]
    assert "yes" not in lines[2]


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(2.2, 1.95), 1.95, "stretch"),
        (Target(2.2, 1.95), 2.2, "yes"),
        (Target(2.2, 1.95), 2.21, "no"),
        (Target(1.3, 2.0, more=True), 1.29, "no"),
        (Target(1.3, 2.0, more=True), 1.3, "yes"),
        (Target(1.3, 2.0, more=True), 2.1, "stretch"),
        (Target(None, 1.7), 1.8, ""),
        (Target(0.0, None), 0.0, "yes"),
    ],
)
def test_targets(target, value, met) -> None:
    assert target.met(value) == met


def test_on_a_gpu_updates_may_take_a_larger_share() -> None:
    cpu, gpu = (Figure("topology.share", "", (0.03,), f"ResNet-18, batch 1, {where}") for where in ("cpu", "cuda"))
    assert cpu.target() == TARGETS["topology.share"]
    assert cpu.target().met(0.03) == "no"
    assert gpu.target().met(0.03) == "yes"


def test_contestants_take_turns_and_ratios_are_taken_round_by_round() -> None:
    order: list[str] = []
    seconds = in_turn({name: (lambda name=name: order.append(name)) for name in "ab"}, repeats=2, warm_up=1)
    assert "".join(order) == "ababab"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}
    assert ratios({"a": [2.0, 6.0], "b": [1.0, 2.0]}, "a", "b") == (2.0, 3.0)


def test_a_worker_steps_in_a_process_of_its_own() -> None:
    spec = {"method": "ssvi", "width": 0.05, "batch_size": 4}
    taken = workers_in_turn({"train": Worker(spec), "predict": Worker(spec, samples=2)}, repeats=2, warm_up=1)
    for each in taken.values():
        assert len(each) == 2
        assert all(t["seconds"] > 0 and t["bytes"] > 0 for t in each)


def test_a_contestant_that_fails_is_an_error() -> None:
    worker = Worker({"method": "nosuch"})
    with pytest.raises(RuntimeError, match="a contestant ended with exit code 1"):
        worker.step()


@pytest.mark.parametrize("part", cuda.PARTS)
def test_what_a_gpu_is_asked_is_tried_on_the_cpu_and_never_called_a_gpus(part, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the packed ones, processes of their own
    figures = list(cuda.PARTS[part](cuda.Place(torch.device("cpu"), cuda.TINY), 2, print))
    assert figures
    for figure in figures:
        assert figure.name.startswith("try.")
        assert "cpu" in figure.note
        assert all(value > 0 for value in figure.values)
    if part.startswith("ways."):
        assert {f.name for f in figures} == {
            f"try.{what}.{part.removeprefix('ways.')}.eager" for what in ("ms", "bytes")
        }


def test_only_the_full_size_on_a_gpu_is_a_figure_of_it() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    places = {(gpu, cuda.FULL): "gpu.x", (gpu, cuda.TINY): "try.x", (cpu, cuda.FULL): "try.x"}
    for (device, size), name in places.items():
        assert cuda.Place(device, size).figure("x", "", (1.0,), "note").name == name


def test_by_command(tmp_path, capsys) -> None:
    main(["bench", "startup", "--repeats=1", f"--json={tmp_path / 'b.json'}"])
    assert capsys.readouterr().out.splitlines()[1].startswith("startup.seconds")
    (row,) = json.loads((tmp_path / "b.json").read_text())["figures"]
    assert row["name"] == "startup.seconds"
    assert row["value"] > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["bench", "stepz"], "suite 'stepz' is unknown"), (["bench", "--repeats=0"], "--repeats is 0, but must be >= 1")],
)
def test_mistakes_are_one_line(arguments, line) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert line in caught.value.code
    assert "\n" not in caught.value.code
    assert "startup" in SUITES
