"""``valkeep migrate gateway``: the gateway alone, as a service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from valkeep.cli.endpoint import Source, SourcePasswordEnv, SourcePasswordFile, address, source_of
from valkeep.cli.migrate_attach import PresentAs, presented
from valkeep.cli.migrate_options import Certificate, Fresh, Key, Patience, Policy, SpoolFolder, SpoolLimit, gateway_tls
from valkeep.errors import ExitCode, UsageError
from valkeep.migrate.transform.target import FieldTtl

__all__ = ["gateway"]


def gateway(
    source: Source,
    target_version: Annotated[
        list[str], typer.Option(metavar="X.Y", help="The version of the Valkey targets that will attach; repeatable.")
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens.")],
    allow: Annotated[list[str], typer.Option(metavar="HOST", help="A target that may attach, by name or address; repeatable.")],
    field_ttl: Policy = FieldTtl.REFUSE,
    databases: Annotated[int, typer.Option(metavar="N", min=1, help="The targets' number of databases.")] = 16,
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Serve /metrics, /health and /ready there.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The targets' primaryauth is in this file.", show_default=False)
    ] = None,
    gateway_cert: Certificate = None,
    gateway_key: Key = None,
    spool: SpoolFolder = None,
    spool_limit: SpoolLimit = 0,
    keep: Annotated[
        int,
        typer.Option(metavar="MB", min=1, help="How much may be written since the snapshot until it is given up and no target can attach."),
    ] = 4096,
    present_as: PresentAs = "7.2.4",
    ledger: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the ledger there.", show_default=False)] = None,
    source_patience: Patience = 600.0,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep there what the next start goes on with, also after a kill -9.", show_default=False),
    ] = None,
    fresh: Fresh = False,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
) -> ExitCode:
    """Run the gateway alone, as a service: targets attach by REPLICAOF and detach when they like. Ends with SIGINT or SIGTERM."""
    from valkeep.migrate.run import service
    from valkeep.report.terminal import watch

    settings = service.ServiceSettings(
        source=source_of(source, source_password_file, source_password_env),
        versions=tuple(_version(text) for text in target_version),
        databases=databases,
        listen=address(listen, "--listen"),
        allow=tuple(allow),
        field_ttl=field_ttl,
        metrics=address(metrics, "--metrics") if metrics else None,
        password_file=password_file,
        tls=gateway_tls(gateway_cert, gateway_key),
        spool=spool,
        spool_limit=spool_limit << 20,
        keep=keep << 20,
        present_as=presented(present_as),
        ledger=ledger,
        source_patience=source_patience,
        state=state,
        fresh=fresh,
    )
    with watch(None) as emit:
        asyncio.run(service.serve(settings, emit))
    return ExitCode.GOOD


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise UsageError(f"--target-version {text!r} is no version", remedy="write it like --target-version 8.1") from None
