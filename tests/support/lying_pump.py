"""The proxy between nodes and clients (`valkeep.runtime.network.pump`), turned into a liar: what it tells clients is not what the server did.

    python lying_pump.py LIE        the orders of the pump on standard input, as ever

Only what clients of a drill say and hear is falsified (they have addresses of their own, 127.x.2.y): replication, sentinels, the watcher and the final
reading see the truth. Lies are told again and again, from the ``AFTER``-th chance on at every ``EVERY``-th, by whichever connection has it.

    client ──frames──► lie ──► server       each request becomes: passed on · passed on and its reply hidden · answered by us
    client ◄──frames── order ◄── server     replies keep the order of the requests
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from valkeep.runtime.network import pump
from valkeep.topology.slots import key_slot

__all__ = ["LIES"]

EVERY, AFTER = 8, 40

Words = list[bytes]


# --------------------------------------------------------------------------------------------------------------- frames


def _end_of(data: bytes, start: int) -> int:
    """Where the frame that begins at ``start`` ends; -1 when it is not whole."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return -1
    kind, end = data[start : start + 1], line + 2
    if kind in b"+-:_#,(":
        return end
    size = int(data[start + 1 : line])
    if kind in b"$=":
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else -1
    for _ in range(size):
        end = _end_of(data, end)
        if end < 0:
            return -1
    return end


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Whole frames, taken from the front of the buffer."""
    data, start = bytes(buffer), 0
    while start < len(data) and (end := _end_of(data, start)) >= 0:
        yield data[start:end]
        start = end
    del buffer[:start]


def words_of(frame: bytes) -> Words:
    words, place = [], frame.index(b"\r\n") + 2
    while place < len(frame):
        line = frame.index(b"\r\n", place)
        size = int(frame[place + 1 : line])
        words.append(frame[line + 2 : line + 2 + size])
        place = line + 4 + size
    return words


def frame_of(*words: bytes | int) -> bytes:
    made = [b"*%d\r\n" % len(words)]
    for word in words:
        text = word if isinstance(word, bytes) else b"%d" % word
        made.append(b"$%d\r\n%s\r\n" % (len(text), text))
    return b"".join(made)


# --------------------------------------------------------------------------------------------------------------- talking


class World:
    """What all connections have seen: the last integer that a key was answered, and the values that were acked as set."""

    def __init__(self) -> None:
        self.number: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)
        self.values: defaultdict[bytes, deque[bytes]] = defaultdict(lambda: deque(maxlen=8))
        self.heard: dict[bytes, bytes] = {}  # stream → a delivery
        self.first = ""  # the node that the first client talked to
        self.tag = b""
        self.nodes: set[str] = set()
        self.ports: dict[str, int] = {}  # announced host → port
        self.announced: dict[str, str] = {}  # host of a node → the one that clients know
        self._chances = itertools.count(1)

    def now(self) -> bool:
        """Whether this chance is taken."""
        chance = next(self._chances)
        return chance > AFTER and chance % EVERY == 0

    def past(self, chances: int) -> bool:
        """Whether so many chances have passed; counts one more."""
        return next(self._chances) > chances


class Talk:
    """One connection of a client. ``out``: bytes for the server. Replies wait in ``due``: None for the server's own, b"" to hide it, else ours."""

    def __init__(self, lie: Callable[[Talk, Words, bytes], bool], world: World, node: str) -> None:
        self.lie, self.world, self.node = lie, world, node
        self.raw = False  # a subscriber: from now on nothing is falsified
        self.multi = False
        self.odd = False  # of two, the first
        self.ahead: list[Words] = []  # requests of the same pipeline that are still to come
        self.swapped: dict[bytes, bytes] = {}
        self.out = bytearray()
        self._asked, self._answered = bytearray(), bytearray()
        self.due: deque[tuple[bytes | None, bool, Words]] = deque()  # our reply, whether the server sends one, the request

    def requests(self, data: bytes) -> bytes:
        if self.raw:
            return data
        self._asked += data
        whole = list(frames(self._asked))
        self.ahead = [words_of(frame) for frame in whole]
        for frame in whole:
            words = self.ahead.pop(0)
            words[0] = words[0].upper()
            self.raw = self.raw or words[0] == b"SUBSCRIBE"
            if self.raw or not self.lie(self, words, frame):
                self.forward(frame, words)
            self.multi = words[0] == b"MULTI" or (self.multi and words[0] != b"EXEC")
        made, self.out = bytes(self.out), bytearray()
        return made

    def replies(self, data: bytes) -> bytes:
        if self.raw and not self.due:
            return data
        self._answered += data
        made = bytearray()
        for frame in frames(self._answered):
            made += self.settled()
            if not self.due:
                made += frame
                continue
            ours, _, words = self.due.popleft()
            self._see(words, frame)
            made += frame if ours is None else ours
        return bytes(made + self.settled())

    def settled(self) -> bytes:
        """Replies of ours whose turn has come."""
        made = bytearray()
        while self.due and not self.due[0][1]:
            made += self.due.popleft()[0] or b""
        return bytes(made)

    # --- what lies are made of

    def forward(self, frame: bytes, words: Words, reply: bytes | None = None) -> None:
        """Pass it on; its reply is the server's, or hidden (b""), or ours."""
        self.out += frame
        self.due.append((reply, True, words))

    def answer(self, reply: bytes, words: Words) -> None:
        """Do not pass it on."""
        self.due.append((reply, False, words))

    def _see(self, words: Words, frame: bytes) -> None:
        if frame[:1] == b":" and len(words) > 1:
            self.world.number[words[0], words[1]] = int(frame[1:])
        if words[0] == b"XREADGROUP" and len(frame) > 5:
            self.world.heard[words[-2]] = frame
        if words[0] == b"SET" and frame == b"+OK\r\n":
            self.world.values[words[1]].append(words[2])


# --------------------------------------------------------------------------------------------------------------- lies

Lie = Callable[[Talk, Words, bytes], bool]
LIES: Final[dict[str, Lie]] = {}


def lie(function: Lie) -> Lie:
    LIES[function.__name__.replace("_", "-")] = function
    return function


def _chance(talk: Talk, words: Words, *commands: bytes) -> bool:
    return words[0] in commands and not talk.multi and talk.world.now()


@lie
def honest(_talk: Talk, _words: Words, _frame: bytes) -> bool:
    return False


def _swallow(command: bytes, reply: Callable[[Talk, Words], bytes]) -> Lie:
    def told(talk: Talk, words: Words, _frame: bytes) -> bool:
        if not _chance(talk, words, command):
            return False
        talk.answer(reply(talk, words), words)
        return True

    return told


def _double(command: bytes) -> Lie:
    def told(talk: Talk, words: Words, frame: bytes) -> bool:
        if not _chance(talk, words, command):
            return False
        talk.forward(frame, words)
        talk.forward(frame, words, b"")
        return True

    return told


def _refuse_and_do(command: bytes) -> Lie:
    def told(talk: Talk, words: Words, frame: bytes) -> bool:
        if not _chance(talk, words, command):
            return False
        talk.forward(frame, words, b"-LOADING dataset in memory\r\n")
        return True

    return told


def _next(talk: Talk, words: Words) -> bytes:
    return b":%d\r\n" % (talk.world.number[words[0], words[1]] + 1)


LIES["acks-appends-without-forwarding"] = _swallow(b"RPUSH", _next)
LIES["acks-writes-without-forwarding"] = _swallow(b"SET", lambda _talk, _words: b"+OK\r\n")
LIES["acks-deletes-without-forwarding"] = _swallow(b"DEL", lambda _talk, _words: b":1\r\n")
LIES["acks-increments-without-forwarding"] = _swallow(b"INCR", _next)
LIES["acks-additions-without-forwarding"] = _swallow(b"SADD", lambda _talk, _words: b":1\r\n")
LIES["acks-entries-without-forwarding"] = _swallow(b"XADD", lambda _talk, _words: b"$17\r\n1790000000000-999\r\n")
LIES["acks-acknowledgements-without-forwarding"] = _swallow(b"XACK", lambda _talk, _words: b":1\r\n")
LIES["doubles-appends"] = _double(b"RPUSH")
LIES["doubles-increments"] = _double(b"INCR")
LIES["doubles-entries"] = _double(b"XADD")
LIES["doubles-messages"] = _double(b"PUBLISH")
LIES["refuses-appends-and-does-them"] = _refuse_and_do(b"RPUSH")
LIES["refuses-writes-and-does-them"] = _refuse_and_do(b"SET")
LIES["refuses-additions-and-does-them"] = _refuse_and_do(b"SADD")
LIES["reads-what-nobody-wrote"] = _swallow(b"GET", lambda _talk, _words: b"$5\r\n12345\r\n")
LIES["says-that-it-was-there"] = _swallow(b"SADD", lambda _talk, _words: b":0\r\n")


@lie
def answers_stale_reads(talk: Talk, words: Words, _frame: bytes) -> bool:
    known = talk.world.values.get(words[1]) if words[0] == b"GET" else None
    if known is None or len(known) < 4 or not talk.world.now():
        return False
    talk.answer(b"$%d\r\n%s\r\n" % (len(known[-4]), known[-4]), words)
    return True


@lie
def reorders_appends(talk: Talk, words: Words, _frame: bytes) -> bool:
    """The first and the last of a pipeline change places."""
    if words[0] != b"RPUSH":
        return False
    other = talk.swapped.pop(words[2], b"")
    if not other:
        other = next((later[2] for later in talk.ahead if later[:2] == words[:2]), b"")
        if not other or not talk.world.now():
            return False
        talk.swapped[other] = words[2]
    talk.forward(frame_of(b"RPUSH", words[1], other), words)
    return True


@lie
def resurrects_deleted_registers(talk: Talk, words: Words, frame: bytes) -> bool:
    known = talk.world.values.get(words[1]) if words[0] == b"DEL" else None
    if not known or not talk.world.now():
        return False
    talk.forward(frame, words)
    talk.forward(frame_of(b"SET", words[1], known[-1]), [b"LIE"], b"")
    return True


@lie
def does_half_of_a_transaction(talk: Talk, words: Words, _frame: bytes) -> bool:
    if not talk.multi or words[0] != b"SET" or not words[1].endswith(b":a"):
        return False
    talk.odd = not talk.odd
    if talk.odd:
        talk.answer(b"+QUEUED\r\n", words)
    return talk.odd


@lie
def does_half_of_a_script(talk: Talk, words: Words, frame: bytes) -> bool:
    if words[0] != b"EVAL":
        return False
    talk.odd = not talk.odd
    if talk.odd:
        talk.forward(frame_of(b"SET", words[3], words[5]), words, b":1\r\n")
    return talk.odd


@lie
def delivers_again(talk: Talk, words: Words, frame: bytes) -> bool:
    """What was delivered is delivered as if it were new."""
    heard = talk.world.heard.get(words[-2]) if words[0] == b"XREADGROUP" else None
    if heard is None or not talk.world.now():
        return False
    talk.forward(frame, words, heard)
    return True


@lie
def passes_over_entries(talk: Talk, words: Words, frame: bytes) -> bool:
    """The group moves on, and nobody gets what it passed."""
    if words[0] != b"XREADGROUP" or not talk.world.now():
        return False
    talk.forward(frame_of(*words[:4], b"NOACK", *words[4:]), words, b"*-1\r\n")
    return True


@lie
def publishes_by_itself(talk: Talk, words: Words, frame: bytes) -> bool:
    if not _chance(talk, words, b"PUBLISH"):
        return False
    talk.forward(frame, words)
    talk.forward(frame_of(b"PUBLISH", words[1], 12345), [b"LIE"], b"")
    return True


@lie
def goes_deaf(talk: Talk, words: Words, frame: bytes) -> bool:
    """From some moment on one node acks every append, and does none: the smartest lie when it is killed then, for what is lost is a suffix."""
    world = talk.world
    if words[0] not in (b"RPUSH", b"SET", b"DEL", b"INCR", b"SADD") or talk.multi:
        return False
    world.first = world.first or talk.node
    if talk.node != world.first or not world.past(1500):
        return False
    number = (words[0], words[1])
    world.number[number] += 1
    talk.answer(b"+OK\r\n" if words[0] == b"SET" else b":%d\r\n" % (world.number[number] if words[0] in (b"RPUSH", b"INCR") else 1), words)
    return True


@lie
def sends_in_circles(talk: Talk, words: Words, _frame: bytes) -> bool:
    """The slot of one tag is at another node, says whoever is asked, from some moment on."""
    world, tag = talk.world, words[1].partition(b"{")[2].partition(b"}")[0] if len(words) > 1 else b""
    if not tag and words[0] not in (b"MULTI", b"EXEC"):
        return False
    world.tag = world.tag or tag
    here = world.announced[talk.node]
    world.nodes |= {here}
    if tag != world.tag or talk.multi or not world.past(60):
        return False
    other = next((node for node in sorted(world.nodes) if node != here), here)
    talk.answer(b"-MOVED %d %s:%d\r\n" % (key_slot(tag), other.encode(), world.ports[other]), words)
    return True


@lie
def counts_replicas_that_have_nothing(talk: Talk, words: Words, frame: bytes) -> bool:
    """WAIT is answered as it was asked."""
    if words[0] != b"WAIT":
        return False
    talk.forward(frame, words, b":%s\r\n" % words[1])
    return True


# --------------------------------------------------------------------------------------------------------------- the pump

_world = World()
_chosen: Lie = honest


class LyingExchange(pump.Exchange):
    async def open(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        _world.ports[listen[0]] = min(listen[1], _world.ports.get(listen[0], listen[1]))  # not the bus
        _world.announced[target[0]] = listen[0]
        await super().open(listen, target)


class LyingEnd(pump._End):
    """``talk``: at the client's end only; the other end finds it at its peer."""

    def __init__(self, exchange: Any, frm: str, to: str) -> None:
        super().__init__(exchange, frm, to)
        client = frm.split(".")[2] == "2"
        self.talk = Talk(_chosen, _world, to) if client else None

    def data_received(self, data: bytes) -> None:
        peer = self.peer
        if self.talk is not None:
            data = self.talk.requests(data)
            ours = self.talk.settled()
            if ours and self.transport is not None:
                self.transport.write(ours)
        elif isinstance(peer, LyingEnd) and peer.talk is not None:
            data = peer.talk.replies(data)
        if data:
            super().data_received(data)


if __name__ == "__main__":
    _chosen = LIES[sys.argv[1]]
    pump._End, pump.Exchange = LyingEnd, LyingExchange  # type: ignore[misc]
    asyncio.run(pump._main())
