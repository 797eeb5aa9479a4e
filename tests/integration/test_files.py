"""Snapshots and append-only files of real servers, brought to a target without them: what the target then has is what a server of their own version loads from
the same files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_pairs import WITH_FIELD_TTL, as_the_target_has_it, everything, load, names
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.outcome import RunResult
from valkeep.migrate.restoration import FileSource, RestoreOptions, restore
from valkeep.migrate.transform.target import FieldTtl

pytestmark = pytest.mark.server


def brought(path: Path, target: Any, folder: Path, policy: FieldTtl = FieldTtl.REFUSE, **more: Any) -> RunResult:
    options = RestoreOptions(
        source=FileSource(path),
        target=Endpoint.parse(target.endpoint),
        field_ttl=policy,
        accept=more.pop("accept", frozenset({"all"})),
        report=folder / "report",
        state=folder / "state",
        **more,
    )
    return asyncio.run(restore(options, lambda _event: None, time.monotonic))


def expected(client: Callable[..., Any], node: Any, source_spec: str, target_spec: str, policy: FieldTtl) -> dict[Any, Any]:
    has_ttl, takes_ttl = source_spec in WITH_FIELD_TTL, target_spec in WITH_FIELD_TTL
    found = everything(client, node, field_ttl=has_ttl)
    if has_ttl and not takes_ttl:
        return {place: record for place, one in found.items() if (record := as_the_target_has_it(one, policy)) is not None}
    return found


def equal(client: Callable[..., Any], oracle: Any, target: Any, source_spec: str, target_spec: str, policy: FieldTtl) -> None:
    wanted = expected(client, oracle, source_spec, target_spec, policy)
    both = source_spec in WITH_FIELD_TTL and target_spec in WITH_FIELD_TTL
    found = everything(client, target, field_ttl=both)
    assert found.keys() == wanted.keys()
    assert [place for place, record in wanted.items() if found[place] != record] == []
    assert names(client(target)) == names(client(oracle))
    assert client(target).role()[0] in (b"master", "master")


@pytest.mark.parametrize(
    ("source_spec", "target_spec", "policy"),
    [
        ("redis-7.0", "valkey-8.0", FieldTtl.REFUSE),
        ("redis-8.0", "valkey-8.1", FieldTtl.DROP_FIELD),
        ("redis-8.0", "valkey-9.1", FieldTtl.REFUSE),
        ("valkey-8.1", "valkey-9.1", FieldTtl.REFUSE),
        ("valkey-9.1", "valkey-8.0", FieldTtl.KEEP_FIELD),
    ],
)
def test_every_key_of_a_snapshot_arrives(
    source_spec: str, target_spec: str, policy: FieldTtl, server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server(source_spec, rdbcompression="yes", rdb_del_sync_files="no"), server(target_spec)
    load(client, source, field_ttl=source_spec in WITH_FIELD_TTL)
    client(source).save()
    result = brought(source.directory / "dump.rdb", target, tmp_path, policy)
    assert (result.verdict, result.mismatches, result.unexpected_error_replies) == ("valid", 0, 0)
    assert result.keys > 800
    equal(client, source, target, source_spec, target_spec, policy)
