"""Faults that the mutator has to find: each of these targets breaks one rule, at case 3 at the earliest. They run only when they are named."""

from __future__ import annotations

import os
import signal
from random import Random

from tests.fuzz.oracle import Failure, Target, attempt, same
from valkeep.errors import LocalProtocolError, RemoteProtocolError


def make(rng: Random) -> bytes:
    return rng.randbytes(40)


def bad(data: bytes) -> bool:
    return data[0] < 32


def crash(data: bytes, rng: Random) -> None:
    if bad(data):
        os.kill(os.getpid(), signal.SIGSEGV)


def hang(data: bytes, rng: Random) -> None:
    while bad(data):
        pass


def memory(data: bytes, rng: Random) -> None:
    if bad(data):
        bytearray(1 << 31)


def hoard(data: bytes, rng: Random) -> None:
    bytearray(64 << 20)


def error(data: bytes, rng: Random) -> None:
    if bad(data):
        raise KeyError(data)


def blame(data: bytes, rng: Random) -> None:
    def work() -> None:
        raise LocalProtocolError("ours", remedy="none") if bad(data) else RemoteProtocolError("theirs", remedy="again")

    attempt(work)


def speechless(data: bytes, rng: Random) -> None:
    def work() -> None:
        raise RemoteProtocolError("theirs", remedy="" if bad(data) else "again")

    attempt(work)


def difference(data: bytes, rng: Random) -> None:
    same("the two", Failure("RemoteProtocolError", "one"), Failure("RemoteProtocolError", "other" if bad(data) else "one"))


TARGETS = tuple(
    [Target(f"planted-{check.__name__}", make, check) for check in (crash, hang, memory, hoard, error, blame, speechless, difference)]
)
