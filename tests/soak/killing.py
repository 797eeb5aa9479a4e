"""The experiment of the soak: Valkeep is killed (SIGKILL) at one point of a migration while writers write; then what must hold is judged.

What must hold, wherever the kill falls:

    *  A target that is a promoted primary has every write that the source ever acknowledged, and the source acknowledges none any more.
    *  A source that is only paused goes on by itself when the lease ends; a fenced one after ``valkeep migrate abort``; its settings are as before.
    *  ``abort`` after a promotion refuses, and ``--force`` makes the source writable all the same.
    *  Nothing is left behind: no process, and after ``abort`` no spool and no socket.

Points are phases of the migration's own event log, with a delay, or requests on the wire (``wire:…``): there the kill falls before the request reaches
the server, or right after. All of Valkeep's connections go through proxies that delay a little, so that a step lasts long enough to be hit.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import valkey

from tests.support import nodes
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.runtime import ports

__all__ = ["POINTS", "Kill", "Outcome", "perform"]

LEASE_MS = 5000
DELAY = 0.001  # s, added to each piece each way
BEFORE = {"min-replicas-to-write": "0", "min-replicas-max-lag": "7"}

PHASES = (
    "preflight",
    "snapshot",
    "attach",
    "snapshot-taken",
    "online",
    "verify",
    "verified",
    "cutover:pause",
    "cutover:drain",
    "cutover:verify-changed",
    "cutover:fence",
    "cutover:drain-after-fence",
    "cutover:promote",
    "cutover:promoted",
)
FENCE = b"$3\r\n255\r\n"
PROMOTE = b"*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n"
WIRE: dict[str, tuple[str, bytes, str, bool]] = {
    # name: (which proxy, request, before or after it is passed on, whether it is dropped)
    "wire:enter": ("source", b"$15\r\nvalkeep-cutover\r\n", "after", False),
    "wire:attach": ("target", b"REPLICAOF\r\n$9\r\n127.0.0.1\r\n$5\r\n", "after", False),
    "wire:pause-unsent": ("source", b"*4\r\n$6\r\nCLIENT\r\n$5\r\nPAUSE\r\n", "before", True),
    "wire:pause": ("source", b"*4\r\n$6\r\nCLIENT\r\n$5\r\nPAUSE\r\n", "after", False),
    "wire:fence-unsent": ("source", FENCE, "before", True),
    "wire:fence": ("source", FENCE, "after", False),
    "wire:last-look": ("source", b"$12\r\ncommandstats\r\n", "after", False),
    "wire:promote-unsent": ("target", PROMOTE, "before", True),
    "wire:promote": ("target", PROMOTE, "after", False),
    "wire:keep-unsent": ("source", b"$7\r\nREWRITE\r\n", "before", True),
    "wire:keep": ("source", b"$7\r\nREWRITE\r\n", "after", False),
}
BEHIND_THE_FENCE = {"wire:last-look"}  # there are looks before it, too; and on a busy machine a cut-over may be called off, and tried again
POINTS = (*PHASES, *WIRE)


@dataclass(frozen=True, slots=True)
class Kill:
    """One experiment. ``delay``: seconds after the phase began (no meaning for points on the wire); ``fence``: pause or direct."""

    point: str
    delay: float = 0.0
    source: str = "redis-8.0"
    target: str = "valkey-9.1"
    writers: int = 4
    fence: str = "pause"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``acked``: writes acknowledged when it was judged; ``held``: writers that waited for a reply when the kill fell; ``violations``: empty when all held."""

    kill: Kill
    reached: str
    step: str
    promoted: bool
    fenced: bool
    acked: int
    held: int
    violations: tuple[str, ...]


def perform(kill: Kill, folder: Path, *, plant: Callable[[Any], None] | None = None) -> Outcome:
    """Run one experiment. ``plant``: what to do to a promoted target before it is judged (the judge's own test)."""
    with ExitStack() as stack:
        source = stack.enter_context(nodes.start(kill.source, {**BEFORE}))
        target = stack.enter_context(nodes.start(kill.target))
        here = stack.enter_context(valkey.Valkey(port=source.port))
        there = stack.enter_context(valkey.Valkey(port=target.port))
        for number in range(300):
            here.hset(f"user:{number}", mapping={"name": f"n{number}", "visits": number})
        to_source = stack.enter_context(Proxy(source.address, delay=DELAY))
        to_target = stack.enter_context(Proxy(target.address, delay=DELAY))
        listen = stack.enter_context(_port())
        to_gateway = stack.enter_context(Proxy(("127.0.0.1", listen), delay=DELAY))
        pair = ("--source", to_source.url(), "--target", to_target.url("valkey"), "--state", str(folder / "state"))
        options = (
            "--acknowledge",
            "all",
            "--lease",
            str(LEASE_MS),
            "--listen",
            f"127.0.0.1:{listen}",
            "--announce",
            f"127.0.0.1:{to_gateway.port}",
            "--fence",
            kill.fence,
            *(("--keep-fence",) if kill.point.startswith("wire:keep") else ()),
        )
        writers = stack.enter_context(Writers(source.port, kill.writers))
        writers.wait_for_acks(20)
        with Valkeep("migrate", "run", *pair, *options, folder=folder) as run:
            if kill.point in WIRE:
                which, request, when, drop = WIRE[kill.point]
                proxy = to_source if which == "source" else to_target

                def strike() -> None:
                    if kill.point in BEHIND_THE_FENCE and not _is_fenced(here):
                        proxy.when(request, after=strike)
                    else:
                        run.kill()

                before = strike if when == "before" else None
                proxy.when(request, drop=drop, before=before, after=None if before else strike)
                until(lambda: not run.running, lambda: run.stderr, 90.0)
            else:
                run.wait_for(kill.point, 60)
                time.sleep(kill.delay)
            run.kill()
            held = _held(writers)
            reached = (run.phases() or ["start"])[-1]
            if run.process.returncode not in (-9, 0):
                return Outcome(kill, reached, "", False, False, writers.acked, held, (f"exit {run.process.returncode}: {run.stderr}",))
            violations, step, promoted, fenced = _judge(pair, folder, writers, here, there, run, plant)
        return Outcome(kill, reached, step, promoted, fenced, writers.acked, held, tuple(violations))


def _held(writers: Writers) -> int:
    """The most writers that wait for a reply at one moment of the next tenth of a second."""
    most, deadline = 0, time.monotonic() + 0.1
    while time.monotonic() < deadline:
        most = max(most, writers.held)
        time.sleep(0.01)
    return most


def _judge(
    pair: tuple[str, ...], folder: Path, writers: Writers, here: Any, there: Any, run: Valkeep, plant: Callable[[Any], None] | None
) -> tuple[list[str], str, bool, bool]:
    wrong: list[str] = []
    step = _step(folder)
    time.sleep(4 * DELAY)  # what was sent before the kill is still within the proxies
    promoted = step in ("cutting", "promoted") and there.execute_command("ROLE")[0] == b"master"
    fenced = _is_fenced(here)
    if promoted:
        wrong += _judge_promoted(writers, here, there, plant, fenced=fenced)
        code, said = _valkeep(folder, "migrate", "abort", *pair)
        if code != 4 or "VK-ABORT-PROMOTED" not in said:
            wrong.append(f"abort after the promotion said {code}: {said}")
        code, said = _valkeep(folder, "migrate", "abort", *pair, "--force")
        if code != 0:
            wrong.append(f"abort --force said {code}: {said}")
    else:
        if not fenced:
            try:  # by itself: nobody has done anything yet
                writers.wait_for_acks(3, LEASE_MS / 1000 + 10)
            except AssertionError as error:
                wrong.append(f"not fenced, but: {error}")
        code, said = _valkeep(folder, "migrate", "abort", *pair)
        if (code, step) != (4, "") and code != 0:
            wrong.append(f"abort at {step or 'no step'} said {code}: {said}")
        if there.execute_command("ROLE")[0] != b"master":
            wrong.append("the target still is a replica after abort")
    try:
        writers.wait_for_acks(3)
    except AssertionError as error:
        wrong.append(f"after abort: {error}")
    now = {name: here.config_get(name)[name] for name in BEFORE}
    if now != BEFORE:
        wrong.append(f"settings of the source are {now}")
    writers.stop()
    wrong += [f"source: {one}" for one in lost(writers.acknowledged(), here)][:5]
    try:
        run.assert_nothing_left()
    except AssertionError as error:
        wrong.append(f"left behind: {error}")
    return wrong, step, promoted, fenced


def _judge_promoted(writers: Writers, here: Any, there: Any, plant: Callable[[Any], None] | None, *, fenced: bool) -> list[str]:
    """The target is a primary: it must have everything that was acknowledged, and the source must not acknowledge any more."""
    wrong = [] if fenced else ["the target is a primary and the source is not fenced"]
    if plant is not None:
        plant(there)
    refused, acked = writers.refused, writers.acked
    deadline = time.monotonic() + LEASE_MS / 1000 + 0.5  # beyond the lease: the pause's end must not let anybody through
    while time.monotonic() < deadline:
        time.sleep(0.05)
    if writers.acked != acked:
        wrong.append(f"{writers.acked - acked} writes were acknowledged by the source although the target is a primary")
    if writers.refused == refused:
        wrong.append("the source did not refuse the writers")
    return wrong + [f"target: {one}" for one in lost(writers.acknowledged(), there)][:5]


def _is_fenced(source: Any) -> bool:
    return bool(source.config_get("min-replicas-to-write")["min-replicas-to-write"] == "255")


def _step(folder: Path) -> str:
    try:
        return str(json.loads((folder / "state" / "migration.json").read_text())["step"])
    except FileNotFoundError:
        return ""


def _valkeep(folder: Path, *arguments: str) -> tuple[int, str]:
    with Valkeep(*arguments, folder=folder, report=False) as process:
        return process.wait(), process.stderr


@contextlib.contextmanager
def _port() -> Iterator[int]:
    """A port of our own for the gateway, so that a proxy can stand before it."""
    reservation = ports.reserve()
    try:
        yield reservation.port
    finally:
        reservation.release()
