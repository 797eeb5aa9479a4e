"""What a migration is asked to do, and what it came to: values, and the error that says what was found unequal."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep import __version__
from valkeep.errors import ExitCode, ValkeepError
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.gateway.gateway import PRESENT_AS
from valkeep.migrate.state import default_directory
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source
    from valkeep.migrate.elasticache.address import GroupAddress
    from valkeep.migrate.preflight import PreflightReport
    from valkeep.migrate.verify import Comparison

__all__ = ["NotEqual", "RunOptions", "RunResult", "WayBackResult"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """``cutover``: "auto" or "manual". ``wipe_target``: a target with keys is allowed. ``accept``: acknowledged preflight conditions ("all": every one).
    ``listen``: host and port of the gateway ("" and 0: chosen). ``announce``: what the target is told instead (NAT).
    ``lease_ms``: time-out of the pause. ``hold_seconds``: how long a held stream is waited for. ``source_patience``: how long a source whose link broke.
    ``fence``: None for the safest mode that the source permits; ``keep_fence``: into its configuration file, too.
    ``read``: how the source's data is read: "psync" or "scan". ``rollback``: keep a way back after the cut-over, until somebody decides.
    ``deliver``: how the target gets it: "native", "push" or "external" (see ``delivery``).
    ``present_as``: the version that the gateway shows. ``promote_seconds``: how long a person may take to promote a target that attached by itself.
    ``metrics``: where the gateway's numbers are served.
    ``group``: the target is this replication group of ElastiCache, and ``target`` its primary endpoint.
    ``started_at``, ``host``: for the report (UTC, ISO 8601; a machine's name).
    ``state``, ``spool``, ``report``: folders, None for the default (report: none)."""

    source: Source
    target: Endpoint
    read: str = "psync"
    field_ttl: FieldTtl = FieldTtl.REFUSE
    cutover: str = "auto"
    wipe_target: bool = False
    accept: frozenset[str] = frozenset()
    report: Path | None = None
    spool: Path | None = None
    spool_limit: int = 0
    state: Path | None = None
    listen: tuple[str, int] = ("", 0)
    announce: tuple[str, int] | None = None
    allow: frozenset[str] = frozenset()
    lease_ms: int = 5000
    hold_seconds: float = 300.0
    source_patience: float = 600.0
    fence: FenceMode | None = None
    keep_fence: bool = False
    gateway_tls: ssl.SSLContext | None = field(default=None, compare=False)
    source_primary: Endpoint | None = None
    started_at: str = ""
    host: str = ""
    skip_verify: bool = False
    rollback: bool = False
    rate_seconds: float = 1.0
    fresh: bool = False
    deliver: str = "native"
    present_as: str = PRESENT_AS
    promote_seconds: float = 60.0
    metrics: tuple[str, int] | None = None

    group: GroupAddress | None = None

    @property
    def group_name(self) -> str:
        """As it is named for a target; "": it is none."""
        return self.group.display if self.group is not None else ""

    @property
    def state_directory(self) -> Path:
        return self.state or default_directory(self.source.display, self.group_name or self.target.display)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a migration came to. ``verdict``: valid | invalid | unknown. ``timeline``: (step, seconds on the job's clock), ``started``:
    on the same clock; files count from there. ``source_name``, ``target_name``: product and version. Counts are of keys;
    ``unexpected_error_replies``: commands that the target answered with an error since the migration began (must be 0). ``fence``: "" where nobody writes.
    ``way_back``: what came of it, where it was kept.
    ``delivery``: how the target got it.
    ``read``: how the source was read: "psync", "scan" or "file"; ``limits``: what this way of reading can't promise, in sentences."""

    verdict: str
    exit_code: ExitCode
    preflight: PreflightReport
    verification: Comparison | None
    keys: int
    full_sync_seconds: float
    mismatches: int
    ledger: list[dict[str, object]]
    write_pause_ms: float
    started: float
    timeline: tuple[tuple[str, float], ...]
    source_name: str
    target_name: str
    source_version: str
    source_rdb_version: int
    target_version: str
    unexpected_error_replies: int
    elapsed_seconds: float
    started_at: str
    host: str
    fence: str
    changed_keys_checked: int
    read: str = "psync"
    limits: tuple[str, ...] = ()
    delivery: Mapping[str, object] = field(default_factory=lambda: {"how": "native"})
    way_back: WayBackResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Schema 1, without the parts that have files of their own."""
        return {
            "schema": 1,
            "verdict": self.verdict,
            "started_at": self.started_at,
            "host": self.host,
            "valkeep": __version__,
            "keys": self.keys,
            "mismatches": self.mismatches,
            "full_sync_seconds": round(self.full_sync_seconds, 3),
            "write_pause_ms": round(self.write_pause_ms, 1),
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "source": {"server": self.source_name, "version": self.source_version, "rdb_version": self.source_rdb_version},
            "target": {"server": self.target_name, "version": self.target_version},
            "unexpected_error_replies": self.unexpected_error_replies,
            "fence": self.fence,
            "changed_keys_checked": self.changed_keys_checked,
            "read": self.read,
            "limits": list(self.limits),
            "delivery": dict(self.delivery),
            "ledger": self.ledger,
            "way_back": self.way_back.to_json() if self.way_back else None,
            "timeline": [{"step": step, "at": round(at - self.started, 6)} for step, at in self.timeline],
        }


@dataclass(frozen=True, slots=True)
class WayBackResult:
    """``outcome``: rolled-back | committed. ``done``: what was changed on the servers, in sentences. ``write_pause_ms``: of the rollback, else 0;
    ``keys``: compared before it; ``carried``: commands of the new server that the old one was given."""

    outcome: str
    done: tuple[str, ...]
    carried: int
    write_pause_ms: float = 0.0
    keys: int = 0
    ledger: tuple[dict[str, object], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "done": list(self.done),
            "carried": self.carried,
            "write_pause_ms": round(self.write_pause_ms, 1),
            "keys": self.keys,
            "ledger": list(self.ledger),
        }


class NotEqual(ValkeepError):
    """The verification found differences, or could not tell; nothing was cut over. ``lane``: of which shard of the source, where that is a cluster."""

    def __init__(self, comparison: Comparison, lane: str = "") -> None:
        judged = comparison.differences > 0
        found = (
            f"{comparison.differences} of {comparison.keys_source} keys differ ({comparison.missing} missing, {comparison.extra} extra, "
            f"{comparison.different} different)"
            if judged
            else "the verification could not tell: " + "; ".join(comparison.reasons or ("keys kept changing",))
        )
        whose, file = (f"shard {lane}: ", f"verification-{lane}.json") if lane else ("", "verification.json")
        super().__init__(
            f"{whose}{found}; nothing was cut over and the source goes on",
            remedy=f"see {file} for the keys: does anything else write to the target? Then start the migration again, which copies everything anew"
            if judged
            else "remove that cause, then start again (temporary files are under --spool DIR)",
            code="VK-VERIFY",
        )
        self.exit_code = ExitCode.JUDGED_BAD if judged else ExitCode.UNKNOWN
