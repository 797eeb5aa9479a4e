"""Servers' logs as moments on the drill's clock, and the steps of a failover that they tell of.

    30412:X 21 Nov 2026 11:57:56.701 # +sdown master valkeep 127.0.1.1 15973
    pid   role   UTC, milliseconds    level

Logs carry the wall clock; ``origin_unix_ns`` (the wall time at monotonic zero) ties it to the clock of the history. Both ends of a
drill compare it: where the wall clock was set meanwhile, the steps are not to be trusted (see `recovery`).

Sources of the wording: ``sentinelEvent`` in sentinel.c, ``clusterLogLevel`` and the election in cluster_legacy.c, replication.c; the
same from Redis 7.0 to Valkey 9.1 but for "master"/"primary" and capital letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

__all__ = ["Moment", "Said", "Succession", "moments", "said", "starts", "successions"]

_LINE: Final = re.compile(
    r"\d+:[XCSM] (?P<day>\d{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4}) "
    r"(?P<clock>\d\d:\d\d:\d\d)\.(?P<ms>\d{3}) (?P<level>[.\-*#]) (?P<text>.*)"
)
_MONTHS: Final = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6, "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_LEVELS: Final = {".": "debug", "-": "info", "*": "info", "#": "warning"}

_STEPS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("sdown", re.compile(r"\+sdown master |^NODE \w+ \(.*\) possibly failing")),
    ("odown", re.compile(r"\+odown master |Marking node .* as failing \(quorum reached\)|^FAIL message received")),
    ("election", re.compile(r"\+try-failover master |Starting a failover election|Manual failover user request accepted")),
    ("elected", re.compile(r"\+elected-leader master |Failover election won")),
    ("promoted", re.compile(r"^(PRIMARY|MASTER) MODE enabled|Failover election won|^Setting myself to primary")),
    ("switched", re.compile(r"\+switch-master ")),
)
_REIGN: Final = re.compile(
    r"Setting secondary replication ID to (?P<old>[0-9a-f]{40}), valid up to offset: (?P<offset>\d+)\. New replication ID is (?P<new>[0-9a-f]{40})"
)


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a server's log. ``at``: ns on the monotonic clock, to the millisecond. ``level``: debug, info or warning."""

    at: int
    node: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of a failover, by the first line that tells of it. ``step``: sdown, odown, election, elected, promoted or switched."""

    at: int
    step: str
    node: str
    text: str


@dataclass(frozen=True, slots=True)
class Succession:
    """A node became primary at ``at`` with everything of ``old``'s stream up to ``offset`` (bytes, inclusive), under the id ``new``."""

    at: int
    node: str
    old: str
    offset: int
    new: str


def said(node: str, log: str, origin_unix_ns: int) -> Iterator[Said]:
    """The lines of ``node``'s log that have a time; what a library printed in between has none."""
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is not None and match["month"] in _MONTHS:
            hour, minute, second = map(int, match["clock"].split(":"))
            when = datetime(int(match["year"]), _MONTHS[match["month"]], int(match["day"]), hour, minute, second, tzinfo=UTC)
            wall = int(when.timestamp()) * 1_000_000_000 + int(match["ms"]) * 1_000_000
            yield Said(wall - origin_unix_ns, node, _LEVELS[match["level"]], match["text"])


def moments(lines: list[Said]) -> Iterator[Moment]:
    """Every line that is a step of a failover, by time."""
    for line in sorted(lines, key=lambda one: one.at):
        for step, pattern in _STEPS:
            if pattern.search(line.text):
                yield Moment(line.at, step, line.node, line.text)


def successions(lines: list[Said]) -> Iterator[Succession]:
    """Every promotion, by time: who took over from whose stream, and up to where it had it."""
    for line in sorted(lines, key=lambda one: one.at):
        match = _REIGN.search(line.text)
        if match is not None:
            yield Succession(line.at, line.node, match["old"], int(match["offset"]) - 1, match["new"])


def starts(lines: list[Said], node: str) -> list[int]:
    """When each process of ``node`` was started, ascending: its first words, because while it loads its files it answers INFO already."""
    return sorted(line.at for line in lines if line.node == node and line.text.endswith(" is starting oO0OoO0OoO0Oo"))
