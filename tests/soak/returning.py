"""The experiment of the way back's soak: Valkeep is killed (SIGKILL) at one point of it while writers write to both sides; then what must hold is judged.

What must hold, wherever the kill falls:

    *  At every moment at most one side acknowledges writes.
    *  ``valkeep migrate rollback`` (or ``commit``), said again, brings it to an end, also when it is killed once more itself.
    *  Rolled back, the old server has every write that either side ever acknowledged, accepts writes, and its settings are as before; the new one refuses.
    *  Committed, the new server has them all and accepts; the old one refuses.
    *  Nobody needs a second full sync, and nothing is left behind.

Points are phases, with a delay, or requests on the wire (``attach``, ``rollback``, ``commit``): there the kill falls before the request reaches the server,
or right after.
"""

from __future__ import annotations

import contextlib
import json
import time
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

__all__ = ["POINTS", "Outcome", "Return", "perform"]

DELAY = 0.001  # s, added to each piece each way
BEFORE = {"min-replicas-to-write": "0", "min-replicas-max-lag": "7"}
ATTACH = b"REPLICAOF\r\n$9\r\n127.0.0.1\r\n"
PROMOTE = b"*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n"
PAUSE = b"*4\r\n$6\r\nCLIENT\r\n$5\r\nPAUSE\r\n"
FENCE = b"$3\r\n255\r\n"
LIFT = b"$21\r\nmin-replicas-to-write\r\n$1\r\n0\r\n"

PHASES = ("way-back:attach", "way-back:current")
WIRE: dict[str, tuple[str, str, bytes, str]] = {
    # name: (what is said meanwhile, which proxy, request, before or after it is passed on)
    "attach-unsent": ("", "old", ATTACH, "before"),
    "attach": ("", "old", ATTACH, "after"),
    "rollback:pause": ("rollback", "new", PAUSE, "after"),
    "rollback:fence-unsent": ("rollback", "new", FENCE, "before"),
    "rollback:fence": ("rollback", "new", FENCE, "after"),
    "rollback:promote-unsent": ("rollback", "old", PROMOTE, "before"),
    "rollback:promote": ("rollback", "old", PROMOTE, "after"),
    "rollback:lift-unsent": ("rollback", "old", LIFT, "before"),
    "rollback:lift": ("rollback", "old", LIFT, "after"),
    "commit:detach-unsent": ("commit", "old", PROMOTE, "before"),
    "commit:detach": ("commit", "old", PROMOTE, "after"),
}
POINTS = (*PHASES, *WIRE)


@dataclass(frozen=True, slots=True)
class Return:
    """One experiment. ``delay``: seconds after the phase began, ``again``: seconds after which the first attempt to end it is killed, too (0: it is not);
    ``end``: rollback or commit; ``lease``: ms."""

    point: str
    delay: float = 0.0
    again: float = 0.0
    end: str = "rollback"
    old: str = "redis-8.0"
    new: str = "valkey-9.1"
    lease: int = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """``acked``: writes acknowledged by the old and the new server; ``violations``: empty when all held."""

    kill: Return
    ended: str
    acked: tuple[int, int]
    violations: tuple[str, ...]


@dataclass
class _Scene:
    pair: tuple[str, ...]
    folder: Path
    here: Any
    there: Any
    before: Writers
    after: Writers
    lease: float  # seconds

    def valkeep(self, command: str, *more: str) -> Valkeep:
        return Valkeep("migrate", command, *self.pair, *more, folder=self.folder / command, report=False)


def perform(kill: Return, folder: Path, *, plant: bool = False) -> Outcome:
    """Run one experiment. ``plant``: take one write away from whoever has won (the judge's own test)."""
    with ExitStack() as stack:
        old = stack.enter_context(nodes.start(kill.old, {**BEFORE}))
        new = stack.enter_context(nodes.start(kill.new))
        here = stack.enter_context(valkey.Valkey(port=old.port))
        there = stack.enter_context(valkey.Valkey(port=new.port))
        here.mset({f"k{number}": number for number in range(300)})
        for number in range(100):  # they expire by themselves all the time
            here.set(f"brief{number}", number, px=2000 + 40 * number)
        proxies = {
            "old": stack.enter_context(Proxy(old.address, delay=DELAY)),
            "new": stack.enter_context(Proxy(new.address, delay=DELAY)),
        }
        pair = ("--source", proxies["old"].url(), "--target", proxies["new"].url("valkey"), "--state", str(folder / "state"))
        before = stack.enter_context(Writers(old.port, 2, prefix="old"))
        before.wait_for_acks(5)
        with Valkeep("migrate", "run", *pair, "--acknowledge", "all", "--lease", str(kill.lease), "--rollback", folder=folder) as run:
            run.wait_for("online")
            after = stack.enter_context(Writers(new.port, 2, prefix="new"))
            scene = _Scene(pair, folder, here, there, before, after, kill.lease / 1000)
            wrong = _kill(kill, run, proxies, scene)
            wrong += _one_side_at_most(scene)
            if kill.again:
                with scene.valkeep(kill.end) as first:
                    time.sleep(kill.again)
                    first.kill()
                wrong += _one_side_at_most(scene)
            ended = _end(kill, scene, wrong)
            if plant:
                (here if ended == "rolled-back" else there).delete("list:new0")
            wrong += _judge(ended, scene)
            with contextlib.suppress(AssertionError):
                run.assert_nothing_left(folder / "state")
                return Outcome(kill, ended, (before.acked, after.acked), tuple(wrong))
            return Outcome(kill, ended, (before.acked, after.acked), (*wrong, "something was left behind"))


def _kill(kill: Return, run: Valkeep, proxies: dict[str, Proxy], scene: _Scene) -> list[str]:
    if kill.point in PHASES:
        run.wait_for(kill.point)
        if kill.point == "way-back:current":
            scene.after.wait_for_acks(5)
        time.sleep(kill.delay)
        run.kill()
        return []
    said, which, request, when = WIRE[kill.point]
    proxy = proxies[which]

    def watch() -> Any:
        return proxy.when(
            request, drop=when == "before", before=run.kill if when == "before" else None, after=run.kill if when == "after" else None
        )

    if not said:
        seen = watch()
        until(lambda: seen.is_set() or not run.running, lambda: run.stderr, 90.0)
    else:
        run.wait_for("way-back:current")
        scene.after.wait_for_acks(5)
        seen = watch()
        with scene.valkeep(said) as asking:
            until(lambda: seen.is_set() or not run.running, lambda: run.stderr, 90.0)
            run.kill()
            asking.wait()
    run.kill()
    return [] if run.process.returncode in (-9, 0) else [f"exit {run.process.returncode}: {run.stderr}"]


def _one_side_at_most(scene: _Scene) -> list[str]:
    """In the next moments, longer than the lease, one side acknowledges, or none."""
    deadline = time.monotonic() + scene.lease + 0.3
    last = scene.before.acked, scene.after.acked
    sides = set()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = scene.before.acked, scene.after.acked
        sides |= {name for name, was, is_ in zip(("old", "new"), last, now, strict=True) if is_ > was}
        last = now
    return ["both sides acknowledge writes"] if len(sides) > 1 else []


def _end(kill: Return, scene: _Scene, wrong: list[str]) -> str:
    """Say it again until it is over; what it is then."""
    with scene.valkeep(kill.end, *(("--lease", "30000") if kill.end == "rollback" else ())) as process:
        code = process.wait()
        text = process.stderr
    ended = str(json.loads((scene.folder / "state" / "migration.json").read_text())["step"])
    if code != 0 and not (kill.end == "commit" and ended == "rolled-back" and "VK-ROLLBACK-NONE" in text):
        already = kill.end == "rollback" and ended == "committed" and "VK-ROLLBACK-NONE" in text
        if not already:
            wrong.append(f"{kill.end} said {code}: {text}")
    elif ended == "committed" and kill.end == "rollback":
        wrong.append("a rollback ended committed")
    if ended == "committed" and code != 0:  # killed in the middle of a commit: said again, it is finished
        with scene.valkeep("commit") as process:
            if process.wait() != 0:
                wrong.append(f"commit said {process.stderr}")
    return ended


def _judge(ended: str, scene: _Scene) -> list[str]:
    winner, loser, writing, refused = (
        (scene.here, scene.there, scene.before, scene.after)
        if ended == "rolled-back"
        else (scene.there, scene.here, scene.after, scene.before)
    )
    wrong = []
    try:
        writing.wait_for_acks(3)
    except AssertionError as error:
        wrong.append(f"{ended}, but its writers: {error}")
    acked, no = refused.acked, refused.refused
    time.sleep(0.3)
    with contextlib.suppress(AssertionError):
        until(lambda: refused.refused > no, "it refuses", 30)
    if refused.acked != acked or refused.refused == no:
        wrong.append(f"{ended}, and the other side acknowledged {refused.acked - acked} writes and refused {refused.refused - no}")
    scene.before.stop()
    scene.after.stop()
    for writers in (scene.before, scene.after):
        wrong += lost(writers.acknowledged(), winner)[:5]
    if ended == "rolled-back" and (now := {name: winner.config_get(name)[name] for name in BEFORE}) != BEFORE:
        wrong.append(f"settings of the old server are {now}")
    if loser.info()["sync_partial_err"] or winner.info()["sync_partial_err"]:
        wrong.append("a server had to be synchronised anew")
    return wrong
