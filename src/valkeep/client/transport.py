"""From an endpoint to an open transport: DNS, TCP, TLS – and what it means when one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from valkeep.client.endpoint import TLS, Endpoint
from valkeep.errors import ConnectionLost, UsageError

__all__ = ["open_transport", "tls_context", "tls_failed", "unanswered"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


def tls_context(tls: TLS) -> ssl.SSLContext:
    """A client's TLS settings. Files that can't be read or don't fit are a ``UsageError``."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except FileNotFoundError:
        missing = next((path for path in (tls.ca, tls.cert, tls.key) if path and not _exists(path)), "a TLS file")
        raise UsageError(f"{missing} does not exist", remedy="check the paths given as ca, cert and key") from None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
        raise UsageError(
            f"the TLS files {files} can't be used: {error}", remedy="they must be readable PEM files, and key must belong to cert"
        ) from None
    if tls.verify != "full":
        context.check_hostname = False
    if tls.verify == "none":
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_transport(endpoint: Endpoint, factory: Callable[[], P], source_address: str = "") -> tuple[asyncio.Transport, P]:
    """Connect (and shake hands for TLS). No time-out of its own: wrap it in ``asyncio.timeout``. Raises ``ConnectionLost``, definite.

    ``source_address``: the address of this machine to connect from; "" leaves it to the kernel.
    """
    loop = asyncio.get_running_loop()
    context = tls_context(endpoint.tls) if endpoint.tls else None
    try:
        transport, protocol = await loop.create_connection(
            factory,
            endpoint.host,
            endpoint.port,
            ssl=context,
            server_hostname=(endpoint.tls.server_name or endpoint.host) if endpoint.tls else None,
            local_addr=(source_address, 0) if source_address else None,
        )
    except OSError as error:
        raise explain(endpoint, error) from None
    if (sock := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return transport, protocol


def unanswered(endpoint: Endpoint, timeout: float) -> ConnectionLost:
    """No connection within the time."""
    remedy = "check host, port and firewall: nothing refuses the connection, and nothing accepts it"
    if endpoint.tls:
        remedy = "check host, port and firewall, and that the port speaks TLS (else use redis:// or valkey://)"
    return ConnectionLost(f"{endpoint.address} did not answer within {timeout:g} s", remedy=remedy)


def explain(endpoint: Endpoint, error: OSError) -> ConnectionLost:
    """What an ``OSError`` while connecting means, and what to do."""
    where = endpoint.address
    if isinstance(error, ssl.SSLError):
        return tls_failed(where, error)
    if isinstance(error, socket.gaierror):
        return ConnectionLost(
            f"the name {endpoint.host!r} does not resolve: {error.strerror}", remedy="check the spelling of the host, and DNS"
        )
    if _is(error, errno.ECONNREFUSED):
        return ConnectionLost(
            f"{where} refused the connection: nothing listens there",
            remedy="check host and port, that the server runs, and its bind and port settings",
        )
    if isinstance(error, ConnectionResetError) and endpoint.tls:
        return ConnectionLost(
            f"{where} hung up during the TLS handshake",
            remedy="does the port speak TLS (else use redis:// or valkey://), and does it want a client certificate (cert=, key=)?",
        )
    if _is(error, errno.EHOSTUNREACH) or _is(error, errno.ENETUNREACH):
        return ConnectionLost(f"{where} can't be reached: {error.strerror or error}", remedy="check the host, the network and its routes")
    return ConnectionLost(f"no connection to {where}: {error.strerror or error}", remedy="check host, port and firewall")


def tls_failed(where: str, error: ssl.SSLError) -> ConnectionLost:
    """What a TLS error means, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or error.reason or "not trusted"
        remedy = "give the authority that signed it in the URL: rediss://HOST:PORT?ca=PATH"
        if "ostname" in why or "IP address" in why:
            remedy = "give the name that the certificate is for as server_name=NAME, or verify=ca to check the signature only"
        return ConnectionLost(f"the certificate of {where} was not accepted: {why}", remedy=remedy)
    reason = error.reason or str(error)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "PACKET_LENGTH" in reason:
        return ConnectionLost(f"{where} does not speak TLS ({reason})", remedy="use redis:// or valkey://, or the server's tls-port")
    if "CERTIFICATE_REQUIRED" in reason or "ALERT" in reason:
        return ConnectionLost(
            f"{where} refused the TLS handshake ({reason})", remedy="it wants a client certificate that it trusts: cert=PATH and key=PATH"
        )
    return ConnectionLost(f"TLS with {where} failed ({reason})", remedy="check ca, cert and key, and the server's tls-* settings")


def _is(error: OSError, number: int) -> bool:
    # asyncio folds the failures of several addresses into one OSError that has only a text
    return error.errno == number or (error.errno is None and f"[Errno {number}]" in str(error))


def _exists(path: str) -> bool:
    try:
        with open(path, "rb"):  # noqa: PTH123 - a path as the user gave it
            return True
    except FileNotFoundError:
        return False
    except OSError:
        return True
