"""The two servers on a command line: their URLs, and where their passwords are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.errors import UsageError

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source as AnySource
    from valkeep.migrate.elasticache.address import GroupAddress

__all__ = [
    "AwsRegion",
    "AwsUrl",
    "NewServer",
    "Source",
    "SourcePasswordEnv",
    "SourcePasswordFile",
    "Target",
    "TargetPasswordEnv",
    "TargetPasswordFile",
    "address",
    "endpoint",
    "group_of",
    "source_now",
    "source_of",
]

Source = Annotated[
    str,
    typer.Option(
        metavar="URL", help="What moves: redis://[[user]:password@]host[:port], rediss:// with TLS, or redis+sentinel://host,…/name."
    ),
]
Target = Annotated[
    str, typer.Option(metavar="URL", help="Where to: valkey://[[user]:password@]host[:port], valkeys:// with TLS, or elasticache:ID.")
]
NewServer = Annotated[
    str, typer.Option("--target", metavar="URL", help="Where it was moved to: valkey://[[user]:password@]host[:port], valkeys:// with TLS.")
]
SourcePasswordFile = Annotated[str | None, typer.Option(metavar="PATH", help="The source's password is in this file.", show_default=False)]
SourcePasswordEnv = Annotated[str | None, typer.Option(metavar="NAME", help="… in this environment variable.", show_default=False)]
TargetPasswordFile = Annotated[str | None, typer.Option(metavar="PATH", help="The target's password is in this file.", show_default=False)]
TargetPasswordEnv = Annotated[str | None, typer.Option(metavar="NAME", help="… in this environment variable.", show_default=False)]

AwsRegion = Annotated[
    str, typer.Option("--aws-region", metavar="REGION", help="Of --target elasticache:ID; default: what AWS' tools would take.")
]
AwsUrl = Annotated[
    str, typer.Option("--aws-endpoint-url", metavar="URL", help="Where its API is: a private endpoint, or a stand-in for tests.")
]


def endpoint(url: str, password_file: str | None = None, password_env: str | None = None) -> Endpoint:
    """A server's URL with its password from where it was said to be. Raises ``UsageError`` where it names a database: all of them move."""
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.elasticache.address import GroupAddress

    if GroupAddress.names(url):
        raise UsageError(
            f"{url} is a replication group, and this works on a server", remedy="give the URL of its primary endpoint: valkey://…"
        )
    parsed = Endpoint.parse(url)
    _expect_all_databases(parsed)
    return parsed if password_file is None and password_env is None else parsed.with_password_from(file=password_file, env=password_env)


def group_of(target: str, region: str = "", url: str = "") -> GroupAddress | None:
    """The replication group that ``--target elasticache:ID`` names; None for a URL. Raises ``UsageError``."""
    from valkeep.migrate.elasticache.address import GroupAddress

    if GroupAddress.names(target):
        return GroupAddress.parse(target, region, url)
    if region or url:
        raise UsageError(
            "--aws-region and --aws-endpoint-url belong to --target elasticache:ID",
            remedy="leave them out, or name a replication group as the target",
        )
    return None


def source_of(url: str, password_file: str | None = None, password_env: str | None = None) -> AnySource:
    """What moves, by its URL: a server, or a primary that sentinels know. The password is of the data nodes."""
    from valkeep.client.named_primary import parse_source

    parsed = parse_source(url)
    _expect_all_databases(parsed)
    return parsed if password_file is None and password_env is None else parsed.with_password_from(file=password_file, env=password_env)


def source_now(url: str, password_file: str | None = None, password_env: str | None = None) -> Endpoint:
    """Who it is just now. Raises ``ConnectionLost`` where no sentinel leads to it."""
    return asyncio.run(source_of(url, password_file, password_env).resolve())


def _expect_all_databases(source: AnySource) -> None:
    if source.db:
        raise UsageError(
            f"{source.display} names database {source.db}, and a migration carries all of them", remedy=f"leave /{source.db} out"
        )


def address(text: str, option: str) -> tuple[str, int]:
    """``HOST:PORT`` of an option. Raises ``UsageError``."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise UsageError(f"{option} {text!r} is no HOST:PORT", remedy=f"write it like {option} 10.0.0.7:6400")
    return host.strip("[]"), int(port)
