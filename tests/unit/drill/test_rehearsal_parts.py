"""The rehearsal's smaller parts: data set, operations and what replies mean, gaps and rates, which servers are taken."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from valkeep.drill.measures import Gap, longest_gap, rate, rates
from valkeep.drill.rehearsal.dataset import Abilities, dataset, shares
from valkeep.drill.rehearsal.operations import Step, split, understood
from valkeep.drill.rehearsal.rehearse import RehearsalOptions, choose_servers, rdb_version, representative
from valkeep.drill.rehearsal.writers_process import WriterSettings, writers_of
from valkeep.errors import ServerError, ValkeepError
from valkeep.runtime.servers import ServerBinary, ServerMissing


def binary(name: str, *version: int) -> ServerBinary:
    return ServerBinary(name, version, Path(f"/{name}"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------------- data set


@pytest.mark.parametrize("keys", [1_000, 20_000, 200_000])
def test_a_data_set_has_at_least_as_many_keys_as_asked_for_in_every_database(keys: int) -> None:
    counts = shares(keys, 3)
    assert sum(sum(part.values()) for part in counts) >= keys
    assert all(all(count > 0 for count in part.values()) for part in counts)


def test_a_data_set_is_the_same_for_a_seed_and_uses_every_type() -> None:
    def make(seed: int) -> list[object]:
        return list(dataset(random.Random(seed), 2000, Abilities(field_ttl=True, functions=True), now_ms=1))

    assert make(1) == make(1)
    assert make(1) != make(2)
    verbs = {command[0] for block in dataset(random.Random(1), 2000, Abilities(True, True), now_ms=1) for command in block.commands}
    assert verbs >= {
        b"MSET",
        b"SET",
        b"RPUSH",
        b"SADD",
        b"HSET",
        b"HPEXPIREAT",
        b"ZADD",
        b"XADD",
        b"XGROUP",
        b"XREADGROUP",
        b"PFADD",
        b"SETBIT",
        b"GEOADD",
    }
    assert b"FUNCTION" in verbs


def test_a_source_without_field_ttls_gets_none() -> None:
    verbs = {command[0] for block in dataset(random.Random(1), 2000, Abilities(False, False), now_ms=1) for command in block.commands}
    assert not verbs & {b"HPEXPIREAT", b"FUNCTION"}


# ------------------------------------------------------------------------------------------------------------------ operations


def test_writers_are_the_same_for_a_seed_and_mix_all_operations() -> None:
    settings = WriterSettings((("source", "redis://127.0.0.1:1"),), seed=7)

    def made() -> list[Step]:
        return [writer.step() for writer in writers_of(settings) for _ in range(200)]

    assert made() == made()
    functions = Counter(step.function for step in made())
    assert functions.keys() == {"set", "incr", "rpush", "xadd", "spop", "multi", "expire"}
    values = [step.value for step in made() if step.function in ("set", "rpush", "xadd", "multi")]
    assert len(values) == len(set(values))
    assert {split(step.key)[0] for step in made()} == {0, 1, 2}


def step(function: str, commands: int = 1) -> Step:
    return Step(function, b"0|k", 1, ((b"X",),) * commands)


READONLY = ServerError("READONLY", "You can't write against a read only replica.")
ABORT = ServerError("EXECABORT", "Transaction discarded because of: NOREPLICAS Not enough good replicas to write.")


@pytest.mark.parametrize(
    ("operation", "replies", "error", "result"),
    [
        (step("set"), [b"OK"], "", None),
        (step("incr"), [42], "", 42),
        (step("spop"), [b"17"], "", 17),
        (step("spop"), [None], "", None),
        (step("xadd"), [b"1700000000000-3"], "", 1700000000000 << 20 | 3),
        (step("expire"), [1], "", 1),
        (step("set"), [READONLY], "READONLY", None),
        (step("multi", 5), [b"OK", b"QUEUED", b"QUEUED", b"QUEUED", [b"OK", 1, b"OK"]], "", None),
        (
            step("multi", 5),
            [b"OK", READONLY, READONLY, READONLY, ServerError("EXECABORT", "Transaction discarded because of previous errors.")],
            "READONLY",
            None,
        ),
        (step("multi", 5), [b"OK", b"QUEUED", b"QUEUED", b"QUEUED", ABORT], "NOREPLICAS", None),
        (step("multi", 5), [b"OK", b"QUEUED", b"QUEUED", b"QUEUED", [b"OK", ServerError("OOM", "no"), b"OK"]], "OOM", None),
        (step("multi", 5), [b"OK", b"QUEUED", b"QUEUED", b"QUEUED", None], "NULL", None),
    ],
)
def test_a_steps_replies_become_its_result_or_the_error_that_refused_it(
    operation: Step, replies: list[object], error: str, result: int | None
) -> None:
    meaning = understood(operation, replies)
    assert (meaning.error, meaning.result) == (error, result)


# -------------------------------------------------------------------------------------------------------------------- measures


def test_the_longest_gap_is_found_in_its_window() -> None:
    acks = [0, 10, 20, 100, 110, 500, 510]
    assert longest_gap(acks, 15, 105) == Gap(20, 100)
    assert longest_gap(acks, 0, 600) == Gap(110, 500)
    assert longest_gap(acks, 30, 40) == Gap(20, 100)
    assert longest_gap(acks, 505, 9_000_510) == Gap(510, 9_000_510)
    assert longest_gap([], 1, 3) == Gap(1, 3)


def test_rates_have_no_holes() -> None:
    acks = [0, 1_000_000, 120_000_000]
    assert [value for _, value in rates(acks, 0, 50)] == [40.0, 0.0, 20.0]
    assert rates([], 0) == []
    assert rate(acks, 0, 1_000_000_000) == 3.0


# --------------------------------------------------------------------------------------------------------------------- servers


@pytest.mark.parametrize(
    ("server", "version"),
    [
        (binary("redis", 8, 0, 2), 12), (binary("redis", 7, 4, 6), 12), (binary("redis", 7, 2, 1), 11), (binary("redis", 7, 0, 15), 10),
        (binary("redis", 6, 2, 0), 9), (binary("redis", 8, 6, 0), 13), (binary("redis", 3, 0, 0), 6), (binary("valkey", 8, 1, 1), 11),
        (binary("valkey", 9, 1, 2), 80),
    ],
)  # fmt: skip
def test_servers_write_known_snapshot_versions(server: ServerBinary, version: int) -> None:
    assert rdb_version(server) == version
    assert representative(server) == (server.name == "redis" and version >= 12)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> object:
    def install(*there: ServerBinary) -> None:
        def find(spec: str) -> ServerBinary:
            for one in sorted(there, key=lambda one: one.version, reverse=True):
                if spec in (one.spec, str(one.path), f"newest-{one.name}"):
                    return one
            raise ServerMissing(f"no {spec}", remedy="fetch it")

        monkeypatch.setattr("valkeep.runtime.servers.find", find)

    return install


def test_the_newest_redis_is_the_source_and_the_newest_valkey_the_target(only: object) -> None:
    only(binary("redis", 7, 0, 15), binary("redis", 8, 0, 2), binary("valkey", 8, 1, 1), binary("valkey", 9, 1, 2))  # type: ignore[operator]
    chosen = choose_servers(RehearsalOptions())
    assert [str(one) for one in (chosen.source, chosen.target, chosen.naive)] == ["redis 8.0.2", "valkey 9.1.2", "valkey 8.1.1"]


def test_without_a_redis_the_source_is_a_valkey_and_in_ci_an_error(only: object) -> None:
    only(binary("valkey", 9, 1, 2))  # type: ignore[operator]
    assert choose_servers(RehearsalOptions()).source.name == "valkey"
    with pytest.raises(ValkeepError, match="natively") as caught:
        choose_servers(RehearsalOptions(representative_only=True))
    assert "redis-8.0" in caught.value.remedy


def test_a_target_that_is_no_valkey_is_refused(only: object) -> None:
    only(binary("redis", 8, 0, 2), binary("valkey", 9, 1, 2))  # type: ignore[operator]
    with pytest.raises(ValkeepError, match="no Valkey"):
        choose_servers(RehearsalOptions(target_server="redis-8.0"))
