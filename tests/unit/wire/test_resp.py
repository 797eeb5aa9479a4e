"""RESP, both builds: every type, any chunking of them, and every way in which a peer can be wrong."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest

from tests.support.interpreted import both
from valkeep.errors import LocalProtocolError, RemoteProtocolError, ServerError
from valkeep.wire.resp import encode, encode_many

BUILDS = both("resp")
builds = pytest.mark.parametrize("resp", BUILDS, ids=["installed", "interpreted"])

VALUES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b":42\r\n", 42),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b":+7\r\n", 7),
    (b"$5\r\nhello\r\n", b"hello"),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",3.25\r\n", 3.25),
    (b",10\r\n", 10.0),
    (b",1e-7\r\n", 1e-7),
    (b",-inf\r\n", -math.inf),
    (b"(3492890328409238509324850943850943825024385\r\n", 3492890328409238509324850943850943825024385),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"*0\r\n", []),
    (b"*2\r\n*1\r\n:1\r\n$-1\r\n", [[1], None]),
    (b"%1\r\n+k\r\n*1\r\n:1\r\n", {b"k": [1]}),
    (b"%0\r\n", {}),
    (b"%1\r\n*2\r\n:1\r\n:2\r\n+v\r\n", {(1, 2): b"v"}),
    (b"~2\r\n:1\r\n*1\r\n%1\r\n:2\r\n~1\r\n:3\r\n", {1, (((2, frozenset({3})),),)}),
    (b">2\r\n+message\r\n:1\r\n", [b"message", 1]),
    (b"|1\r\n+ttl\r\n:3\r\n:5\r\n", 5),
    (b"*2\r\n|1\r\n+ttl\r\n:3\r\n:5\r\n:6\r\n", [5, 6]),
]


@builds
@pytest.mark.parametrize(("data", "value"), VALUES, ids=[repr(data)[2:-1] for data, _ in VALUES])
def test_each_type_is_read_whole_and_byte_by_byte(resp: ModuleType, data: bytes, value: Any) -> None:
    parser = resp.Parser()
    parser.feed(data)
    assert list(parser) == [value]
    assert not parser.pending
    for at in range(len(data)):
        assert list(parser) == []
        parser.feed(data[at : at + 1])
    assert list(parser) == [value]


@builds
def test_errors_are_values_with_their_kind_apart(resp: ModuleType) -> None:
    parser = resp.Parser()
    parser.feed(b"-WRONGTYPE Operation against a key\r\n!11\r\nNOPERM no\r\n\r\n*1\r\n-ERR inner\r\n")
    first, second, (inner,) = list(parser)
    assert isinstance(first, ServerError)
    assert (first.kind, first.text) == ("WRONGTYPE", "Operation against a key")
    assert (second.kind, second.text) == ("NOPERM", "no\r\n")
    assert inner.message == "ERR inner"


@builds
def test_not_a_number_is_read_as_such(resp: ModuleType) -> None:
    parser = resp.Parser()
    parser.feed(b",nan\r\n")
    assert math.isnan(parser.next())


@builds
def test_push_frames_are_told_apart_from_arrays(resp: ModuleType) -> None:
    parser = resp.Parser()
    parser.feed(b">1\r\n+x\r\n*1\r\n+x\r\n")
    push, array = list(parser)
    assert isinstance(push, resp.Push)
    assert not isinstance(array, resp.Push)


WRONG = [
    b"HTTP/1.1 400 Bad Request\r\n",
    b"x",
    b":12a\r\n",
    b": 1\r\n",
    b":1_0\r\n",
    b":" + b"9" * 30 + b"\r\n",
    b"$5\r\nhelloXX",
    b"$-2\r\n",
    b"$+5\r\nhello\r\n",
    b"$\r\n",
    b"$99999999999999999999999\r\n",
    b"$9223372036854775807\r\n",
    b"*-2\r\n",
    b"*9223372036854775807\r\n",
    b"%-1\r\n",
    b"#x\r\n",
    b",1_0\r\n",
    b",\r\n",
    b",0x10\r\n",
    b"_x\r\n",
    b"=2\r\nab\r\n",
    b"=5\r\nabcde\r\n",
    b"(" + b"1" * 5000 + b"\r\n",
    b"+" + b"a" * 70_000,
    b"*1\r\n" * 33 + b":1\r\n",
    b"$?\r\n",
]


@builds
@pytest.mark.parametrize("data", WRONG, ids=[repr(data[:24])[2:-1] for data in WRONG])
def test_what_is_not_resp_is_the_peers_error_and_stays_so(resp: ModuleType, data: bytes) -> None:
    parser = resp.Parser()
    parser.feed(data)
    with pytest.raises(RemoteProtocolError) as caught:
        list(parser)
    assert caught.value.remedy
    parser.feed(b"+OK\r\n")
    with pytest.raises(RemoteProtocolError):
        parser.next()


@builds
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"HTTP/1.1 200 OK\r\n", "HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "TLS"),
        (b"SSH-2.0-x\r\n", "SSH"),
        (b"220 mail\r\n", "not a Redis"),
    ],
)
def test_a_peer_of_another_kind_is_named(resp: ModuleType, data: bytes, says: str) -> None:
    parser = resp.Parser()
    parser.feed(data)
    with pytest.raises(RemoteProtocolError, match=says):
        parser.next()


@builds
def test_what_follows_resp_can_be_taken_over_unparsed(resp: ModuleType) -> None:
    parser = resp.Parser()
    parser.feed(b"+OK\r\nraw")
    assert parser.next() == b"OK"
    parser.feed(b" bytes")
    assert parser.take_rest() == b"raw bytes"
    parser.feed(b":1\r\n")
    assert list(parser) == [1]


@builds
def test_a_large_string_in_many_pieces_is_joined_once(resp: ModuleType) -> None:
    body = bytes(range(256)) * 4096 * 16  # 16 MiB
    data = b"$%d\r\n%s\r\n" % (len(body), body)
    parser = resp.Parser()
    for at in range(0, len(data), 4096):
        parser.feed(data[at : at + 4096])
        if at + 4096 < len(data):
            assert parser.next() is resp.NEED_MORE
    assert parser.next() == body


def test_commands_are_encoded_with_lengths_in_bytes() -> None:
    assert encode("SET", b"k\r\n", "é", 7, 1.5, bytearray(b"x"), memoryview(b"y")) == (
        b"*7\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n\xc3\xa9\r\n$1\r\n7\r\n$3\r\n1.5\r\n$1\r\nx\r\n$1\r\ny\r\n"
    )
    assert encode_many([("PING",), ["GET", "a"]]) == b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"


@pytest.mark.parametrize("args", [(), ("SET", True), ("SET", None), ("SET", ["a"])])
def test_arguments_without_a_form_are_our_error(args: tuple[Any, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        encode(*args)
