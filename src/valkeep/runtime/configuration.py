"""The configuration that a spec means for one node: nothing hidden, nothing that makes a drill kinder than production.

The lines differ from stock only where it has to be: no snapshot at times of the server's choosing, replicas synchronised without delay,
loopback without protected mode. What the spec sets wins.
"""

from __future__ import annotations

from collections.abc import Mapping

from valkeep.runtime.certificate import Certificate
from valkeep.topology.spec import MONITORED, Kind, Persistence, TopologySpec

__all__ = ["Lines", "data_config", "sentinel_config", "tls_lines"]

Lines = dict[str, str | int | list[str]]


def data_config(spec: TopologySpec, address: Mapping[str, str | int | list[str]], primary: tuple[str, int] | None) -> Lines:
    """``address``: the network's lines; ``primary``: whom a replica follows from the start (in a cluster that is told later)."""
    lines: Lines = {**address, "repl-diskless-sync": "yes", "repl-diskless-sync-delay": 0}
    match spec.persistence:
        case Persistence.EVERYSEC | Persistence.ALWAYS:
            lines |= {"appendonly": "yes", "appendfsync": spec.persistence.value, "no-appendfsync-on-rewrite": "no"}
        case Persistence.RDB:
            lines["save"] = "3600 1 300 100 60 10000"
        case Persistence.NONE:
            pass
    if primary is not None:
        lines["replicaof"] = f"{primary[0]} {primary[1]}"
    if spec.kind is Kind.CLUSTER:
        lines |= {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": spec.timeout_ms}
    for name, value in spec.settings:
        lines[name] = value
    return lines


def tls_lines(spec: TopologySpec, certificate: Certificate) -> Lines:
    """TLS for clients and between nodes, of any node; the port itself is among the address's lines."""
    return {
        "tls-cert-file": str(certificate.cert),
        "tls-key-file": str(certificate.key),
        "tls-ca-cert-file": str(certificate.authority),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        **({"tls-cluster": "yes"} if spec.kind is Kind.CLUSTER else {}),
    }


def sentinel_config(spec: TopologySpec, address: Mapping[str, str | int | list[str]], primary: tuple[str, int]) -> Lines:
    """``primary``: whom to watch at first. Sentinel writes what it learns into the same file."""
    return {
        **address,
        f"sentinel monitor {MONITORED}": f"{primary[0]} {primary[1]} {spec.quorum}",
        f"sentinel down-after-milliseconds {MONITORED}": spec.timeout_ms,
        f"sentinel failover-timeout {MONITORED}": spec.failover_timeout_ms,
        f"sentinel parallel-syncs {MONITORED}": max(spec.replicas, 1),
    }
