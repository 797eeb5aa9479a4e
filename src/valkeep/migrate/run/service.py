"""The gateway as a service: ``valkeep migrate gateway``. Targets attach by REPLICAOF and leave when they like; nobody cuts over here.

Metric names are stable (docs/reference/metrics.md). ``/ready`` says yes when the snapshot is on the spool and nothing is held: from then on a target
that attaches gets everything without waiting for the source.

With a state folder it can be ended or killed and started again: the next one goes on where this one was, and neither source nor targets notice more than
a broken link (`resumption`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.client.endpoint import Secret
from valkeep.errors import UsageError, ValkeepError
from valkeep.migrate.control import Control, Handler, Lock
from valkeep.migrate.delivery.target import addresses
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import PRESENT_AS, Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Rebooted, Resumption
from valkeep.migrate.run.numbers import watched
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.status import told
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.report.events import Emit, Note

if TYPE_CHECKING:
    from valkeep.client.named_primary import Source

__all__ = ["ServiceSettings", "serve"]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """See ``valkeep migrate gateway --help``."""

    source: Source
    versions: tuple[tuple[int, ...], ...]
    databases: int
    listen: tuple[str, int]
    allow: tuple[str, ...]
    field_ttl: FieldTtl
    metrics: tuple[str, int] | None = None
    password_file: Path | None = None
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    spool: Path | None = None
    spool_limit: int = 0
    keep: int = 0
    present_as: str = PRESENT_AS
    ledger: Path | None = None
    state: Path | None = None
    fresh: bool = False
    source_patience: float = 600.0


async def serve(settings: ServiceSettings, emit: Emit) -> None:
    """Run until SIGINT or SIGTERM (returns) or until the source is lost (raises)."""
    allowed: set[str] = set()
    for host in settings.allow:
        allowed |= await addresses(host)
    options = GatewayOptions(
        formats=tuple(TargetFormat(version, settings.databases) for version in settings.versions),
        field_ttl=settings.field_ttl,
        listen=settings.listen,
        allow=frozenset(allowed),
        spool=Path(),
        spool_limit=settings.spool_limit,
        keep=settings.keep,
        password=_password(settings.password_file),
        tls=settings.tls,
        present_as=settings.present_as,
        late=True,
    )
    with contextlib.ExitStack() as stack:
        resumption = None
        if settings.state is None:
            directory = stack.enter_context(spool_folder(settings.spool or Path(tempfile.gettempdir())))
        else:
            stack.enter_context(Lock(settings.state))
            resumption = _resumption(settings, settings.state, options, emit)
            stack.callback(resumption.ended)
            directory = resumption.spool_folder
        await _serve(settings, replace(options, spool=directory), resumption, emit)


def _resumption(settings: ServiceSettings, state: Path, options: GatewayOptions, emit: Emit) -> Resumption:
    found = Resumption(state, settings.spool or state, settings.ledger)
    try:
        if not settings.fresh and found.load():
            found.expect(settings.field_ttl, options.formats)
            return found
    except Rebooted as error:
        emit(Note(0.0, "warning", f"{error.message}: it begins with a full sync"))
    found.begin(settings.field_ttl, options.formats)
    return found


async def _serve(settings: ServiceSettings, options: GatewayOptions, resumption: Resumption | None, emit: Emit) -> None:
    if resumption is None:
        ledger = Ledger(settings.ledger, emit, time.monotonic)
    else:
        ledger = Ledger(resumption.ledger_path, emit, time.monotonic, since=resumption.ledger)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    failure = ""
    try:
        feed = PsyncFeed(settings.source, patience=settings.source_patience, emit=emit, clock=time.monotonic)
        async with Gateway(feed, options, ledger, emit, time.monotonic, resumption) as gateway:
            emit(Note(0.0, "info", f"the gateway listens on {gateway.address[0]}:{gateway.address[1]}"))
            async with contextlib.AsyncExitStack() as stack:
                if settings.state is not None:
                    await stack.enter_async_context(Control(settings.state, {"status": _told(gateway, settings)}))
                if settings.metrics is not None:
                    stack.enter_context(watched({"": gateway}, settings.metrics, lambda: failure))
                try:
                    await gateway.beside(stop.wait())
                except ValkeepError as error:
                    failure = error.message
                    raise
    finally:
        ledger.close()


def _told(gateway: Gateway, settings: ServiceSettings) -> Handler:
    async def told_now() -> dict[str, Any]:
        return told({"": gateway}, settings.source.display, "serving")

    return told_now


def _password(path: Path | None) -> Secret | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the password file {path}: {error}", remedy="check its path and that you may read it") from None
    return Secret(text)
