"""Whatever a file holds, whatever is typed: it works, or is refused in one line."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import tie, write_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistakes.kinds import MALFORMED
from spoiling import (
    encoded,
)

from ssvi.analysis.collect import load_frames
from ssvi.analysis.report.gather import curves_of
from ssvi.cli import parser
from ssvi.core.noise import NormalSource
from ssvi.data.cache import cached, prepared
from ssvi.data.pixels import decode, scaled
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.config import load_config
from ssvi.runs.options import FIELDS
from ssvi.runs.paths import run_path, to_flags
from ssvi.runs.plan import make_plan
from ssvi.runs.runfolder import check_spec, read_data, read_spec, read_training
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.training import checkpoint
from ssvi.training.network import build
from ssvi.training.stored import load_model, read_model

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Calls a property with drawn arguments: the same few each time, or, with --all-trials, many others."""
    whole = request.config.getoption("--all-trials")

    def run(check: Callable[..., None], examples: int = 50, **drawn: st.SearchStrategy[Any]) -> None:
        options = settings(
            max_examples=examples * (10 if whole else 1),
            deadline=None,
            derandomize=not whole,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        options(given(**drawn)(check))()

    return run


def answer(read: Callable[[], Any]) -> Any:
    """What is read, or None if it was refused in one line; any other error is raised."""
    try:
        return read()
    except UserError as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    return None


@st.composite
def mutated(draw: st.DrawFn, content: bytes, most: int = 3) -> bytes:
    """A file's content after flipped bits, cuts, insertions and repetitions, or other content."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "delete", "repeat", "append", "replace"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            data[at:at] = data[at : at + 40]
        elif how == "append":
            data += draw(st.binary(min_size=1, max_size=9))
        elif how == "replace" and draw(st.integers(0, 4)) == 0:
            data[:] = draw(st.binary(max_size=99))
    return bytes(data)


@st.composite
def mutated_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """A text with lines left out, repeated, exchanged or shifted."""
    lines = content.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        at, to = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["delete", "repeat", "exchange", "shift"]))
        if how == "delete" and len(lines) > 1:
            del lines[at]
        elif how == "repeat":
            lines.insert(to, lines[at])
        elif how == "exchange":
            lines[at], lines[to] = lines[to], lines[at]
        elif how == "shift":
            lines[at] = b" " * draw(st.integers(1, 3)) + lines[at]
    return b"".join(lines)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**19, 10**400])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def with_anything(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with anything at all at one place in it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(anything)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    at = draw(st.sampled_from(keys))
    inner = draw(with_anything(value[at]))
    return {**value, at: inner} if isinstance(value, dict) else [*value[:at], inner, *value[at + 1 :]]


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_the_shipped_config_it_works_or_is_one_line(tmp_path, tried) -> None:
    shipped = (ROOT / "config.yaml").read_text().replace("study: digits", "study: cifar10 ")
    # one study, because all take a second each time
    content = shipped[: shipped.index("  cifar100:")].encode()
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert load_config(path)["study"] == "cifar10"

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        found = answer(lambda: load_config(path))
        assert found is None or set(found) >= {"study", "studies"}

    tried(check, examples=15, changed=mutated(content) | mutated_lines(content))


@pytest.mark.fault(MALFORMED)
def test_whatever_options_a_run_has_it_has_a_path_or_is_one_line(tried) -> None:
    def check(options: dict[str, Any]) -> None:
        spec = answer(lambda: make_spec(options, "here"))
        if spec is not None:
            assert all(re.fullmatch(r"[A-Za-z0-9._=+%~,-]{1,255}", part) for part in run_path(spec).split("/"))
            words = parser().parse_args(["train", *to_flags(spec)])
            assert RunSpec(**{name: getattr(words, name) for name in FIELDS if hasattr(words, name)}) == spec

    names = st.sampled_from([*FIELDS, "preset"]) | st.text(max_size=5)
    choices = [c for field in FIELDS.values() for c in field.metadata["choices"] or ()]
    words = st.sampled_from([*choices, "vi,epochs=2", "official"]) | st.text().map(lambda text: f"folder:{text}")
    tried(check, examples=200, options=st.dictionaries(names, words | anything, max_size=4))


@pytest.mark.fault(MALFORMED)
def test_whatever_is_typed_it_is_understood_or_is_one_line(tried) -> None:
    flags = [f"--{name.replace('_', '-')}" for name in (*FIELDS, "out", "threads", "device", "preset", "nothing")]
    command_line = parser()

    def check(words: list[str]) -> None:
        said, code = io.StringIO(), None
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                command_line.parse_args(words)
        except SystemExit as end:
            code = end.code
        assert code in (None, 0, 2)
        assert len(said.getvalue().splitlines()) == (code == 2), said.getvalue()

    text = st.text(st.characters(), max_size=6)
    word = text | st.builds("{}={}".format, st.sampled_from(flags), text | st.floats().map(repr))
    commands = st.sampled_from(["train", "evaluate", "samples", "data", "report", "ui", "bench"])
    tried(check, examples=100, words=st.tuples(commands | text, word, word).map(list))


KEYS = frozenset({"numbers", "words"})


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("previous", ["whole", "damaged", "missing"])
def test_whatever_happens_to_a_checkpoint_a_saved_state_is_read_or_one_line(tmp_path, tried, previous: str) -> None:
    newest, older = tmp_path / files.CHECKPOINT, tmp_path / files.PREVIOUS_CHECKPOINT
    states = [{"numbers": torch.arange(40) + i, "words": ["a", {"b": i}]} for i in (0, 1)]
    for state in states:
        checkpoint.save(tmp_path, state)
    contents = [older.read_bytes(), newest.read_bytes()]

    def same(found: dict[str, Any], state: dict[str, Any]) -> bool:
        return bool((found["numbers"] == state["numbers"]).all()) and found["words"] == state["words"]

    def check(changed: bytes, too: bytes) -> None:
        newest.write_bytes(changed)
        older.write_bytes(contents[0] if previous == "whole" else too)
        if previous == "missing":
            older.unlink()
        notes: list[str] = []
        found = answer(lambda: checkpoint.load(tmp_path, torch.device("cpu"), KEYS, notes.append))
        if changed == contents[1]:
            assert same(found, states[1])
        elif previous == "whole" or (previous == "damaged" and too == contents[0]):
            assert same(found, states[0])
            assert len(notes) == 1
            assert newest.read_bytes() == contents[0]
        else:
            assert found is None
            assert newest.read_bytes() == changed

    tried(check, changed=mutated(contents[1]), too=mutated(contents[0]))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunSpec]]:
    """A results folder with one run."""
    folder = tmp_path_factory.mktemp("results")
    return folder, write_runs(folder, [RunSpec(dataset="digits", epochs=3)], epochs=3, layers=2, updates=2)


# What of a report needs a file, beside every run's own row.
FILES = {
    files.SPEC: (),
    files.TRAINING: (),
    files.METRICS: ("updates",),
    files.HISTORY: ("history",),
    files.TOPOLOGY: ("updates", "overlap"),
    files.SAMPLES: ("samples",),
    files.UNCERTAINTY: ("uncertainty",),
}


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("name", FILES)
def test_whatever_happens_to_a_file_of_a_run_it_is_read_or_is_one_line(results, tried, name: str) -> None:
    folder, specs = results
    ((run, spec),) = specs.items()
    run_folder = folder / "runs" / run
    path = run_folder / name
    content = path.read_bytes()

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        tie(run_folder)
        for read in (read_spec, read_data, read_training, partial(check_spec, spec=spec)):
            answer(partial(read, run_folder))
        frames = load_frames(folder, specs, FILES[name], partial=True)
        assert frames.runs["status"].tolist() in (["complete"], ["diverged"], ["refused"])
        for status in (frames.runs["status"][0], "in training"):
            curves_of(folder, frames.runs.assign(status=status), frames.history)
        make_plan(folder, {"table": [run]}, specs, [run], [run])

    changes = mutated(content) | mutated_lines(content)
    if name.endswith(".json"):
        changes |= with_anything(json.loads(content)).map(lambda value: json.dumps(value).encode())
    if name.endswith(".jsonl"):
        records = [json.loads(line) for line in content.splitlines()]
        changes |= with_anything(records).map(
            lambda value: "".join(
                f"{json.dumps(one)}\n" for one in (value if isinstance(value, list) else [value])
            ).encode()
        )
    if name.endswith(".csv"):
        head, _, rows = content.decode().partition("\n")
        cells = st.text(max_size=5) | st.sampled_from(["nan", "inf", "True", "1e999", "0x1", '"', "1" * 400])
        cell = rows.split("\n")[0].split(",")
        changes |= st.tuples(st.integers(0, len(cell) - 1), cells).map(
            lambda drawn: f"{head}\n{','.join([*cell[: drawn[0]], drawn[1], *cell[drawn[0] + 1 :]])}\n".encode()
        )
    try:
        tried(check, examples=25, changed=changes)
    finally:
        path.write_bytes(content)


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_a_model_it_is_read_or_is_one_line(world, tmp_path, tried) -> None:
    spec = read_spec(world / "run")
    content = (world / "run" / files.MODEL).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    whole = {name: value.tolist() for name, value in read_model(world / "run").items()}

    def check(head: bytes, tail: bytes) -> None:
        (tmp_path / files.MODEL).write_bytes(head + tail)
        _, method = build(spec, 1, 8, 10, NormalSource(0, "test"))
        found = answer(lambda: load_model(tmp_path, method))
        assert found is None or {name: value.tolist() for name, value in found.items()} == whole

    tried(check, head=mutated(content[:header]), tail=st.just(content[header:]) | mutated(content[header:]))


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_a_cache_it_gives_the_same_data(tmp_path, tried) -> None:
    images = torch.arange(48, dtype=torch.uint8).view(4, 3, 2, 2)
    data = prepared((images, torch.arange(4)), (images[:2].clone(), torch.arange(2)), "abcd")
    path = tmp_path / "cache.safetensors"
    cached(path, lambda: data)
    content = path.read_bytes()

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        found = cached(path, lambda: data)
        assert found.fingerprint == data.fingerprint
        assert found.classes == data.classes
        assert found.train_images.equal(data.train_images)
        assert path.read_bytes() == content

    tried(check, changed=mutated(content))


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_deflate"}),
    ],
)
def test_whatever_happens_to_an_image_it_is_read_or_is_one_line(tmp_path, tried, capfd, format: str, options) -> None:
    content = encoded(format, **options)
    path = tmp_path / "image"
    path.write_bytes(content)

    def pixels() -> torch.Tensor:
        found = decode(path, 8)
        return found.pixels if found.deep is None else scaled(found, 16)

    assert pixels().shape == (3, 8, 8)

    def check(head: bytes, rest: bytes) -> None:
        path.write_bytes(head + rest)
        found = answer(pixels)
        assert found is None or (found.shape, found.dtype) == ((3, 8, 8), torch.uint8)

    tried(check, head=mutated(content[:80]), rest=st.just(content[80:]) | mutated(content[80:]))
