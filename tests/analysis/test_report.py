"""The report: one page that names what is not there, escapes what it reads, and needs no network."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from fake_runs import tie, write_run
from scipy import stats as scipy_stats

from ssvi.analysis.collect import RunFolders
from ssvi.analysis.figures.sigma import start_of_sigma
from ssvi.analysis.records import run_folder
from ssvi.analysis.report import write_report
from ssvi.analysis.report.beliefs import Speed, believe
from ssvi.analysis.report.gather import Curves, curves_of, rounded, thin
from ssvi.analysis.report.make import make_all
from ssvi.analysis.report.outputs import LARGEST_DOWNLOAD
from ssvi.analysis.report.summary import duration
from ssvi.analysis.tables import TABLES, Table, TableMaker, to_html
from ssvi.cli import main
from ssvi.machine.disk import write_text
from ssvi.runs import files
from ssvi.runs.config import resolve, study_experiments
from ssvi.runs.parents import parents_of
from ssvi.runs.records import to_jsonl
from ssvi.runs.spec import RunSpec

# The oddest that a data set's path may hold; files and logs may hold anything.
ODD = "Bild-Ordner (ä) [1]! #%20"
HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;'"""
CONFIG: dict[str, Any] = {
    "study": "tiny",
    "results": "results",
    "reports": "reports",
    "data_root": "data",
    "evaluation": {"samples": 5, "bins": 15},
    "studies": {
        "tiny": {
            "train": {"dataset": "cifar10", "model": "resnet18", "epochs": 5},
            "experiments": {
                "vi": {"method": "vi", "seed": [0, 1, 2]},
                "compressed": {"method": "ssvi", "density": [0.1, 0.05], "seed": [0, 1, 2]},
                "twins": {"method": "ssvi", "density": 0.1, "criterion": ["snr", "snr_abs"], "seed": [0, 1, 2]},
                "never": {"method": "rigl", "density": 0.5},
            },
            "tables": {"table1": ["vi", "compressed"], "summary": ["never", "vi"]},
            "figures": {"curves": ["vi", "compressed"], "figure2_left": ["never"]},
        }
    },
}


class Page(HTMLParser):
    """The tags of a page, its ids, its scripts and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script" and data.strip():
            self.scripts.append((attributes, data))
        elif tag != "style":
            self.words.append(data)

    def data(self, name: str) -> Any:
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)


def everything(config: dict[str, Any] = CONFIG) -> tuple[dict[str, Any], dict[str, dict[str, RunSpec]]]:
    return resolve(config, config["study"]), study_experiments(config, config["study"])


def a_study(root: Path, *, skip: tuple[str, ...] = ("never",), config: dict[str, Any] = CONFIG) -> None:
    """Runs of all experiments but those to skip."""
    for name, specs in everything(config)[1].items():
        for spec in specs.values():
            if name not in skip:
                write_run(root / "results", spec)


def folder_of(root: Path, config: dict[str, Any] = CONFIG) -> Path:
    return root / "reports" / config["study"]


def source(results: Path) -> RunFolders:
    return RunFolders(results, partial=True)


def report(root: Path, config: dict[str, Any] = CONFIG, **more: Any) -> Page:
    return Page(
        write_report(source(root / "results"), folder_of(root, config), config["study"], *everything(config), **more)
    )


def write_outputs(root: Path, study: str = "tiny", words: str = "A caption") -> None:
    """Files of a table and a figure, as the workflow leaves them."""
    table, figure = (root / "reports" / study / name for name in ("tables/table1", "figures/curves"))
    frame = pd.DataFrame({"a long heading": ["98.43"]})
    page = to_html(Table(frame, frame, "What it shows", ("A note.",)))
    for suffix, text in {"html": page, "csv": "a\n1\n", "tex": r"\begin{table}"}.items():
        write_text(table.with_name(f"table1.{suffix}"), text)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="100"><rect width="600" height="100"/></svg>'
    for suffix, text in {"svg": svg, "pdf": "%PDF", "csv": "a\n1\n", "md": f"{words}\n\n- A note: {words}\n"}.items():
        write_text(figure.with_name(f"curves.{suffix}"), text)


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A study with a diverged, a failed, a damaged and some missing runs, two outputs there and two not."""
    root = tmp_path_factory.mktemp("partial")
    a_study(root)
    write_outputs(root)
    specs = everything()[1]["compressed"]
    diverged, failed, damaged = list(specs)[:3]
    write_run(root / "results", specs[diverged], diverged="the loss is nan")
    shutil.rmtree(run_folder(root / "results", failed))
    write_text(root / "results/logs/train" / f"{failed}.log", "step 3\nRuntimeError: CUDA out of memory\n")
    write_text(run_folder(root / "results", damaged) / files.METRICS, "{half of")
    return report(root, problems={("figures", "figure2_left"): "needs a run <that> did not diverge"})


def test_partial_study_names_every_run_without_a_result_and_goes_on(partial: Page) -> None:
    assert "13 in all: 9 complete, 1 diverged, 1 refused, 1 failed, 0 in training, 1 missing." in partial.text
    assert "the loss is nan in epoch 2" in partial.text
    assert "RuntimeError: CUDA out of memory" in partial.text
    assert "not readable as JSON" in partial.text
    assert re.search(r"rigl/density=0.5/lr=0.01/epochs=5/seed=0 ?: not begun", partial.text)
    assert "Not here: needs a run <that> did not diverge" in partial.text
    assert "tables/summary.html has not been made. Of its 4 runs, these are not complete: 1 missing." in partial.text
    data = partial.data("data")
    states = [data["status"]["values"][i] for i in data["status"]["of"]]
    assert sorted(set(states)) == ["complete", "diverged", "failed", "missing", "refused"]
    assert all(bool(cause) == (state != "complete") for cause, state in zip(data["cause"], states, strict=True))


def test_summary_comes_first_and_has_the_headline_numbers(partial: Page) -> None:
    start = partial.text.index("Nothing here was trained for the paper's 200 epochs.")
    assert start < partial.text.index("13 in all")
    assert re.search(r"dense BNN 94\.\d\d \[\d\d\.\d\d, \d\d\.\d\d\] 3", partial.text)
    assert "SSVI at 95 % sparsity" in partial.text
    assert "cpu, A Processor, 2 CPUs, 2 threads a run (10 runs)" in partial.text
    assert "2025-01-02 03:04:05 UTC" in partial.text
    headings = [attributes["id"] for tag, attributes in partial.tags if tag == "section" and "id" in attributes]
    order = ["summary", "tables", "table-table1", "figures", "figure-curves", "runs", "versions", "believe"]
    assert [heading for heading in headings if heading in order] == order


def test_parents_are_among_the_runs_and_their_time_counts_once(tmp_path: Path) -> None:
    """Two members of 100 s each and the ensemble of them, whose 202 s hold theirs: 202 s of training."""
    grid = {"method": "ensemble", "parent": "static", "members": 2, "seed": 0}
    study = {"train": {"model": "resnet8"}, "experiments": {"e": grid}, "tables": {"summary": ["e"]}, "figures": {}}
    config = {**CONFIG, "studies": {"tiny": study}}
    (child,) = everything(config)[1]["e"].values()
    for parent in parents_of(child):
        write_run(tmp_path / "results", parent, training_seconds=100.0)
    write_run(tmp_path / "results", child, training_seconds=202.0, parent_seconds=200.0)
    text = report(tmp_path, config).text
    assert "3 in all: 3 complete" in text
    assert re.search(r"3 min 22 s of training", text), text[:2000]


def test_studies_off_the_papers_data_say_so_first(tmp_path: Path) -> None:
    config = {**CONFIG, "studies": {"tiny": {**CONFIG["studies"]["tiny"], "train": {"model": "resnet8", "epochs": 5}}}}
    a_study(tmp_path, config=config)
    text = report(tmp_path, config).text
    start = text.index("Nothing here ran on CIFAR-10 or CIFAR-100 with the paper's network")
    assert start < text.index("in all:")
    assert "scikit-learn's digits" in text


def test_runs_as_published_need_no_caution(tmp_path: Path) -> None:
    train = {"dataset": "cifar10", "validation": 0.0}
    config = {**CONFIG, "studies": {"tiny": {**CONFIG["studies"]["tiny"], "train": train}}}
    a_study(tmp_path, config=config)
    assert "Nothing here" not in report(tmp_path, config).text
    config["studies"]["tiny"]["train"] = {"dataset": "cifar10", "validation": 0.1}
    a_study(tmp_path, config=config)
    assert "Nothing here was trained for 200 epochs on all training images, as in the paper." in (
        report(tmp_path, config).text
    )


def test_headlines_judge_differences_as_the_tables_do(tmp_path: Path) -> None:
    """Over the seeds that both have, and not closer than a test image."""
    experiments = everything()[1]
    for spec, accuracy in zip(experiments["vi"].values(), (0.95, 0.97, 0.96), strict=True):
        write_run(tmp_path / "results", spec, accuracy=accuracy, test_images=100)
    tenth = [spec for spec in experiments["compressed"].values() if spec.density == 0.1]
    for spec, accuracy in zip(tenth, (0.94, 0.96, 0.95), strict=True):
        write_run(tmp_path / "results", spec, accuracy=accuracy, test_images=100)
    half = scipy_stats.t.ppf(0.975, 2) * math.sqrt(2 / 12) / math.sqrt(3)
    said = f"−1.00 [−{1 + half:.2f}, +{half - 1:.2f}]"
    assert said in report(tmp_path).text
    shutil.rmtree(run_folder(tmp_path / "results", next(iter(experiments["vi"]))))
    half = scipy_stats.t.ppf(0.975, 1) * math.sqrt(2 / 12) / math.sqrt(2)
    assert f"−1.00 [−{1 + half:.2f}, +{half - 1:.2f}]" in report(tmp_path).text


def test_what_learned_its_posterior_otherwise_says_so_and_comes_second(tmp_path: Path) -> None:
    """In the headlines, in what may be believed, and in the options of a run."""
    study = {**CONFIG["studies"]["tiny"], "experiments": {
        "vi": {"method": "vi", "posterior_optimizer": ["sgd", "ivon"], "lr": 0.1, "seed": [0, 1]},
        "compressed": {"method": "ssvi", "density": 0.1, "posterior_optimizer": "ivon", "seed": [0, 1]},
        "never": {"method": "rigl", "density": 0.5},
    }}  # fmt: skip
    config = {**CONFIG, "studies": {"tiny": study}}
    a_study(tmp_path, config=config)
    for spec in everything(config)[1]["vi"].values():
        accuracy = {"sgd": 0.90, "ivon": 0.95}[spec.posterior_optimizer] + spec.seed / 100
        write_run(tmp_path / "results", spec, accuracy=accuracy)
    page = report(tmp_path, config)
    assert re.search(r"dense BNN 90\.50 \[", page.text)
    assert "SSVI at 90 % sparsity, natural gradient (IVON)" in page.text
    assert "in the 4 runs here whose posterior is learned by natural gradient (IVON)" in page.text
    data = page.data("data")
    ivon = next(i for i, run in enumerate(data["run"]) if "/ssvi/" in run)
    idle = [data["idle"]["values"][of].split() for of in data["idle"]["of"]]
    assert {"sigma_lr", "sigma_optimizer"} <= {*idle[ivon]}
    assert "ivon_lr" not in idle[ivon]


def test_nothing_at_all_still_makes_a_page(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "No run is complete yet." in page.text
    assert "and 1 more" in page.text
    assert page.data("curves") == [{}] * 13


def test_numbers_you_may_believe_come_from_the_runs(partial: Page, tmp_path: Path) -> None:
    assert "Here n is 3 for 3 settings." in partial.text
    assert "10,000 test images, one of which is 0.01 points of accuracy" in partial.text
    assert "1 diverged here" in partial.text
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["figures"] |= {"sigma_drift": ["compressed"], "iou": ["compressed"]}
    a_study(tmp_path, config=config)
    text = report(tmp_path, config).text
    assert "Of 3 pairs of runs here that differ in snr and snr_abs alone, 0 ended in the very same numbers." in text
    change = r"gradients changed it by [+−]\S+ % and exchanged weights by [+−]\S+ % \(3 runs\)"
    for density in ("0.1", "0.05"):
        assert re.search(rf"with cifar10, resnet18, SSVI, density {density}, sigma_init 0.0006 {change}", text)
    assert "the interval is Welch's. No accuracy is taken to be known better than to one test image" in text
    assert "cifar10 with resnet18: dense BNN 4,500, SSVI at density 0.05 4,500." in text
    assert re.search(r"least rank correlation seen: snr and snr_abs \d\.\d{6}", text)


def test_drift_is_that_of_one_setting(tmp_path: Path) -> None:
    """Exchanged weights changed sigma three times as much at one density, and on another data set twice."""
    experiments = {"drift": {}}
    for dataset, density, factor in (("cifar10", 0.1, 1), ("cifar10", 0.05, 3), ("cifar100", 0.1, 2)):
        for seed in (0, 1):
            spec = RunSpec(dataset=dataset, density=density, seed=seed)
            experiments["drift"][run := write_run(tmp_path, spec)] = spec
            path = run_folder(tmp_path, run) / files.TOPOLOGY
            records = [json.loads(line) for line in path.read_text().splitlines()]
            for layer in (layer for record in records for layer in record["layers"]):
                layer["sigma_drift_topology"] = -0.00006 * factor * (1 + seed)
            write_text(path, to_jsonl(records))
            tie(path.parent)
    for options in (
        {"sigma_optimizer": "adam", "sigma_lr": 0.001},
        {"posterior_optimizer": "ivon"},
        {"optimizer": "adam", "lr": 0.001},
    ):
        other = RunSpec(**options)
        experiments["drift"][write_run(tmp_path, other)] = other
    content = {"figures": {"sigma_drift": ["drift"]}, "tables": {}}
    found = believe(source(tmp_path), source(tmp_path).frames(experiments["drift"]).runs, content, experiments)["drift"]
    assert [(drift.setting, drift.runs) for drift in found] == [
        (f"{dataset}, resnet18, SSVI, density {density}, sigma_init 0.0006", 2)
        for dataset, density in (("cifar10", "0.1"), ("cifar10", "0.05"), ("cifar100", "0.1"))
    ]
    start = start_of_sigma(0.0006, 0.0005)[0]
    assert [drift.by_topology for drift in found] == pytest.approx([-0.009 * f / start for f in (1, 3, 2)])
    otherwise = RunFolders(tmp_path, partial=True, evaluation={"samples": 7, "bins": 15})
    refused = otherwise.frames(experiments["drift"]).runs
    assert set(refused["status"]) == {"refused"}
    assert believe(otherwise, refused, content, experiments)["drift"] == ()


def test_speeds_are_of_default_settings_on_one_data_set_and_device(tmp_path: Path) -> None:
    specs = {}
    for dataset, factor in (("cifar10", 1), ("cifar100", 2)):
        for options, speed in (
            ({"method": "vi"}, 4000.0),
            ({"method": "vi", "sampling": "weight"}, 9000.0),
            ({"density": 0.1}, 2000.0),
            ({"density": 0.01}, 1000.0),
            ({"density": 0.01, "criterion": "snr"}, 50.0),
            ({"density": 0.1, "criterion": "snr"}, 50.0),
            ({"density": 0.1, "sampling": "weight"}, 7000.0),
        ):
            for seed in (0, 1):
                spec = RunSpec(dataset=dataset, seed=seed, **options)
                specs[write_run(tmp_path, spec, images_per_second=speed * factor)] = spec
    only = RunSpec(dataset="digits", method="vi")
    specs[write_run(tmp_path, only)] = only
    runs = source(tmp_path).frames(specs).runs
    content = {"figures": {}, "tables": {}}
    found = believe(source(tmp_path), runs, content, {"all": specs})["speeds"]
    assert found == (
        Speed("cifar10", "resnet18", 4000, 0.01, 1000),
        Speed("cifar100", "resnet18", 8000, 0.01, 2000),
    )
    moved = runs.assign(device=runs["device"].where(runs["density"] != 0.01, "another"))
    assert believe(source(tmp_path), moved, content, {"all": specs})["speeds"] == ()


def test_page_loads_nothing_from_anywhere(partial: Page) -> None:
    for tag, attributes in partial.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    css = re.search(r"<style>(.*?)</style>", partial.source, re.DOTALL)
    assert css is not None
    assert not re.search(r"@import|url\(|//", css[1])
    assert "http" not in css[1]
    ids = [attributes["id"] for _, attributes in partial.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {
        attributes["href"][1:] for tag, attributes in partial.tags if tag == "a" and attributes["href"][0] == "#"
    }
    assert targets <= set(ids)


def test_outputs_are_embedded_with_their_files(partial: Page) -> None:
    assert "What it shows" in partial.text
    assert partial.source.count("<style>") == 1
    assert partial.source.count('<th class="figure long">a long heading</th>') == 1
    boxes = [attributes for _, attributes in partial.tags if attributes.get("class") == "box"]
    assert {"class": "box", "role": "region", "tabindex": "0", "aria-label": "What it shows"} in boxes
    links = {attributes["download"]: attributes["href"] for tag, attributes in partial.tags if "download" in attributes}
    assert list(links) == ["table1.csv", "table1.tex", "curves.pdf", "curves.csv"]
    assert base64.b64decode(links["table1.tex"].partition(",")[2]) == rb"\begin{table}"
    image = next(attributes for tag, attributes in partial.tags if tag == "img")
    assert image["alt"] == "A caption"
    assert base64.b64decode(image["src"].partition(",")[2]).startswith(b"<svg")
    assert "Of its 9 runs 6 are complete." in partial.text


def test_table_of_another_version_and_large_files(tmp_path: Path) -> None:
    write_outputs(tmp_path)
    write_text(tmp_path / "reports/tiny/tables/table1.html", "<html><b>no table</b></html>\n")
    write_text(tmp_path / "reports/tiny/figures/curves.csv", "1" * (LARGEST_DOWNLOAD + 1))
    page = report(tmp_path)
    assert "Not here: tables/table1.html is no table of this version; make it anew." in page.text
    assert "<b>" not in page.source
    assert "CSV: figures/curves.csv beside this page (0.5 MB)" in page.text


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["train"]["dataset"] = f"folder:{ODD}"
    a_study(tmp_path, config=config)
    write_outputs(tmp_path, words=HOSTILE.replace("\n", " "))
    specs = everything(config)[1]["vi"]
    first, second, third = specs
    write_run(tmp_path / "results", specs[first], diverged=HOSTILE)
    shutil.rmtree(run_folder(tmp_path / "results", second))
    write_text(tmp_path / "results/logs/train" / f"{second}.log", f"ssvi: {HOSTILE}\n")
    write_text(run_folder(tmp_path / "results", third) / files.HISTORY, f"epoch,loss\n{HOSTILE},1\n")
    (run_folder(tmp_path / "results", third) / files.METRICS).unlink()
    write_text(tmp_path / "results/logs/table/tiny/summary.log", f"ssvi: {HOSTILE}\n")
    page = report(tmp_path, config, problems={("figures", "figure2_left"): HOSTILE})
    assert len(page.scripts) == 3
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert page.text.count(HOSTILE) >= 5
    data = page.data("data")
    assert {data["changed"][0]["dataset"]} == {f"folder:{ODD}"}
    assert sum(HOSTILE in cause for cause in data["cause"]) == 2
    assert HOSTILE[:-1] in next(iter(data["unread"].values()))


def test_same_files_same_bytes(tmp_path: Path) -> None:
    a_study(tmp_path)
    write_outputs(tmp_path)
    first = report(tmp_path).source
    assert report(tmp_path).source == first


def test_run_data_holds_options_results_and_curves(partial: Page) -> None:
    data, curves = partial.data("data"), partial.data("curves")
    i = next(i for i, run in enumerate(data["run"]) if "/vi/" in run and run.endswith("seed=2"))
    assert data["changed"][i]["seed"] == 2
    assert data["changed"][i]["method"] == "vi"
    assert "density" not in data["used"]["vi"]
    assert data["metrics"]["test_images"][i] == 10_000
    assert i in data["experiments"]["vi"]
    assert set(curves[i]) == {"epoch", "loss", "kl", "sigma_mean", "train_accuracy", *curves[i]}
    assert curves[i]["epoch"] == [1, 2, 3, 4, 5]
    assert data["epochs"][i] == 5
    commit = data["provenance"]["commit"]
    assert commit["values"][commit["of"][i]] == "0123abc"


def test_long_curves_are_thinned_and_running_ones_shown(tmp_path: Path) -> None:
    long = RunSpec(method="vi", dataset="cifar10")
    specs = {write_run(tmp_path, long, epochs=200): long}
    folder = run_folder(tmp_path, *specs)

    def curves() -> Curves:
        frames = source(tmp_path).frames(specs, ["history"])
        (found,) = curves_of(tmp_path, frames.runs, frames.history)
        return found

    of_metrics = curves()
    assert of_metrics.epochs == 200
    assert len(of_metrics.columns["epoch"]) == 60
    assert (of_metrics.columns["epoch"][0], of_metrics.columns["epoch"][-1]) == (1, 200)
    (folder / files.METRICS).unlink()
    assert curves() == of_metrics
    (folder / files.HISTORY).unlink()
    write_text(folder / files.LIVE_HISTORY, '{"epoch": 1, "loss": 2.5}\n{"epoch": 2, "lo')
    assert curves().columns == {"epoch": [1], "loss": [2.5]}
    write_text(folder / files.LIVE_HISTORY, '{"epoch": 1, "loss": 2.5}\n[2]\n{"epoch": 3, "loss": 2.0}\n')
    assert curves().columns == {}
    assert "live/history.jsonl: not a history ([2] is no row)" in curves().problem


def test_a_report_reads_a_file_of_a_run_as_often_as_a_table_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tables and figures there are."""
    a_study(tmp_path)
    read = Counter()
    opened = Path.read_bytes

    def counted(path: Path) -> bytes:
        read[path] += path.is_relative_to(tmp_path / "results/runs")
        return opened(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    content, experiments = everything()
    source(tmp_path / "results").frames(experiments["vi"], ["history"], ["uncertainty"])
    often = {name: max(n for path, n in read.items() if path.name == name) for name in {path.name for path in read}}
    # for all checks together; and that of a history once more for its rows, those of metrics for the suite's seal
    assert [often[name] for name in (files.SPEC, files.METRICS, files.HISTORY, files.UNCERTAINTY)] == [1, 2, 2, 1]
    read.clear()
    make_all(tmp_path / "results", tmp_path / "out", "tiny", content, experiments)
    assert {path.name: n for path, n in read.items() if n > often.get(path.name, 0)} == {}


@pytest.mark.parametrize("n", [0, 1, 2, 59, 60, 61, 1000])
def test_thinning_keeps_the_ends_and_spreads_evenly(n: int) -> None:
    kept = thin(n, 60)
    assert len(kept) == min(n, 60)
    if n:
        assert (kept[0], kept[-1]) == (0, n - 1)
    gaps = {b - a for a, b in itertools.pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_rounding_and_durations() -> None:
    assert [rounded(v) for v in (1 / 3, 123456.0, 1e-9, float("nan"), None, "x", True)] == [
        *(0.33333, 123460, 1e-9),
        *(None, None, None, None),
    ]
    assert [duration(s) for s in (0, 59.96, 60, 3599.6, 3600, 90_000)] == [
        *("0.0 s", "60.0 s", "1 min 0 s", "60 min 0 s"),
        *("1 h 0 min", "1 d 1 h"),
    ]


def test_runs_on_other_images_are_refused(tmp_path: Path) -> None:
    specs = everything()[1]["vi"]
    for spec in specs.values():
        run = write_run(tmp_path, spec)
    path = run_folder(tmp_path, run) / files.SPEC
    path.write_text(path.read_text().replace("e" * 64, "0" * 64))
    tie(path.parent)
    runs = source(tmp_path).frames(specs, ["history"]).runs
    assert list(runs["status"]) == ["complete", "complete", "refused"]
    assert "was trained on other training images of 'cifar10'" in runs.iloc[2]["cause"]
    assert list(runs["run"]) == list(specs)


def test_command_makes_what_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_study(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    main(["report", "--config", str(config)])
    said = capsys.readouterr()
    path = Path(said.out.strip())
    assert path == tmp_path / "reports/tiny/so_far/report.html"
    assert "figure figure2_left could not be made: " in said.err
    page = Page(path)
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert (path.parent / "tables/table1.tex").is_file()
    assert "Not here: " in page.text
    with pytest.raises(SystemExit, match="--study: study 'tinny' is unknown, did you mean 'tiny'"):
        main(["report", "--config", str(config), "--study", "tinny"])


def test_code_that_fails_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(frames: Any) -> Any:
        raise KeyError("a bug")

    a_study(tmp_path)
    monkeypatch.setitem(TABLES, "table1", TableMaker(broken))
    said: list[str] = []
    path = make_all(tmp_path / "results", tmp_path / "out", "tiny", *everything(), say=said.append)
    assert any("table table1 could not be made: its code failed: KeyError: 'a bug'" in line for line in said)
    assert "its code failed" in Page(path).text


def test_a_table_and_a_figure_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The figure lacks what it needs; the table is there, and links lead to each."""
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["figures"]["table1"] = {"of": ["never"], "x": "lr", "y": "nll"}
    a_study(tmp_path, config=config)
    said: list[str] = []
    path = make_all(tmp_path / "results", tmp_path / "out", "tiny", *everything(config), say=said.append)
    assert sum(" table1 could not be made: " in line for line in said) == 1
    page = Page(path)
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    assert {"table-table1", "figure-table1"} <= set(ids)
    links = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    assert {"#table-table1", "#figure-table1"} <= links
    section = page.source.partition('<section id="table-table1"')[2].partition("</section>")[0]
    assert "Not here:" not in section
    assert "Dense BNN and SSVI" in section


# In a browser ----------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# Chromium reads commands from file 3 and answers on file 4.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Chromium without a window, spoken to over its debugging pipe: no port, no further package."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        commands, self._send = os.pipe()
        self._receive, answers = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(commands), str(answers), CHROMIUM, *options],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._calls, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], 120)
            part = os.read(self._receive, 1 << 16) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        os.write(
            self._send, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (answer := self._read()).get("id") != self._calls:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, code: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def complaints(self) -> list[dict[str, Any]]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in kinds]

    def fetched(self) -> set[str]:
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return {url.partition(":")[0] for url in sent}

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        os.close(self._send)
        os.close(self._receive)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on the PATH to look at the page with")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shown")
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["train"]["dataset"] = f"folder:{ODD}{'x' * 200}"
    a_study(root, config=config)
    write_outputs(root, words=HOSTILE + "y" * 300)
    write_run(root / "results", next(iter(everything(config)[1]["vi"].values())), diverged=HOSTILE)
    return write_report(source(root / "results"), folder_of(root), "tiny", *everything(config))


@pytest.mark.parametrize("width", [1280, 390])
def test_page_works_in_a_browser(browser: Browser, shown: Path, width: int) -> None:
    browser.open(shown, width)
    too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.run(too_wide)
    assert browser.run("document.querySelector('#list tbody').rows.length") == 13
    assert browser.run("document.images[0].naturalWidth") == 600
    # Everything is opened, one after another.
    for row in range(13):
        browser.run(f"document.querySelectorAll('#list tbody button')[{row}].click()")
        assert not browser.run("document.getElementById('run').hidden")
        browser.run("document.querySelector('#run details').open = true")
        assert not browser.run(too_wide)
    browser.run("document.querySelectorAll('#list tbody button')[3].click()")
    assert browser.run("document.querySelectorAll('#run svg').length") == 4
    assert browser.run("document.activeElement.id") == "run-title"
    assert browser.complaints() == []
    assert browser.fetched() <= {"file", "data"}


def test_what_leads_is_seen_without_scrolling_sideways(browser: Browser, shown: Path) -> None:
    browser.open(shown, 1280)
    assert browser.run("document.querySelectorAll('[aria-labelledby=leading] tbody tr').length") > 1
    box = "document.querySelector('[aria-labelledby=leading]')"
    assert browser.run(f"{box}.scrollWidth <= {box}.clientWidth")


def test_list_filters_sorts_and_obeys_the_keyboard(browser: Browser, shown: Path) -> None:
    browser.open(shown, 1280)
    rows = "[...document.querySelectorAll('#list tbody tr')]"
    column = f"{rows}.map((row) => row.cells[%d].textContent)"
    browser.run("document.getElementById('words').focus()")
    browser.call("Input.insertText", text="DENSITY=0.05 complete")
    assert browser.run(f"{rows}.length") == 3
    assert browser.run("document.getElementById('count').textContent") == "3 of 13 runs"
    browser.run("const w = document.getElementById('words'); w.value = ''; w.dispatchEvent(new Event('input'))")
    browser.run(
        "const s = document.getElementById('by-experiment'); s.value = 'twins'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.run(f"{rows}.length") == 6
    browser.run("s.value = ''; s.dispatchEvent(new Event('change'))")
    heads = browser.run("[...document.querySelectorAll('#list thead th')].map((th) => th.textContent)")
    accuracy = heads.index("accuracy (%)")
    for sign in (1, -1):
        browser.run(f"document.querySelectorAll('#list thead button')[{accuracy}].click()")
        found = browser.run(column % accuracy)
        numbers = [sign * float(text) for text in found if text != "–"]
        assert numbers == sorted(numbers)
        assert len(numbers) == 11
        assert found[-1] == "–"
    browser.run("document.querySelector('#list tbody button').focus()")
    browser.press("Enter", 13, "\r")
    assert not browser.run("document.getElementById('run').hidden")
    address = browser.run("location.hash")
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.run("document.getElementById('run').hidden")
    browser.run(f"location.hash = {json.dumps(address)}")
    deadline = time.monotonic() + 30
    while browser.run("document.getElementById('run').hidden"):
        assert time.monotonic() < deadline
    assert browser.complaints() == []
