"""Passwords and TLS on the replication paths: targets with primaryauth, sources and targets that speak TLS only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support import nodes
from tests.support.certificate import self_signed
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.runtime import ports
from valkeep.runtime.node import Process

Client = Callable[..., Any]


def converse(port: int, *requests: bytes) -> bytes:
    """What the gateway says, until it hangs up or has answered every request."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request in requests:
            connection.sendall(request)
            piece = connection.recv(4096)
            said += piece
            if not piece:
                break
    return said


def test_the_targets_primaryauth_opens_the_gateway_and_nothing_else_does(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("redis-8.0"), server("valkey-9.1", masterauth="open-sesame", masteruser="replica")
    client(source).set("k", "v")
    there = client(target)
    reservation = ports.reserve()
    try:
        where = ("--source", source.endpoint, "--target", target.endpoint, "--state", str(tmp_path / "state"))
        gateway = ("--listen", f"127.0.0.1:{reservation.port}", "--cutover", "manual", "--acknowledge", "all")
        with Valkeep("migrate", "run", *where, *gateway, folder=tmp_path) as run:
            run.wait_for("waiting")
            assert there.get("k") == b"v"
            psync = b"PSYNC ? -1\r\n"
            assert converse(reservation.port, psync).startswith(b"-NOAUTH")
            wrong = converse(reservation.port, b"AUTH replica wrong-word\r\n", psync)
            assert wrong.startswith(b"-WRONGPASS")
            assert b"FULLRESYNC" not in wrong
            assert b"FULLRESYNC" not in converse(reservation.port, b"AUTH open-sesame\r\n", psync)
            assert "open-sesame" not in run.stderr
            assert "open-sesame" not in "".join(path.read_text() for path in run.report.iterdir())
            assert there.execute_command("ROLE")[3] == b"connected"
    finally:
        reservation.release()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem, good for 127.0.0.1, its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder, "IP:127.0.0.1")
    return folder


@pytest.fixture
def encrypted(server: Server, certificate: Path) -> Iterator[Callable[..., tuple[Process, int]]]:
    """Starts a server that speaks TLS on a second port; tests look at it through the plain one."""
    taken: list[ports.Reservation] = []

    def start(spec: str, **more: str) -> tuple[Process, int]:
        reservation = ports.reserve()
        taken.append(reservation)
        cert, key = str(certificate / "cert.pem"), str(certificate / "key.pem")
        settings: dict[str, nodes.Setting] = {
            "tls-port": reservation.port,
            "tls-cert-file": cert,
            "tls-key-file": key,
            "tls-ca-cert-file": cert,
            "tls-auth-clients": "no",
        }
        return server(spec, settings, **more), reservation.port

    yield start
    for reservation in taken:
        reservation.release()


def test_a_source_and_a_target_that_speak_tls(
    encrypted: Callable[..., tuple[Process, int]], client: Client, certificate: Path, tmp_path: Path
) -> None:
    source, source_port = encrypted("redis-8.0")
    target, target_port = encrypted("valkey-8.1", tls_replication="yes")
    here, there = client(source), client(target)
    here.hset("h", mapping={"f": "1", "g": "2"})
    ca = f"?ca={certificate / 'cert.pem'}"
    where = ("--source", f"rediss://127.0.0.1:{source_port}{ca}", "--target", f"valkeys://127.0.0.1:{target_port}{ca}")
    state = ("--state", str(tmp_path / "state"), "--acknowledge", "all")
    with Valkeep("migrate", "run", *where, *state, folder=tmp_path) as without:
        assert without.wait() == 4, without.stderr
        assert "--gateway-cert" in without.stderr
        assert there.execute_command("ROLE")[0] == b"master"
    own = ("--gateway-cert", str(certificate / "cert.pem"), "--gateway-key", str(certificate / "key.pem"))
    with Valkeep("migrate", "run", *where, *state, *own, folder=tmp_path / "with") as run:
        assert run.wait() == 0, run.stderr
        run.assert_nothing_left()
    assert there.hgetall("h") == {b"f": b"1", b"g": b"2"}
    until(lambda: here.info("replication")["connected_slaves"] == 0, "the source still has a replica")


def test_a_certificate_that_nobody_signed_is_not_accepted(
    encrypted: Callable[..., tuple[Process, int]], server: Server, tmp_path: Path
) -> None:
    _, port = encrypted("redis-8.0")
    target = server("valkey-9.1")
    where = ("--source", f"rediss://127.0.0.1:{port}", "--target", target.endpoint, "--state", str(tmp_path / "state"))
    with Valkeep("migrate", "run", *where, folder=tmp_path) as run:
        assert run.wait() == 4, run.stderr
        assert "was not accepted" in run.stderr
        assert "ca=" in run.stderr
