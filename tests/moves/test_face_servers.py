"""What the gateway shows to those who look: compared with real servers' answers, and shown to client libraries."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import Server
from tests.integration.test_gateway_service import Service, serving
from tests.support.waiting import until
from valkeep.client.server_info import parse_info
from valkeep.errors import ServerError
from valkeep.wire.resp import NEED_MORE, Parser, encode

Client = Callable[..., Any]
pytestmark = [pytest.mark.slow]

SAME = [  # a real server says exactly this, too
    "PING",
    "PING hello",
    "ECHO x",
    "ECHO",
    "CLUSTER INFO",
    "CLUSTER NODES",
    "CLUSTER SLOTS",
    "CLUSTER SHARDS",
    "CLUSTER MYID",
    "CLUSTER FOO",
    "READONLY",
    "ASKING",
    "CLIENT",
    "CLIENT FOO",
    "CLIENT GETNAME",
    "CLIENT SETNAME a\tb",
    "CLIENT SETNAME probe",
    "CLIENT GETNAME",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT x",
    "CLIENT LIST TYPE nobody",
    "CLIENT LIST TYPE pubsub",
    "CLIENT LIST ID x",
    "CLIENT LIST FOO",
    "CONFIG",
    "CONFIG FOO",
    "CONFIG GET",
    "CONFIG GET nothing",
    "CONFIG GET databases",
    "CONFIG GET Data*",
    "CONFIG GET save appendonly maxmemory",
    "CONFIG GET max*samples",
    "CONFIG GET hash-max-listpack-[ev]*",
    "CONFIG GET h?",
    "CONFIG RESETSTAT",
    "COMMAND FOO",
    "COMMAND INFO get set info psync sync config command cluster replconf mget expire nothing",
    "COMMAND DOCS nothing",
    "SELECT 3",
    "SELECT 16",
    "SELECT x",
    "SELECT -1",
    "DBSIZE",
    "DBSIZE x",
    "GET",
    "SET a",
    "FOO a b",
    "foo",
    "foo " + "x" * 150,
    "WAIT 0 0",
    "WAIT x 0",
    "LATENCY LATEST",
    "LATENCY RESET",
    "SLOWLOG GET",
    "SLOWLOG LEN",
    "SLOWLOG RESET",
    "SLOWLOG FOO",
    "ACL WHOAMI",
    "ACL USERS",
    "MODULE LIST",
    "HELLO 4",
    "HELLO x",
    "HELLO 3 FOO",
    "INFO nothing",
    "RESET",
]
ALIKE = [
    "HELLO",
    "HELLO 2",
    "HELLO 3 SETNAME me",
    "ROLE",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "TIME",
    "LASTSAVE",
    "COMMAND COUNT",
    "MEMORY DOCTOR",
    "INFO",
]
MEMORY_LEFT_OUT = re.compile("allocator_|rss_overhead|used_memory_(vm|scripts_eval|functions)")


class Wire:
    """A connection that says what came, byte for byte. ``ask`` gives the value and the type byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._parser = Parser()

    def ask(self, *words: bytes | str) -> tuple[bytes, Any]:
        self.socket.sendall(encode(*words))
        first = b""
        while (value := self._parser.next()) is NEED_MORE:
            data = self.socket.recv(1 << 16)
            assert data, f"{words} ended the connection"
            first = first or data[:1]
            self._parser.feed(data)
        return first, (value.kind, value.message) if isinstance(value, ServerError) else value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def words(line: str) -> list[str]:
    return line.split(" ")


def shape(value: Any) -> Any:
    """Types, and the keys of maps; the text of CLIENT LIST by its fields."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, bytes) and value.startswith(b"id="):
        return set(re.findall(rb"(\S+)=", value)) - {b"lib-name", b"lib-ver"}
    return type(value)


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[Service]:
    with serving(server("redis-7.0"), tmp_path, "8.1") as service:
        yield service


def test_it_answers_what_a_real_server_answers(server: Server, gateway: Service) -> None:
    differences = []
    with Wire(server("redis-7.0").port) as real, Wire(gateway.port) as ours:
        for line, proto in product(SAME, "23"):
            real.ask("HELLO", proto)
            ours.ask("HELLO", proto)
            expected, found = real.ask(*words(line)), ours.ask(*words(line))
            if "COMMAND INFO" in line:  # tips and key specifications are left out
                expected, found = ((kind, [row[:7] if row else row for row in value]) for kind, value in (expected, found))
            if line.startswith("CONFIG GET") and isinstance(expected[1], list):  # servers tell them in no order
                expected, found = ((kind, sorted(zip(value[::2], value[1::2], strict=True))) for kind, value in (expected, found))
            if expected != found:
                differences.append((proto, line, expected, found))
    assert differences == []


def test_what_differs_by_nature_has_the_shape_that_a_real_server_gives_it(server: Server, gateway: Service) -> None:
    with Wire(server("redis-7.0").port) as real, Wire(gateway.port) as ours:
        for line, proto in product(ALIKE, "23"):
            real.ask("HELLO", proto)
            ours.ask("HELLO", proto)
            (kind, expected), (ours_kind, found) = real.ask(*words(line)), ours.ask(*words(line))
            assert (kind, shape(expected)) == (ours_kind, shape(found)), line


def test_info_has_the_sections_and_fields_that_tools_read(server: Server, gateway: Service) -> None:
    with Wire(server("redis-7.0").port) as old, Wire(server("valkey-8.1").port) as new, Wire(gateway.port) as ours:
        for section in ("server", "clients", "memory", "persistence", "stats", "replication", "cpu", "cluster"):
            found, *expected = (parse_info(one.ask("INFO", section)[1]) for one in (ours, old, new))
            missing = [{name for name in there if name not in found and not MEMORY_LEFT_OUT.match(name)} for there in expected]
            assert missing[0] == set(), section
            assert len(missing[1]) <= len(expected[1]) / 2, (section, missing[1])
        everything = parse_info(ours.ask("INFO", "everything")[1])
        assert {"redis_version": "7.2.4", "redis_mode": "standalone", "role": "master", "loading": "0"}.items() <= everything.items()
        headers = [re.findall(rb"^# (\w+)", one.ask("INFO")[1], re.MULTILINE) for one in (ours, old)]
        assert set(headers[0]) <= set(headers[1])


def test_every_command_of_a_real_server_is_refused_with_a_reason_or_answered_and_none_is_taken_for_unknown(
    server: Server, gateway: Service
) -> None:
    with Wire(server("redis-7.0").port) as real, Wire(gateway.port) as ours:
        rows = real.ask("COMMAND")[1]
        assert {row[0]: row[1:7] for row in rows}.items() <= {row[0]: row[1:7] for row in ours.ask("COMMAND")[1]}.items()
        skipped = {b"quit", b"psync", b"sync", b"reset", b"hello", b"auth"}
        for name, arity, flags in (row[:3] for row in rows if row[0] not in skipped):
            answer = ours.ask(name, *["1"] * (abs(arity) - 1))[1]
            if b"write" in flags:
                assert answer[0] == "READONLY", name
                assert "Valkeep" in answer[1]
            else:
                assert not (isinstance(answer, tuple) and "unknown command" in answer[1]), name
        for key_command in (b"GET a", b"TTL a", b"KEYS *", b"SCAN 0", b"EXISTS a", b"DUMP a", b"TYPE a", b"RANDOMKEY"):
            assert "Valkeep" in ours.ask(*key_command.split())[1][1], key_command  # never "there is none"
        assert "Valkeep" in ours.ask("CONFIG", "SET", "maxmemory", "1")[1][1]


def test_client_libraries_look_at_it_without_an_exception(gateway: Service) -> None:
    for library, proto in product(("valkey", "redis"), (2, 3)):
        look_with(library, proto, gateway.port)


def look_with(library: str, proto: int, port: int) -> None:
    module = __import__(library)
    with (module.Valkey if library == "valkey" else module.Redis)(
        port=port, protocol=proto, client_name="probe", decode_responses=True
    ) as client:
        assert client.ping()
        assert client.info()["redis_version"] == "7.2.4"
        assert client.info("replication")["connected_slaves"] == 0
        assert client.info("keyspace") == {}
        assert client.config_get("databases") == {"databases": "16"}
        assert client.config_get()["protected-mode"] == "no"
        assert client.client_list()[0]["name"] == "probe"
        assert client.client_info()["lib-name"].startswith(library)
        assert client.role()[0] in ("master", b"master")
        assert client.command_count() > 200
        assert "get" in client.command()
        assert client.time()
        assert client.dbsize() == 0
        assert client.lastsave()
        assert client.slowlog_get() == []
        assert client.memory_stats()
        assert client.latency_latest() == []
        assert client.acl_whoami() == "default"
        for call in (
            lambda: client.set("a", 1),
            lambda: client.get("a"),
            lambda: client.config_set("maxmemory", 1),
            lambda: client.cluster("info"),
        ):
            with pytest.raises(module.ResponseError):
                call()


@contextmanager
def held(connections: list[socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in connections:
            one.close()


def test_garbage_http_inline_commands_and_a_hundred_idle_clients_do_not_disturb_it(
    server: Server, client: Client, gateway: Service
) -> None:
    idle = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(100)]
    with held(idle):
        for junk, begins in (
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
            (b"POST / HTTP/1.1\r\n", b""),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
            (b"*1\r\n$x\r\n", b"-ERR Protocol error"),
            (b"*99999999\r\n", b"-ERR Protocol error"),
            (b"*2\r\n$4\r\nINFO\r\n$99999999\r\n", b"-ERR Protocol error"),
            (b"\x00" * 70_000, b"-ERR Protocol error"),
            (b"PING\r\nINFO nothing\r\nQUIT\r\n", b"+PONG\r\n$0\r\n\r\n+OK\r\n"),
        ):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as one:
                one.sendall(junk)
                one.shutdown(socket.SHUT_WR)
                answer = b""
                with pytest.MonkeyPatch.context():
                    try:
                        while data := one.recv(65536):
                            answer += data
                    except ConnectionResetError:
                        pass
            if begins is not None:
                assert answer.startswith(begins), junk[:20]
        target = server("valkey-8.1")
        there = client(target)
        there.replicaof("127.0.0.1", gateway.port)
        until(lambda: there.execute_command("ROLE")[3] == b"connected", target.log)
        with Wire(gateway.port) as looker:
            said = parse_info(looker.ask("INFO")[1])
            assert int(said["connected_clients"]) == 101
            assert re.fullmatch(rf"ip=127.0.0.1,port={target.port},state=online,offset=[0-9]+,lag=[0-9]+", said["slave0"])
            role = looker.ask("ROLE")[1]
            assert [part.isdigit() or part for part in role[2][0]] == [b"127.0.0.1", True, True]
            assert said["master_replid"] == there.info("replication")["master_replid"]
            assert int(said["master_repl_offset"]) >= there.info("replication")["slave_repl_offset"] - 100
    assert gateway.process.running


def test_who_asks_and_does_not_read_the_answers_holds_up_nobody(gateway: Service) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=1) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(TimeoutError):  # it is not read any more
            for _ in range(5000):
                greedy.sendall(b"COMMAND\r\n" * 200)
        before = Path(f"/proc/{gateway.process.process.pid}/statm").read_text()
        assert int(before.split()[1]) * 4096 < 200 << 20
        with Wire(gateway.port) as looker:
            looker.socket.settimeout(10)
            assert looker.ask("PING")[1] == b"PONG"
        assert greedy.recv(1 << 20)
        assert greedy.recv(1 << 20)  # and is answered, as it reads


def test_a_password_is_asked_of_who_looks(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    with serving(server("redis-7.0"), tmp_path, "8.1", options=("--password-file", str(secret))) as service:
        with Wire(service.port) as looker:
            for line in ("INFO", "PING", "CONFIG GET *", "ROLE", "SYNC", "PSYNC ? -1", "HELLO 3"):
                assert looker.ask(*words(line))[1][0] == "NOAUTH", line
            assert looker.ask("HELLO", "3", "AUTH", "default", "wrong")[1][0] == "WRONGPASS"
            assert looker.ask("AUTH", "wrong")[1][0] == "WRONGPASS"
            assert looker.ask("HELLO", "3", "AUTH", "default", "open sesame")[1][b"proto"] == 3
            assert looker.ask("CONFIG", "GET", "requirepass")[1] == {b"requirepass": b""}
            assert looker.ask("RESET")[1] == b"RESET"
            assert looker.ask("INFO")[1][0] == "NOAUTH"
            assert looker.ask("QUIT")[1] == b"OK"
        assert "open sesame" not in service.process.stderr


def test_sync_the_old_form_gives_a_snapshot_and_the_stream_and_its_taker_is_nobodys_target(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source, target = server("redis-7.0"), server("valkey-8.1")
    here, there = client(source), client(target)
    here.set("k", "v")
    with serving(source, tmp_path, "7.2") as service, socket.create_connection(("127.0.0.1", service.port), timeout=10) as taker:
        taker.sendall(b"SYNC\r\n")
        data = b""
        while b"\r\n" not in data.lstrip(b"\n"):
            data += taker.recv(65536)
        head, _, body = data.lstrip(b"\n").partition(b"\r\n")
        size = int(head[1:])
        while len(body) < size:
            body += taker.recv(65536)
        assert body.startswith(b"REDIS0011")
        there.replicaof("127.0.0.1", service.port)
        until(lambda: there.get("k") == b"v", target.log)
        here.set("later", "w" * 1000)
        stream = body[size:]
        while b"later" not in stream:
            stream += taker.recv(65536)
        until(lambda: service.number("valkeep_target_online") == 1, lambda: service.get("/metrics")[1])  # the taker does not count
        with Wire(service.port) as looker, Wire(service.port) as liar:
            assert parse_info(looker.ask("INFO", "replication")[1])["connected_slaves"] == "2"
            liar.ask("REPLCONF", "ip-address", "a,b\r\nrole:slave", "listening-port", "1")
            liar.socket.sendall(encode("SYNC"))
            until(lambda: parse_info(looker.ask("INFO", "replication")[1])["connected_slaves"] == "3", "it did not attach")
            said = parse_info(looker.ask("INFO", "replication")[1])
            assert said["role"] == "master"
            assert said["slave2"].startswith("ip=a?b??role:slave,port=1,")
