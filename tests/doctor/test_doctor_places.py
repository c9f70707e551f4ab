"""`ssvi doctor` where something around the trainings is at fault: its line tells it, the others stay."""

import errno
import fcntl
import http.server
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from doctors import bare, examined
from studies import config_of, write_config

from ssvi.core.layers import masked_layers
from ssvi.core.noise import NormalSource
from ssvi.doctor import machine, results, services
from ssvi.doctor.base import Asked
from ssvi.doctor.registry import CHECKS
from ssvi.registry import MODELS
from ssvi.runs.options import DATASETS
from ssvi.runs.places import PUBLISHED
from ssvi.runs.spec import RunSpec
from ssvi.training.network import build


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Asked:
    return bare(tmp_path, monkeypatch)


# ---------------------------------------------------------------- what was granted


# By the version of cgroups: folder, line of /proc/self/cgroup, files of one core, and of no limit.
OF_VERSION = {
    1: (
        "cpu,cpuacct/jobs/mine",
        "4:cpu,cpuacct:/jobs/mine\n",
        {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"},
        {"cpu.cfs_quota_us": "-1"},
    ),
    2: ("jobs/mine", "0::/jobs/mine\n", {"cpu.max": "100000 100000"}, {"cpu.max": "max 100000"}),
}


@pytest.mark.parametrize("version", OF_VERSION)
def test_a_cgroup_of_one_core_is_told(tmp_path, monkeypatch, asked, version) -> None:
    folder, line, files, unlimited = OF_VERSION[version]
    inside = tmp_path / "sys/fs/cgroup" / folder
    inside.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line)
    for where, texts in ((inside, files), (inside.parent, {**files, **unlimited})):
        for name, text in texts.items():
            (where / name).write_text(f"{text}\n")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "usable_cpus", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = examined("machine.cores", asked)
    assert found.verdict == "warning"
    assert "1 cores granted" in found.finding
    assert "affinity 16, cgroup 1" in found.finding
    assert "--threads 1" in found.advice
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert "OMP_NUM_THREADS is 4" in examined("machine.cores", asked).finding
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert examined("machine.cores", asked).verdict == "ok"


def test_threads_beyond_what_slurm_grants_are_told(monkeypatch, asked) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    monkeypatch.setattr(machine, "usable_cpus", lambda: 8)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    found = machine.cores(Asked("cpu", asked.results, asked.data_root, threads=4))
    assert (found.verdict, found.advice) == ("warning", "threads: 2")
    assert "Slurm 2" in found.finding


def test_little_memory_is_told(tmp_path, monkeypatch, asked) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert examined("machine.memory", asked).verdict == "ok"
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    found = examined("machine.memory", asked)
    assert found.verdict == "warning"
    assert "free 4.0 GiB, in all 8.0 GiB, cgroup 1.0 GiB" in found.finding


# ---------------------------------------------------------------- the results folder

OF_FOLDER = [name for name in CHECKS if name.startswith("results.")]


def verdicts(asked: Asked) -> dict[str, str]:
    return {name.removeprefix("results."): examined(name, asked).verdict for name in OF_FOLDER}


def refusing(number: int, only=lambda handle: True):
    def refuse(handle, *rest):
        if only(handle):
            raise OSError(number, os.strerror(number))

    return refuse


def is_folder(handle: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{handle}")


FAULTS = {
    "no locks (ENOLCK)": ("locks", "failed", fcntl, "flock", refusing(errno.ENOLCK)),
    "no locks (ENOTSUP)": ("locks", "failed", fcntl, "flock", refusing(errno.ENOTSUP)),
    "locks that exclude nobody": ("locks", "failed", fcntl, "flock", lambda *_: None),
    "no fsync": ("sync", "failed", os, "fsync", refusing(errno.EINVAL, lambda handle: not is_folder(handle))),
    "no fsync of folders": ("sync", "warning", os, "fsync", refusing(errno.EINVAL, is_folder)),
    "a clock an hour ahead": ("times", "warning", results.time, "time", lambda true=results.time.time: true() - 3600),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_file_system_is_told_by_its_line_alone(fault, asked, monkeypatch) -> None:
    line, verdict, owner, name, replacement = FAULTS[fault]
    good = verdicts(asked)
    assert good[line] == "ok"
    monkeypatch.setattr(owner, name, replacement)
    assert verdicts(asked) == {**good, line: verdict}


def test_a_file_that_is_away_while_it_is_replaced_is_told(asked, monkeypatch) -> None:
    def in_two_steps(new, old, replace=os.replace):
        Path(old).unlink()
        results.time.sleep(0.001)
        replace(new, old)

    monkeypatch.setattr(os, "replace", in_two_steps)
    assert "while it was replaced" in examined("results.rename", asked).finding


def test_a_full_disk_is_told_and_needs_no_second_line(tmp_path, asked) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(full)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        there = Asked("cpu", full / "results", asked.data_root)
        assert examined("results.folder", there).verdict == "ok"
        found = examined("results.space", there)
        assert (found.verdict, found.advice) == ("failed", "make space")
        assert "No space left on device" in found.finding
        assert examined("results.system", there).verdict == "warning"  # gone after a restart
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)
    after = [name for name in OF_FOLDER if name not in ("results.folder", "results.system", "results.space")]
    assert all("results.space" in CHECKS[name].needs for name in after)


def test_a_quota_is_a_full_disk(asked, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EDQUOT))
    assert "cannot be written: Disk quota exceeded" in examined("results.space", asked).finding


def test_what_the_study_needs_is_held_against_what_is_free(asked, monkeypatch, tmp_path) -> None:
    write_config(tmp_path, config_of("tiny", {"experiments": {"vi": {"method": "vi", "seed": [*range(20)]}}}))
    there = Asked("cpu", asked.results, asked.data_root, config=tmp_path / "config.yaml")
    found = examined("results.space", there)
    # 20 ResNet-18 of 11.2 million weights, 10 bytes each, and 70 of the one in training
    assert "20 runs left need about 2.8 GiB and 300 files" in found.finding
    size = os.statvfs(tmp_path)
    few = os.statvfs_result((size.f_bsize, 4096, 2**22, 2**21, 2**21, 10**6, 100, 100, 0, 255, 0))
    monkeypatch.setattr(os, "statvfs", lambda path: few)
    found = examined("results.space", there)
    assert found.verdict == "warning"
    assert "8.0 GiB free, 100 files" in found.finding


def test_the_weights_that_are_reckoned_with_are_those_of_the_networks() -> None:
    assert set(results.WEIGHTS) == set(MODELS)
    for model, weights in results.WEIGHTS.items():
        network, _ = build(RunSpec(model=model, method="dense"), 3, 32, 10, NormalSource(0, "noise", "cpu"))
        counted = sum(layer.mean.numel() for layer in masked_layers(network).values())
        assert weights == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "options", "verdict"),
    [
        ("ext4", "rw,relatime", "ok"),
        ("nfs4", "rw,hard,local_lock=none", "note"),
        ("nfs", "rw,hard,nolock", "warning"),
        ("nfs", "rw,soft,local_lock=none", "warning"),
        ("lustre", "rw,localflock", "warning"),
        ("tmpfs", "rw", "warning"),
        ("overlay", "rw", "note"),
        ("ext4", "ro", "failed"),
    ],
)
def test_the_kind_of_file_system_is_told(tmp_path, monkeypatch, kind, options, verdict) -> None:
    place = tmp_path / "with space"
    place.mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(place).replace(" ", "\\040")
    mounts.write_text(f"none / btrfs rw 0 0\nserver:/x {escaped} {kind} {options} 0 0\nnone /elsewhere proc rw 0 0\n")
    monkeypatch.setattr(results, "MOUNTS", mounts)
    found = results.system(Asked("cpu", place / "results", tmp_path))
    assert found.verdict == verdict
    assert f"{kind} at {place}" in found.finding
    assert results.system(Asked("cpu", tmp_path / "with", tmp_path)).finding == "btrfs at /"


def test_a_folder_shared_with_a_group_that_nobody_else_could_write_is_told(asked) -> None:
    asked.results.mkdir()
    asked.results.chmod(0o2775)
    before = os.umask(0o022)
    try:
        found = examined("results.folder", asked)
        os.umask(0o002)
        assert examined("results.folder", asked).verdict == "ok"
    finally:
        os.umask(before)
    assert (found.verdict, found.advice) == ("warning", "umask 002")


def test_a_results_folder_that_cannot_be_is_told(tmp_path, asked) -> None:
    (tmp_path / "results").write_text("")
    assert "is a file" in examined("results.folder", asked).finding
    assert examined("results.folder", Asked("cpu", Path("/proc/no/results"), tmp_path)).verdict == "failed"


def test_no_check_leaves_anything(asked, tmp_path) -> None:
    verdicts(asked)
    examined("data", asked)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- data


def test_data_sets_that_are_prepared_or_missing_are_named(tmp_path, asked, monkeypatch) -> None:
    assert {*PUBLISHED} == {*DATASETS} - {"digits"}
    (asked.data_root / "cache").mkdir(parents=True)
    (asked.data_root / "cache/digits-v3.safetensors").touch()
    assert "prepared: digits-v3" in examined("data", asked).finding
    write_config(tmp_path, config_of("tiny", {"experiments": {"vi": {"method": "vi", "dataset": "cifar10"}}}))
    there = Asked("cpu", asked.results, asked.data_root, config=tmp_path / "config.yaml")
    found = examined("data", there)
    assert found.verdict == "warning"
    assert "not there: cifar10" in found.finding
    assert found.advice == f"ssvi data cifar10 --root {asked.data_root} --download"
    (asked.data_root / "cifar-10-batches-py").mkdir()
    assert examined("data", there).verdict == "ok"


# ---------------------------------------------------------------- MLflow, Snakemake


class Server(http.server.BaseHTTPRequestHandler):
    """An MLflow server that says its version to whom it knows."""

    version, seen = "3.4.0", list[str]()

    def do_GET(self) -> None:
        Server.seen.append(f"{self.path} {self.headers.get('Authorization')}")
        known = Server.version if self.path == "/version" else None
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write((known or "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(services, "installed", lambda name: "3.17.0")
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_says_its_version_and_no_password_is_shown(asked, server, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{server.server_port}")
    found = examined("mlflow", asked)
    assert found.verdict == "ok"
    assert "has 3.4.0" in found.finding
    assert Server.seen[-1] == "/version Basic bWU6aHVudGVyMg=="
    monkeypatch.setattr(Server, "version", "2.9.1")
    assert "may not understand" in examined("mlflow", asked).meaning
    monkeypatch.setattr(Server, "version", "<html>")
    odd = examined("mlflow", asked)
    assert odd.verdict == "warning"
    assert "hunter2" not in f"{found} {odd}"


@pytest.mark.parametrize("silent", [True, False])
def test_a_server_that_is_away_or_never_answers_is_told(asked, monkeypatch, silent) -> None:
    monkeypatch.setattr(services, "SECONDS", 0.3)
    monkeypatch.setattr(services, "installed", lambda name: "3.17.0")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen() if silent else None
        port = listening.getsockname()[1]
        for uri in (f"http://me:hunter2@127.0.0.1:{port}", f"postgresql://me:hunter2@127.0.0.1:{port}/runs"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            found = examined("mlflow", asked)
            # whether a database that takes connections also answers, nobody without its client can tell
            assert found.verdict == ("ok" if silent and uri.startswith("postgresql") else "failed")
            assert "hunter2" not in str(found)
            assert found.verdict == "ok" or "does not answer" in found.finding


@pytest.mark.parametrize(
    ("uri", "verdict"),
    [
        ("", "ok"),
        ("some/folder", "failed"),
        ("file:///some/folder", "failed"),
        ("sqlite:////proc/no/file.db", "failed"),
        ("http://[::1", "failed"),
    ],
)
def test_what_is_no_server_is_told(asked, monkeypatch, uri, verdict) -> None:
    monkeypatch.setattr(services, "installed", lambda name: "3.17.0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(os, "access", lambda path, mode, true=os.access: str(path) != "/proc" and true(path, mode))
    assert examined("mlflow", asked).verdict == verdict


def test_what_is_not_installed_is_no_failure(asked, monkeypatch) -> None:
    monkeypatch.setattr(services, "installed", lambda name: None)
    assert examined("mlflow", asked).verdict == "skipped"
    assert examined("snakemake", asked).verdict == "note"


def test_slurm_without_its_plugin_is_told(asked, monkeypatch) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda name: "/usr/bin/sbatch")
    monkeypatch.setattr(services.metadata, "distributions", list)
    found = examined("snakemake", asked)
    assert found.verdict == "warning"
    assert ".[slurm]" in found.advice
