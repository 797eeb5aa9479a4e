"""What a gateway says of itself in numbers, and whether it is ready: for `report.metrics.MetricsServer`. The names are stable (docs/reference/metrics.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from valkeep.report.metrics import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from valkeep.migrate.gateway import Gateway

__all__ = ["Numbers", "missing", "watched"]


def watched(gateway: Gateway, address: tuple[str, int], failure: Callable[[], str]) -> MetricsServer:
    """A server of the gateway's numbers; enter it. ``failure``: why it is not healthy, or ""."""
    registry = CollectorRegistry()
    registry.register(Numbers(gateway))
    return MetricsServer(address, registry, failure, lambda: missing(gateway))


class Numbers(Collector):
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
            keys.add_metric(version, channel.taken.keys)
            taken.add_metric(version, channel.taken.source_bytes)
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


def missing(gateway: Gateway) -> str:
    """Why the gateway is not ready, or ""."""
    if not gateway.channels or not all(channel.complete for channel in gateway.channels):
        return "the source's snapshot is not complete yet"
    return next((f"held at source offset {offset}: {hold.why}" for offset, hold in gateway.held), "")
