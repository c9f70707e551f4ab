"""`ssvi ui`: MLflow's pages, and a mirror that goes on while they are shown."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ssvi.analysis.passwords import without_password
from ssvi.analysis.tracking.experiment import find_experiment
from ssvi.analysis.tracking.live import INTERVAL, Plan, Watcher
from ssvi.analysis.tracking.store import connect, create_store, is_local, quiet, store_folder, tracking_uri
from ssvi.analysis.tracking.views import address, show
from ssvi.errors import UserError, say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOCAL = ("localhost", "127.0.0.1", "::1")
# Where others are, for the hosts that mean all addresses of this machine (these two nobody has: they are for examples).
ROUTES = {
    "0.0.0.0": [(socket.AF_INET, "192.0.2.1")],
    "::": [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")],
}
ENDING_SECONDS = 10  # for the run that is being mirrored when the end comes


def serve(config: Sequence[Path], read: Callable[[], Plan], host: str = "127.0.0.1", port: int = 5000) -> int:
    """Mirror live, and show the mirror in a browser, until Ctrl-C; returns the server's exit code, 0 after Ctrl-C.

    With MLFLOW_TRACKING_URI set, mirrors to that server and starts none.

    Args:
        config: the config files; read again when one changes.
        read: makes a plan of it, or raises `UserError`.
        host: the address to listen on, `localhost` or a plain one (`_check_address`).
        port: the port to listen on.

    Raises:
        UserError: if the config is wrong, the store unusable, the host no plain address, or the port taken.
    """
    _check_address(host, port)
    if is_local():
        _check_free(host, port)
    watcher = Watcher(config, read)
    results, studies = watcher.plan.results, watcher.plan.studies
    count = sum(len(specs) for specs, _ in studies.values())
    what = f"mirrors the {count} runs of {', '.join(studies)} from {results / 'runs'} every {INTERVAL:g} s"
    with _ended_by_signals():
        try:
            if not is_local():
                to = without_password(tracking_uri(results))
                say(f"ssvi ui: {what} to {to} (MLFLOW_TRACKING_URI; Ctrl-C ends it)", sys.stdout)
                watcher.run(threading.Event())
                return 0
            if not _is_loopback(host):
                say(f"ssvi ui: warning: {_exposed(host, port)}")
            create_store(results)
            where = _address(watcher.plan, f"http://{_in_url(host)}:{port}")
            with _server(results, host, port) as server, _in_background(watcher):
                say(f"ssvi ui: {what}; MLflow: {where} (in about 10 s; Ctrl-C ends it)", sys.stdout)
                return server.wait()
        except KeyboardInterrupt:
            return 0


def _address(plan: Plan, server: str) -> str:
    """Where the server shows the trainings of the study that is shown first, whose experiment there is then."""
    with quiet():
        experiment = find_experiment(connect(plan.results), plan.results, plan.study)
        show(experiment, plan.studies[plan.study][0].values())
    return address(server, experiment.id)


@contextlib.contextmanager
def _server(results: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder = store_folder(results)
    uri = tracking_uri(results)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--registry-store-uri", uri]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    environment = {"PYTHONWARNINGS": "ignore", **_admitted(host, port), **os.environ}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # A session of its own, so that Ctrl-C reaches the server's processes once, from here, and none stays behind.
    server = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
    try:
        yield server
    finally:
        _stop(server)


def _exposed(host: str, port: int) -> str:
    return (
        f"--host {host} opens MLflow to the network: whoever reaches port {port} of this machine can read, change and "
        "delete what is in the mirror, because MLflow asks for no password here; safer is to leave --host out and to "
        f"run ssh -L {port}:127.0.0.1:{port} {socket.gethostname()} where the browser is."
    )


def _admitted(host: str, port: int) -> dict[str, str]:
    """By which names MLflow may be asked when it is opened to the network: those of this machine, no others.

    By default it answers to localhost, and to private addresses but for what fills its pages. If it answered to any
    name, a page from elsewhere in somebody's browser could reach it.
    """
    if host in LOCAL:
        return {}
    places = [f"{_in_url(name)}:{port}" for name in sorted(_names(host))]
    local = [f"{_in_url(name).replace('[', '[[]')}:*" for name in LOCAL]
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*local, *places]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{place}" for place in places),
    }


def _names(host: str) -> set[str]:
    """The names and addresses by which others reach what listens at `host`."""
    names = {host, socket.gethostname().lower(), socket.getfqdn().lower()}
    for family, elsewhere in ROUTES.get(host, []):
        # Nothing is sent: the system only chooses the address that it would send from, if there is a way there.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            names.add(probe.getsockname()[0])
    return names


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@contextlib.contextmanager
def _in_background(watcher: Watcher) -> Iterator[None]:
    """Let the watcher work in a thread, and give it time to end its last run; what it leaves is repaired next time."""
    stop = threading.Event()
    thread = threading.Thread(target=watcher.run, args=[stop], name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ENDING_SECONDS)


def _check_address(host: str, port: int) -> None:
    """Refuse a host that is no plain address: what an empty one, a star, a 0 or a name opens is not seen in it."""
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise UserError(
            f"--host is {host!r}, but must be localhost or an address in full, as in 127.0.0.1 or ::1 (this machine "
            "alone), 0.0.0.0 or :: (all who reach it)."
        ) from None
    if not 1 <= port <= 65535:
        raise UserError(f"--port is {port}, but must be from 1 to 65535.")


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot serve at {host}:{port} ({error.strerror}); choose another --port.") from None


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a terminated or hung-up parent take its server with it, as Ctrl-C does; the first signal is enough."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        for sign in SIGNALS:
            signal.signal(sign, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {sign: signal.signal(sign, end) for sign in SIGNALS}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
