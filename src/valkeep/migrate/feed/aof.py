"""The grammar of an append-only file behind its snapshot: commands as in the replication stream, and annotations between them.

    *2␍␊$6␍␊SELECT␍␊$1␍␊0␍␊  #TS:1763731200␍␊  *1␍␊$5␍␊MULTI␍␊ … *1␍␊$4␍␊EXEC␍␊
                              └─ aof-timestamp-enabled; a line that begins with # is passed over

A server that was killed leaves a file that ends anywhere. As the servers do (``aof-load-truncated yes``), what counts is everything up to the end of
the last whole command that is not inside a MULTI without its EXEC; the rest is the *tail*. Anything else that is not a command is damage.

Where an annotation may stand is found by looking for a # behind a line's end, and asking the scanner whether that place is between two commands: a value may
hold the same bytes. So a log without annotations costs one search and one scan.

What it does not do: it reads no file and looks at no command but MULTI, EXEC and DISCARD. Source: valkey ``src/aof.c`` (loadSingleAppendOnlyFile).
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError
from valkeep.wire.commands import VALKEY_COMMANDS
from valkeep.wire.stream import ATTENTION, CommandScanner

__all__ = ["LogReader"]

_NAMES = frozenset[bytes]().union(*VALKEY_COMMANDS.values()) - {b"MULTI"}  # where it begins, what is before it is whole
_NOTE = ord("#")
_REMEDY = "the file is damaged there: see what the servers' own tool says (valkey-check-aof)"
_LARGEST_NOTE = 1 << 16  # bytes of an annotation
_LARGE = 1 << 24  # bytes of a command whose name is not known, until it is passed over without having been seen whole


class LogReader:
    """Takes one file's commands in any pieces, by ``feed``. ``whole``: bytes that count so far, from the log's beginning on, and ``commands`` in
    them; ``read``: bytes that were consumed."""

    def __init__(self) -> None:
        self.whole = 0
        self.commands = 0
        self.read = 0
        self._scanner = CommandScanner(_NAMES)
        self._seen = 0  # commands that the scanner stopped at
        self._kept = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The commands in it without annotations, as pieces that may begin and end anywhere. Raises ``RemoteProtocolError``; the place is then at or behind
        ``read``."""
        self._kept += data
        pieces: list[bytes] = []
        with memoryview(self._kept) as view:
            used = self._run(view, pieces)
        self.read += used
        del self._kept[:used]
        return pieces

    def _run(self, view: memoryview, pieces: list[bytes]) -> int:
        position = looked = 0
        end = len(view)
        while position < end:
            if view[position] == _NOTE and self._scanner.at_boundary:
                after = self._kept.find(b"\n", position) + 1
                if not after:
                    if end - position > _LARGEST_NOTE:
                        raise RemoteProtocolError(f"an annotation of more than {_LARGEST_NOTE} bytes", remedy=_REMEDY)
                    break
                position = after
                self._mark(position)
                continue
            stop = self._kept.find(b"\n#", max(position, looked)) + 1 or end
            after = self._pass(view, position, stop)
            if after > position:
                pieces.append(bytes(view[position:after]))
            elif stop == end:
                break
            position, looked = after, stop
        return position

    def _pass(self, view: memoryview, position: int, end: int) -> int:
        """Over what is there of commands in ``view[position:end]``; returns the position reached."""
        scanner = self._scanner
        while True:
            position = scanner.scan(view, position, end)
            self._mark(scanner.boundary)
            if scanner.stop != ATTENTION:
                return position
            name = scanner.name
            parsed = scanner.command(view, position, end)
            if parsed is not None:
                position = parsed[1]
                scanner.passed(name)
                self._seen += 1
                self._mark(position)
            elif end - position > _LARGE:
                position = scanner.enter(position)
            else:
                return position

    def _mark(self, position: int) -> None:
        """The last place between two commands is here (-1: there was none)."""
        if position >= 0 and not self._scanner.in_multi:
            self.whole = self.read + position
            self.commands = self._scanner.commands + self._seen
