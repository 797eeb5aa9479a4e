"""Both sides of the PSYNC conversation without a socket: with each other, in any pieces, and with peers that misbehave."""

from __future__ import annotations

from typing import Any

import pytest

from valkeep.errors import LocalProtocolError
from valkeep.wire import psync
from valkeep.wire.psync import Asking, Heard, PrimarySide, ReplicaSide, Said, Serving

REPLID = "a3f" + "0" * 36 + "1"
OTHER = "b" * 40
MARK = b"0123456789" * 4


def replica(**options: Any) -> ReplicaSide:
    return ReplicaSide(**{"listening_port": 7000, **options})


def talk(asking: ReplicaSide, serving: PrimarySide, size: int = 1) -> tuple[list[Any], list[Any]]:
    """Carry bytes to and fro, ``size`` at a time, until both are silent."""
    heard: list[Any] = []
    told: list[Any] = []
    while True:
        up, down = asking.data_to_send(), serving.data_to_send()
        if not up and not down:
            return told, heard
        for at in range(0, len(up), size):
            heard += serving.receive(up[at : at + size])
        for at in range(0, len(down), size):
            told += asking.receive(down[at : at + size])


def answered(asking: ReplicaSide, *replies: bytes) -> list[Any]:
    events: list[Any] = []
    for reply in replies:
        asking.data_to_send()
        events += asking.receive(reply)
    return events


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_two_sides_understand_each_other(size: int) -> None:
    asking = replica(ip_address="10.0.0.1", version="8.1.1", username="u", password="p")
    serving = PrimarySide(password="p", username="u")
    told, (request,) = talk(asking, serving, size)
    assert told == []
    assert request == psync.PsyncRequest(None, -1, psync.Replica(7000, "10.0.0.1", frozenset({"eof", "psync2"}), (8, 1, 1)))
    serving.keep_alive()
    serving.full_resync(REPLID, 812)
    serving.keep_alive()
    assert talk(asking, serving, size)[0] == [psync.FullResync(REPLID, 812)]
    serving.begin_payload(mark=MARK)
    assert talk(asking, serving, size)[0] == [psync.PayloadStart(None, MARK)]
    serving.end_payload()
    assert not serving.may_stream
    assert serving.receive(psync.ack(812)) == [psync.Ack(812)]
    assert serving.may_stream


def test_a_stream_goes_on_from_the_byte_asked_for() -> None:
    asking, serving = replica(psync=(REPLID, 813)), PrimarySide()
    _, (request,) = talk(asking, serving)
    assert (request.replid, request.offset) == (REPLID, 813)
    serving.continue_with(REPLID)
    assert asking.receive(serving.data_to_send() + b"*1\r\n") == [psync.Continue(None)]
    assert asking.rest() == b"*1\r\n"
    assert serving.may_stream


def test_a_new_replication_id_is_reported() -> None:
    asking = replica(psync=(REPLID, 5))
    assert answered(asking, b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+CONTINUE %s\r\n" % OTHER.encode()) == [
        psync.Continue(OTHER)
    ]


def test_refused_options_do_not_stop_the_handshake() -> None:
    asking = replica(ip_address="1.2.3.4")
    no = b"-ERR Unrecognized REPLCONF option\r\n"
    assert answered(asking, b"+PONG\r\n", no, no, no, no) == []
    assert asking.state is Asking.PSYNC
    assert asking.data_to_send() == b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"


@pytest.mark.parametrize("reply", [b"-LOADING data\r\n", b"-NOMASTERLINK Can't SYNC\r\n", b"-MASTERDOWN x\r\n"])
def test_a_source_that_is_not_ready_is_asked_again_later(reply: bytes) -> None:
    (event,) = answered(replica(), b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", reply)
    assert isinstance(event, psync.Retry)
    (event,) = answered(replica(), b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+FULLRESYNC %s 1\r\n" % REPLID.encode() + reply)[1:]
    assert isinstance(event, psync.Retry)


@pytest.mark.parametrize(
    ("options", "replies", "says"),
    [
        ({}, [b"HTTP/1.1 400 Bad\r\n"], "HTTP"),
        ({}, [b"\x15\x03\x01"], "TLS"),
        ({}, [b"-NOAUTH Authentication required.\r\n", b"-NOAUTH Authentication required.\r\n"], "wants a password"),
        ({}, [b"-DENIED Redis is running in protected mode\r\n"], "protected mode"),
        ({"password": "hunter2"}, [b"+PONG\r\n", b"-WRONGPASS invalid: hunter2\r\n"], "did not accept the password"),
        (
            {"password": "hunter2"},
            [b"+PONG\r\n", b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"],
            "did not accept",
        ),
        (
            {},
            [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"-NOPERM no permissions to run the 'psync' command\r\n"],
            "does not let this user",
        ),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"-ERR unknown command 'PSYNC'\r\n"], "does not let this user"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+FULLRESYNC x 1\r\n"], "names no replication id"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+FULLRESYNC %s -1\r\n" % REPLID.encode()], "names no replication id"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+CONTINUE\r\n"], "although we asked for a full sync"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+DUALCHANNELSYNC\r\n"], "answered"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+FULLRESYNC %s 1\r\n$EOF:short\r\n" % REPLID.encode()], "end mark"),
        ({}, [b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+FULLRESYNC %s 1\r\n$-5\r\n" % REPLID.encode()], "no length"),
        ({}, [b"+" + b"x" * 100_000], "more than"),
        ({}, [b"$5\r\n"], "answered"),
    ],
)
def test_a_source_that_can_not_be_followed_is_named_with_a_remedy(options: dict[str, Any], replies: list[bytes], says: str) -> None:
    asking = replica(name="the source 10.0.0.9:6379", **options)
    event = answered(asking, *replies)[-1]
    assert isinstance(event, psync.Failed)
    assert says in event.error.message
    assert event.error.remedy
    assert event.error.message.startswith("the source 10.0.0.9:6379 ")
    assert "hunter2" not in event.error.message + repr(asking) + repr(event)
    assert asking.receive(b"+OK\r\n") == []


def test_a_server_that_denies_replication_is_told_from_one_that_denies_everything() -> None:
    denied = answered(replica(), b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"-NOPERM no permissions to run 'psync'\r\n")[-1]
    assert isinstance(denied.error, psync.ReplicationDenied)
    no_login = answered(replica(name="replicate.example:1"), b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n")[-1]
    assert not isinstance(no_login.error, psync.ReplicationDenied)


def test_a_second_connection_is_never_offered_and_never_taken() -> None:
    with pytest.raises(LocalProtocolError):
        replica(capabilities=("eof", "rdb-channel-repl"))
    serving = PrimarySide()
    assert serving.receive(b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-3\r\n") == []
    assert serving.data_to_send().startswith(b"-ERR")


def handshaken(**options: Any) -> PrimarySide:
    serving = PrimarySide(**options)
    serving.receive(b"REPLCONF capa eof capa psync2\r\nPSYNC ? -1\r\n")
    serving.data_to_send()
    return serving


def test_everything_but_a_login_is_refused_until_it_succeeds() -> None:
    serving = PrimarySide(password="right")
    assert serving.receive(b"PING\r\nREPLCONF capa eof\r\nINFO\r\nPSYNC ? -1\r\n") == []
    assert serving.data_to_send() == b"-NOAUTH Authentication required.\r\n" * 4
    assert serving.replica.capabilities == frozenset()
    assert serving.receive(b"AUTH wrong\r\nAUTH admin right\r\nAUTH\r\n") == [
        psync.LoginFailed("default"),
        psync.LoginFailed("admin"),
        psync.LoginFailed("default"),
    ]
    serving.data_to_send()
    assert serving.receive(b"AUTH default right\r\nPING\r\n") == []
    assert serving.data_to_send() == b"+OK\r\n+PONG\r\n"
    assert serving.receive(b"AUTH wrong\r\nPING\r\n") == [psync.LoginFailed("default")]
    assert serving.data_to_send().endswith(b"-NOAUTH Authentication required.\r\n")


def test_unknown_replconf_options_are_refused_as_a_primary_does() -> None:
    serving = PrimarySide()
    serving.receive(b"REPLCONF rdb-channel 1\r\nREPLCONF listening-port\r\nREPLCONF version 9.1.2 set-cluster-node-id abc\r\n")
    assert serving.data_to_send() == b"-ERR Unrecognized REPLCONF option: rdb-channel\r\n-ERR syntax error\r\n+OK\r\n"
    assert serving.replica == psync.Replica(version=(9, 1, 2), node_id="abc", unknown=("rdb-channel",))


def test_other_commands_are_the_callers_to_answer_before_the_sync_only() -> None:
    serving = PrimarySide()
    assert serving.receive(b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n") == [psync.Command((b"INFO", b"server"))]
    serving.reply(psync.bulk_reply(b"redis_version:7.2.4"))
    assert serving.data_to_send() == b"$19\r\nredis_version:7.2.4\r\n"
    serving.receive(b"PSYNC ? -1\r\n")
    with pytest.raises(LocalProtocolError):
        serving.reply(b"+OK\r\n")
    (event,) = serving.receive(b"INFO\r\n")
    assert isinstance(event, psync.Failed)


def test_acks_are_read_with_and_without_fack_and_newlines_are_ignored() -> None:
    serving = handshaken()
    serving.full_resync(REPLID, 0)
    serving.begin_payload(length=9)
    assert serving.receive(b"\n\n\n") == []
    serving.end_payload()
    assert serving.may_stream
    assert serving.receive(b"*5\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n37\r\n$4\r\nFACK\r\n$1\r\n9\r\n\n" + psync.ack(38)) == [
        psync.Ack(37, 9),
        psync.Ack(38),
    ]
    assert serving.receive(b"REPLCONF version 9\r\n") == []
    serving.data_to_send()


def test_our_own_steps_out_of_order_are_our_error() -> None:
    serving = PrimarySide()
    for step in (
        lambda: serving.full_resync(REPLID, 1),
        lambda: serving.continue_with(REPLID),
        lambda: serving.begin_payload(length=1),
        serving.end_payload,
        serving.refuse,
    ):
        with pytest.raises(LocalProtocolError):
            step()
    serving = handshaken()
    with pytest.raises(LocalProtocolError):
        serving.full_resync("short", 1)
    plain = PrimarySide()
    plain.receive(b"PSYNC ? -1\r\n")
    plain.full_resync(REPLID, 1)
    with pytest.raises(LocalProtocolError, match="end mark"):
        plain.begin_payload(mark=MARK)


def test_a_target_that_knows_no_psync2_is_told_no_id() -> None:
    serving = PrimarySide()
    serving.receive(b"PSYNC %s 5\r\n" % REPLID.encode())
    serving.continue_with(REPLID)
    assert serving.data_to_send() == b"+CONTINUE\r\n"


def test_a_refusal_lets_the_target_ask_again() -> None:
    serving = handshaken()
    serving.refuse()
    assert serving.data_to_send().startswith(b"-NOMASTERLINK")
    assert serving.receive(b"PSYNC ? -1\r\n") == [psync.PsyncRequest(None, -1, serving.replica)]


@pytest.mark.parametrize(
    "data", [b"*99999\r\n", b"*1\r\n$99999999\r\n", b"*1\r\n:1\r\n", b"*x\r\n", b"*-1\r\n", b"a" * 70_000, b"*1\r\n$" + b"1" * 40]
)
def test_requests_that_no_replica_sends_end_the_conversation(data: bytes) -> None:
    (event,) = PrimarySide().receive(data)
    assert isinstance(event, psync.Failed)
    assert event.error.remedy


@pytest.mark.parametrize("size", [1, 3, 39, 40, 41, 1000])
def test_the_end_mark_is_found_wherever_the_network_cuts(size: int) -> None:
    body = b"snapshot" + MARK[:-1] + MARK[:20] + b"more" + MARK[:39]
    data = body + MARK + b"*1\r\n$4\r\nPING\r\n"
    payload = psync.Payload(psync.PayloadStart(None, MARK))
    got, kept = b"", b""
    for at in range(0, len(data), size):
        kept += data[at : at + size]
        if not payload.done:
            handed, used = payload.split(kept, len(kept))
            got += kept[:handed]
            kept = kept[used:]
    assert (got, kept, payload.done, payload.received) == (body, b"*1\r\n$4\r\nPING\r\n", True, len(body))


def test_what_can_not_be_the_end_marks_beginning_is_handed_on_at_once() -> None:
    payload = psync.Payload(psync.PayloadStart(None, MARK))
    assert payload.split(b"snapshot", 8) == (8, 8)
    assert payload.split(b"more" + MARK[:3], 7) == (4, 4)
    assert payload.split(bytearray(MARK + MARK), 39) == (0, 0)  # what lies behind ``filled`` has not come
    assert (payload.received, payload.left, payload.done) == (12, None, False)


def test_a_length_is_counted() -> None:
    payload = psync.Payload(psync.PayloadStart(5, None))
    assert payload.split(b"abc", 3) == (3, 3)
    assert payload.left == 2
    assert payload.split(bytearray(b"defg"), 4) == (2, 2)
    assert payload.done
    assert psync.Payload(psync.PayloadStart(0, None)).done


def test_every_state_of_the_tables_can_be_reached_and_left() -> None:
    reached = {Asking.START} | set(psync.REPLICA_TABLE.values())
    assert reached == set(Asking)
    assert set(Asking) - {state for state, _ in psync.REPLICA_TABLE} == {Asking.PAYLOAD, Asking.STREAM, Asking.OVER}
    assert {said for _, said in psync.REPLICA_TABLE} == set(Said)
    reached_too = {Serving.LOCKED, Serving.OPEN} | set(psync.PRIMARY_TABLE.values())
    assert reached_too == set(Serving)
    assert set(Serving) - {state for state, _ in psync.PRIMARY_TABLE} == {Serving.OVER}
    assert {heard for _, heard in psync.PRIMARY_TABLE} == set(Heard)


def test_keep_alives_without_number_before_the_answer_cost_no_more_than_their_bytes() -> None:
    side = psync.ReplicaSide(listening_port=1)
    side.receive(b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n")
    assert side.receive(b"\n" * 3_000_000) == []
    (event,) = side.receive(b"+FULLRESYNC " + b"a" * 40 + b" 5\r\n\n\n\n")
    assert event == psync.FullResync("a" * 40, 5)
