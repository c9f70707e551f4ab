"""The way to a server on which requests and answers get lost: an HTTP proxy with faults that a test chooses."""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONG = 60  # seconds after which what a test waits for in vain is given up

Fault = Callable[[int, str], str | None]


class Proxy:
    """Passes requests on to a server on this machine, but for those that `fault` has a fault for.

    refuse: the connection is closed, and the server never hears of it.
    503: the same, with an answer that says so.
    hang: the same, but the client has to give up waiting.
    lose: the server does what it is asked, and its answer is lost.
    late: so is the answer, because the client has given up waiting.
    twice: the client has given up waiting and asks again, and only then the server gets both requests, this one last.

    Args:
        port: of the server.

    Attributes:
        fault: what befalls a request, by its number (from 0), method and path ("POST /..."); None if nothing does.
        asked: the methods and paths of all requests.
    """

    def __init__(self, port: int) -> None:
        self.port, self.fault = port, none
        self.asked: list[str] = []
        self._changed = threading.Condition()
        self._parked: list[tuple[Any, ...]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy._handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def begin(self, fault: Fault) -> None:
        """Count requests anew, with another fault."""
        self.asked, self.fault = [], fault

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        wanted = (request.command, request.path, body, dict(request.headers))
        with self._changed:
            asked, number = self.asked, len(self.asked)
            asked.append(f"{request.command} {request.path}")
            self._changed.notify_all()
        fault = self.fault(number, asked[number])
        answer = (503, [], b"") if fault == "503" else None
        if fault == "twice":
            self._parked.append(wanted)
        if fault in (None, "lose", "late"):
            answer = self._forward(*wanted)
            while self._parked:
                self._forward(*self._parked.pop())
        if fault in ("hang", "late", "twice"):
            with self._changed:
                self._changed.wait_for(lambda: len(asked) > number + 1, LONG)
        if fault in (None, "503") and answer is not None:
            status, headers, content = answer
            request.send_response(status)
            for name, value in headers:
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)

    def _forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes] | None:
        """What the server answers; None if it cannot be reached."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() in ("content-type", "retry-after")]
            return answer.status, kept, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def none(number: int, asked: str) -> None:
    """No fault."""


def at(nth: int, kind: str) -> Fault:
    """A fault that befalls one request."""
    return lambda number, asked: kind if number == nth else None
