"""A Slurm of two nodes with one pretended GPU each, started on this machine by an ordinary user and stopped again.

    python tests/cluster/two_nodes.py start DIR    # prints the two variables to export
    python tests/cluster/two_nodes.py stop DIR

Everything lives in the folder: nothing is read from or written to /etc.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
INSTALL = "apt-get install -y --no-install-recommends slurm-wlm slurm-client munge    (Debian, Ubuntu; as root)"
DAEMONS = ("slurmd-n1", "slurmd-n2", "slurmctld", "munged")
# Debian keeps daemons out of the path of ordinary users.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing_tools() -> list[str]:
    """The programs of Slurm and MUNGE that this machine lacks."""
    return [tool for tool in TOOLS if shutil.which(tool, path=SEARCH) is None]


def environment(folder: Path) -> dict[str, str]:
    """The variables with which the commands of Slurm talk to these nodes."""
    return {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def start(folder: Path, seconds: float = 30) -> None:
    """Start both nodes and wait until they are idle."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool-n1", "spool-n2", "bin"):
        (folder / name).mkdir(exist_ok=True)
    ports = _free_ports(3)
    values = {"DIR": str(folder), "HOST": socket.gethostname().split(".")[0], "USER": getpass.getuser()}
    values |= {f"PORT{i}": str(port) for i, port in enumerate(ports)}
    for name in ("slurm.conf", "gres.conf"):
        text = (HERE / f"{name}.in").read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        (folder / name).write_text(text)
    # Inside a job Snakemake's plugin drops SLURM_CONF, which sites with a file in /etc do not need.
    srun = folder / "bin" / "srun"
    real = Path(shutil.which("sbatch", path=SEARCH)).with_name("srun")  # the path may have another folder's before it
    srun.write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec {real} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge.key"
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
    conf = str(folder / "slurm.conf")
    _daemon(
        "munged",
        *("--force", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"),
        *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"),
    )
    _daemon("slurmctld", "-f", conf)
    start_node(folder, "n1")
    start_node(folder, "n2")
    end = time.monotonic() + seconds
    while states(folder) != ["idle", "idle"]:
        if time.monotonic() > end:
            raise RuntimeError(f"The nodes are {states(folder)} after {seconds:g} s; the logs are in {folder}.")
        time.sleep(0.5)


def start_node(folder: Path, node: str) -> None:
    """Start the daemon of one node."""
    _daemon("slurmd", "-f", str(folder / "slurm.conf"), "-N", node)


def cut_off(folder: Path, node: str) -> None:
    """Kill the daemon of one node: Slurm cannot reach it, but its jobs go on."""
    os.kill(int((folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)


def power_off(folder: Path, node: str) -> None:
    """Kill the daemon of one node and all that its jobs run, without a warning."""
    cut_off(folder, node)
    for job in slurm(folder, "squeue", "--noheader", f"--nodelist={node}", "--format=%i").split():
        _kill(folder, job)


def stop(folder: Path) -> None:
    """Cancel what still runs and stop the daemons that `start` started in this folder."""
    if (folder / "slurmctld.pid").exists():
        slurm(folder, "scancel", "--user", getpass.getuser(), check=False)
        _wait(lambda: not slurm(folder, "squeue", "--noheader", check=False).strip(), 15)
    for name in DAEMONS:
        file = folder / f"{name}.pid"
        pid = int(file.read_text()) if file.exists() and file.read_text().strip() else 0
        if pid and _is_ours(pid, name.partition("-")[0]):
            os.kill(pid, signal.SIGTERM)
            if not _wait(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10):
                os.kill(pid, signal.SIGKILL)
    # Without cgroups Slurm loses sight of a process whose parent has died.
    _kill(folder)


def states(folder: Path) -> list[str]:
    """The nodes' states, as `sinfo` names them."""
    return slurm(folder, "sinfo", "--noheader", "--Node", "--format=%T", check=False).split()


def slurm(folder: Path, *command: str, check: bool = True) -> str:
    """What a command of Slurm prints."""
    done = subprocess.run(command, env=os.environ | environment(folder), capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _daemon(name: str, *arguments: str) -> None:
    program = shutil.which(name, path=SEARCH)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{name} does not start: {done.stderr.strip()}")


def _kill(folder: Path, job: str = "") -> None:
    """Kill all processes of a job, or of all jobs; those that watch over it first, because they would tell Slurm."""
    conf, name, step = f"SLURM_CONF={folder}/slurm.conf\0", "SLURM_JOB_ID=", "slurmstepd: ["
    if job:
        name, step = f"{name}{job}\0", f"{step}{job}."
    watching, working = [], []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = process.joinpath("environ").read_bytes().decode(errors="replace")
            if conf in variables and process.joinpath("cmdline").read_bytes().startswith(step.encode()):
                watching.append(int(process.name))
            elif conf in variables and name in variables:
                working.append(int(process.name))
    for number in [*watching, *working]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _is_ours(pid: int, name: str) -> bool:
    try:
        return name in Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False


def _wait(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def main(arguments: list[str]) -> int:
    """`start FOLDER` or `stop FOLDER`."""
    if len(arguments) != 2 or arguments[0] not in ("start", "stop"):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[1]).resolve()
    if arguments[0] == "stop":
        stop(folder)
        return 0
    if missing_tools():
        print(f"Slurm is not installed ({', '.join(missing_tools())} missing):\n  {INSTALL}", file=sys.stderr)
        return 77
    start(folder)
    print(f'export SLURM_CONF="{folder}/slurm.conf" PATH="{folder}/bin:$PATH"')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
