"""What the base of the installation is enough for, and the one line where it is not."""

import ast
import re
import tomllib

import pytest
from hiding import without
from packaging.requirements import Requirement
from studies import ROOT, config_of, write_config

import ssvi
from ssvi import cli
from ssvi.machine import extras
from ssvi.runs import files
from ssvi.runs.records import read_json

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that are imported by another name than they are installed by.
IMPORTED = {"PyYAML": "yaml"}
OF_EXTRAS = tuple(name for names in extras.EXTRAS.values() for name in names)
SMALL = ("--model=mlp", "--width=0.05", "--epochs=1", "--batch-size=512", "--data-root=data")
STUDY = {"experiments": {"all": {"method": "dense"}}, "quick": [], "tables": {}, "figures": {}}


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_the_packages_of_an_extra_are_those_of_pyproject(extra) -> None:
    asked = [Requirement(line).name for line in PROJECT["optional-dependencies"][extra]]
    assert {IMPORTED.get(name, name) for name in asked} - {"ssvi"} == set(extras.EXTRAS[extra])


def test_training_and_evaluation_need_no_extra(tmp_path) -> None:
    trained = without(OF_EXTRAS, "ssvi", "train", *SMALL, "--method=dense", "--out=run", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    evaluated = without(OF_EXTRAS, "ssvi", "evaluate", "run", "--data-root=data", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert read_json(tmp_path / "run" / files.METRICS)["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        (["report"], "yaml", "pipeline"),
        (["ui"], r"\w+", "pipeline"),
        (["train", "--dataset=cifar10", "--out=run"], "torchvision", "cifar"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_needs_an_extra_says_so(tmp_path, words, missing, extra) -> None:
    write_config(tmp_path, config_of("tiny", STUDY))
    said = without(OF_EXTRAS, "ssvi", *words, folder=tmp_path)
    line = rf'ssvi: ssvi {words[0]} needs {missing}, which is not installed here: pip install "ssvi\[{extra}\]"\n'
    assert said.returncode == 1
    assert re.fullmatch(line, said.stderr)


def test_the_workflow_names_all_that_is_missing(tmp_path) -> None:
    write_config(tmp_path, config_of("tiny", STUDY))
    words = ("--snakefile", str(ROOT / "Snakefile"), "-n", "--cores=1")
    said = without(("matplotlib", "mlflow"), "snakemake", *words, folder=tmp_path)
    assert said.returncode == 1
    line = 'ssvi: the workflow needs matplotlib, mlflow, which are not installed here: pip install "ssvi[pipeline]"'
    assert line in said.stderr.splitlines()
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'pandas._libs'", name="pandas._libs"),
        ModuleNotFoundError("No module named 'numpy'", name="numpy"),
        ImportError("cannot import name 'frame' from 'pandas'", name="pandas"),
    ],
    ids=str,
)
def test_a_broken_package_is_not_called_missing(monkeypatch, error) -> None:
    def broken(_) -> None:
        raise error

    monkeypatch.setattr("ssvi.cli.study._report", broken)
    assert extras.told(error, "it") is None
    with pytest.raises(ImportError) as raised:
        cli.main(["report"])
    assert raised.value is error


def test_public_names_are_found_when_they_are_used(monkeypatch) -> None:
    from ssvi.runs.spec import RunSpec

    monkeypatch.setitem(ssvi.PUBLIC, "RunSpec", "ssvi.runs.spec")
    assert "RunSpec" in dir(ssvi)
    assert ssvi.RunSpec is RunSpec
    assert vars(ssvi).pop("RunSpec") is RunSpec  # the next time without looking
    with pytest.raises(AttributeError, match="module 'ssvi' has no attribute 'nothing'"):
        _ = ssvi.nothing


def test_checkers_of_types_see_the_public_names() -> None:
    tree = ast.parse((ROOT / "ssvi" / "__init__.py").read_text())
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.asname, node.module) for node in typed.body for alias in node.names}
    assert seen == set(ssvi.PUBLIC.items())
    assert set(ssvi.__all__) == set(ssvi.PUBLIC)
    assert (ROOT / "ssvi" / "py.typed").exists()
