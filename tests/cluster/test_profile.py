"""The Slurm profile, without Slurm: read, complete, and accepted by Snakemake."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from run import CONFIG, most_at_once, other_spelling

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
RULES = {
    name: body
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n((?: .*\n|\n)+)", file.read_text(), re.MULTILINE)
}
LOCAL = {
    name.strip(",")
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for block in re.findall(r"^localrules:\n((?:    .*\n)+)", file.read_text(), re.MULTILINE)
    for name in block.split()
} | {name for name, body in RULES.items() if "localrule: True" in body}
SUBMITTED = RULES.keys() - LOCAL


@pytest.fixture(scope="module")
def profile() -> dict:
    return yaml.safe_load(PROFILE.read_text())


def test_rules_are_submitted_or_local_on_purpose():
    assert {"train", "evaluate", "samples", "suite"} == SUBMITTED
    assert {"data", "collect", "table", "figure", "mirror"} <= LOCAL


@pytest.mark.parametrize("block", ["set-resources", "set-threads", "groups"])
def test_every_submitted_rule_is_named_and_no_other(profile, block):
    assert profile[block].keys() == SUBMITTED


def test_each_submitted_rule_says_what_it_needs(profile):
    for rule, needs in profile["set-resources"].items():
        assert needs["gpu"] == 1, rule
        assert needs["mem_mb"] > 0, rule
        assert needs["runtime"] > 0, rule
        assert profile["set-threads"][rule] > 0, rule
    assert {entry.split("=")[0] for entry in profile["default-resources"]} == {"slurm_partition", "mem_mb", "runtime"}


def test_gpus_are_given_out_by_slurm_and_the_queue_is_not_flooded(profile):
    assert profile["resources"] == ["slot=1"]
    assert profile["set-resource-scopes"] == ["slot=local"]
    assert all(needs["slot"] == 1 for needs in profile["set-resources"].values())
    assert 0 < profile["jobs"] <= 100
    assert profile["retries"] > 0
    assert profile["slurm-requeue"] is True
    assert "slurm-status-command" not in profile


def test_the_rest_is_as_in_the_default_profile(profile):
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    for key in default.keys() - {"resources", "retries", "max-jobs-per-timespan"}:
        assert profile[key] == default[key], key


def test_the_commented_lines_are_the_other_spelling(profile):
    other = yaml.safe_load(other_spelling(PROFILE.read_text()))
    for rule, needs in profile["set-resources"].items():
        assert other["set-resources"][rule] == needs | {"gpu": 0, "gres": "gpu:1"}
    assert other["group-components"].keys() == set(profile["groups"].values())
    assert {k: v for k, v in other.items() if k not in ("set-resources", "group-components")} == {
        k: v for k, v in profile.items() if k != "set-resources"
    }


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
    reason="Snakemake's plugin for Slurm is not installed: pip install -e '.[slurm]'",
)
@pytest.mark.parametrize("spelling", ["gpus", "gres"])
def test_snakemake_accepts_it(tmp_path, spelling):
    text = PROFILE.read_text()
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(text if spelling == "gpus" else other_spelling(text))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "SNAKEMAKE", "SLURM_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    call = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    call += ["--workflow-profile", tmp_path / "profile", "--dry-run", "--quiet", "host"]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = re.findall(r"^ *rule train:\n(?: +.*\n)*? +resources: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(asked) == 10
    for line in asked:
        assert "slurm_partition=gpu" in line
        assert "mem_mb=16000" in line
        assert "runtime=720" in line
        assert ("gpu=1" if spelling == "gpus" else "gres=gpu:1") in line
        assert ("gpu=0" in line) == (spelling == "gres")


def test_jobs_at_once_are_counted_from_records():
    def record(begin: int, end: int, node: str = "n1") -> dict[str, str]:
        times = {k: f"2024-01-01T00:00:{s:02d}" for k, s in (("StartTime", begin), ("EndTime", end))}
        return {"NodeList": node, **times}

    assert most_at_once([record(0, 10), record(10, 20)]) == 1  # one after the other
    assert most_at_once([record(0, 10), record(5, 20), record(9, 12)]) == 3
    assert most_at_once([record(0, 10), record(0, 10, "(null)")]) == 1  # cancelled before it started
    assert most_at_once([]) == 0
