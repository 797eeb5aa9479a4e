"""``valkeep migrate plan`` of real servers and clusters: what it says is what they have, it changes nothing, and wrong input is told as such."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey
from valkey.cluster import ValkeyCluster

from tests.conftest import Server
from tests.support.cluster_target import cluster_of
from tests.support.valkeep_process import Valkeep
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ExitCode
from valkeep.topology.slots import even_ranges, key_slot

Client = Callable[..., Any]


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[list[Endpoint], list[Endpoint]]]:
    with cluster_of("redis-7.0", 2) as here, cluster_of("newest-valkey", 3) as there:
        yield [machine.endpoint for machine in here.machines.values()], [machine.endpoint for machine in there.machines.values()]


def emptied(nodes: list[Endpoint]) -> list[Endpoint]:
    """And not fenced."""
    for node in nodes:
        with valkey.Valkey(host=node.host, port=node.port) as c:
            c.config_set("min-replicas-to-write", 0)
            c.flushall()
    return nodes


@pytest.fixture
def source(standing: tuple[list[Endpoint], list[Endpoint]]) -> list[Endpoint]:
    return emptied(standing[0])


@pytest.fixture
def target(standing: tuple[list[Endpoint], list[Endpoint]]) -> list[Endpoint]:
    return emptied(standing[1])


def planned(here: str, there: str, path: Path, expected: ExitCode = ExitCode.GOOD) -> dict[str, Any]:
    assert run(["migrate", "plan", "--source", here, "--target", there, "--json", str(path)]) == expected
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_cluster_into_another_is_planned_lane_by_lane(
    source: list[Endpoint], target: list[Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, node in enumerate(source):
        first, last = even_ranges(2)[number]
        with valkey.Valkey(host=node.host, port=node.port) as c:
            for key in [f"k{n}" for n in range(1000) if first <= key_slot(b"k%d" % n) <= last][: 100 * (number + 1)]:
                c.set(key, "x" * 100)
    before = [_stats(node) for node in (*source, *target)]
    found = planned(source[1].display, target[2].display, tmp_path / "plan.json")
    assert (found["deliver"], found["may_start"], found["schema"]) == ("push", True, 1)
    assert [(lane["source"], lane["slots"], lane["keys"]) for lane in found["lanes"]] == [
        (source[0].address, 8192, 100),
        (source[1].address, 8192, 200),
    ]
    assert [[(one["target"], one["slots"]) for one in lane["gives"]] for lane in found["lanes"]] == [
        [(target[0].address, 5461), (target[1].address, 2731)],
        [(target[1].address, 2730), (target[2].address, 5462)],
    ]
    assert all(lane["data_bytes"] > 10_000 for lane in found["lanes"])
    assert [_stats(node) for node in (*source, *target)] == before  # nobody forked, no key was written
    told = capsys.readouterr().out
    assert f"lane 2 of 2 {source[1].address}" in told
    assert found["command"] in told
    assert (
        f"--source {source[1].display} --target {target[2].display}" in told
    )  # the state folder of a run goes by the nodes that were given


@pytest.mark.slow
def test_a_real_move_forks_as_planned_and_opens_no_more_connections(source: list[Endpoint], target: list[Endpoint], tmp_path: Path) -> None:
    with contextlib.closing(ValkeyCluster(host=source[0].host, port=source[0].port)) as c:
        for number in range(300):
            c.set(f"key:{number}", "x" * 100)
    cost = planned(source[0].display, target[0].display, tmp_path / "plan.json")["cost"]
    nodes = [*source, *target]
    before = [_stats(node)[0] for node in nodes]
    words = (
        "--source",
        source[0].display,
        "--target",
        target[0].display,
        "--deliver",
        "push",
        "--acknowledge",
        "all",
        "--state",
        str(tmp_path / "s"),
    )
    most = dict.fromkeys((node.address for node in nodes), 0)
    with Valkeep("migrate", "run", *words, folder=tmp_path / "run") as process, contextlib.ExitStack() as stack:
        watching = [(node, stack.enter_context(valkey.Valkey(host=node.host, port=node.port))) for node in nodes]
        while process.process.poll() is None:
            for node, c in watching:
                ours = sum(one["name"].startswith("valkeep") or "S" in one["flags"] for one in c.client_list())
                most[node.address] = max(most[node.address], ours)
        assert process.wait() == 0, process.stderr
    forks = {node.address: _stats(node)[0] - at for node, at in zip(nodes, before, strict=True)}
    assert forks == cost["source_forks"] | cost["target_forks"]
    allowed = cost["source_connections"] | cost["target_connections"]
    assert all(0 < most[address] <= allowed[address] for address in most), (most, allowed)


def _stats(node: Endpoint) -> tuple[int, int]:
    with valkey.Valkey(host=node.host, port=node.port) as c:
        return c.info("stats")["total_forks"], c.dbsize()


def test_single_servers_are_planned_too_with_their_rate_of_writes(
    server: Server, client: Client, target: list[Endpoint], tmp_path: Path
) -> None:
    here, there = server("redis-7.0"), server("newest-valkey")
    client(here).mset({f"k{number}": "x" for number in range(500)})
    native = planned(here.endpoint, there.endpoint, tmp_path / "native.json")
    assert (native["deliver"], native["read"], native["lanes"][0]["keys"]) == ("native", "psync", 500)
    assert native["lanes"][0]["changes_per_second"] == 0
    spread = planned(here.endpoint, target[0].display, tmp_path / "spread.json")
    assert spread["deliver"] == "push"
    assert [one["slots"] for one in spread["lanes"][0]["gives"]] == [5461, 5461, 5462]


def test_what_cannot_be_moved_like_this_is_planned_and_judged_bad(
    server: Server, source: list[Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = server("newest-valkey")
    found = planned(source[0].display, alone.endpoint, tmp_path / "plan.json", ExitCode.JUDGED_BAD)
    assert [one["code"] for one in found["blockers"]] == ["VK-CLUSTER"]
    assert "NO-GO" in capsys.readouterr().out
    planned(source[0].display, source[1].display, tmp_path / "same.json", ExitCode.JUDGED_BAD)
    assert "VK-SAME-SERVER" in capsys.readouterr().out


def test_wrong_input_is_told_with_its_exit_code_and_no_secret(
    server: Server, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = server("redis-7.0")
    free = "redis://127.0.0.1:1"
    assert run(["migrate", "plan", "--source", here.endpoint, "--target", free]) == ExitCode.NOT_RUN
    assert run(["migrate", "plan", "--source", free, "--target", here.endpoint]) == ExitCode.NOT_RUN
    assert run(["migrate", "plan", "--source", here.endpoint]) == ExitCode.USAGE
    assert run(["migrate", "plan", "--source", here.endpoint + "/3", "--target", free]) == ExitCode.USAGE
    assert run(["migrate", "plan", "--source", here.endpoint, "--target", "elasticache:group"]) == ExitCode.USAGE
    assert run(["migrate", "plan", "--source", here.endpoint, "--target", free, "--json", str(tmp_path)]) == ExitCode.USAGE
    client(here).config_set("requirepass", "hunter2hunter2")
    wrong = here.endpoint.replace("://", "://:hunter3hunter3@")
    assert run(["migrate", "plan", "--source", wrong, "--target", free]) == ExitCode.NOT_RUN
    assert "hunter" not in "".join(capsys.readouterr())
