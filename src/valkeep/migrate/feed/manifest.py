"""The manifest of a multi-part AOF (Redis 7 and later, Valkey): which files there are, and in which order they are read.

One line a file, pairs of a name and a value in any order; names that are not known here are passed over, as the servers do::

    file appendonly.aof.3.base.rdb seq 3 type b       the base: a snapshot, or commands (aof-use-rdb-preamble no)
    file appendonly.aof.7.incr.aof seq 7 type i       what was written since; several after a rewrite that failed
    file appendonly.aof.6.incr.aof seq 6 type h       history: superseded, about to be deleted

What it does not do: look at the files. Source: redis and valkey ``src/aof.c`` (aofLoadManifestFromFile); a gap between increments, which the
servers do not look for, is refused here: a file that is not there any more held writes.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from valkeep.errors import RemoteProtocolError

__all__ = ["Manifest", "parse_manifest"]

_REMEDY = "copy the whole folder again while the server is stopped or no rewrite runs; do not edit the manifest"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Names of files in the manifest's folder. ``base``: "" where there is none; ``increments``: in the order in which they are read."""

    base: str
    increments: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return (self.base, *self.increments) if self.base else self.increments


def parse_manifest(text: str, where: str) -> Manifest:
    """``where``: its path, for messages. Raises ``RemoteProtocolError`` on what no server would load, and on a gap between increments."""
    base = ""
    increments: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        name, sequence, kind = _entry(line, f"line {number} of {where}")
        if kind == "b":
            if base:
                raise _wrong(f"{where} names two bases: {base} and {name}")
            base = name
        elif kind == "i":
            if increments and sequence <= increments[-1][0]:
                raise _wrong(f"{where} names {name} (seq {sequence}) after {increments[-1][1]} (seq {increments[-1][0]})")
            if increments and sequence != increments[-1][0] + 1:
                raise _wrong(f"{where} has no increment with seq {increments[-1][0] + 1}: {name} follows {increments[-1][1]}")
            increments.append((sequence, name))
        elif kind != "h":
            raise _wrong(f"{where} says that {name} is of type {kind!r}, which is not known")
    if not base and not increments:
        raise _wrong(f"{where} names no file")
    return Manifest(base, tuple(name for _, name in increments))


def _entry(line: str, where: str) -> tuple[str, int, str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise _wrong(f"{where} cannot be read: {error}") from None
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    name, sequence, kind = pairs.get("file", ""), pairs.get("seq", ""), pairs.get("type", "")
    if len(words) % 2 or not name or not sequence.isdigit() or not int(sequence) or not kind:
        raise _wrong(f"{where} is not `file NAME seq N type b|i|h`: {line[:80]!r}")
    if "/" in name:
        raise _wrong(f"{where} names {name!r}, which is a path and no file's name")
    return name, int(sequence), kind


def _wrong(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(what, remedy=_REMEDY, code="VK-FILE-MANIFEST")
