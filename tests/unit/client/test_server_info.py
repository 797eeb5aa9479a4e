"""INFO texts of several products, as they came from them."""

from __future__ import annotations

from valkeep.client.server_info import parse_info, version_of


def test_info_lines_become_fields() -> None:
    assert parse_info(b"# Server\r\nredis_version:7.0.15\r\n\r\ndb0:keys=1,expires=0\r\nnonsense\r\n") == {
        "redis_version": "7.0.15",
        "db0": "keys=1,expires=0",
    }


def test_versions_are_tuples_of_their_numbers() -> None:
    assert version_of("8.1.1") == (8, 1, 1)
    assert version_of("7.4.0-rc1") == (7, 4, 0)
    assert version_of("unknown") == ()
