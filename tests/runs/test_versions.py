"""The versions that were tested: in range, for every Python, installed by every command, named where others are."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

from ssvi.cli import main
from ssvi.runs import files, versions
from ssvi.runs.options import DATASETS
from ssvi.runs.records import read_json
from ssvi.runs.spec import RunSpec

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Those of `oracles` ask for older versions, and are installed apart.
EXTRAS = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "oracles" for line in lines]
ASKED = [one for line in [*PROJECT["dependencies"], *EXTRAS] if (one := Requirement(line)).name != PROJECT["name"]]
LOCKED = [Requirement(x) for x in versions.CONSTRAINTS.read_text().splitlines() if x and x.lstrip()[0] != "#"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", [("linux", "Linux"), ("darwin", "Darwin")])
def test_each_dependency_has_one_version_within_its_range(python, system) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    here |= {"sys_platform": system[0], "platform_system": system[1]}
    locked = {}
    for one in LOCKED:
        if one.marker is None or one.marker.evaluate(here):
            assert canonicalize_name(one.name) not in locked, one
            (pin,) = one.specifier
            assert pin.operator == "=="
            locked[canonicalize_name(one.name)] = pin.version
    for asked in ASKED:
        assert asked.specifier.contains(locked[canonicalize_name(asked.name)]), asked


def test_what_a_training_computes_with_is_asked_for_and_tested() -> None:
    assert set(versions.COMPUTING) <= {canonicalize_name(asked.name) for asked in ASKED}
    assert set(versions.COMPUTING) <= versions.tested().keys()


def test_every_installation_takes_the_tested_versions() -> None:
    """In the Makefile by one definition; README and the workflows call it, or name the file."""
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert [line for line in installs if "addprefix -c ,$(CONSTRAINTS)" in line] == [installs[0]]
    # but for what makes that file, and for packages that ask for older ones
    assert all("uv" in line or "-oracles/" in line for line in installs[1:])
    assert '\t$(INSTALL) -e ".[pipeline]"' in makefile
    for text in (ROOT / "README.md", ROOT / "docs" / "cluster.md"):
        for line in re.findall(r"^.*pip install -e .*$", text.read_text(), flags=re.MULTILINE):
            assert "-c ssvi/constraints.txt" in line, f"{text.name}: {line}"


def test_the_newest_versions_are_tried_on_a_schedule() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "newest.yml").read_text())
    assert workflow[True]["schedule"]  # YAML reads `on` as true
    assert any("make test CONSTRAINTS=" in str(step.get("run")) for step in workflow["jobs"]["test"]["steps"])


def test_other_versions_are_named(monkeypatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda name: {"torch": "2.0.1", "numpy": None}.get(name))
    assert versions.untested() == {"torch": {"here": "2.0.1", "tested": versions.tested()["torch"]}}


def test_a_build_of_the_tested_version_is_the_tested_one(monkeypatch) -> None:
    monkeypatch.setattr(versions.metadata, "version", lambda name: f"{versions.tested()[name]}+cpu")
    assert versions.untested() == {}


def test_a_run_names_them(tmp_path, monkeypatch) -> None:
    other = {"torch": {"here": "2.0.1", "tested": "2.13.0"}}
    monkeypatch.setattr("ssvi.training.provenance.untested", lambda: other)
    options = ["--method=dense", "--model=mlp", "--width=0.05", "--epochs=1", "--batch-size=512"]
    main(["train", *options, f"--out={tmp_path / 'run'}", f"--data-root={tmp_path}"])
    assert read_json(tmp_path / "run" / files.SPEC)["provenance"]["untested"] == other


def test_only_folders_of_images_are_of_the_newer_arithmetic() -> None:
    """What is read and mirrored in another way has another number, and no other result gets one."""
    found = {name: versions.numerics(RunSpec(dataset=name)) for name in (*DATASETS, "folder:digits")}
    assert found == dict.fromkeys(DATASETS, 4) | {"folder:digits": 5}
