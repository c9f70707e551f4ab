"""Every mistake of a user ends in one line that says what is wrong, and leaves everything as it was."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runs import EVALUATION, tie, write_runs
from mistakes import TABLE
from mistakes.kinds import (
    ANEW,
    CONFIG,
    JSON,
    MALFORMED,
    NEEDED,
    NEWER,
    NO_FOLDER,
    VERSION,
    WHERE,
    YAML,
    Bad,
    config,
    looks,
    other,
    train,
)
from spoiling import (
    Spoil,
    change,
    half,
    record,
    remove,
    write,
)

from ssvi.analysis import records
from ssvi.analysis.collect import load_frames
from ssvi.cli import main
from ssvi.runs import files
from ssvi.runs.config import study_experiments
from ssvi.runs.configfile import Sources, end_if_unreadable
from ssvi.runs.records import EVALUATE_ANEW
from ssvi.runs.runfolder import FORMAT
from ssvi.runs.spec import RunSpec

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


def tree(folder: Path) -> dict[str, str]:
    """What is in a folder: each name with a hash of the content, the target of a link, or its kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if stat.S_ISREG(kind) and os.access(path, os.R_OK):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = os.readlink(path) if stat.S_ISLNK(kind) else oct(stat.S_IFMT(kind))
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Names that came, went or changed, but for those of the cache and of who works in a run folder."""
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name for name in differ if not name.startswith("data/cache/folder-") and not name.endswith(files.OWNER)}


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of a command line and all that it says on stderr."""
    program, *words = shlex.split(command)
    assert program == "ssvi"
    capsys.readouterr()
    code: Any = 0
    try:
        main(words)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    return (1, f"{said}{code}\n") if isinstance(code, str) else (code or 0, said)


def says(line: str) -> re.Pattern[str]:
    """A pattern for a line in which `...` stands for whatever a library says."""
    return re.compile(r"[^<\n]+".join(map(re.escape, line.split("..."))))


def test_the_table_names_each_mistake_once() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE) > 60


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_a_mistake_is_one_line_and_changes_nothing(bad: Bad, world, tmp_path, monkeypatch, capsys, recwarn) -> None:
    folder = tmp_path / "w"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SSVI_DATA", raising=False)
    bad.spoil(folder)
    before = tree(folder)
    code, said = typed(bad.command, capsys)
    line = bad.line if bad.code == 2 else f"ssvi: {bad.line}"
    assert says(line).fullmatch(said.replace(str(folder.resolve()), "HERE").removesuffix("\n")), said
    assert len(said.splitlines()) == 1
    assert code == bad.code
    assert "Traceback" not in said
    assert changes(before, tree(folder)) == set()
    assert [str(w.message) for w in recwarn if issubclass(w.category, UserWarning | RuntimeWarning)] == []


# ---------------------------------------------------------------- what a report says of files it cannot use

HISTORY, SAMPLES = ",".join(files.HISTORY_COLUMNS), ",".join(files.SAMPLES_COLUMNS)
LATER = "," * (len(files.HISTORY_COLUMNS) - 3)


def first_update(**values: Any) -> Spoil:
    """The first record of topology.jsonl with other values."""

    def by(content: bytes) -> bytes:
        first, *others = content.splitlines()
        return b"\n".join([json.dumps(json.loads(first) | values).encode(), *others, b""])

    return change(files.TOPOLOGY, by)


# Each is done to a run folder of its own; the report leaves that run out and says why.
REPORTED = {
    "no spec": (remove(files.SPEC), "spec.json: no such file."),
    "half a spec": (change(files.SPEC, half), f"spec.json: {JSON} (...); {ANEW}"),
    "a spec of another run": (record(files.SPEC, spec__lr=0.5), f"spec.json: {other('lr', 0.5, 0.01)}"),
    "a spec with an unknown option": (record(files.SPEC, spec__rate=1), "spec.json: option 'rate' is unknown..."),
    "images that are a number": (
        record(files.SPEC, provenance__data=3),
        f"spec.json: data is 3, but must be a word; {VERSION}",
    ),
    "cores that are a word": (
        record(files.SPEC, provenance__host_cpus="x"),
        f"spec.json: host_cpus is 'x', but must be a number; {VERSION}",
    ),
    "other images": (
        record(files.SPEC, provenance__training_data="0" * 64),
        "...: was trained on other training images of 'digits' than ...",
    ),
    "other test images": (
        record(files.METRICS, test_data="0" * 64),
        "...: was evaluated on other test images of 'digits' than ...",
    ),
    "test images that are a number": (
        record(files.METRICS, test_data=3),
        f"metrics.json: test_data is 3, but must be a word; {VERSION}",
    ),
    "half of the metrics": (change(files.METRICS, half), f"metrics.json: {JSON} (...); {EVALUATE_ANEW}"),
    "metrics that are a list": (write(files.METRICS, "[]"), f"metrics.json: has no 'status'; {VERSION}"),
    "metrics without accuracy": (
        record(files.METRICS, accuracy=None),
        "metrics.json: has no 'accuracy'; evaluate the run anew.",
    ),
    "an accuracy in words": (
        record(files.METRICS, accuracy="high"),
        f"metrics.json: accuracy is 'high', but must be a number; {VERSION}",
    ),
    "NaN": (
        write(files.METRICS, '{"status": NaN}'),
        f"metrics.json: {JSON} (NaN is no number of JSON); {EVALUATE_ANEW}",
    ),
    "an odd status": (
        record(files.METRICS, status="great"),
        "metrics.json: status is 'great', but must be complete or diverged.",
    ),
    "no history": (remove(files.HISTORY), "history.csv: no such file."),
    "other columns": (
        write(files.HISTORY, "a,b\n1,2\n"),
        f"history.csv: has the columns 'a,b', but no 'epoch'; {VERSION}",
    ),
    "a word in the history": (
        write(files.HISTORY, f"{HISTORY}\n1,2,many{LATER}\n"),
        f"history.csv: loss is 'many', but must be a number; {ANEW}",
    ),
    "infinity in the history": (
        write(files.HISTORY, f"{HISTORY}\n1,2,inf{LATER}\n"),
        f"history.csv: loss is ..., but must be a number; {ANEW}",
    ),
    "a row cut off": (
        write(files.HISTORY, f"{HISTORY}\n1,2\n"),
        f"history.csv: a row has 2 cells instead of {len(files.HISTORY_COLUMNS)}; {ANEW}",
    ),
    "a history of bytes": (write(files.HISTORY, b"\xff\xfe"), f"history.csv: not readable as text (...); {ANEW}"),
    "half an update": (change(files.TOPOLOGY, half), f"topology.jsonl: {JSON} (...); {ANEW}"),
    "an update that is a list": (
        write(files.TOPOLOGY, "[]\n"),
        f"topology.jsonl: not a record of updates (...); {VERSION}",
    ),
    "an update without a layer": (
        first_update(layers=[3]),
        f"topology.jsonl: not a record of updates (...); {VERSION}",
    ),
    "a layer in words": (
        first_update(layers=[{"layer": "a", "size": "b"}]),
        f"topology.jsonl: size is 'b', but must be a number; {VERSION}",
    ),
    "a newer format": (
        record(files.SPEC, format=FORMAT + 1),
        f"spec.json: {NEWER}",
    ),
    "a format in words": (
        record(files.SPEC, format="new"),
        f"spec.json: format is 'new', but must be a whole number >= 1; {VERSION}",
    ),
    "columns that come twice": (
        write(files.SAMPLES, "samples,nll,nll\n1,2,3\n"),
        "samples.csv: has a column twice ('samples,nll,nll,seal'); delete this file to measure it anew.",
    ),
    "two numbers in a cell": (
        write(files.SAMPLES, 'samples,nll\n1,"2,3"\n'),
        f"samples.csv: a row has {len(files.SAMPLES_COLUMNS) + 1} cells instead of {len(files.SAMPLES_COLUMNS)}; "
        "delete this file to measure it anew.",
    ),
    "a row cut off under other columns": (
        write(files.SAMPLES, "samples,nll\n1\n"),
        "samples.csv: a row has 2 cells instead of 3; delete this file to measure it anew.",
    ),
    "an overlap of criteria that it does not name": (
        first_update(iou=[[1] * 7] * 7),
        f"topology.jsonl: not a record of updates (ValueError('iou is not 6 x 6')); {VERSION}",
    ),
    "an overlap that names a criterion twice": (
        first_update(criteria=["snr", "snr"]),
        f"topology.jsonl: not a record of updates (ValueError(...)); {VERSION}",
    ),
    "an overlap too small": (
        first_update(iou=[[1]]),
        f"topology.jsonl: not a record of updates (...); {VERSION}",
    ),
    "samples with other columns": (
        write(files.SAMPLES, "x\n"),
        f"samples.csv: has the columns 'x,seal', but no 'samples'; {VERSION}",
    ),
    "a word in the samples": (
        write(files.SAMPLES, f"{SAMPLES}\n1,a{',' * (len(files.SAMPLES_COLUMNS) - 2)}\n"),
        "samples.csv: accuracy is 'a', but must be a number; delete this file to measure it anew.",
    ),
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunSpec], dict[str, str]]:
    """A folder with results of which every run but two is spoiled, all its runs, and the run of each mistake."""
    folder = tmp_path_factory.mktemp("spoiled")
    content = yaml.safe_load(CONFIG) | {"evaluation": EVALUATION}
    grid = {"method": "ssvi", "seed": list(range(len(REPORTED) + 2))}
    content["studies"]["tiny"] = {
        "train": {"dataset": "digits", "epochs": 3},
        "experiments": {"all": grid},
        "tables": {"summary": ["all"]},
        "figures": {"curves": ["all"]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    specs = study_experiments(content, "tiny")["all"]
    write_runs(folder / "results", specs.values())
    runs_of = dict(zip(REPORTED, list(specs)[2:], strict=True))
    for name, (spoil, _) in REPORTED.items():
        spoil(folder / "results/runs" / runs_of[name])
        tie(folder / "results/runs" / runs_of[name])
    return folder, specs, runs_of


@pytest.fixture(scope="module")
def causes(spoiled) -> dict[str, str]:
    """Why a report leaves runs out that reads all their files."""
    folder, specs, _ = spoiled
    frame = load_frames(folder / "results", specs, tuple(records.READERS), partial=True).runs
    failed = frame[frame["status"] == "refused"]
    return dict(zip(failed["run"], failed["cause"], strict=True))


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("name", REPORTED)
def test_a_run_with_a_bad_file_is_left_out_and_says_why(spoiled, causes, name: str) -> None:
    folder, _, runs_of = spoiled
    said = causes[runs_of[name]].removeprefix(f"{folder / 'results/runs' / runs_of[name]}/")
    assert says(REPORTED[name][1]).fullmatch(said), said
    assert "\n" not in said


@pytest.mark.fault(MALFORMED)
def test_a_report_is_made_of_what_is_readable(spoiled, causes, monkeypatch, capsys) -> None:
    folder, specs, _ = spoiled
    assert len(specs) - len(causes) == 2
    before = tree(folder / "results")
    monkeypatch.chdir(folder)
    assert typed("ssvi report", capsys) == (0, "")
    assert tree(folder / "results") == before
    page = html.unescape((folder / "reports/tiny/so_far/report.html").read_text()).replace(r"\u003e", ">")
    shown = [cause for cause in causes.values() if cause.removeprefix(f"{folder}/") in page]
    # those of the files that neither the table nor the figure needs are no matter
    unread = [cause for cause in causes.values() if files.TOPOLOGY in cause or files.SAMPLES in cause]
    assert set(causes.values()) - set(shown) == set(unread)
    assert len(shown) >= 15


@pytest.mark.fault(MALFORMED, quick=0)
def test_a_network_too_large_for_the_memory_is_one_line(tmp_path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))

    command = shlex.split(f"ssvi train --epochs=1 --width=99 {WHERE} --data-root=data")
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True
    )
    expected = "ssvi: there is not enough memory for this; a smaller batch_size, width or image_size needs less.\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---------------------------------------------------------------- what Snakemake says of a config

LAST = "is there twice, of which Snakemake would take the last."

SNAKEMAKE = {
    "an open bracket": ("study: [", f"line 1: {YAML}: ...'<stream end>'."),
    "empty": ("", f"is empty, but must be a mapping. {NEEDED}"),
    "a list": ("- 1", f"is [1], but must be a mapping. {NEEDED}"),
    "not UTF-8": (b"\xff\xfe", f"{YAML}: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte."),
    "Python": ("__use_yte__: true\n? open('evil', 'w')\n: 1\n", "key '__use_yte__' is unknown. Choose from ..."),
    "a command for the data": (
        config("data_root: data", "data_root: $(touch evil)"),
        f'data_root: "$(touch evil)" is not allowed: {NO_FOLDER}',
    ),
}


# Beside a good config.yaml: another file, how it is named on the command line, and the line that answers.
MORE = {
    "a number that looks like another": (
        train("lr: 010"),
        "--configfile more.yaml",
        f"more.yaml: {looks(10, '010', 8, '10')}",
    ),
    "a key twice": (
        "study: tiny\nstudy: tiny\n",
        "--configfile config.yaml more.yaml",
        f"more.yaml: line 2: {YAML}: the key 'study' is there twice.",
    ),
    "a key twice in JSON": (
        '{"study": "tiny", "study": "tiny"}',
        "--configfile more.yaml",
        f"more.yaml: line 1: {YAML}: the key 'study' is there twice.",
    ),
    "a setting twice": ("", "--config study=tiny study=other", f"--config: 'study' {LAST}"),
    "settings twice": ("", "--config study=other -C results=results", f"command line: '--config' {LAST}"),
    "files twice": (CONFIG, "--configfile more.yaml --configfiles config.yaml", f"command line: '--configfile' {LAST}"),
}


def snakemake_refuses(folder: Path, line: str, *words: str) -> None:
    before = tree(folder)
    command = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "-n", "--cores=1", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    profile, *said = (done.stdout + done.stderr).splitlines()
    assert profile.startswith("Using workflow specific profile")
    assert len(said) == 1
    assert says(f"ssvi: {line}").fullmatch(said[0]), said
    assert tree(folder) | {".snakemake": ""} == before | {".snakemake": ""}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.fault(MALFORMED, quick=int(n == "Python"))) for n in SNAKEMAKE],
)
def test_snakemake_refuses_a_bad_config_in_one_line(tmp_path, name: str) -> None:
    content, line = SNAKEMAKE[name]
    write("config.yaml", content)(tmp_path)
    snakemake_refuses(tmp_path, f"config.yaml: {line}")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.fault(MALFORMED, quick=int(n.startswith("a number")))) for n in MORE],
)
def test_snakemake_refuses_what_its_command_line_adds(tmp_path, name: str) -> None:
    content, words, line = MORE[name]
    write("config.yaml", CONFIG)(tmp_path)
    write("more.yaml", content)(tmp_path)
    snakemake_refuses(tmp_path, line, *words.split())


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("name", MORE)
def test_what_snakemake_takes_twice_or_otherwise_is_noticed(tmp_path, monkeypatch, name: str) -> None:
    """The same without Snakemake."""
    content, words, line = MORE[name]
    monkeypatch.chdir(tmp_path)
    write("config.yaml", CONFIG)(tmp_path)
    write("more.yaml", content)(tmp_path)
    files = [Path(word) for word in words.split() if word.endswith(".yaml")]
    settings = [word for word in words.split() if "=" in word]
    with pytest.raises(SystemExit) as end:
        end_if_unreadable(Sources.over(Path("config.yaml"), files, settings), words.split())
    assert str(end.value) == f"ssvi: {line}"


@pytest.mark.fault(MALFORMED, quick=0)
def test_a_workflow_with_a_broken_record_ends_in_order(tmp_path) -> None:
    """The job that needs it says so; what is said at the end needs it too."""
    write("config.yaml", CONFIG)(tmp_path)
    specs = write_runs(tmp_path / "results", study_experiments(yaml.safe_load(CONFIG), "tiny")["ssvi"].values())
    folder = tmp_path / "results/runs" / next(iter(specs))
    write(files.MODEL, "")(folder)
    write(files.TRAINING, "{")(folder)
    (folder / files.METRICS).unlink()
    metrics = folder.relative_to(tmp_path) / files.METRICS
    command = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--cores=1", "--retries=0", "--", metrics]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("ssvi: ")]
    assert len(said) == 1
    assert says(f"ssvi: {metrics.parent / files.TRAINING}: {JSON} (...); {ANEW}").fullmatch(said[0])
    assert "Traceback" not in done.stderr
    assert 'File "' not in done.stderr.replace('in file "', "")
    assert "Study tiny: 0 of 3 runs are trained; the same command goes on from here." in done.stderr
