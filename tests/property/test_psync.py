"""Whatever a peer sends in the PSYNC conversation: events or one failure, never a crash, and the same for any pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from valkeep.wire import psync

lines = st.one_of(
    st.sampled_from(
        [
            b"+OK\r\n",
            b"+PONG\r\n",
            b"\n",
            b"-ERR x\r\n",
            b"-NOAUTH x\r\n",
            b"-LOADING x\r\n",
            b"+FULLRESYNC " + b"a" * 40 + b" 5\r\n",
            b"+CONTINUE\r\n",
            b"$EOF:" + b"m" * 40 + b"\r\n",
            b"$12\r\n",
        ]
    ),
    st.binary(max_size=20),
)
requests = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"\n",
            b"AUTH x\r\n",
            b"AUTH right\r\n",
            b"REPLCONF capa eof\r\n",
            b"REPLCONF ACK 5\r\n",
            b"PSYNC ? -1\r\n",
            b"INFO\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\nx\r\n",
        ]
    ),
    st.binary(max_size=20),
)


@given(st.lists(lines, max_size=12), st.booleans(), st.booleans())
def test_the_replica_side_takes_anything_in_any_pieces(parts: list[bytes], known: bool, login: bool) -> None:
    def told(pieces: list[bytes]) -> tuple[list[str], bytes, bytes]:
        side = psync.ReplicaSide(listening_port=1, psync=("a" * 40, 7) if known else None, password="pw" if login else None)
        out, events, rest = side.data_to_send(), [], b""
        for piece in pieces:
            events += [repr(event) for event in side.receive(piece)]
            rest += side.rest() if side.state in (psync.Asking.PAYLOAD, psync.Asking.STREAM) else b""
            out += side.data_to_send()
        return events, out, rest

    data = b"".join(parts)
    whole = told([data])
    single = told([data[at : at + 1] for at in range(len(data))])
    assert [event.split("(")[0] for event in whole[0]] == [event.split("(")[0] for event in single[0]]
    if not any(event.startswith("Failed") for event in whole[0]):
        assert whole == single


@given(st.lists(requests, max_size=12), st.booleans())
def test_the_primary_side_takes_anything_in_any_pieces(parts: list[bytes], locked: bool) -> None:
    def told(pieces: list[bytes]) -> tuple[list[str], bytes, psync.Serving]:
        side = psync.PrimarySide(password="right" if locked else None)
        events: list[str] = []
        for piece in pieces:
            while heard := side.receive(piece):  # it stops behind each command, for its answer
                events += [repr(event) for event in heard]
                piece = b""
        return [event.split("RemoteProtocolError")[0] for event in events], side.data_to_send(), side.state

    data = b"".join(parts)
    assert told([data]) == told([data[at : at + 1] for at in range(len(data))])
