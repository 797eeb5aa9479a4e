"""Words counted on a cluster."""

from __future__ import annotations

from collections import Counter

from valkey.cluster import ClusterNode, ValkeyCluster


class Sums:
    """``nodes``: (host, port) of some nodes."""

    def __init__(self, nodes: list[tuple[str, int]]) -> None:
        self._cluster = ValkeyCluster(startup_nodes=[ClusterNode(host, port) for host, port in nodes], cluster_error_retry_attempts=20)

    def add(self, text: str) -> None:
        for word, times in Counter(text.split()).items():
            self._cluster.incrby(f"word:{word}", times)

    def of(self, word: str) -> int:
        return int(self._cluster.get(f"word:{word}") or 0)

    def close(self) -> None:
        self._cluster.close()
