"""INFO texts of several products, as they came from them."""

from __future__ import annotations

import pytest

from valkeep.client.server_info import identify, parse_info, version_of


def test_info_lines_become_fields() -> None:
    assert parse_info(b"# Server\r\nredis_version:7.0.15\r\n\r\ndb0:keys=1,expires=0\r\nnonsense\r\n") == {
        "redis_version": "7.0.15",
        "db0": "keys=1,expires=0",
    }


def test_versions_are_tuples_of_their_numbers() -> None:
    assert version_of("8.1.1") == (8, 1, 1)
    assert version_of("7.4.0-rc1") == (7, 4, 0)
    assert version_of("unknown") == ()


@pytest.mark.parametrize(
    ("fields", "kind", "product", "mode", "role"),
    [
        ({"redis_version": "7.0.15", "redis_mode": "standalone", "role": "master"}, "redis", "Redis 7.0.15", "standalone", "primary"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.1", "role": "slave"}, "valkey", "Valkey 8.1.1", "standalone", "replica"),
        ({"redis_version": "7.0.15", "redis_mode": "cluster", "cluster_enabled": "1", "role": "master"}, "redis", "Redis 7.0.15", "cluster", "primary"),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.0", "server_mode": "sentinel"}, "valkey", "Sentinel of Valkey 9.0.0", "sentinel", "sentinel"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.23.0", "role": "master"}, "other", "Dragonfly 1.23.0", "standalone", "primary"),
        ({}, "other", "a server that does not permit INFO", "standalone", "primary"),
    ],
)  # fmt: skip
def test_a_server_is_identified_by_its_info(fields: dict[str, str], kind: str, product: str, mode: str, role: str) -> None:
    found = identify(fields)
    assert (found.kind, found.product, found.mode, found.role) == (kind, product, mode, role)
