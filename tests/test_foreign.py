"""Results that somebody sent: what their files say is shown in tables, figures, reports, and is never carried out."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import re
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import tie, with_seeds, write_run
from hypothesis import given
from hypothesis import strategies as st

from ssvi import errors
from ssvi.analysis import shown
from ssvi.analysis.collect import COMPLETE, load_frames, write_collected
from ssvi.analysis.figures import make_figure, write_figure
from ssvi.analysis.report.make import make_all
from ssvi.analysis.tables import TABLES, Table, make_table, to_html, to_latex, to_markdown, write_table
from ssvi.errors import UserError, one_line, say
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.records import to_jsonl
from ssvi.runs.spec import RunSpec
from ssvi.training.progress import Lines

SOURCE = Path(errors.__file__).parent
FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    '"=1"',
    "x;=1",
    "x; -1+1",
    "＝1",
    "=cmd|' /C calc'!A0",
]
NUMBERS = ["-1", "+1", "-0.5", "1e-3", "-1e-3", "-.5", "0"]
LIVE = [
    "![x](http://evil/x.png)",
    "[x](javascript:alert)",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "`a`",
    "[x]: http://e",
]
STEERING = [
    "\x1b[31m",
    "\x1b]0;t\x07",
    "\x9b31m",
    "\x85",
    "\u202e",
    "\u2066",
    "\u200b",
    "\r",
    "\n",
    "\b",
    "\x7f",
    "\ufeff",
]
COMMANDS = [r"\input{/etc/passwd}", r"(\input{a} ± 1)e3", "(1 ± \\input{a})e3", "a & b % c $d$ # e _ f ^ g ~ h {i}"]
EVIL = "".join(["=1+1;=2 ", *LIVE, *COMMANDS, *STEERING, "$\\frac{$"])


def cells(text: str, delimiter: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) for cell in row]


def is_formula(cell: str) -> bool:
    """As a spreadsheet has it, blanks and quotes in front not looked at."""
    found = re.match(r"[\s\"']*([=+\-@＝＋－＠])", cell)
    return bool(found) and not cell.startswith("'") and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)


def steers(text: str) -> list[str]:
    """What a terminal or a browser would obey and not show."""
    return [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_words_is_a_formula(text: str) -> None:
    written = shown.to_csv(pd.DataFrame({"a": [1, 2], "cause": [text, None], text: ["x", "y"]}))
    for delimiter in ",;":
        assert not [cell for cell in cells(written, delimiter) if is_formula(cell)]
    assert not steers(written)


@given(st.lists(st.floats() | st.integers() | st.booleans() | st.none() | st.sampled_from(NUMBERS), min_size=1))
def test_numbers_are_written_as_they_were(values: list[object]) -> None:
    """Also where they stand among words, and where they are text."""
    frame = pd.DataFrame({"a": pd.Series(values, dtype=object), "b": pd.Series(values), "c": range(len(values))})
    assert shown.to_csv(frame) == frame.to_csv(index=False, lineterminator="\n")


@given(st.text(), st.text(alphabet="=+-@;,\"' \t\r\n1a"))
def test_whatever_a_cell_says_it_is_no_formula_and_no_two_cells(one: str, other: str) -> None:
    written = shown.to_csv(pd.DataFrame({"x": [one, "a"], "y": [other, "b"]}))
    assert not [cell for delimiter in ",;" for cell in cells(written, delimiter) if is_formula(cell)]
    assert [len(row) for row in csv.reader(io.StringIO(written, newline=""))] == [2, 2, 2]


def test_a_frame_without_columns_or_rows_is_one() -> None:
    for frame in (pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame([], columns=["a", "b"])):
        assert shown.to_csv(frame) == frame.to_csv(index=False, lineterminator="\n")


# ---------------------------------------------------------------- Markdown, HTML, LaTeX


def live_in_markdown(text: str) -> list[str]:
    """Links, images, tags, code and addresses that a reader would follow or show."""
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "\0", text)  # what has a backslash in front is a character
    return re.findall(r"\]\s*[(\[:]|<|>|`|\||://|www\.|&#?\w+;", bare)


@pytest.mark.parametrize("text", [*LIVE, "[1](http://e)", "![1][2]", "www.evil.org", "https://e", "&lt;img&gt;", EVIL])
def test_nothing_in_markdown_is_live(text: str) -> None:
    written = shown.to_markdown(text)
    assert live_in_markdown(text)
    assert not live_in_markdown(written)
    assert not steers(written)
    assert "\n" not in written


@given(st.text() | st.text(alphabet="[]()!:/\\`*<>|&#;w.a1\n"))
def test_whatever_is_said_in_markdown_is_not_live_and_is_read_back(text: str) -> None:
    written = shown.to_markdown(text)
    assert not live_in_markdown(written)
    assert shown.from_markdown(written) == one_line(text.replace("\n", " "))


def test_an_interval_keeps_its_brackets() -> None:
    assert shown.to_markdown("+0.28 [−0.91, +1.47]") == "+0.28 [−0.91, +1.47]"


@given(st.text() | st.text(alphabet="\\{}()±e3%&$#_^~inputa\n"))
def test_no_character_of_latex_is_a_command(text: str) -> None:
    written = shown.to_latex(text)
    known = set(re.findall(r"\\[a-z]+", " ".join(shown.LATEX.values()))) | {r"\times"}
    bare = re.sub(r"\\[&%$#_{}]", "", written)
    assert set(re.findall(r"\\(?:[a-zA-Z]+|.|$)", bare)) <= known
    assert not re.search(r"[%#&]", bare)
    assert bare.count("{") == bare.count("}")
    assert not steers(written)


@pytest.mark.parametrize("text", COMMANDS)
def test_latex_of_a_file_is_read_and_not_run(text: str) -> None:
    written = to_latex(Table(pd.DataFrame({"a": [text]}), pd.DataFrame(), text, (text,), frozenset({(0, "a")})))
    assert r"\input" not in written
    assert shown.to_latex("(1.50 ± 0.20)e3") == r"$(1.50 \pm 0.20) \times 10^{3}$"


def test_a_table_of_words_from_anywhere_has_its_rows_and_no_tags() -> None:
    table = Table(pd.DataFrame({EVIL: [EVIL, "b"], "c": ["d", EVIL]}), pd.DataFrame(), EVIL, (EVIL,))
    page = to_html(table)
    assert not re.search(r"<(img|script|a)\b", page)
    assert not steers(page + to_markdown(table) + to_latex(table))
    rows = [line for line in to_markdown(table).split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


# ---------------------------------------------------------------- a terminal


@pytest.mark.parametrize("character", STEERING)
def test_a_terminal_is_told_nothing(character: str, capsys) -> None:
    say(f"a{character}b")
    say(f"a{character}b", sys.stdout)
    Lines().note(f"a{character}b")
    said = capsys.readouterr()
    assert not steers(said.out + said.err)
    assert said.out == f"a{ascii(character)[1:-1]}b\n"
    assert said.err == f"a{ascii(character)[1:-1]}b\nnote: a{ascii(character)[1:-1]}b\n"
    assert str(UserError(f"a{character}b")) == f"a{ascii(character)[1:-1]}b"


@pytest.mark.parametrize("path", [p for part in ("analysis", "data") for p in (SOURCE / part).rglob("*.py")], ids=str)
def test_what_files_say_is_printed_by_say_alone(path: Path) -> None:
    """The lines of a job are made by its `_line`, of errors that have no such characters."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printed = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "print"]
    assert all(line.startswith("print(_line(error)") for line in printed)


@pytest.mark.parametrize("text", ["Prüfung 日本 語 🙂", "a\u00a0b", "日本\u3000語"])
def test_letters_and_spaces_of_all_languages_are_left(text: str) -> None:
    assert one_line(text) == text


# ---------------------------------------------------------------- run folders


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunSpec]]:
    """Results whose every word is hostile: causes, machines, versions, layers; one of them diverged."""
    results = tmp_path_factory.mktemp("sent") / "results"
    shared = {"dataset": "digits", "model": "mlp", "epochs": 5}
    specs = [
        *(s for method in ("ssvi", "rigl", "vi", "dense") for s in with_seeds(RunSpec(method=method, **shared), 2)),
        RunSpec(method="ssvi", density=0.05, **shared),
    ]
    for i, spec in enumerate(specs):
        run = write_run(results, spec, diverged=EVIL if i == len(specs) - 1 else None)
        folder = results / "runs" / run
        record = json.loads((folder / files.SPEC).read_text())
        for name in ("commit", "cpu", "device", "ssvi", "torch", "python", "started", "computed_precision"):
            record["provenance"][name] = f"{EVIL}{i if name == 'cpu' else ''}"
        (folder / files.SPEC).write_text(json.dumps(record))
        lines = [json.loads(line) for line in (folder / files.TOPOLOGY).read_text().splitlines()]
        for line in lines:
            for layer in line["layers"]:
                layer["layer"] += EVIL
        (folder / files.TOPOLOGY).write_text(to_jsonl(lines))
        tie(folder)
    return results, {run_path(spec): spec for spec in specs}


def check(folder: Path) -> None:
    """Nothing in what was written is live."""
    found = [path for path in folder.rglob("*") if path.suffix in (".csv", ".md", ".html", ".tex", ".svg")]
    assert found
    for path in found:
        text = path.read_text()
        assert not steers(text), path
        if path.suffix == ".csv":
            assert not [cell for delimiter in ",;" for cell in cells(text, delimiter) if is_formula(cell)], path
        if path.suffix == ".md":
            lines = [line for line in text.splitlines() if not line.startswith("|")]
            assert not [line for line in lines if live_in_markdown(line)], path
        if path.suffix == ".html":
            assert not re.search(r"<img (?!src=\"data:)|<script src|<a href=\"(?!#)|<[a-z]+ [^>]*\bon\w+=", text), path
        if path.suffix == ".tex":
            assert r"\input" not in text, path


def test_tables_and_figures_of_runs_that_were_sent_are_harmless(sent, tmp_path) -> None:
    results, specs = sent
    frames = load_frames(results, specs, ["history", "updates", "overlap", "samples"])
    assert set(frames.runs["status"]) == {COMPLETE, "diverged"}
    write_collected(frames, tmp_path / "data")
    made = set()
    for name in TABLES:
        with contextlib.suppress(UserError):  # of tables that are made of other runs
            write_table(make_table(name, frames), tmp_path / "tables" / name)
            made.add(name)
    content = {"x": "cpu", "y": "accuracy", "hue": "device", "facets": "torch"}
    write_figure(make_figure("generic", frames, content), tmp_path / "figures/generic")
    assert made >= {"summary", "table2"}
    check(tmp_path)


def test_a_report_of_runs_that_were_sent_is_harmless(sent, tmp_path, capsys) -> None:
    results, specs = sent
    content = {
        "experiments": {"all": {}},
        "tables": {"summary": ["all"], "table1": ["all"]},
        "figures": {"layers": ["all"]},
        "train": {},
        "quick": [],
    }
    missing = RunSpec(dataset="digits", model="mlp", epochs=7)
    log = results / "logs/train" / f"{run_path(missing)}.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"ssvi: {EVIL}".replace("\n", ""))
    make_all(results, tmp_path, "s", content, {"all": {**specs, run_path(missing): missing}}, say=say)
    check(tmp_path)
    said = capsys.readouterr()
    assert not steers(said.out + said.err)
