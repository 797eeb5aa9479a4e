"""What crosses between the processes of a verification, as JSON: bytes, endpoints, errors.

An error keeps its kind, remedy, code and exit code on the way. One that Valkeep did not raise on purpose is a bug, crosses as `VerifierBug` with its
traceback, and is told as what it is; but the disk and the memory run out without anybody's fault.
"""

from __future__ import annotations

import base64
import errno
import traceback
from dataclasses import asdict
from typing import Any

from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.errors import ConnectionLost, ExitCode, Refused, RemoteProtocolError, ServerError, UsageError, ValkeepError

__all__ = ["Line", "VerifierBug", "endpoint_from", "endpoint_to", "error_from", "error_to", "pack", "unpack"]

Line = dict[str, Any]


class VerifierBug(ValkeepError):
    """The verifier itself is wrong. ``trace``: where, for the report."""

    exit_code = ExitCode.UNKNOWN

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message, remedy="please report it with the lines that VALKEEP_DEBUG=1 adds")
        self.trace = trace


def pack(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def unpack(text: str) -> bytes:
    return base64.b64decode(text)


def endpoint_to(endpoint: Endpoint) -> Line:
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "username": endpoint.username,
        "password": endpoint.password.reveal() if endpoint.password else None,
        "tls": asdict(endpoint.tls) if endpoint.tls else None,
    }


def endpoint_from(line: Line) -> Endpoint:
    return Endpoint(
        host=line["host"],
        port=line["port"],
        username=line["username"],
        password=Secret(line["password"]) if line["password"] else None,
        tls=TLS(**line["tls"]) if line["tls"] else None,
    )


_KINDS: dict[str, type[ValkeepError]] = {
    kind.__name__: kind for kind in (ValkeepError, UsageError, Refused, ConnectionLost, RemoteProtocolError)
}

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ENFILE}


def error_to(error: BaseException) -> Line:
    """Never raises; what is not ours is a bug, see the module's head."""
    ours = _ours(error)
    if isinstance(ours, VerifierBug):
        return {"kind": "VerifierBug", "message": ours.message, "trace": ours.trace}
    return {
        "kind": next(kind.__name__ for kind in type(ours).__mro__ if kind.__name__ in _KINDS),
        "message": ours.message,
        "remedy": ours.remedy,
        "definite": ours.definite,
        "exit": int(ours.exit_code),
        "code": ours.code,
    }


def _ours(error: BaseException) -> ValkeepError:
    if isinstance(error, ServerError):  # a command that was refused
        return Refused(error.message, remedy=error.remedy)
    if isinstance(error, ValkeepError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK:
        return ValkeepError(
            f"the verification can't work with its temporary files: {error.strerror or error}",
            remedy="give a folder with more room (--workdir, or TMPDIR): 56 bytes and the name for each key and side",
        )
    if isinstance(error, MemoryError):
        return ValkeepError("the verification ran out of memory", remedy="verify where more memory is free: a large value is read whole")
    return VerifierBug(
        f"a bug of Valkeep ended the verification: {type(error).__name__}: {error}",
        "".join(traceback.format_exception(error)),
    )


def error_from(line: Line) -> ValkeepError:
    if line["kind"] == "VerifierBug":
        return VerifierBug(line["message"], line["trace"])
    error = _KINDS[line["kind"]](line["message"], remedy=line["remedy"], definite=line["definite"], code=line["code"])
    error.exit_code = ExitCode(line["exit"])
    return error
