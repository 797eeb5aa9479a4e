"""Options that several commands of ``valkeep migrate`` share, and what becomes of their text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from valkeep.errors import UsageError
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Allow",
    "Certificate",
    "Fresh",
    "Key",
    "Listen",
    "Patience",
    "Policy",
    "Read",
    "SpoolFolder",
    "SpoolLimit",
    "State",
    "gateway_tls",
    "one_of",
]

E = TypeVar("E", bound=StrEnum)

Policy = Annotated[FieldTtl, typer.Option(help="TTLs on hash fields, for a Valkey before 9: keep the field, drop it, or refuse to start.")]
Listen = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens. Default: the address that faces the target, any free port.")
]
Allow = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Another address that the target may come from; repeatable.")]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The gateway's certificate (PEM), for a target with tls-replication.")
]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")]
SpoolFolder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where snapshot and stream wait on disk.", show_default=False)]
SpoolLimit = Annotated[int, typer.Option(metavar="MB", min=0, help="Most that one spool may take; 0: what the disk holds.")]
Read = Annotated[
    str,
    typer.Option(
        metavar="psync|scan|PATH",
        help="How the data is read: as the source's replica; by SCAN, where that is denied; or, without --source, from a snapshot or log.",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin with a full sync, also where an earlier one could be gone on with.")]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="Where this migration's state is kept.", show_default=False)]
Patience = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long a source whose link broke is waited for; 0: not at all.")]


def one_of(kind: type[E], text: str, option: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not known", remedy=f"one of {', '.join(kind)}") from None


def gateway_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    import ssl

    if cert is None:
        raise UsageError("--gateway-key without --gateway-cert", remedy="give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"the gateway's certificate cannot be loaded: {error}", remedy="give readable PEM files that belong together"
        ) from error
    return context
