"""What the gateway shows: its table and the page of it, replies in both protocols, globs, the order of answers, what cannot be believed."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.cli.migrate_attach import delivery, presented
from valkeep.errors import UsageError
from valkeep.migrate.face import Aspect, Guest, Keyspace, Seen, reply
from valkeep.migrate.face.answers import CONTAINERS, REFUSED, ROWS
from valkeep.migrate.face.catalogue import COMMANDS
from valkeep.migrate.face.reply import Refusal, Several, Status, Text, encoded
from valkeep.migrate.face.settings import matches
from valkeep.wire import psync
from valkeep.wire.resp import Parser

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "gateway-answers.md"
ASPECT = Aspect(
    version="7.2.4",
    run_id="a" * 40,
    address="10.0.0.7",
    port=6400,
    now=1_700_000_100.5,
    started=1_700_000_000.0,
    databases=4,
    replid="b" * 40,
    offset=812,
    backlog_first=700,
    backlog=113,
    loading=False,
    keyspaces=(Keyspace(0, 10, 2, 5), Keyspace(3, 7)),
    memory=1 << 30,
    replicas=(Seen("10.0.0.9", 6379, "online", 800, 1), Seen("10.0.0.10", 6379, "send_bulk", 0, 0)),
)


def guest(aspect: Aspect = ASPECT) -> Guest:
    return Guest(7, lambda one, args: reply(one, args, aspect), aspect.now)


def ask(line: str, one: Guest | None = None) -> Any:
    parser = Parser()
    parser.feed((one or guest()).answer(tuple(line.encode().split(b" "))))
    return parser.next()


def test_the_page_of_answers_is_the_table() -> None:
    documented = dict(re.findall(r"^\| `([a-z][a-z -]*)` \| (.*) \|$", PAGE.read_text().partition("\n## ")[0], re.MULTILINE))
    table = {row.name.replace("|", " "): row.summary for row in ROWS.values() if not row.name.startswith("cluster|")}
    assert documented == table


@pytest.mark.parametrize(
    ("name", "unwelcome"), [("sentinel-0123456789-cmd", True), ("sentinel-0123456789-pubsub", True), ("sentinels", False)]
)
def test_who_names_itself_as_sentinels_do_is_unwelcome(name: str, unwelcome: bool) -> None:
    one = guest()
    ask(f"CLIENT SETNAME {name}", one)
    assert bool(one.unwelcome) is unwelcome


def test_the_table_hangs_together() -> None:
    for name in ROWS:
        assert name.partition("|")[0] in COMMANDS, name
        assert "|" not in name or name.partition("|")[0] in CONTAINERS, name
    assert not set(ROWS) & set(REFUSED)
    assert {name.partition("|")[0] for name in REFUSED} <= CONTAINERS


@pytest.mark.parametrize(
    ("value", "old", "new"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (Status("OK"), b"+OK\r\n", b"+OK\r\n"),
        (Refusal("ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
        (Text("ab"), b"$2\r\nab\r\n", b"=6\r\ntxt:ab\r\n"),
        ("ü", b"$2\r\n\xc3\xbc\r\n", b"$2\r\n\xc3\xbc\r\n"),
        (-3, b":-3\r\n", b":-3\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        ({"a": [1, None]}, b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n"),
        (Several((1,)), b"*1\r\n:1\r\n", b"~1\r\n:1\r\n"),
    ],
    ids=repr,
)
def test_replies_in_both_protocols(value: object, old: bytes, new: bytes) -> None:
    assert encoded(value, 2) == old
    assert encoded(value, 3) == new


def test_it_shows_its_own_offsets_its_replicas_and_what_the_source_said() -> None:
    said = ask("INFO").decode()
    for line in (
        "redis_version:7.2.4",
        "uptime_in_seconds:100",
        "connected_slaves:2",
        "slave0:ip=10.0.0.9,port=6379,state=online,offset=800,lag=1",
        "slave1:ip=10.0.0.10,port=6379,state=send_bulk,offset=0,lag=0",
        f"master_replid:{'b' * 40}",
        "master_repl_offset:812",
        "repl_backlog_first_byte_offset:700",
        "repl_backlog_histlen:113",
        f"used_memory:{1 << 30}",
        "used_memory_human:1.00G",
        "db0:keys=10,expires=2,avg_ttl=5",
        "db3:keys=7,expires=0,avg_ttl=0",
    ):
        assert f"\r\n{line}\r\n" in said, line
    assert ask("ROLE") == [b"master", 812, [[b"10.0.0.9", b"6379", b"800"]]]
    assert ask("TIME") == [b"1700000100", b"500000"]
    assert ask("WAIT 5 1000") == 1


def test_a_guest_is_remembered_and_reset() -> None:
    one = guest()
    assert ask("DBSIZE", one) == 10
    assert ask("SELECT 3", one) == b"OK"
    assert ask("DBSIZE", one) == 7
    assert ask("SELECT 4", one).message == "ERR DB index is out of range"
    assert ask("HELLO 3 SETNAME me", one)[b"proto"] == 3
    assert ask("CLIENT SETINFO LIB-NAME probe", one) == b"OK"
    line = one.line(ASPECT.now)
    assert all(part in line for part in ("id=7 ", "name=me ", "db=3 ", "resp=3 ", "lib-name=probe ", "cmd=client|setinfo "))
    assert ask("RESET", one) == b"RESET"
    assert (one.proto, one.name, one.database) == (2, "", 0)


@given(st.text("abc*?-", max_size=12), st.text("abc-", max_size=12))
def test_globs_match_as_the_librarys_do(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("[ab]x", "bx", True),
        ("[a-c]x", "bx", True),
        ("[^ab]x", "bx", False),
        ("[^ab]x", "cx", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("[a", "[a", True),
    ],
)
def test_globs_with_classes_and_escapes(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_a_glob_of_many_stars_takes_no_time() -> None:
    ask("CONFIG GET " + "*?" * 128 + "x")  # an expression engine would never come back


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_nothing_that_is_asked_raises(args: list[bytes]) -> None:
    assert guest().answer(tuple(args)).endswith(b"\r\n")


@given(st.sampled_from(sorted(ROWS)), st.lists(st.binary(max_size=20), max_size=4))
def test_no_arguments_of_a_known_command_raise(name: str, more: list[bytes]) -> None:
    assert guest().answer((*name.encode().split(b"|"), *more)).endswith(b"\r\n")


def test_answers_come_in_the_order_of_the_questions() -> None:
    serving, one = psync.PrimarySide(), guest()
    data, out = b"PING\r\nECHO a\r\nPING\r\nECHO b\r\nQUIT\r\n", b""
    while events := serving.receive(data):
        for event in events:
            if isinstance(event, psync.Command):
                serving.reply(one.answer(event.args))
        data = b""
    out += serving.data_to_send()
    assert out == b"+PONG\r\n$1\r\na\r\n+PONG\r\n$1\r\nb\r\n+OK\r\n"
    assert events == []


def test_hello_logs_in_and_its_password_goes_no_further() -> None:
    serving = psync.PrimarySide(password="secret")
    assert serving.receive(b"HELLO 3\r\nHELLO 3 AUTH default wrong\r\n") == [psync.LoginFailed("default")]
    assert serving.data_to_send().startswith(b"-NOAUTH HELLO must be called")
    assert serving.receive(b"HELLO 3 AUTH default secret SETNAME me\r\n") == [psync.Command((b"HELLO", b"3", b"SETNAME", b"me"))]
    assert serving.receive(b"RESET\r\n") == [psync.Command((b"RESET",))]
    assert serving.receive(b"INFO\r\n") == []  # logged out
    assert serving.data_to_send().endswith(b"-NOAUTH Authentication required.\r\n")


def test_sync_is_told_nothing_before_its_snapshot() -> None:
    serving = psync.PrimarySide()
    assert serving.receive(b"REPLCONF capa eof\r\nSYNC\r\n") == [psync.PsyncRequest(None, -1, serving.replica, plain=True)]
    serving.data_to_send()
    serving.keep_alive()
    serving.full_resync("b" * 40, 812)
    serving.begin_payload(length=3)
    assert serving.data_to_send() == b"\n$3\r\n"
    serving.end_payload()
    assert serving.may_stream


def test_what_the_command_line_says_of_attaching() -> None:
    assert delivery("native", "push") == "push"
    assert delivery("external", "native") == "external"
    assert presented("8.0.1") == "8.0.1"
    for wrong in (
        lambda: delivery("sideways", "native"),
        lambda: delivery("external", "push"),
        lambda: presented("seven"),
        lambda: presented("7.2"),
    ):
        with pytest.raises(UsageError):
            wrong()
