"""Which files a script stands on: told from the text, and found in memory once it is imported."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fake_runs import EVALUATION, write_runs
from studies import ROOT, command, config_of, copy_project, environment, write_config

from ssvi.runs import files
from ssvi.runs.config import study_runs
from ssvi.runs.imports import DATA, closure

SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))

# Makes every import of a script, then those inside the functions of what is loaded, until nothing new comes; prints
# the files of the package in memory.
IMPORTING = """
import ast, json, sys
script, root = sys.argv[1:]
done, waiting = set(), {script}
while waiting:
    path = waiting.pop()
    done.add(path)
    tree = ast.parse(open(path).read())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # runs for a checker of types alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})
    loaded = {str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}
    waiting |= {path for path in loaded if path.startswith(root + "/ssvi/")} - done
print(json.dumps(sorted(done)))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_all_that_is_imported_is_in_the_closure_and_little_else(script: Path) -> None:
    words = [sys.executable, "-c", IMPORTING, str(script), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    loaded = {Path(path) for path in json.loads(done.stdout)}
    assert len(loaded) > 5
    assert {path for path in closure(script, ROOT) if path.suffix == ".py"} == loaded


def test_a_step_stands_on_what_it_uses_alone() -> None:
    names = {path.stem: {str(file.relative_to(ROOT)) for file in closure(path, ROOT)} for path in SCRIPTS}
    assert "ssvi/analysis/comparing.py" in names["figure"]
    assert not [name for name in names["figure"] if "tables" in name]
    assert {"ssvi/analysis/report/report.css", "ssvi/analysis/figures/sigma.py"} <= names["report"]
    assert "ssvi/analysis/tables/published.json" in names["table"]
    assert not [name for name in names["table"] if "figures" in name or "report" in name]
    assert not [name for name in names["collect"] if "tables" in name]
    for name, found in names.items():
        assert f"workflow/scripts/{name}.py" in found
        assert not found & {"ssvi/training/trainer.py", "ssvi/methods/ssvi.py", "ssvi/cli/__init__.py"}


def test_package_data_are_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = [p for found in project["tool"]["setuptools"]["package-data"].values() for p in found]
    # of the others, py.typed is empty
    assert {Path(pattern).suffix for pattern in patterns} == {".typed", *DATA}
    inside = {path.suffix for path in (ROOT / "ssvi").rglob("*.*") if path.suffix != ".pyc"}
    assert inside == {".py", ".typed", *DATA}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os, lib.a", ["__init__", "a"]),
        ("import lib.inner.deep as d", ["__init__", "inner/__init__", "inner/deep"]),
        ("from lib import a", ["__init__", "a"]),
        ("from lib.a import anything", ["__init__", "a"]),
        ("from lib.a import *", ["__init__", "a"]),
        ("def f():\n    class C:\n        from lib import a", ["__init__", "a"]),
        ("try:\n    pass\nexcept OSError:\n    from lib import a", ["__init__", "a"]),
        ("try:\n    pass\nfinally:\n    import lib.a", ["__init__", "a"]),
        ("match 1:\n    case 1:\n        import lib.a", ["__init__", "a"]),
        ("if x:\n    pass\nelif y:\n    pass\nelse:\n    import lib.a", ["__init__", "a"]),
        ("async def f():\n    async with x:\n        import lib.a", ["__init__", "a"]),
        ("import lib.round", ["__init__", "about", "round"]),
        ("from lib.near import x", ["__init__", "a", "inner/__init__", "inner/deep", "near"]),
        ("if TYPE_CHECKING:\n    import lib.a", []),
        ("if typing.TYPE_CHECKING:\n    import lib.a\nelse:\n    import lib.inner", ["__init__", "inner/__init__"]),
        ("'import lib.a'  # import lib.a", []),
        ("import library, lib2.a, json", []),
    ],
)
def test_every_way_to_import(tmp_path: Path, text: str, expected: list[str]) -> None:
    content = {
        "__init__": "",
        "a": "import json",
        "round": "import lib.about",
        "about": "import lib.round",
        "near": "from . import a\nfrom .inner import deep",
        "inner/__init__": "",
        "inner/deep": "",
        "unused": "import lib.a",
    }
    for name, body in content.items():
        path = tmp_path / "lib" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(body)
    script = tmp_path / "scripts/script.py"
    script.parent.mkdir()
    script.write_text(text)
    assert set(closure(script, tmp_path)) == {script, *(tmp_path / "lib" / f"{name}.py" for name in expected)}
    ast.parse(text)


def test_figures_are_due_when_code_that_they_use_changes_and_trainings_never(tmp_path: Path) -> None:
    """In a finished study of made-up runs, whose code is then changed file by file."""
    root = copy_project(tmp_path / "project")
    experiments = {"all": {"method": "ssvi", "criterion": ["snr", "snr_abs"], "epochs": 3, "seed": [0, 1]}}
    study = {"experiments": experiments, "quick": [], "tables": {}, "figures": {"criteria": ["all"]}}
    config = config_of("tiny", study, evaluation=EVALUATION)
    write_config(tmp_path, config)
    specs = write_runs(tmp_path / "results", study_runs(config, "tiny").values())
    figures = [tmp_path / f"reports/tiny/figures/criteria.{suffix}" for suffix in ("png", "svg", "pdf", "csv", "md")]
    made = [tmp_path / "results/runs" / run / files.MODEL for run in specs]
    for path in [tmp_path / "results/data/digits.json", *made, *figures]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    started = 1_700_000_000
    for age, folder in ((0, root), (100, tmp_path / "results"), (200, tmp_path / "reports")):
        for path in folder.rglob("*"):
            os.utime(path, (started + age, started + age))

    def due(changed: str) -> set[str]:
        """The rules that a dry run names when a file alone is newer than what was made."""
        os.utime(root / changed, (started + 300, started + 300))
        words = command(tmp_path, "-n", "--", *(path.relative_to(tmp_path) for path in figures), root=root)
        done = subprocess.run(words, capture_output=True, text=True, env=environment(root), cwd=tmp_path)
        os.utime(root / changed, (started, started))
        assert done.returncode == 0, done.stderr
        jobs = set(re.findall(r"^(\w+) +\d+$", done.stdout, flags=re.MULTILINE)) - {"total"}
        assert jobs or "Nothing to be done" in done.stdout
        return jobs

    assert due("ssvi/training/trainer.py") == set()
    assert due("ssvi/analysis/comparing.py") == {"figure"}
    assert due("ssvi/analysis/tables/rows.py") == set()
