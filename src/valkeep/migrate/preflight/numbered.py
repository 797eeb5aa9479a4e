"""The 31 numbered checks of a move to ElastiCache: what docs/reference/preflight-elasticache.md says, a test compares both. Numbers and codes are stable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NUMBERED", "NUMBERED_AREAS", "Numbered", "numbered_markdown"]

NUMBERED_AREAS: Final = {
    "deployment": "1 Deployment and resources",
    "security": "2 Connectivity and security groups",
    "redis": "3 Redis: installation and configuration",
    "creation": "4 ElastiCache: how it was created",
    "migration": "5 Readiness for the migration",
}


@dataclass(frozen=True, slots=True)
class Numbered:
    """``severities``: those that it can have besides ``ok``. ``takes``: (code, side) of general findings that answer this question; they are told here."""

    number: int
    area: str
    severities: tuple[str, ...]
    asks: str
    takes: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> str:
        return f"VK-A-{self.number:02}"


_B, _W, _U, _I = "blocker", "warning", "unknown", "info"

NUMBERED: Final = (
    Numbered(1, "deployment", (_B,), "Is the replication group there, and its status `available`?"),
    Numbered(2, "deployment", (_B, _W, _U), "Are a primary and a replica there, in two zones, all of them available?"),
    Numbered(
        3,
        "deployment",
        (_B, _W, _U),
        "Does a node's memory (less `reserved-memory-percent`) hold the source's data + 25%?",
        (("VK-TARGET-MEMORY", ""),),
    ),
    Numbered(4, "deployment", (_B,), "Is data tiering off?"),
    Numbered(5, "deployment", (_B,), "Is the group in no global datastore?"),
    Numbered(6, "deployment", (_U, _I), "Was everything permitted that preflight asked AWS? The denied actions are named."),
    Numbered(7, "security", (_B, _W, _U), "Is the gateway in the target's VPC?"),
    Numbered(8, "security", (_B, _U), "Do the target's security groups let it out to the gateway's port?"),
    Numbered(9, "security", (_B, _U), "Do the gateway's security groups let the target in, on its port?"),
    Numbered(10, "security", (_B, _U), "Do the target's security groups let this machine in, on the target's port?"),
    Numbered(11, "security", (_B, _U), "Do the target's subnets have a route to the gateway?"),
    Numbered(12, "security", (_W, _U), "Is no rule open to the whole internet (a lab's security groups)? An intended warning."),
    Numbered(13, "redis", (_B, _W), "Is the source a version that Valkeep reads?", (("VK-SOURCE-VERSION", ""),)),
    Numbered(14, "redis", (_B,), "Is the source one shard (cluster mode off)?", (("VK-CLUSTER", "source"),)),
    Numbered(15, "redis", (_B,), "AUTH: AWS wants a source without. The gateway has none, and hides the source's."),
    Numbered(
        16,
        "redis",
        (_W, _U),
        "`bind` and `protected-mode` of the source. AWS wants protected-mode off; with a gateway the source need not. An intended warning.",
        (("VK-PROTECTED-MODE", "source"),),
    ),
    Numbered(
        17, "redis", (_B,), "May this user run PSYNC and REPLCONF on the source: permitted, and not renamed?", (("VK-SOURCE-COMMANDS", ""),)
    ),
    Numbered(18, "redis", (_B, _W, _U), "Have source and target equally many databases?", (("VK-DATABASES", ""),)),
    Numbered(19, "creation", (_B, _W), "Is the engine Valkey, of a version that Valkeep writes for?", (("VK-TARGET-VERSION", ""),)),
    Numbered(20, "creation", (_B,), "Is cluster mode off: one shard?", (("VK-CLUSTER", "target"),)),
    Numbered(21, "creation", (_B,), "Are Multi-AZ and automatic failover on?"),
    Numbered(
        22,
        "creation",
        (_B, _W),
        "Is encryption in transit off? AWS wants it off while it migrates; the data crosses the network in clear. An intended warning.",
        (("VK-PLAINTEXT", "target"),),
    ),
    Numbered(23, "creation", (_I,), "Is encryption at rest on? It can be chosen only when the group is created."),
    Numbered(24, "creation", (_B,), "Are AUTH and user groups off, which need encryption in transit?"),
    Numbered(25, "migration", (_W, _U), "Instance: has the gateway's machine disk for snapshot and stream (the source's data, twice)?"),
    Numbered(
        26,
        "migration",
        (_B, _W, _U, _I),
        "Cluster: is the target empty, a primary, without pending changes?",
        (("VK-TARGET-NOT-EMPTY", ""), ("VK-TARGET-REPLICA", ""), ("VK-LOADING", "target")),
    ),
    Numbered(
        27, "migration", (_B, _W), "Network: is the gateway's address one that the target can reach, on a port that is known beforehand?"
    ),
    Numbered(
        28,
        "migration",
        (_B,),
        "Redis running: has the source loaded its data, and its link to its primary?",
        (("VK-LOADING", "source"), ("VK-SOURCE-LINK-DOWN", "")),
    ),
    Numbered(29, "migration", (_B, _I), "Basic commands: does the gateway answer what ElastiCache asks, as a Redis 7.2 without AUTH?"),
    Numbered(30, "migration", (_B, _W, _I), "Sync: is the whole snapshot spooled, so that a slow one cannot make ElastiCache give up?"),
    Numbered(31, "migration", (_W, _I), "Completion: how are writers kept out, and for how long?", (("VK-CUTOVER", ""),)),
)


def numbered_markdown() -> str:
    """The table of docs/reference/preflight-elasticache.md."""
    rows = ["| number | code | area | severity | what it asks |", "|---|---|---|---|---|"]
    rows += [
        f"| A-{row.number:02} | `{row.code}` | {NUMBERED_AREAS[row.area][2:]} | {', '.join(row.severities)} | {row.asks} |"
        for row in NUMBERED
    ]
    return "\n".join(rows) + "\n"
