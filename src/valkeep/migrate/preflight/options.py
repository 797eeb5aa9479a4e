"""What preflight is asked to find out, and for which move."""

from __future__ import annotations

from dataclasses import dataclass

from valkeep.migrate.transform.target import FieldTtl

__all__ = ["PreflightOptions"]


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """``field_ttl``: the policy the move will run with. ``wipe_target``: a target with keys is allowed, they will be deleted.
    ``full_census``: read a snapshot of the source (it forks) instead of sampling. ``gateway_tls``: the gateway has a certificate to show
    to a target with ``tls-replication``. ``read``: how the source will be read ("psync", "scan").
    ``deliver``: how the target will get the data ("native", "push"). ``attached_by``: who makes the target a replica and a primary again, where it is
    not us ("": we do).
    ``spool_free``: bytes that are free where the spool will be, None: nobody looked.
    ``rollback``: a way back is wanted after the cut-over. ``goes_on``: the target is a killed run's, which this one goes on with.
    ``sample_keys``: at most so many are looked at. ``rate_seconds``: how long the write rate is measured.
    """

    field_ttl: FieldTtl = FieldTtl.REFUSE
    wipe_target: bool = False
    full_census: bool = False
    gateway_tls: bool = False
    read: str = "psync"
    deliver: str = "native"
    attached_by: str = ""
    spool_free: int | None = None
    rollback: bool = False
    goes_on: bool = False
    sample_keys: int = 20_000
    rate_seconds: float = 1.0
    timeout: float = 5.0
