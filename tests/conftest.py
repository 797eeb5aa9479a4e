"""Fixtures of all tests. ``VALKEEP_TEST_WIRE=interpreted`` runs them on the sources of ``valkeep.wire`` instead of its compiled half."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.support.interpreted import use_interpreted_wire

# A suite that a script started in the background ignores SIGINT, and its children would, too; tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WIRE = os.environ.get("VALKEEP_TEST_WIRE", "installed")
if WIRE == "interpreted":
    use_interpreted_wire()
elif WIRE != "installed":
    raise pytest.UsageError(f"VALKEEP_TEST_WIRE={WIRE!r} is neither installed nor interpreted")

from tests.support import nodes  # noqa: E402 - after the choice of wire
from tests.support.skips import pytest_runtest_makereport  # noqa: E402, F401 - a hook
from valkeep.runtime.node import Process  # noqa: E402
from valkeep.runtime.servers import ServerBinary  # noqa: E402
from valkeep.wire import build  # noqa: E402

# Two busy cores are no reason to call an example slow; reproduction blobs are printed instead of kept in a database.
settings.register_profile(
    "valkeep", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("valkeep")


class Server(Protocol):
    """``server("redis-8.0", {"maxmemory": "1mb"})``: a running server, ended with the test."""

    def __call__(self, spec: str | ServerBinary, config: dict[str, nodes.Setting] | None = None, /, **more: nodes.Setting) -> Process: ...


@pytest.fixture
def server() -> Iterator[Server]:
    """Starts servers; keyword settings may be written with underscores. All end with the test."""
    with ExitStack() as stack:

        def start(spec: str | ServerBinary, config: dict[str, nodes.Setting] | None = None, /, **more: nodes.Setting) -> Process:
            written = {name.replace("_", "-"): value for name, value in more.items()}
            return stack.enter_context(nodes.start(spec, (config or {}) | written))

        yield start


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Ordinary clients (valkey-py), the oracle of the integration tests: ``client(node, db=1).get(b"k")``; closed with the test."""
    import valkey

    with ExitStack() as stack:

        def connect(node: Process | int, **options: Any) -> Any:
            port = node if isinstance(node, int) else node.port
            return stack.enter_context(valkey.Valkey(host="127.0.0.1", port=port, **options))

        yield connect


@pytest.fixture(scope="session")
def binary() -> Callable[[str], ServerBinary]:
    """``binary("valkey-8.1")``: the server program, or a skip (an error in CI)."""
    return nodes.binary


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"server", "binary"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


def pytest_report_header() -> str:
    if WIRE == "interpreted":
        return "valkeep.wire: interpreted (by request)"
    how = build()
    detail = f" ({', '.join(how.interpreted)} interpreted)" if how.compiled and how.interpreted else ""
    return f"valkeep.wire: {how.word}{detail}"
