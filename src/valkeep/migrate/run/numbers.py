"""What a gateway says of itself in numbers, and whether it is ready: for `report.metrics.MetricsServer`. The names are stable (docs/reference/metrics.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from valkeep.report.metrics import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["Numbers", "missing", "watched"]


def watched(gateways: Mapping[str, Gateway], address: tuple[str, int], failure: Callable[[], str]) -> MetricsServer:
    """A server of their numbers; enter it. ``gateways``: by the source's shards, "" for a single server. ``failure``: why it is not healthy, or ""."""
    registry = CollectorRegistry()
    registry.register(Numbers(gateways))
    return MetricsServer(address, registry, failure, lambda: next(filter(None, map(missing, gateways.values())), ""))


class Numbers(Collector):
    """The gateways' numbers, read when they are asked for. Where the source is a cluster, each has the label ``shard``."""

    def __init__(self, gateways: Mapping[str, Gateway]) -> None:
        self._gateways = gateways

    def collect(self) -> Iterable[Metric]:
        more = [] if "" in self._gateways else ["shard"]
        version = ["version", *more]
        offset = GaugeMetricFamily("valkeep_source_offset_bytes", "Offset of the source's stream received so far", labels=more)
        keys = CounterMetricFamily("valkeep_snapshot_keys", "Records of the source's snapshot read so far", labels=version)
        taken = CounterMetricFamily("valkeep_snapshot_bytes", "Bytes of the source's snapshot read so far", labels=version)
        writes = CounterMetricFamily("valkeep_stream_commands", "Commands of the source's stream translated so far", labels=version)
        held = GaugeMetricFamily(
            "valkeep_held_bytes", "Bytes of the source's stream that wait because something cannot be sent", labels=version
        )
        spool = GaugeMetricFamily("valkeep_spool_bytes", "Bytes of translated stream kept on disk", labels=version)
        target = ["target", *more]
        lag = GaugeMetricFamily("valkeep_target_lag_bytes", "Bytes of our stream that the target has not acknowledged", labels=target)
        online = GaugeMetricFamily("valkeep_target_online", "1 when the target has the snapshot and takes the stream", labels=target)
        kinds = ["action", "what", "policy", *more]
        ledger = CounterMetricFamily("valkeep_ledger", "Things changed, degraded or refused on the way", labels=kinds)
        for name, gateway in self._gateways.items():
            shard = [name] if name else []
            offset.add_metric(shard, gateway.source_offset)
            for channel in list(gateway.channels):
                of = [channel.target.display, *shard]
                keys.add_metric(of, channel.taken.keys)
                taken.add_metric(of, channel.taken.source_bytes)
                writes.add_metric(of, channel.writes)
                held.add_metric(of, channel.held_bytes)
                spool.add_metric(of, channel.stream.end - channel.stream.start)
            for link in list(gateway.links):
                if link.channel is not None:
                    lag.add_metric([link.peer, *shard], link.lag)
                    online.add_metric([link.peer, *shard], int(link.online))
            for kind, count in list(gateway.ledger.counts.items()):
                ledger.add_metric([*kind, *shard], count)
        yield from (offset, keys, taken, writes, held, spool, lag, online, ledger)


def missing(gateway: Gateway) -> str:
    """Why the gateway is not ready, or ""."""
    if not gateway.channels or not all(channel.complete for channel in gateway.channels):
        return "the source's snapshot is not complete yet"
    return next((f"held at source offset {offset}: {hold.why}" for offset, hold in gateway.held), "")
