"""The replication stream's hot path: step over commands that may pass as they are, stop before those that may not.

After the snapshot a primary sends what it executed, as RESP arrays of bulk strings, back to back, cut anywhere by the network::

    *3␍␊ $3␍␊SET␍␊ $5␍␊key:1␍␊ $6␍␊value1␍␊  *2␍␊ $6␍␊SELECT␍␊ $1␍␊3␍␊  …
    └─ argc  └─ name          └─ argument: header, body, CRLF

Nearly all of it is to be copied to the target byte for byte, so the scanner looks only at headers and names. It gives out *positions*
and never values: everything before the returned position may be written as it is, also half a 512 MB value. Held back is only what is not
decided yet – ``*N␍␊$len␍␊name␍␊`` as a whole, then single headers – at most some 150 bytes, so a lying length allocates nothing.

Names are found without making objects: a name's letters, in upper case, hash to a slot of a table made once, and are then compared
with the bytes there. A name is never accepted by its hash alone.

**Slots.** Where not every slot's keys may pass (``owned``), a name of ``keyed`` passes only with its first argument in a slot that may; then the head that
is held back reaches to the end of that argument, up to ``MAX_KEY`` bytes of it, above which the scanner stops. The caller may change ``owned`` between two
calls: what is asked is its state when a command begins. ``skip`` passes over commands of slots that are LEFT_OUT, and over nothing else.

States of ``_run``, one header line per turn::

    COMMAND  expects *N␍␊        → NAME
    NAME     expects $len␍␊name␍␊ → ARGUMENT (N > 1) or COMMAND; or stop = ATTENTION, back at the ``*``
    ARGUMENT expects $len␍␊       → its body streams through (``_body`` bytes with the CRLF) → ARGUMENT or COMMAND

This module is long because it is one machine: scanning, skipping and collecting work on the same positions, in one compiled object.

Source: Redis and Valkey ``src/networking.c`` (processMultibulkBuffer), ``src/replication.c`` (replicationFeedReplicas). A primary's client
is not held to proto-max-bulk-len, so sizes are limited only to what can't be meant.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final, NoReturn

from valkeep.errors import LocalProtocolError, RemoteProtocolError

from .slots import SlotHash

__all__ = ["ATTENTION", "LEFT_OUT", "MAX_ARGUMENTS", "MAX_BULK", "MAX_KEY", "MAX_NAME", "NEED_MORE", "PASSES", "CommandScanner"]

NEED_MORE: Final = 0
ATTENTION: Final = 1

MAX_ARGUMENTS: Final = (1 << 31) - 1  # as in the servers
MAX_BULK: Final = 1 << 40  # bytes of one argument
MAX_NAME: Final = 128  # bytes; the longest real one is GEORADIUSBYMEMBER_RO
MAX_KEY: Final = 1 << 16  # bytes of a first argument whose slot is asked
MAX_DIGITS: Final = 13  # of any number in a header; more could overflow before it is compared
PASSES: Final = 1  # in ``owned``: keys of this slot pass without a look
LEFT_OUT: Final = 0  # they are nobody's business here
SLOTS: Final = 4096  # of the name table; must be a power of two and well above the number of names

# The same numbers as C integers (stream.pxd); a compiled module looks its public names up in a dict, for each use.
_ARGUMENTS = MAX_ARGUMENTS
_BULK = MAX_BULK
_NAME = MAX_NAME
_KEY = MAX_KEY
_PASSES = PASSES
_LEFT_OUT = LEFT_OUT
_DIGITS = MAX_DIGITS
_MASK = SLOTS - 1
_NOT_ALL, _TOO_LONG, _NO_ARGUMENT = -1, -2, -3  # instead of a slot
_NEED_MORE = NEED_MORE
_ATTENTION = ATTENTION

_REMEDY: Final = "the source's stream is damaged or is no replication stream: start again with a full sync"


class CommandScanner:
    """Scan one source's stream. ``verbatim``: names (upper case) that may pass unseen; of ``CONFIG SET`` the first word counts. ``plain``: names that may
    with exactly so many words (``{b"SET": 3}``: a SET without options), and are stopped at otherwise. ``owned``: of each of the 16384 slots PASSES, LEFT_OUT
    or something else, for the names of ``keyed``; None: all pass.

    ``stop``: why ``scan`` returned. ``name``, ``argc``: of the command it stopped at (name in upper case). ``at_boundary``: the returned
    position is between two commands. ``boundary``: the last position of this call that was between two commands and outside of MULTI, −1 if none was.
    ``in_multi``: between MULTI and EXEC. ``commands``: whole commands that ``scan`` and ``finish`` have passed.
    """

    def __init__(
        self,
        verbatim: frozenset[bytes],
        plain: Mapping[bytes, int] | None = None,
        *,
        owned: bytearray | None = None,
        keyed: frozenset[bytes] = frozenset(),
    ) -> None:
        if owned is not None and len(owned) != 16384:
            raise LocalProtocolError(f"{len(owned)} slots", remedy="report this bug")
        self.stop = NEED_MORE
        self.name = b""
        self.argc = 0
        self.boundary = -1
        self.in_multi = False
        self.commands = 0
        self._arguments = 0  # of the command under way, not begun yet
        self._body = 0  # bytes of the argument under way, with its CRLF
        self._starts: list[int] = []  # what command() found so far, relative to the command's start
        self._stops: list[int] = []
        self._multi = -1  # the index of this name, where it may pass
        self._exec = -1
        words = dict.fromkeys(verbatim, 0) | dict(plain or {})
        names = sorted(words)
        table, offsets, sizes = self._learn(names)
        self._table = table  # slot → 1 + index of a name, 0 = free
        self._offsets = offsets  # of a name in _letters
        self._sizes = sizes
        self._plain = array("q", [words[name] for name in names] or [0])  # of a name: how many words it passes with, 0 = any
        self._letters = b"".join(names) + b"\0"
        self._keyed = bytes([owned is not None and name in keyed for name in names]) + b"\0"
        self._owned = owned if owned is not None else bytearray(1)
        self._slots = SlotHash()
        self._first_at = 0  # what _first found: where the argument begins, and its size
        self._first_size = 0

    def _learn(self, names: list[bytes]) -> tuple[array[int], array[int], array[int]]:
        if len(names) > SLOTS // 4:
            raise LocalProtocolError(f"{len(names)} names are too many for the scanner's table", remedy="raise SLOTS in wire/stream.py")
        table = array("i", bytes(array("i").itemsize * SLOTS))
        offsets = array("i", [0])
        sizes = array("i", [0])
        for number, name in enumerate(names):
            if name != name.upper() or not 0 < len(name) <= MAX_NAME:
                raise LocalProtocolError(f"{name!r} is not a command's name in upper case", remedy="give names in upper case")
            code = len(name)
            for letter in name:
                code = (code * 33 + letter) & 0xFFFF
            slot = code & (SLOTS - 1)
            while table[slot]:
                slot = (slot + 1) & (SLOTS - 1)
            table[slot] = number + 1
            sizes[number] = len(name)
            sizes.append(0)
            offsets.append(offsets[number] + len(name))
            if name == b"MULTI":
                self._multi = number
            elif name == b"EXEC":
                self._exec = number
        return table, offsets, sizes

    @property
    def at_boundary(self) -> bool:
        return self._arguments == 0 and self._body == 0

    def scan(self, data: bytes | bytearray | memoryview, pos: int, end: int) -> int:
        """Pass over what may pass in ``data[pos:end]``; returns the new position. What is behind it has to be presented again."""
        return self._run(data, pos, end, False, _PASSES)

    def finish(self, data: bytes | bytearray | memoryview, pos: int, end: int) -> int:
        """Like ``scan``, but only to the end of the command that is under way; nothing at a boundary."""
        return self._run(data, pos, end, True, _PASSES)

    def skip(self, data: bytes | bytearray | memoryview, pos: int, end: int) -> int:
        """Like ``scan``, but over commands of LEFT_OUT slots only. Where the last one is not all there, ``finish`` goes on with it."""
        return self._run(data, pos, end, False, _LEFT_OUT)

    def passed(self, name: bytes) -> None:
        """The caller has consumed the whole command at the last position itself. ``name``: its name in upper case."""
        if not self.at_boundary:
            raise LocalProtocolError("a command was passed inside another", remedy="this is a bug of Valkeep: please report it")
        if name == b"MULTI":
            self.in_multi = True
        elif name == b"EXEC" or name == b"DISCARD":
            self.in_multi = False
        self._forget()

    def resume_after(self) -> None:
        """``passed`` for the command that ``scan`` stopped at."""
        self.passed(self.name)

    def command(self, data: bytes | bytearray | memoryview, pos: int, end: int) -> tuple[list[bytes], int] | None:
        """The whole command that begins at ``pos``, and the position after it; None while it is not all there.

        Asked again about the same command with more bytes, it goes on where it was (one value in many pieces costs no more than
        once); ``passed`` or a ``scan`` that moves on forgets that. Bare newlines before the command belong to it.
        """
        after = self._whole(data, pos, end)
        if after < 0:
            return None
        view = memoryview(data)
        args = [bytes(view[pos + start : pos + stop]) for start, stop in zip(self._starts, self._stops, strict=True)]
        self._forget()
        return args, after

    @property
    def words(self) -> int:
        """How many arguments the command has that ``command`` found not to be all there; 0 where it does not know yet."""
        return self._stops[0] if self._starts else 0

    def begun(self, data: bytes | bytearray | memoryview, pos: int) -> list[bytes]:
        """Its name and first argument, or what is there of them, after ``command`` for the same ``pos``."""
        return [bytes(data[pos + start : pos + stop]) for start, stop in zip(self._starts[1:3], self._stops[1:3], strict=True)]

    def enter(self, pos: int) -> int:
        """Begin to pass over it, whatever its name is: the position behind its name, after ``command`` for the same ``pos``; ``finish`` goes on."""
        if len(self._starts) < 2:
            raise LocalProtocolError("a command was entered before its name was there", remedy="this is a bug of Valkeep: please report it")
        self._arguments = self._stops[0] - 1
        after = pos + self._stops[1] + 2
        self.commands += self._arguments == 0
        self._forget()
        return after

    # ---------------------------------------------------------------------------------------------------------------- inside

    def _forget(self) -> None:
        if self._starts:
            self._starts = []
            self._stops = []

    def _run(self, data: bytes | bytearray | memoryview, pos: int, end: int, only_this: bool, passes: int) -> int:
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"{pos} to {end} is not inside {len(data)} bytes", remedy="this is a bug of Valkeep: please report it")
        first = pos
        arguments = self._arguments
        body = self._body
        commands = 0
        boundary = pos if arguments == 0 and body == 0 and not self.in_multi else -1
        start = pos  # of the command that is looked at; only its head is held back
        at = pos
        argc = 0
        self.stop = _NEED_MORE
        in_name = False
        while True:
            if body > 0:
                if body > 2:
                    if end - at < body - 2:
                        body -= end - at
                        at = end
                        pos = at
                        break
                    at += body - 2
                    body = 2
                    pos = at
                if end - at < 2:
                    break
                if data[at] != 13 or data[at + 1] != 10:
                    self._fail(bytes(data[at : min(at + 16, end)]), "an argument does not end where its length says")
                at += 2
                pos = at
                body = 0
                if arguments == 0:
                    commands += 1
                    if not self.in_multi:
                        boundary = pos
            if arguments == 0 and not in_name:
                if only_this:
                    break
                start = at
                if at < end and data[at] == 10:
                    at += 1
                    pos = at
                    if not self.in_multi:
                        boundary = pos
                    continue
            # one header line: mark, digits, CRLF
            if at >= end:
                break
            mark = 0x24 if in_name or arguments > 0 else 0x2A
            if data[at] != mark:
                self._fail(bytes(data[at : min(at + 16, end)]), f"expected {chr(mark)!r}")
            number = 0
            line = at
            at += 1
            while at < end:
                digit = data[at] - 48
                if digit < 0 or digit > 9:
                    break
                number = number * 10 + digit
                at += 1
                if at - line > _DIGITS:
                    self._fail(bytes(data[line : min(line + 24, end)]), "a number with too many digits")
            if at + 1 >= end and (at >= end or data[at] == 13):
                break
            if data[at] != 13 or data[at + 1] != 10 or at == line + 1:
                self._fail(bytes(data[line : min(line + 24, end)]), "a header that is no number")
            at += 2
            if mark == 0x2A:
                if number < 1 or number > _ARGUMENTS:
                    self._fail(bytes(data[line:at]), "an impossible number of arguments")
                argc = number
                in_name = True
                continue
            if number > _BULK:
                self._fail(bytes(data[line:at]), "an impossible length")
            if not in_name:
                arguments -= 1
                body = number + 2
                pos = at
                continue
            # the name: look it up in the table
            if number < 1 or number > _NAME:
                self._fail(bytes(data[start : min(start + 40, end)]), "an impossible command name")
            size = number
            if end - at < size + 2:
                break
            if data[at + size] != 13 or data[at + size + 1] != 10:
                self._fail(bytes(data[start : min(start + 40, end)]), "a name does not end where its length says")
            code = size
            for i in range(size):
                letter = data[at + i]
                if 97 <= letter <= 122:
                    letter -= 32
                code = (code * 33 + letter) & 0xFFFF
            slot = code & _MASK
            found = -1
            while found < 0:
                entry = self._table[slot] - 1
                if entry < 0:
                    break
                if self._sizes[entry] == size:
                    offset = self._offsets[entry]
                    i = 0
                    while i < size:
                        letter = data[at + i]
                        if 97 <= letter <= 122:
                            letter -= 32
                        if letter != self._letters[offset + i]:
                            break
                        i += 1
                    if i == size:
                        found = entry
                slot = (slot + 1) & _MASK
            if found >= 0 and self._plain[found] > 0 and argc != self._plain[found]:
                found = -1
            slot = _NO_ARGUMENT
            if found >= 0 and self._keyed[found] != 0:
                slot = self._first(data, at + size + 2, end) if argc > 1 else _TOO_LONG
                if slot == _NOT_ALL:
                    break
                if slot == _TOO_LONG or (slot >= 0 and self._owned[slot] != passes):
                    found = -1
            elif passes != _PASSES:
                found = -1
            if found < 0:
                self.name = bytes(data[at : at + size]).upper()
                self.argc = argc
                self.stop = _ATTENTION
                break
            if found == self._multi:
                self.in_multi = True
            elif found == self._exec:
                self.in_multi = False
            in_name = False
            if slot >= 0:
                at = self._first_at
                pos = at
                body = self._first_size + 2
                arguments = argc - 2
                continue
            at += size + 2
            pos = at
            arguments = argc - 1
            if arguments == 0:
                commands += 1
                if not self.in_multi:
                    boundary = pos
        if pos > first:
            self._forget()
        self._arguments = arguments
        self._body = body
        self.commands += commands
        self.boundary = boundary
        return pos

    def _first(self, data: bytes | bytearray | memoryview, at: int, end: int) -> int:
        """The slot of the argument whose header stands at ``at``; or that it is not all there, is too long, or is none (whoever passes over it will say so)."""
        if at >= end:
            return _NOT_ALL
        if data[at] != 0x24:
            return _NO_ARGUMENT
        number = 0
        line = at
        at += 1
        while at < end:
            digit = data[at] - 48
            if digit < 0 or digit > 9:
                break
            number = number * 10 + digit
            at += 1
            if number > _KEY or at - line > _DIGITS:
                return _TOO_LONG
        if at + 1 >= end and (at >= end or data[at] == 13):
            return _NOT_ALL
        if data[at] != 13 or data[at + 1] != 10 or at == line + 1:
            return _NO_ARGUMENT
        at += 2
        if end - at < number:
            return _NOT_ALL
        self._first_at = at
        self._first_size = number
        return self._slots.of(data, at, number)

    def _whole(self, data: bytes | bytearray | memoryview, pos: int, end: int) -> int:
        """Find the arguments of the command at ``pos``; the position after it, or −1 when it is not all there."""
        if self._arguments != 0 or self._body != 0:
            raise LocalProtocolError("a command was asked for inside another", remedy="this is a bug of Valkeep: please report it")
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"{pos} to {end} is not inside {len(data)} bytes", remedy="this is a bug of Valkeep: please report it")
        starts = self._starts
        stops = self._stops
        # _starts[0] is the place after ``*N``, _stops[0] is N, until the last argument is there
        if starts:
            at = pos + starts[0]
            if len(starts) > 1:
                at = pos + stops[len(stops) - 1] + 2
            left = stops[0] - (len(starts) - 1)
        else:
            at = pos
            left = -1
        while left != 0:
            line = at
            if left < 0:
                while at < end and data[at] == 10:
                    at += 1
                line = at
            if at >= end:
                return -1
            if data[at] != (0x2A if left < 0 else 0x24):
                self._fail(bytes(data[at : min(at + 16, end)]), "expected '*' or '$'")
            number = 0
            at += 1
            while at < end:
                digit = data[at] - 48
                if digit < 0 or digit > 9:
                    break
                number = number * 10 + digit
                at += 1
                if at - line > _DIGITS:
                    self._fail(bytes(data[line : min(line + 24, end)]), "a number with too many digits")
            if at + 1 >= end and (at >= end or data[at] == 13):
                return -1
            if data[at] != 13 or data[at + 1] != 10 or at == line + 1:
                self._fail(bytes(data[line : min(line + 24, end)]), "a header that is no number")
            at += 2
            if left < 0:
                if number < 1 or number > _ARGUMENTS:
                    self._fail(bytes(data[line:at]), "an impossible number of arguments")
                left = number
                starts.append(at - pos)
                stops.append(left)
                continue
            if number > _BULK or (len(starts) == 1 and (number < 1 or number > _NAME)):
                self._fail(bytes(data[line:at]), "an impossible length")
            if end - at < number + 2:
                return -1
            if data[at + number] != 13 or data[at + number + 1] != 10:
                self._fail(bytes(data[line : min(line + 24, end)]), "an argument does not end where its length says")
            starts.append(at - pos)
            stops.append(at + number - pos)
            at += number + 2
            left -= 1
        del starts[0]
        del stops[0]
        return at

    def _fail(self, near: bytes, what: str) -> NoReturn:
        raise RemoteProtocolError(
            f"the source's command stream breaks the protocol after {self.commands} commands: {what}, at {near!r}", remedy=_REMEDY
        )
