"""What can happen while a way back stands: links break, servers are restarted, something cannot be carried back, somebody presses Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.pair import Pair, ProxiedPair
from tests.support.proxy import Proxy
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.migrate.control import SOCKET, _reachable

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
INFO = b"$4\r\nINFO\r\n"
PROMOTE = b"*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n"


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    source, target = server("redis-7.0"), server("valkey-9.1")
    here = client(source)
    here.mset({f"k{number}": number for number in range(100)})
    return Pair(source, target, here, client(target), tmp_path)


def test_links_that_break_cost_no_write_and_no_full_sync(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("redis-8.0"), server("valkey-9.1")
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        pair = ProxiedPair(source, target, client(source), client(target), tmp_path, to_source, to_target)
        pair.lease = 30_000
        with pair.run("--rollback") as run:
            run.wait_for("way-back:current")
            with Writers(target.port, 3) as writers:
                for _ in range(3):
                    to_target.cut()
                    pair.here.client_kill_filter(_type="master")
                    writers.wait_for_acks(10)
                assert pair.valkeep("rollback").process.returncode == 0, run.stderr
            assert run.wait() == 0, run.stderr
        assert lost(writers.acknowledged(), pair.here) == []
        assert pair.there.info()["sync_partial_err"] == pair.here.info()["sync_partial_err"] == 0


def test_a_new_server_that_was_restarted_ends_the_way_back(pair: Pair) -> None:
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        pair.target.kill()
        pair.target.launch()
        assert run.wait() == 5
        assert run.code == "VK-ROLLBACK-LOST"
    assert pair.valkeep("commit").process.returncode == 0
    assert pair.here.execute_command("ROLE")[0] == b"master"
    assert pair.fence == "255"


def test_what_cannot_be_carried_back_holds_it_and_refuses_the_rollback(pair: Pair) -> None:
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        pair.there.execute_command("HSETEX", "h", "EX", "1000", "FIELDS", "1", "f", "v")
        pair.there.set("behind", "it")
        until(lambda: "Redis 7.0" in run.stderr and "field" in run.stderr, lambda: run.stderr)
        rolled = pair.valkeep("rollback")
        assert (rolled.code, rolled.process.returncode) == ("VK-HELD", 1)
        assert pair.promoted
        assert pair.there.set("goes", "on")
        assert pair.valkeep("commit").process.returncode == 0, run.stderr
        assert run.wait() == 0
    assert pair.here.get("behind") is None


def test_ctrl_c_decides_nothing_and_says_so(pair: Pair) -> None:
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")

        def told() -> bool:
            status = pair.valkeep_status()
            return status["running"] and (status["live"] or {}).get("doing") == "way-back"  # it may be too busy to say

        until(told, lambda: run.stderr)
        run.send(signal.SIGINT)
        assert run.wait() == 130
        assert "nothing is decided about the way back" in run.stderr
        run.assert_nothing_left()
    pair.there.set("k1", "later")
    assert pair.valkeep("rollback").process.returncode == 0
    assert pair.here.get("k1") == b"later"
    assert pair.here.set("k1", "again")


@pytest.fixture
def proxied(server: Server, client: Client, tmp_path: Path) -> Iterator[ProxiedPair]:
    source, target = server("redis-7.0"), server("valkey-9.1")
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        found = ProxiedPair(source, target, client(source), client(target), tmp_path, to_source, to_target)
        found.lease = 30_000
        yield found


def test_a_way_back_tells_how_far_it_is_from_its_first_moment_on(proxied: ProxiedPair) -> None:
    pair = proxied
    told: list[dict[str, Any]] = []

    def look() -> None:
        told.append(pair.valkeep_status())
        pair.to_target.when(INFO, after=look)

    with pair.run("--rollback") as run:
        pair.to_target.when(PROMOTE, after=lambda: pair.to_target.when(INFO, after=look))
        run.wait_for("way-back:current")
        told.append(pair.valkeep_status())
        assert pair.valkeep("commit").process.returncode == 0
    told = [one for one in told if one["live"] is not None]  # it may be too busy to say
    doing = [one["live"]["doing"] for one in told]
    assert "way-back:attach" in doing
    assert doing[-1] == "way-back"
    assert told[-1]["todo"].startswith("valkeep migrate commit or rollback")
    assert all(one["running"] and one["live"]["held"] == "" for one in told)


def test_ctrl_c_at_the_promotion_of_a_rollback_says_that_it_is_complete(proxied: ProxiedPair) -> None:
    pair = proxied
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        pair.to_source.when(PROMOTE, before=lambda: run.send(signal.SIGINT))
        told = pair.valkeep("rollback")
        assert run.wait() == 130
    assert pair.here.set("k", "v")
    for said in (run.stderr, told.stderr):
        assert "nothing is decided" not in said
        assert "rolled back" in said
    assert pair.valkeep("rollback").process.returncode == 0
    assert pair.valkeep("commit").code == "VK-ROLLBACK-NONE"


@pytest.mark.parametrize("late", ["commit", "rollback"])
def test_who_decides_a_moment_too_late_is_told_what_was_decided(proxied: ProxiedPair, late: str) -> None:
    pair = proxied

    def at_the_promotion() -> None:
        with _reachable(pair.folder / "state" / SOCKET) as address:
            asking.connect(address)
        asking.sendall(json.dumps({"command": late}).encode() + b"\n")
        time.sleep(0.5)

    with socket.socket(socket.AF_UNIX) as asking, pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        pair.to_source.when(PROMOTE, before=at_the_promotion)
        assert pair.valkeep("rollback").process.returncode == 0
        assert run.wait() == 0
        answer = json.loads(asking.makefile().readline())
    assert (answer["ok"], answer["code"], "rolled back" in answer["error"]) == (False, "VK-ROLLBACK-NONE", True)
    assert pair.here.set("k", "v")


def test_servers_with_passwords_have_a_way_back(server: Server, client: Client, tmp_path: Path) -> None:
    source = server("redis-8.0", requirepass="old-secret", masterauth="for-the-gateway")
    target = server("valkey-9.1", requirepass="new-secret", primaryauth="old-secret")
    (tmp_path / "old").write_text("old-secret\n")
    (tmp_path / "new").write_text("new-secret\n")
    pair = Pair(source, target, client(source, password="old-secret"), client(target, password="new-secret"), tmp_path)
    access = ("--source-password-file", str(tmp_path / "old"), "--target-password-file", str(tmp_path / "new"))
    with pair.run("--rollback", *access) as run:
        run.wait_for("way-back:current")
        pair.there.set("k", "v")
        assert pair.valkeep("rollback", *access).process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    assert pair.here.get("k") == b"v"
    kept = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path)
    assert "secret" not in kept
    assert "for-the-gateway" not in kept


def test_a_rollback_of_a_push_is_refused_before_anything_is_done(pair: Pair) -> None:
    with pair.run("--rollback", "--deliver", "push") as run:
        assert run.wait() == 2
        assert "--rollback needs a target that we may tell" in run.stderr


def test_preflight_says_whether_there_is_a_way_back(pair: Pair) -> None:
    process = pair.preflight("--rollback", "--json", "-")
    codes = {finding["code"]: finding["severity"] for finding in json.loads(process.stdout)["findings"]}
    assert codes["VK-ROLLBACK-VERSION"] == "ok"
    assert codes["VK-ROLLBACK-FIELD-TTL"] == "warning"
