"""What a gateway has to be for the target that it serves: where it listens, who may attach, and what it keeps."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from valkeep.errors import Refused
from valkeep.migrate.delivery.target import TargetFound, addresses, facing
from valkeep.migrate.gateway.gateway import PRESENT_AS, GatewayOptions

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.transform.target import FieldTtl

__all__ = ["Asked", "reception"]

KEEP: Final = 4 << 30  # bytes of stream for which a target that attaches by itself can begin again


class Asked(Protocol):
    """The part of what a run was asked for (`outcome.RunOptions`) that its gateway depends on."""

    @property
    def target(self) -> Endpoint: ...

    @property
    def field_ttl(self) -> FieldTtl: ...

    @property
    def deliver(self) -> str: ...

    @property
    def listen(self) -> tuple[str, int]: ...

    @property
    def allow(self) -> frozenset[str]: ...

    @property
    def spool_limit(self) -> int: ...

    @property
    def gateway_tls(self) -> ssl.SSLContext | None: ...


async def reception(
    asked: Asked,
    found: TargetFound,
    spool: Path,
    *,
    hold_seconds: float,
    listen: tuple[str, int] = ("", 0),
    present_as: str = PRESENT_AS,
    also: frozenset[str] = frozenset(),
) -> GatewayOptions:
    """``listen``: where the target looks for us already; what was asked for comes first. ``also``: addresses that may attach besides the target's own.
    Raises ``Refused`` where the target wants TLS and there is no certificate."""
    if asked.deliver == "push":  # nobody attaches
        return GatewayOptions(
            formats=(found.format,),
            field_ttl=asked.field_ttl,
            listen=("127.0.0.1", 0),
            allow=frozenset(),
            spool=spool,
            spool_limit=asked.spool_limit,
            hold_seconds=hold_seconds,
        )
    if found.tls_replication and asked.gateway_tls is None:
        raise Refused(
            "the target replicates over TLS only (tls-replication yes), and the gateway has no certificate",
            remedy="give one that the target's CA signed: --gateway-cert FILE --gateway-key FILE",
            code="VK-GATEWAY-TLS",
        )
    host, port = asked.listen if asked.listen[1] else listen
    external = asked.deliver == "external"
    return GatewayOptions(
        formats=(found.format,),
        field_ttl=asked.field_ttl,
        listen=(host or await facing(asked.target), port),
        allow=asked.allow | await addresses(asked.target.host) | also,
        spool=spool,
        spool_limit=asked.spool_limit,
        password=found.password,
        username=found.username,
        tls=asked.gateway_tls if found.tls_replication else None,
        hold_seconds=hold_seconds,
        present_as=present_as,
        late=external,
        keep=KEEP if external else 0,
    )
