"""ElastiCache's control plane by boto3: the calls that a migration needs, no others.

boto3 is synchronous; each call runs in a thread. Credentials and region are found as every tool of AWS finds them; nothing of them is kept or shown.
What fails once is tried again by botocore itself (standard mode); what comes out of here is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from valkeep.errors import ValkeepError
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.elasticache.faults import explain

__all__ = ["Plane"]

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 20
ATTEMPTS: Final = 4
EVENT_MINUTES: Final = 60
CHANGES: Final = frozenset({"test_migration", "start_migration", "complete_migration"})


class Plane:
    """The API for one replication group. Raises ``ValkeepError`` where boto3 is missing, or no region is known."""

    def __init__(self, address: GroupAddress) -> None:
        self.address = address
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise ValkeepError(
                f"--target {address.display} needs boto3, which is not installed ({error})",
                remedy="install Valkeep with its extra: pip install 'valkeep[aws]'",
                code="VK-AWS-EXTRA",
            ) from error
        self._failures = BotoCoreError
        self._config = Config(
            connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"mode": "standard", "total_max_attempts": ATTEMPTS}
        )
        self._clients: dict[str, Any] = {}  # by service; made when they are needed, which takes a moment
        try:
            self._session = boto3.session.Session(region_name=address.region)
            self._client("elasticache")
        except (BotoCoreError, ValueError) as error:
            raise explain(error, "a session with AWS", address.group) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, endpoint_url=self.address.url, config=self._config)
        return self._clients[service]

    @property
    def region(self) -> str:
        return str(self._client("elasticache").meta.region_name)

    async def call(self, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """One call, as boto3 names it. Raises ``ValkeepError``; ``definite=False`` where it may have been carried out."""
        from botocore.exceptions import ClientError

        method = getattr(self._client(service), operation)
        try:
            reply: Mapping[str, Any] = await asyncio.to_thread(method, **parameters)
        except (ClientError, self._failures) as error:
            action = f"{service}:{''.join(word.capitalize() for word in operation.split('_'))}"
            raise explain(error, action, self.address.group, changes=operation in CHANGES) from error
        return reply

    # -- the group -------------------------------------------------------------------------------------------------------------------

    async def group(self) -> Mapping[str, Any]:
        """The replication group, as DescribeReplicationGroups shows it."""
        reply = await self.call("elasticache", "describe_replication_groups", ReplicationGroupId=self.address.group)
        (found,) = reply["ReplicationGroups"]
        return dict(found)

    async def status(self) -> str:
        return str((await self.group()).get("Status", ""))

    async def events(self) -> list[tuple[datetime, str]]:
        """What AWS noted about the group in the last hour, oldest first."""
        reply = await self.call(
            "elasticache", "describe_events", SourceIdentifier=self.address.group, SourceType="replication-group", Duration=EVENT_MINUTES
        )
        return sorted((one["Date"], str(one["Message"])) for one in reply.get("Events", ()))

    # -- the migration ---------------------------------------------------------------------------------------------------------------

    async def test(self, gateway: tuple[str, int]) -> None:
        """TestMigration: asynchronous; its outcome is an event."""
        await self._migrate("test_migration", gateway)

    async def start(self, gateway: tuple[str, int]) -> None:
        """StartMigration at the gateway. There is no call that cancels it: only CompleteMigration with Force ends it."""
        await self._migrate("start_migration", gateway)

    async def complete(self, *, force: bool = False) -> None:
        """CompleteMigration. ``force``: also where the target lacks data; it ends a migration that is called off."""
        await self.call("elasticache", "complete_migration", ReplicationGroupId=self.address.group, Force=force)

    async def _migrate(self, operation: str, gateway: tuple[str, int]) -> None:
        host, port = gateway
        await self.call(
            "elasticache",
            operation,
            ReplicationGroupId=self.address.group,
            CustomerNodeEndpointList=[{"Address": host, "Port": port}],
        )
