"""Fixtures for tests of applications: real topologies, and faults in them.

    def test_orders_survive_a_failover(valkey_sentinel, faults):
        app = Orders(valkey_sentinel.sentinels, valkey_sentinel.name)
        app.place("tea")
        faults.kill("primary")
        assert app.orders() == ["tea"]

Loaded by pytest wherever Valkeep is installed (entry point ``pytest11``), so at module level it imports pytest only; everything else is imported when a
fixture is used.

A topology is started once for each process of a test run and emptied between tests. A test that used ``faults``, or left anything else than it
found, gets its successor a new one: correct before quick. docs/how-to/pytest.md explains options and the marker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from valkeep.drill.playground import Faults, Playground, Topology
    from valkeep.topology.spec import TopologySpec

KINDS = ("valkey_standalone", "valkey_sentinel", "valkey_cluster")
_SIZES = ("replicas", "shards", "sentinels", "timeout_ms")
_MARKER = (
    "valkey(version=…, replicas=…, shards=…, sentinels=…, timeout_ms=…, persistence=…, settings={…}, tls=True, acl=True, network='proxy',"
    " crash=True, fresh=True):"
    " what the topology of this test should be"
)
_OPTIONS = frozenset({"version", "persistence", "settings", "tls", "acl", "network", "crash", "fresh", *_SIZES})
_PLAYING = pytest.StashKey["dict[str, Playground]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "valkey_version", "server of the valkey_* fixtures: valkey-8.1, redis-7.0, a path; default: the newest Valkey", default=""
    )
    parser.addini(
        "valkey_network", "none, or proxy: partitions and delays are possible, and everything takes a little longer", default="none"
    )
    for size in _SIZES:
        parser.addini(f"valkey_{size}", f"{size} of the valkey_* fixtures", default="")
    parser.getgroup("valkeep").addoption("--valkey-version", metavar="SPEC", default="", help="wins over the ini option valkey_version")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """An error of Valkeep tells its remedy below its message, whoever raised it."""
    errors = sys.modules.get("valkeep.errors")  # where nobody imported it, nobody raised one
    error = call.excinfo.value if call.excinfo else None
    if errors and isinstance(error, errors.ValkeepError) and not hasattr(error, "__notes__"):
        error.add_note(f"  remedy: {error.remedy}")


@pytest.fixture(scope="session")
def _valkey_playgrounds() -> Iterator[dict[str, Playground]]:
    """Fixture's name → what it was started as, for the next test."""
    kept: dict[str, Playground] = {}
    yield kept
    for playground in kept.values():
        playground.close()


@pytest.fixture
def valkey_standalone(request: pytest.FixtureRequest, _valkey_playgrounds: dict[str, Playground]) -> Topology:
    """One server, empty."""
    return _topology(request, _valkey_playgrounds)


@pytest.fixture
def valkey_sentinel(request: pytest.FixtureRequest, _valkey_playgrounds: dict[str, Playground]) -> Topology:
    """A primary, two replicas, three sentinels; empty, and proven ready."""
    return _topology(request, _valkey_playgrounds)


@pytest.fixture
def valkey_cluster(request: pytest.FixtureRequest, _valkey_playgrounds: dict[str, Playground]) -> Topology:
    """Three primaries, three replicas; empty, and proven ready."""
    return _topology(request, _valkey_playgrounds)


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Faults in this test's topology, healed at its end."""
    for name in KINDS:  # first the topologies, so that they end after their faults
        if name in request.fixturenames:
            request.getfixturevalue(name)
    from valkeep.drill.playground import Faults

    def playing() -> Playground:
        there: dict[str, Playground] = request.node.stash.get(_PLAYING, {})
        if len(there) != 1:
            _fail(f"faults are for a test with one topology, and this one has {len(there)}", f"ask for one of {', '.join(KINDS)}")
        return next(iter(there.values()))

    made = Faults(playing)
    yield made
    made.heal()


def _topology(request: pytest.FixtureRequest, kept: dict[str, Playground]) -> Topology:
    from valkeep.drill.playground import Playground, Topology
    from valkeep.errors import ValkeepError
    from valkeep.runtime.machine import in_ci
    from valkeep.runtime.servers import ServerMissing

    name = str(request.fixturename)
    asked = _asked(request)
    spec = _spec(request, name.removeprefix("valkey_"), asked)
    how = asked.get("network") or request.config.getini("valkey_network")
    needs = frozenset({"fsync"} if asked.get("crash") else ())
    playground = kept.pop(name, None)
    try:
        if playground is not None:
            same = (playground.spec, playground.how, playground.needs) == (spec, how, needs)
            if asked.get("fresh") or not same or not playground.renew():
                playground.close()
                playground = None
        playground = playground or Playground(spec, how, needs)
    except ServerMissing as error:
        if in_ci():
            _fail(error.message, error.remedy)
        pytest.skip(f"{error.message}; {error.remedy}")
    except ValkeepError as error:
        _fail(error.message, error.remedy)
    kept[name] = playground
    request.node.stash.setdefault(_PLAYING, {})[name] = playground
    return Topology(playground)


def _asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers say; those nearest to the test win."""
    asked: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("valkey"))):
        unknown = sorted(set(marker.kwargs) - _OPTIONS)
        if unknown or marker.args:
            _fail(f"the marker valkey does not know {', '.join(unknown) or 'what has no name'}", f"it knows {', '.join(sorted(_OPTIONS))}")
        asked |= marker.kwargs
    return asked


def _spec(request: pytest.FixtureRequest, kind: str, asked: dict[str, Any]) -> TopologySpec:
    from dataclasses import replace

    from valkeep.errors import ValkeepError
    from valkeep.topology.spec import Kind, Persistence, TopologySpec

    config = request.config
    fits = {
        "standalone": ("replicas",),
        "sentinel": ("replicas", "sentinels", "timeout_ms"),
        "cluster": ("replicas", "shards", "timeout_ms"),
    }
    version = asked.get("version") or config.getoption("--valkey-version") or config.getini("valkey_version") or "newest-valkey"
    try:
        spec: TopologySpec = getattr(TopologySpec, Kind(kind).value)()
        for size in fits[kind]:
            value = asked.get(size, config.getini(f"valkey_{size}") if kind != "standalone" else "")
            if value not in ("", None):
                spec = replace(spec, **{size: int(value)})  # type: ignore[arg-type]
        if "persistence" in asked:
            spec = replace(spec, persistence=Persistence(asked["persistence"]))
        settings = tuple((str(name), str(value)) for name, value in (asked.get("settings") or {}).items())
        return replace(spec, server=version, settings=settings, tls=bool(asked.get("tls")), acl=bool(asked.get("acl")))
    except ValkeepError as error:
        _fail(error.message, error.remedy)
    except ValueError as error:
        _fail(f"the topology of this test makes no sense: {error}", "see docs/how-to/pytest.md for the options and the marker")


def _fail(message: str, remedy: str) -> NoReturn:
    pytest.fail(f"{message}\n  remedy: {remedy}", pytrace=False)
