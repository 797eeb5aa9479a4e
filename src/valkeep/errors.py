"""The roots of Valkeep's error tree, and the one table of exit codes.

Every error a person can see says four things: what happened, why, what to do about it, and whether anything changed. The first
two are the message; the third is ``remedy``; the fourth is ``definite``:

* ``definite = True``  — the thing that was asked for surely did not happen; trying again is safe.
* ``definite = False`` — it may have happened (a write that timed out, a promotion whose reply was lost).

Which side broke a protocol is a type, as in h11: ``LocalProtocolError`` is our own mistake, ``RemoteProtocolError`` is the peer's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self

__all__ = [
    "ConnectionLost",
    "ExitCode",
    "LocalProtocolError",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "ServerError",
    "UsageError",
    "ValkeepError",
]


class ExitCode(IntEnum):
    """What the ``valkeep`` command answers to the shell. Stable; documented in docs/reference/exit-codes.md."""

    GOOD = 0
    JUDGED_BAD = 1  # NO-GO, verdict invalid, mismatch
    USAGE = 2
    UNKNOWN = 3  # the verdict is unknown
    NOT_RUN = 4  # could not run; surely nothing changed
    UNCERTAIN = 5  # stopped; the state is uncertain, see the remedy
    INTERRUPTED = 130  # SIGINT
    TERMINATED = 143  # SIGTERM, SIGHUP


class ValkeepError(Exception):
    """Root of all errors that Valkeep raises on purpose.

    ``message``: what happened and why, with both sides' values. ``remedy``: what the reader can do now (never empty).
    ``definite``: True when the operation surely had no effect. ``code``: a stable ``VK-…`` identifier, or "" where none is documented.
    """

    exit_code: ExitCode = ExitCode.NOT_RUN
    code: str = ""

    def __init__(self, message: str, *, remedy: str, definite: bool = True, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.definite = definite
        self.changed = ""  # what was done and undone, in a sentence, where "nothing" would say too little
        if code:
            self.code = code
        if not definite and self.exit_code is ExitCode.NOT_RUN:
            self.exit_code = ExitCode.UNCERTAIN

    def saying(self, message: str | None = None, *, remedy: str = "", definite: bool | None = None, code: str = "") -> Self:
        """A new exception of the same kind that says the same, except for what is given. Two tasks that raise one object would mix their tracebacks."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.message = self.message if message is None else message
        twin.args = (twin.message,)
        twin.remedy = remedy or self.remedy
        twin.code = code or self.code
        twin.definite = self.definite if definite is None else definite
        if not twin.definite and twin.exit_code is ExitCode.NOT_RUN:
            twin.exit_code = ExitCode.UNCERTAIN
        elif definite and twin.exit_code is ExitCode.UNCERTAIN:
            twin.exit_code = ExitCode.NOT_RUN
        return twin


class UsageError(ValkeepError):
    """The command line, a URL or an option makes no sense."""

    exit_code = ExitCode.USAGE


class ProtocolError(ValkeepError):
    """Bytes or calls that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """We broke the protocol: a bug of Valkeep or of its caller."""


class RemoteProtocolError(ProtocolError):
    """The peer (or a file) sent what the protocol does not allow."""


class ConnectionLost(ValkeepError):
    """A connection could not be made, or broke. ``definite`` is False when a request was already under way."""

    @property
    def passing(self) -> bool:
        """Whether trying again may help: who knows that it cannot has given it a code."""
        return not self.code


class ServerError(ValkeepError):
    """An error reply (``-CODE text``) of a server. ``kind`` is its first word, for example ``WRONGTYPE`` or ``NOPERM``."""

    def __init__(self, kind: str, text: str, *, remedy: str = "see the server's message and its log") -> None:
        super().__init__(f"{kind} {text}".strip(), remedy=remedy)
        self.kind = kind
        self.text = text


class Refused(ValkeepError):
    """Something cannot cross to this target, or policy forbids it; refused before anything of it was sent."""
