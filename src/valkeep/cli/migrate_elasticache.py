"""``--target elasticache:ID``: a replication group where a command takes a target."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from valkeep.cli.endpoint import endpoint, group_of
from valkeep.errors import UsageError

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.elasticache.address import GroupAddress

__all__ = ["expect_fit", "target_named", "target_of"]


def target_of(
    target: str, region: str, url: str, password_file: str | None, password_env: str | None, *, unlike: tuple[str, ...]
) -> tuple[Endpoint, GroupAddress | None]:
    """Where to: the server, and the group whose primary endpoint it is. ``unlike``: options that were given and do not go with a group. Asks AWS; raises
    what `Plane` raises."""
    group = group_of(target, region, url)
    if group is None:
        return endpoint(target, password_file, password_env), None
    expect_fit(group, password=password_file is not None or password_env is not None, unlike=unlike)
    from valkeep.migrate.elasticache.plane import Plane
    from valkeep.migrate.elasticache.survey import primary_endpoint

    return asyncio.run(primary_endpoint(Plane(group))), group


def expect_fit(group: GroupAddress, *, password: bool, unlike: tuple[str, ...]) -> None:
    """Raises ``UsageError`` where options do not go with a replication group. ``unlike``: those that never do; ``password``: one for the target was given."""
    if password:
        raise UsageError(
            f"{group.display} has no password while it is migrated into: AWS demands encryption in transit off, and AUTH needs it",
            remedy="leave --target-password-file and --target-password-env out; set AUTH after the move",
        )
    if unlike:
        raise UsageError(
            f"{', '.join(unlike)} does not go with --target {group.display}, which attaches by ElastiCache's own migration",
            remedy="leave it out, or give the URL of the group's primary endpoint as the target",
        )


def target_named(target: str, password_file: str | None = None, password_env: str | None = None) -> Endpoint | GroupAddress:
    """The target of a migration that was begun before: by its name alone, AWS is not asked."""
    group = group_of(target)
    return endpoint(target, password_file, password_env) if group is None else group
