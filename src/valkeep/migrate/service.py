"""The gateway as a service: ``valkeep migrate gateway``. Targets attach by REPLICAOF and leave when they like; nobody cuts over here.

Metric names are stable (docs/reference/metrics.md). ``/ready`` says yes when the snapshot is on the spool and nothing is held: from then on a target
that attaches gets everything without waiting for the source.

With a state folder it can be ended or killed and started again: the next one goes on where this one was, and neither source nor targets notice more than
a broken link (`resumption`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from valkeep.client.endpoint import Secret
from valkeep.errors import UsageError, ValkeepError
from valkeep.migrate.control import Lock
from valkeep.migrate.delivery.target import addresses
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway import Gateway, GatewayOptions
from valkeep.migrate.ledger import Ledger
from valkeep.migrate.resumption import Rebooted, Resumption
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Emit, Note
from valkeep.report.metrics import MetricsServer

if TYPE_CHECKING:
    from valkeep.client.named_primary import Source

__all__ = ["ServiceSettings", "serve"]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """See ``valkeep migrate gateway --help``."""

    source: Source
    versions: tuple[tuple[int, ...], ...]
    databases: int
    listen: tuple[str, int]
    allow: tuple[str, ...]
    field_ttl: FieldTtl
    metrics: tuple[str, int] | None = None
    password_file: Path | None = None
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    spool: Path | None = None
    spool_limit: int = 0
    keep: int = 0
    ledger: Path | None = None
    state: Path | None = None
    fresh: bool = False
    source_patience: float = 600.0


class _Numbers(Collector):
    """The gateway's numbers, read when they are asked for."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        gateway = self._gateway
        offset = GaugeMetricFamily("valkeep_source_offset_bytes", "Offset of the source's stream received so far")
        offset.add_metric([], gateway.source_offset)
        yield offset
        labels = ["version"]
        keys = CounterMetricFamily("valkeep_snapshot_keys", "Records of the source's snapshot read so far", labels=labels)
        taken = CounterMetricFamily("valkeep_snapshot_bytes", "Bytes of the source's snapshot read so far", labels=labels)
        writes = CounterMetricFamily("valkeep_stream_commands", "Commands of the source's stream translated so far", labels=labels)
        held = GaugeMetricFamily(
            "valkeep_held_bytes", "Bytes of the source's stream that wait because something cannot be sent", labels=labels
        )
        spool = GaugeMetricFamily("valkeep_spool_bytes", "Bytes of translated stream kept on disk", labels=labels)
        for channel in list(gateway.channels):
            version = [channel.target.display]
            keys.add_metric(version, channel.keys)
            taken.add_metric(version, channel.snapshot_bytes)
            writes.add_metric(version, channel.writes)
            held.add_metric(version, channel.held_bytes)
            spool.add_metric(version, channel.stream.end - channel.stream.start)
        yield from (keys, taken, writes, held, spool)
        lag = GaugeMetricFamily("valkeep_target_lag_bytes", "Bytes of our stream that the target has not acknowledged", labels=["target"])
        online = GaugeMetricFamily("valkeep_target_online", "1 when the target has the snapshot and takes the stream", labels=["target"])
        for link in list(gateway.links):
            if link.channel is not None:
                lag.add_metric([link.peer], link.lag)
                online.add_metric([link.peer], int(link.online))
        yield from (lag, online)
        ledger = CounterMetricFamily(
            "valkeep_ledger", "Things changed, degraded or refused on the way", labels=["action", "what", "policy"]
        )
        for (action, what, policy), count in list(gateway.ledger.counts.items()):
            ledger.add_metric([action, what, policy], count)
        yield ledger


async def serve(settings: ServiceSettings, emit: Emit) -> None:
    """Run until SIGINT or SIGTERM (returns) or until the source is lost (raises)."""
    allowed: set[str] = set()
    for host in settings.allow:
        allowed |= await addresses(host)
    options = GatewayOptions(
        formats=tuple(TargetFormat(version, settings.databases) for version in settings.versions),
        field_ttl=settings.field_ttl,
        listen=settings.listen,
        allow=frozenset(allowed),
        spool=Path(),
        spool_limit=settings.spool_limit,
        keep=settings.keep,
        password=_password(settings.password_file),
        tls=settings.tls,
    )
    with contextlib.ExitStack() as stack:
        resumption = None
        if settings.state is None:
            directory = stack.enter_context(spool_folder(settings.spool or Path(tempfile.gettempdir())))
        else:
            stack.enter_context(Lock(settings.state))
            resumption = _resumption(settings, settings.state, options, emit)
            stack.callback(resumption.ended)
            directory = resumption.spool_folder
        await _serve(settings, replace(options, spool=directory), resumption, emit)


def _resumption(settings: ServiceSettings, state: Path, options: GatewayOptions, emit: Emit) -> Resumption:
    found = Resumption(state, settings.spool or state, settings.ledger)
    try:
        if not settings.fresh and found.load():
            found.expect(settings.field_ttl, options.formats)
            return found
    except Rebooted as error:
        emit(Note(0.0, "warning", f"{error.message}: it begins with a full sync"))
    found.begin(settings.field_ttl, options.formats)
    return found


async def _serve(settings: ServiceSettings, options: GatewayOptions, resumption: Resumption | None, emit: Emit) -> None:
    if resumption is None:
        ledger = Ledger(settings.ledger, emit, time.monotonic)
    else:
        ledger = Ledger(resumption.ledger_path, emit, time.monotonic, since=resumption.ledger)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    failure = ""
    try:
        feed = PsyncFeed(settings.source, patience=settings.source_patience, emit=emit, clock=time.monotonic)
        async with Gateway(feed, options, ledger, emit, time.monotonic, resumption) as gateway:
            emit(Note(0.0, "info", f"the gateway listens on {gateway.address[0]}:{gateway.address[1]}"))
            with contextlib.ExitStack() as stack:
                if settings.metrics is not None:
                    registry = CollectorRegistry()
                    registry.register(_Numbers(gateway))
                    stack.enter_context(MetricsServer(settings.metrics, registry, lambda: failure, lambda: _missing(gateway)))
                try:
                    await gateway.beside(stop.wait())
                except ValkeepError as error:
                    failure = error.message
                    raise
    finally:
        ledger.close()


def _missing(gateway: Gateway) -> str:
    """Why the gateway is not ready, or ""."""
    if not gateway.channels or not all(channel.complete for channel in gateway.channels):
        return "the source's snapshot is not complete yet"
    return next((f"held at source offset {offset}: {hold.why}" for offset, hold in gateway.held), "")


def _password(path: Path | None) -> Secret | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the password file {path}: {error}", remedy="check its path and that you may read it") from None
    return Secret(text)
