"""The keys that were written on the source and have not been found equal since.

`wire.writes` notes names and offsets; this adds the commands that need a table, and what no key can tell (FLUSHALL). Above ``LIMIT`` names
the dicts go to a spill file, without offsets, to be looked at batch by batch; so memory is bounded whatever is written meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from valkeep.wire.commands import keys_of
from valkeep.wire.writes import WriteReader

__all__ = ["Written"]

LIMIT = 200_000  # names in memory
SPILL_LIMIT = 20_000_000  # names on disk; a run that meets more says unknown
_NAME = struct.Struct("<II")

_ALL = frozenset({b"FLUSHALL", b"FLUSHDB", b"SWAPDB"})
_SCRIPTS = frozenset({b"EVAL", b"EVALSHA", b"FCALL"})
_IGNORED = frozenset({b"SCRIPT", b"CONFIG", b"CLUSTER", b"CLIENT"})

Key = tuple[int, bytes]


class Written:
    """``everything``: why anything may have changed, or "". ``functions``: the libraries may have. ``scripts``: so many scripts were replicated."""

    def __init__(self, offset: int, database: int, directory: Path) -> None:
        self.reader = WriteReader(offset, database)
        self.everything = ""
        self.functions = False
        self.scripts = 0
        self.spills = 0  # how often names went to disk, where ``last`` does not see them
        self._directory = directory
        self._spilled: list[Path] = []
        self._spill: IO[bytes] | None = None
        self._spill_count = 0

    @property
    def position(self) -> int:
        """All whole commands up to here have been taken into account."""
        return self.reader.position

    def feed(self, data: bytes) -> None:
        self.reader.feed(data)
        if self.reader.others:
            others, self.reader.others = self.reader.others, []
            for command in others:
                self._other(command.database, command.offset, command.args)
        if self.reader.noted() > LIMIT:
            self.spill()

    def _other(self, database: int, offset: int, args: list[bytes | None]) -> None:
        name = args[0] or b""
        if name in _ALL or (name == b"CLUSTER" and b"FLUSHSLOT" in [(word or b"").upper() for word in args[1:2]]):
            self.everything = f"the source executed {name.decode()}"
            return
        if name == b"FUNCTION":
            self.functions = True
            return
        if name in _IGNORED:
            return
        if name in _SCRIPTS:
            self.scripts += 1
        keys = keys_of([b"" if one is None else one for one in args], database)
        if keys is None:
            self.everything = f"the source replicated {name.decode('ascii', 'backslashreplace')[:40]}, whose keys Valkeep does not know"
            return
        if keys.everything or keys.databases:
            self.everything = f"the source executed {name.decode()}"
        for place, key in keys.written:
            if not key and None in args:
                self.everything = f"the source executed {name.decode()} on a key with a name above 64 KiB"
                return
            self.note(place, key, offset)

    def note(self, database: int, key: bytes, offset: int) -> None:
        """The key may have been written at ``offset``."""
        self.reader.databases.setdefault(database, {})[key] = offset

    def last(self, database: int, key: bytes) -> int:
        """Offset of the key's last write that has not been taken; 0 when there is none."""
        return self.reader.databases.get(database, {}).get(key, 0)

    def forget(self, database: int, key: bytes) -> None:
        self.reader.databases.get(database, {}).pop(key, None)

    def __len__(self) -> int:
        return self.reader.noted() + self._spill_count

    def spill(self) -> None:
        """Move all names to disk."""
        self.spills += 1
        if self._spill is None:
            path = self._directory / f"written-{len(self._spilled)}"
            self._spilled.append(path)
            self._spill = path.open("wb")
        for database, keys in self.reader.take().items():
            self._spill_count += len(keys)
            self._spill.write(b"".join([_NAME.pack(database, len(key)) + key for key in keys]))
        self._spill.flush()
        if self._spill_count > SPILL_LIMIT:
            self.everything = f"more than {SPILL_LIMIT} keys were written while the snapshots were read"

    def names(self) -> Iterator[Key]:
        """All that are known when the first one is asked for, a key perhaps more than once. Takes nothing; meanwhile more may be written."""
        memory = [(database, list(keys)) for database, keys in self.reader.databases.items()]
        for path in list(self._spilled):  # after the memory: what is spilled meanwhile was seen there
            yield from _read(path)
        for database, keys in memory:
            for key in keys:
                yield database, key

    def take(self, batch: int) -> Iterator[list[Key]]:
        """Take all that is known now, in batches. What is written from here on is noted anew."""
        paths, self._spilled = self._spilled, []
        if self._spill is not None:
            self._spill.close()
        self._spill, self._spill_count = None, 0
        for number, path in enumerate(paths):
            paths[number] = path.rename(path.with_name(f"{path.name}-taken-{id(paths):x}"))
        memory = self.reader.take()
        part: list[Key] = []
        for database, keys in memory.items():
            for key in keys:
                part.append((database, key))
                if len(part) >= batch:
                    yield part
                    part = []
        for path in paths:
            for one in _read(path):
                part.append(one)
                if len(part) >= batch:
                    yield list(dict.fromkeys(part))
                    part = []
            path.unlink()
        if part:
            yield list(dict.fromkeys(part))


def _read(path: Path) -> Iterator[Key]:
    with path.open("rb") as file:
        while head := file.read(_NAME.size):
            database, size = _NAME.unpack(head)
            yield database, file.read(size)
