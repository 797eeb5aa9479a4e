"""What cannot cross: a snapshot is refused before a target loads it, a stream is held at that command, and the target keeps what it has and serves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from valkey.connection import Connection

from tests.support import nodes
from tests.support.fixtures_snapshots import HASH_EX, ROWS, VECTOR_SET, T, item, text
from tests.support.fixtures_streams import HASH_7, STREAM_CUT
from tests.support.scripted_primary import ScriptedPrimary, Value, command, payload, sealed
from tests.support.scripted_session import ScriptedSession, read
from valkeep.errors import Refused, RemoteProtocolError, ValkeepError
from valkeep.migrate.gateway import copier
from valkeep.migrate.gateway.channel import GETACK
from valkeep.migrate.transform import stream
from valkeep.report.events import Held, Note
from valkeep.runtime.node import Process

pytestmark = pytest.mark.server

SPECS = ("valkey-8.0", "valkey-8.1", "valkey-9.1")
EMPTY = sealed(b"REDIS0012")
SOME = b"".join(row.record for row in ROWS if row.database == 0 and row.keys and row.since < 12)
SPARE = 4  # databases that the source has beyond the target's

Targets = Callable[..., Process]
QUICK = {"valkey-8.0": "disabled", "valkey-8.1": "disabled", "valkey-9.1": "swapdb"}  # 9.1 looks once a second whether a file has come


def on(*specs: str) -> list[object]:
    """Tests of one target share a worker, and so one server."""
    return [pytest.param(spec, marks=pytest.mark.xdist_group(f"refused-{spec}")) for spec in specs]


@pytest.fixture(scope="module")
def target() -> Iterator[Targets]:
    """Servers by spec, started once for this module; each test leaves them detached."""
    with ExitStack() as stack:
        running: dict[str, Process] = {}

        def get(spec: str, load: str = "disabled") -> Process:
            if spec + load not in running:
                running[spec + load] = stack.enter_context(nodes.start(spec, {"repl-diskless-load": load}))
            return running[spec + load]

        yield get


def asked(node: Process, request: str) -> Any:
    """The answer to one ordinary command, on a connection of its own."""
    connection = Connection(host="127.0.0.1", port=node.port)
    try:
        return read(connection, request, None)
    finally:
        connection.disconnect()


def snapshot(*items: bytes, magic: bytes = b"REDIS0012") -> bytes:
    return sealed(magic + b"\xfe\x00" + SOME + b"".join(items))


def damaged(data: bytes) -> bytes:
    at = data.index(b"hello")
    return data[:at] + b"jello" + data[at + 5 :]


REFUSED: dict[str, tuple[bytes, type[ValkeepError], str]] = {
    "a module's value": (snapshot(item(7, "vectors", VECTOR_SET)), Refused, "vectors"),
    "a type of Redis 8.6": (snapshot(item(26, "idmp", "00"), magic=b"REDIS0013"), Refused, "idmp"),
    "an unknown type": (snapshot(item(99, "what", "00")), ValkeepError, "what|99"),
    "a database that the target does not have": (snapshot(b"\xfe\x10" + item(0, "far", "0176")), Refused, "database 16"),
    "a stream that goes on in such a database": (snapshot(b"\xfa" + text(b"repl-stream-db") + b"\xc0\x10"), Refused, "database 16"),
    "a damaged byte": (damaged(snapshot()), RemoteProtocolError, "checksum"),
    "a snapshot that ends in its middle": (snapshot()[:-30], RemoteProtocolError, "ended"),
    "bytes behind its end": (snapshot() + b"\x00", RemoteProtocolError, "follow"),
    "an impossible length": (snapshot(item(2, "set", "81ffffffffffffffff")), RemoteProtocolError, "set|length|elements"),
    "another file": (b"PNG\x89" * 100, RemoteProtocolError, "PNG|header|magic|RDB"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("spec", on(*SPECS))
def test_a_snapshot_that_cannot_cross_is_refused_and_the_target_keeps_its_data(target: Targets, spec: str, case: str) -> None:
    data, kind, words = REFUSED[case]
    node = target(spec)
    framing = ("mark", "length")[(list(REFUSED).index(case) + SPECS.index(spec)) % 2]
    session = ScriptedSession(node, spec, "keep-field", ScriptedPrimary(data, framing=framing), early=case != "another file")
    asked(node, "FLUSHALL")
    asked(node, "SET precious 1")
    with pytest.raises(kind, match=words) as refused, session:
        pytest.fail("it was taken")
    assert refused.value.remedy
    assert asked(node, "GET precious") == b"1"
    assert asked(node, "DBSIZE") == 1
    assert b"unexpected_error_replies:0\r\n" in asked(node, "INFO stats")


@pytest.mark.parametrize("kind", [24, 25])
@pytest.mark.parametrize("spec", on("valkey-8.0", "valkey-8.1"))
def test_field_ttls_under_refuse_stop_before_the_target_is_touched(target: Targets, spec: str, kind: int) -> None:
    value = HASH_EX if kind == 25 else "00d8c32cbb030000 01 01 0166 0176"
    session = ScriptedSession(target(spec), spec, "refuse", ScriptedPrimary(snapshot(item(kind, "cart", value))))
    asked(target(spec), "SET precious 1")
    with pytest.raises(Refused, match=r"cart.*refuse") as refused, session:
        pytest.fail("it was taken")
    assert "--field-ttl" in refused.value.remedy
    assert asked(target(spec), "GET precious") == b"1"


MODULE = Value(payload(b"\x07" + bytes.fromhex(VECTOR_SET)))
HELD: dict[str, tuple[bytes, str, str, dict[tuple[int, bytes], Value]]] = {
    "a vector set": (command("VADD", "vectors", "VALUES", 2, "1", "0", "e"), "vectors", "keep-field", {(0, b"vectors"): MODULE}),
    "RESTORE of a module's value": (command("RESTORE", "vectors", 0, MODULE.payload), "module", "keep-field", {(0, b"vectors"): MODULE}),
    "a command nobody knows": (command("FROBNICATE key value"), "FROBNICATE", "keep-field", {}),
    "SELECT of a database that is not there": (command("SELECT 16"), "database 16", "keep-field", {}),
    "MOVE there": (command("MOVE held:before 17"), "database 17", "keep-field", {}),
    "COPY there": (command("COPY held:before other DB 18"), "database 18", "keep-field", {}),
    "SWAPDB with one": (command("SWAPDB 0 19"), "database 19", "keep-field", {}),
    "a transaction that selects one": (
        command("MULTI") + command("INCR held:within") + command("SELECT 16"),
        "database 16",
        "keep-field",
        {},
    ),
    "MOVE there of a key that is copied again": (
        command("XDELEX k IDS 1 2-2") + command("MOVE k 17"),
        "database 17",
        "keep-field",
        {(17, b"k"): Value(payload(STREAM_CUT))},
    ),
    "COPY there of a key that is copied again": (
        command("XDELEX k IDS 1 2-2") + command("COPY k other DB 18"),
        "database 18",
        "keep-field",
        {(0, b"k"): Value(payload(STREAM_CUT)), (18, b"other"): Value(payload(STREAM_CUT))},
    ),
    "SWAPDB under a key that is copied again": (
        command("XDELEX k IDS 1 2-2") + command("SWAPDB 0 19"),
        "database 19",
        "keep-field",
        {(19, b"k"): Value(payload(STREAM_CUT))},
    ),
}
HELD_8 = {
    "HPEXPIREAT under refuse": (command(f"HPEXPIREAT held:hash {T} FIELDS 1 f"), "HPEXPIREAT", "refuse", {}),
    "HSETEX under refuse": (command(f"HSETEX held:hash PXAT {T} FIELDS 1 f v"), "HSETEX", "refuse", {}),
    "RESTORE of field TTLs under refuse": (command("RESTORE", "cart", 0, payload(HASH_7)), "RESTORE", "refuse", {}),
    "a copy with field TTLs under refuse": (command("XDELEX cart IDS 1 2-2"), "cart", "refuse", {(0, b"cart"): Value(payload(HASH_7))}),
}


@pytest.mark.parametrize(
    ("spec", "case"),
    [
        pytest.param(spec, case, marks=pytest.mark.xdist_group(f"refused-{spec}"))
        for spec in SPECS
        for case in ([*HELD] if spec == "valkey-9.1" else [*HELD, *HELD_8])
    ],
)
def test_what_cannot_be_translated_holds_the_stream_there(target: Targets, spec: str, case: str) -> None:
    data, words, policy, values = (HELD | HELD_8)[case]
    with ScriptedSession(target(spec, QUICK[spec]), spec, policy, ScriptedPrimary(EMPTY, databases=16 + SPARE)) as session:
        session.primary.values = values
        session.play(command("SET held:before 1"))
        session.send(data + command("SET held:after 1"))
        session.wait(lambda: session.gateway.held)
        ((_, hold),) = session.gateway.held
        assert words in hold.why
        assert hold.remedy
        assert [what for action, what, *_ in session.recorded if action == "held"]
        notes = [event for event in session.events if isinstance(event, Note) and event.level == "error"]
        assert len(notes) == 1
        assert hold.remedy in notes[0].fields["remedy"]
        # what the source goes on sending is spooled, nothing of it arrives anywhere, and the link lives
        session.send(command("SET held:after 2") + command("SELECT 0") + command("SET held:later 1"))
        channel = session.gateway.channels[0]
        session.wait(lambda: channel.held_bytes > 50)
        session.in_loop(channel.keep_alive)
        ends = channel.ends
        session.in_loop(lambda: channel.insert(GETACK))
        session.wait(lambda: session.acknowledged >= ends or b"MULTI" in data)
        session.check([("GET held:before", b"1"), ("EXISTS held:after held:later held:within vectors cart", 0), ("DBSIZE", 1)])
        assert session.info("keyspace").keys() <= {"# Keyspace", "db0"}


@pytest.mark.parametrize("spec", on(*SPECS))
def test_a_held_stream_goes_on_when_the_cause_is_gone(target: Targets, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "HOLD_RETRY_SECONDS", 0.05)
    with ScriptedSession(target(spec, QUICK[spec]), spec, "keep-field", ScriptedPrimary(EMPTY)) as session:
        session.primary.values = {(0, b"vectors"): MODULE}
        session.send(command("SET a 1") + command("VADD", "vectors", "VALUES", 2, "1", "0", "e") + command("INCR a"))
        session.wait(lambda: session.gateway.held)
        session.check([("GET a", b"1")])
        session.wait(lambda: any(isinstance(event, Held) for event in session.events))
        session.primary.values = {}  # the person deletes it
        session.play(command("DEL vectors") + command("INCR a"))
        session.check([("GET a", b"3"), ("EXISTS vectors", 0)])
        assert session.gateway.held == ()
        session.wait(lambda: any(isinstance(event, Held) and not event.why for event in session.events))
        first, *_, last = [event for event in session.events if isinstance(event, Held)]
        assert "vectors" in first.why
        assert first.remedy
        assert (first.bytes > 0, last.bytes, last.why) == (True, 0, "")


@pytest.mark.parametrize("setting", ["swapdb", "on-empty-db", "disabled"])
@pytest.mark.parametrize("spec", on(*SPECS))
def test_a_stream_right_behind_the_snapshot_is_not_lost(spec: str, setting: str) -> None:
    record = item(0, "a", "0131") + item(0, "big", text(b"x" * 8_000_000))
    primary = ScriptedPrimary(sealed(b"REDIS0012\xfe\x00" + record))
    with (
        nodes.start(spec, {"repl-diskless-load": setting}) as node,
        ScriptedSession(node, spec, "keep-field", primary, early=True) as session,
    ):
        session.play(b"".join(command("INCR a") for _ in range(100)))
        session.check([("GET a", b"101"), ("STRLEN big", 8_000_000)])


@pytest.mark.parametrize("spec", on("valkey-8.0"))
def test_a_valkey_source_with_newer_commands_than_the_target_is_translated(target: Targets, spec: str) -> None:
    info = {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.0"}
    with ScriptedSession(target(spec), spec, "drop-field", ScriptedPrimary(EMPTY, info=info)) as session:
        session.primary.values = {(0, b"h"): Value(payload(HASH_7))}
        session.play(command("SET a 1") + command("SET a 2 IFEQ 1") + command("DELIFEQ b 1") + command("HSET h plain 1 ttl 5"))
        session.play(command(f"HPEXPIREAT h {T} FIELDS 1 ttl") + command("HINCRBY h ttl 2"))
        session.check([("GET a", b"2"), ("HGETALL h", {b"plain": b"1"})])


@pytest.mark.parametrize("version", ["8.0.2", "8.4.0"])
@pytest.mark.parametrize("spec", on("valkey-8.1"))
def test_a_value_longer_than_what_is_looked_at_whole_streams_through(target: Targets, spec: str, version: str) -> None:
    size = 70 << 20
    with ScriptedSession(target(spec), spec, "keep-field", ScriptedPrimary(EMPTY, info={"redis_version": version})) as session:
        session.play(command("SET", "huge", bytes(size)) + command("SET after 1"))
        session.check([("STRLEN huge", size), ("GET after", b"1")])
        session.ask("FLUSHALL")


def large_hash(fields: int) -> bytes:
    """What DUMP of a Redis gives for a hash of so many fields with TTLs."""
    pairs = b"".join(b"\x01" + text(b"%06d" % number) + text(b"v") for number in range(fields))
    return payload(b"\x18" + T.to_bytes(8, "little") + b"\x80" + fields.to_bytes(4, "big") + pairs)


@pytest.mark.parametrize("spec", on("valkey-8.1", "valkey-9.1"))
def test_a_command_that_is_too_large_to_be_translated_arrives_by_a_copy_of_its_key(target: Targets, spec: str) -> None:
    size, fields = (stream.LARGE_COMMAND >> 20) + 1 << 20, stream.MANY_WORDS // 2 + 1
    value, head = bytes(size), b"\x80" + size.to_bytes(4, "big")
    with ScriptedSession(target(spec), spec, "keep-field", ScriptedPrimary(EMPTY)) as session:
        session.primary.values = {
            (0, b"big\n:1"): Value(payload(b"\x00" + head + value), T),
            (0, b"big:2"): Value(payload(b"\x00" + head + value)),
            (0, b"big:3"): Value(large_hash(fields)),
        }
        pairs = [word for number in range(fields) for word in (b"%06d" % number, b"v")]
        session.play(
            command("SET before 1")
            + command("SET", b"big\n:1", value, "IFEQ", "old", "PXAT", T)
            + command("MULTI")
            + command("restore", "big:2", 0, payload(b"\x00" + head + value), "REPLACE")
            + command("INCR before")
            + command("EXEC")
            + command("HSETEX", "big:3", "PXAT", T, "FIELDS", fields, *pairs)
            + command("INCR before")
        )
        session.check(
            [
                ("GET before", b"3"),
                (("STRLEN", b"big\n:1"), size),
                (("PEXPIRETIME", b"big\n:1"), T),
                ("STRLEN big:2", size),
                ("HLEN big:3", fields),
                ("HGET big:3 000007", b"v"),
                ("DBSIZE", 4),
            ]
        )
        if session.format.field_ttl:
            session.check([("HPEXPIRETIME big:3 FIELDS 1 000007", [T])])
        assert {key for action, _, key, *_ in session.recorded if action == "recopied"} >= {b"big\n:1", b"big:2"}
        session.ask("FLUSHALL")


@pytest.mark.parametrize("spec", on(*SPECS))
def test_a_target_that_lost_its_link_goes_on_where_it_was(target: Targets, spec: str) -> None:
    with ScriptedSession(target(spec, QUICK[spec]), spec, "drop-field", ScriptedPrimary(EMPTY)) as session:
        session.play(command("SET a 1") + command("SELECT 3") + command("SET b 1"))
        assert session.ask("CLIENT KILL TYPE primary") == 1
        session.send(command("INCR b") + command("MULTI") + command("INCR b") + command("INCR b") + command("EXEC"))
        session.wait(lambda: any(link.online for link in session.gateway.links))
        session.drain(session.primary.offset)
        session.check([("GET a", b"1"), ("SELECT 3", b"OK"), ("GET b", b"4"), ("DBSIZE", 1)])
        assert sum("attaches" in event.text for event in session.events if isinstance(event, Note)) == 2


def test_expiry_of_a_copy_is_absolute(target: Targets) -> None:
    with ScriptedSession(
        target("valkey-8.1"), "valkey-8.1", "keep-field", ScriptedPrimary(EMPTY, info={"redis_version": "6.2.0"})
    ) as session:
        # before 7.0 there is no PEXPIRETIME: PTTL and the source's own clock (TIME answers 1790000000 s) give it
        session.primary.values = {(0, b"k"): Value(payload(b"\x00\x01v", 9), 1_000_000_000_000)}
        session.play(command("XDELEX k IDS 1 2-2"))
        session.check([("GET k", b"v"), ("PEXPIRETIME k", 1_790_000_000_000 + 1_000_000_000_000)])
