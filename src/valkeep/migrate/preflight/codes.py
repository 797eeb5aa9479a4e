"""The table of codes: what docs/reference/preflight-codes.md says, a test compares both. Codes are stable: they are acknowledged in scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CODES", "Code", "markdown"]


@dataclass(frozen=True, slots=True)
class Code:
    """``severities``: those that a finding with this code can have besides ``ok``, worst first. ``asks``: what is checked, and why it matters."""

    code: str
    area: str
    severities: tuple[str, ...]
    asks: str


_B, _W, _I = "blocker", "warning", "info"

CODES: Final = (
    Code("VK-INFO-DENIED", "connectivity", (_B,), "May this user read INFO? Without it nothing can be judged."),
    Code("VK-PEER", "connectivity", (_B,), "Is it a Redis or Valkey server, and not a Sentinel or another product?"),
    Code(
        "VK-PROXY",
        "connectivity",
        (_B,),
        "Do two connections reach the same server (`run_id`)? Replication through a load balancer does not.",
    ),
    Code("VK-SAME-SERVER", "connectivity", (_B,), "Are source and target two servers, and not members of one replication?"),
    Code("VK-PLAINTEXT", "connectivity", (_W,), "Is the connection encrypted, where it leaves this machine?"),
    Code("VK-REPLICATION-TLS", "connectivity", (_W,), "`tls-replication` on the target: then the gateway has to show a certificate."),
    Code("VK-PROTECTED-MODE", "connectivity", (_W,), "`protected-mode no` without a password: open to whoever reaches the port."),
    Code(
        "VK-CLOCK-SKEW",
        "connectivity",
        (_W, _I),
        "`TIME` on both sides: expiry times cross as absolute times. Warns from 1 s, tells from 0.1 s.",
    ),
    Code(
        "VK-SOURCE-VERSION",
        "source",
        (_B, _W),
        "Redis 7.0 to 8.4 and Valkey 7.2 to 9.1 are supported; Redis 2.8 to 6.2 and up to 8.10 (RDB 15) are known in part.",
    ),
    Code(
        "VK-CLUSTER",
        "source",
        (_B,),
        "Is a side a cluster? A cluster as the target, with `--deliver push` and without a way back; a cluster as the source, into such a target.",
    ),
    Code(
        "VK-SOURCE-CLUSTER",
        "source",
        (_B, _W),
        "A source that is a cluster: are all slots served and at rest, does every node answer, are all of one version?",
    ),
    Code("VK-LOADING", "source", (_B,), "Has the server loaded its data?"),
    Code("VK-SOURCE-BUSY", "source", (_I,), "Is a BGSAVE or AOF rewrite running, for which the full sync has to wait?"),
    Code("VK-SOURCE-SAVE-FAILED", "source", (_W,), "Did the last save fail? A full sync forks and writes the same way."),
    Code(
        "VK-SOURCE-REPLICA",
        "source",
        (_W,),
        "Is the source a replica? Then writers are held and fenced at its primary, which has to be within reach.",
    ),
    Code("VK-SOURCE-LINK-DOWN", "source", (_B,), "Has a replica lost its primary? Then its data is old."),
    Code("VK-SOURCE-COMMANDS", "source", (_B,), "May this user run PSYNC and REPLCONF (ACL, renamed commands)?"),
    Code("VK-BACKLOG", "source", (_W,), "Does `repl-backlog-size` cover 10 s of the measured write rate?"),
    Code("VK-OUTPUT-BUFFER", "source", (_W,), "Does the output-buffer limit of replicas hold what is written during a full sync, twice?"),
    Code("VK-REPL-TIMEOUT", "source", (_W,), "Is `repl-timeout` at least 10 s?"),
    Code("VK-DISKLESS", "source", (_I,), "How the source makes the snapshot: through its disk or not, after which delay."),
    Code("VK-SOURCE-PERSISTENCE", "source", (_I,), "How the source keeps its data (RDB, AOF)."),
    Code(
        "VK-SOURCE-SENTINEL",
        "source",
        (_W,),
        "Do Sentinels watch the source? A replica that they promote takes writes: nothing fences it, during the cut-over or after it.",
    ),
    Code(
        "VK-SOURCE-REPLICAS",
        "source",
        (_I,),
        "Has the source replicas? They are read-only until somebody promotes one; the fence is not theirs.",
    ),
    Code("VK-FILE", "source", (_I,), "`--read PATH`: which files are read, and what they hold."),
    Code(
        "VK-FILE-EXPIRY",
        "source",
        (_B,),
        "`--read PATH` with a log and `--deliver push`: can the target be kept from expiring keys (`import-mode`)?",
    ),
    Code("VK-FILE-TAIL", "source", (_W,), "`--read PATH`: does the log end in the middle of a command? What is not whole is left out."),
    Code("VK-TARGET-VERSION", "target", (_B, _W), "Is the target Valkey 7.2 or later, and of a tested release?"),
    Code("VK-TARGET-REPLICA", "target", (_B,), "Is the target a primary?"),
    Code(
        "VK-TARGET-SENTINEL",
        "target",
        (_B, _W),
        "Does a Sentinel watch the target? It would end the replication by a failover; a warning with `--deliver push`.",
    ),
    Code("VK-TARGET-NOT-EMPTY", "target", (_B, _I), "Is the target empty? A full sync deletes what is there; `--wipe-target` permits it."),
    Code(
        "VK-TARGET-CLUSTER",
        "target",
        (_B, _W),
        "A target that is a cluster: are all slots served and at rest, does every node answer, are all of one version?",
    ),
    Code("VK-CLUSTER-REPLICAS", "target", (_W, _I), "A side that is a cluster: has every shard a replica?"),
    Code("VK-CLUSTER-DATABASES", "target", (_B,), "A target that is a cluster: does the source use database 0 only?"),
    Code(
        "VK-CLUSTER-COMMANDS",
        "target",
        (_W, _I),
        "A target that is a cluster: commands of several keys that the source was sent (`INFO commandstats`); a cluster wants them in one slot.",
    ),
    Code("VK-TARGET-COMMANDS", "target", (_B,), "May this user run REPLICAOF there? With `--deliver push`: may it write there?"),
    Code("VK-PUSH-EXPIRY", "target", (_I,), "`--deliver push`: can the target be kept from expiring keys (`import-mode`)?"),
    Code("VK-TARGET-PERSISTENCE", "target", (_W,), "Does the target write its data to a disk?"),
    Code("VK-PRIMARYAUTH", "target", (_I,), "`primaryauth` on the target: the gateway has to know it; after a failover it has to fit."),
    Code("VK-TARGET-MIN-REPLICAS", "target", (_W,), "`min-replicas-to-write` of the target: has it as many replicas?"),
    Code("VK-TARGET-ERRORS", "target", (_I,), "`unexpected_error_replies`: has the target dropped replicated commands before?"),
    Code(
        "VK-TARGET-MEMORY",
        "resources",
        (_B,),
        "Is the target's `maxmemory` at least the data + 25%? Replicas ignore it, new primaries do not.",
    ),
    Code("VK-TARGET-HOST-MEMORY", "resources", (_W,), "Has the target's machine memory for the data + 25%?"),
    Code("VK-EVICTION", "resources", (_W, _I), "Do the eviction policies agree?"),
    Code("VK-TARGET-CLIENTS", "resources", (_W,), "Has the target room (`maxclients`) for the clients of the source?"),
    Code("VK-FORK-MEMORY", "resources", (_W,), "Has the source's machine memory for the fork? Says what the last fork cost."),
    Code(
        "VK-SPOOL-ROOM",
        "resources",
        (_W,),
        "Has the disk (`--spool`, else the state folder) as much room as the source has data, all of its shards together?",
    ),
    Code("VK-RDB-PAIR", "readiness", (_I,), "Would native replication take the snapshot? Explains `invalid RDB received`."),
    Code("VK-DATABASES", "readiness", (_B, _W), "Has the target as many databases as the source has, or uses?"),
    Code("VK-CENSUS-SAMPLED", "readiness", (_W,), "Was every key looked at? A sample never says that something is absent."),
    Code("VK-SNAPSHOT", "readiness", (_B,), "`--census full`: could the whole snapshot be stepped over?"),
    Code("VK-CENSUS-MISSING", "readiness", (_W,), "Could keys be looked at at all?"),
    Code("VK-MODULE-VALUES", "readiness", (_B,), "Values of modules: no Valkey without the module can load them."),
    Code("VK-MODULES", "readiness", (_I,), "Modules are loaded on the source; none of their values was met."),
    Code("VK-FIELD-TTL", "readiness", (_B, _W, _I), "TTLs on hash fields for a target without them: what `--field-ttl` says."),
    Code(
        "VK-CUTOVER",
        "readiness",
        (_W, _I),
        "Which cut-over is possible: pause and fence, fence only, or stop the writers; and whether scripts pass the fence (Redis before 7.0).",
    ),
    Code(
        "VK-ROLLBACK-VERSION",
        "readiness",
        (_B,),
        "With `--rollback`: can the old server take what the new one writes (Redis 7.0 or later, Valkey)?",
    ),
    Code(
        "VK-ROLLBACK-DENIED",
        "readiness",
        (_B,),
        "With `--rollback`: may these users make the old server a replica, and read the new one's stream?",
    ),
    Code(
        "VK-ROLLBACK-TLS",
        "readiness",
        (_B,),
        "With `--rollback`: `tls-replication` on the source; then the gateway has to show it a certificate.",
    ),
    Code("VK-ROLLBACK-FIELD-TTL", "readiness", (_W, _I), "With `--rollback`: TTLs on hash fields, for an old server without them."),
    Code(
        "VK-ROLLBACK-BACKLOG", "readiness", (_W,), "With `--rollback`: does the target's `repl-backlog-size` cover 10 s of the write rate?"
    ),
    Code("VK-ROLLBACK-DATABASES", "readiness", (_I,), "With `--rollback`: does the target have more databases than the source?"),
    Code("VK-COMPARE-COMMANDS", "readiness", (_W,), "May this user run what verification and repair need?"),
    Code("VK-NOT-CARRIED", "readiness", (_I,), "What replication does not carry: ACL users, settings, cached scripts."),
    Code("VK-UNCHECKED-SOURCE", "readiness", (_W, _I), "What could not be asked on the source, because a command is denied or renamed."),
    Code("VK-UNCHECKED-TARGET", "readiness", (_W, _I), "What could not be asked on the target."),
    Code("VK-NO-TARGET", "readiness", (_I,), "No target was given: only the source was judged."),
)


def markdown() -> str:
    """The table of docs/reference/preflight-codes.md."""
    rows = ["| code | area | severity | what it asks |", "|---|---|---|---|"]
    rows += [f"| `{row.code}` | {row.area} | {', '.join(row.severities)} | {row.asks} |" for row in CODES]
    return "\n".join(rows) + "\n"
