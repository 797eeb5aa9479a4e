"""A small HTTP server beside a long job: /metrics for Prometheus, /health and /ready for whoever supervises it.

    GET /metrics   the numbers of a registry, in Prometheus' text format
    GET /health    200 while the job works, 503 with the reason when it does not
    GET /ready     200 when the job can do what it is for, 503 with what is missing

It runs in a thread of its own, so that a busy event loop still answers; what it shows are plain values that the job has published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from valkeep.errors import ValkeepError

__all__ = ["MetricsServer"]

Check = Callable[[], str]
"""What is wrong, in a sentence; "" when nothing is."""


class MetricsServer:
    """Serves ``registry`` and two checks on ``address`` while entered. ``port``: the one it got."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, healthy: Check, ready: Check) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path in ("/health", "/ready"):
                    wrong = (healthy if self.path == "/health" else ready)()
                    self._answer(503 if wrong else 200, (wrong or "ok").encode() + b"\n", "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"/metrics, /health, /ready\n", "text/plain; charset=utf-8")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                """No access log: scrapes are not news."""

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise ValkeepError(
                f"metrics cannot be served on {address[0]}:{address[1]}: {error.strerror or error}",
                remedy="choose a free port of this machine: --metrics HOST:PORT",
                code="VK-LISTEN",
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
