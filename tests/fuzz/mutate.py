"""The long seeded mutator over everything that reads bytes of others: ``make fuzz``, ``make fuzz ARGS='--seconds 600 --only decoder'``.

A *case* is the name of a target and some bytes. The bytes are made from ``seed/target/number`` alone (structure-aware: see tree.py, seeds.py), and
everything else that varies in a case (pieces, modes, versions) from the bytes, so that the bytes in hex are a whole reproducer.

What a case has to satisfy is in oracle.py and beside each target. Besides:

* no crash: cases run in child processes; one that dies is reported with the case it died of, and the next one goes on behind it;
* no hang: each case has some seconds of CPU time (a timer whose signal no handler can hold up, also not in compiled code);
* no memory by what a length claims: the address space of a child is little larger than what it begins with, and every 50th case runs under
  tracemalloc, with a limit that goes by the case's size.

A child tells where it is through a file in memory that it shares with its parent; what it finds it writes to a pipe, a line of JSON each.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))

from tests.support.interpreted import use_interpreted_wire  # noqa: E402 - after the path

if os.environ.get("VALKEEP_TEST_WIRE") == "interpreted":  # also what has no twin: the transforms
    use_interpreted_wire()

from tests.fuzz.oracle import Target  # noqa: E402 - after the choice of wire

WALL_SECONDS = 120.0
"""Without a new case: the child is given up."""
ADDRESS_SPACE = 192 << 20
"""Bytes of address space that a child may take beyond what it begins with."""
PLACE = struct.Struct("<QQ")  # number of the target, number of the case


def targets() -> dict[str, Target]:
    from tests.fuzz import packed, snapshots, talk, transforms

    return {target.name: target for part in (snapshots, packed, talk, transforms) for target in part.TARGETS}


def with_planted() -> dict[str, Target]:
    from tests.fuzz import planted

    return targets() | {target.name: target for target in planted.TARGETS}


def made(target: Target, seed: int, number: int) -> bytes:
    return target.make(Random(f"{seed}/{target.name}/{number}"))


def checked(target: Target, data: bytes) -> None:
    target.check(data, Random(zlib.crc32(data)))


# --- the child ------------------------------------------------------------------------------------------------------------------


def confined() -> None:
    """From here on, little more address space. Not everywhere can it be limited; Linux can."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def measured(target: Target, data: bytes) -> None:
    """The case under tracemalloc."""
    allowed = (24 << 20) + 3000 * len(data)
    tracemalloc.start()
    try:
        checked(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > allowed:
        raise AssertionError(f"{peak} bytes were allocated for a case of {len(data)} bytes")


def shape(error: BaseException) -> str:
    """What makes two findings the same: the kind of error and the innermost places of our own."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" for frame in frames if "fuzz" not in frame.filename]
    words = str(error).split(":")[0][:60] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {words} {' '.join(ours[-2:])}"


def child(arguments: argparse.Namespace) -> int:
    from tests.fuzz import transforms

    transforms.work_in(arguments.place.with_name(f"{arguments.place.name}-files"))
    known = with_planted()
    chosen = [known[name] for name in arguments.targets.split(",")]
    with arguments.place.open("r+b") as file:
        place = mmap.mmap(file.fileno(), PLACE.size)
    for target in targets().values():  # what is loaded once is not counted as a case's
        try:
            checked(target, made(target, 0, 0))
        except Exception:  # noqa: BLE001 - found again below
            pass
    confined()
    number = arguments.first
    deadline = time.monotonic() + arguments.seconds if arguments.seconds else None
    while arguments.cases is None or number < arguments.cases:
        for index, target in enumerate(chosen):
            if number == arguments.first and index < arguments.skip:
                continue
            if deadline is not None and time.monotonic() > deadline:
                return 0
            PLACE.pack_into(place, 0, index, number)
            data = made(target, arguments.seed, number)
            signal.setitimer(signal.ITIMER_VIRTUAL, arguments.cpu_seconds * (4 if number % 50 == 49 else 1))
            try:
                (measured if number % 50 == 49 else checked)(target, data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                found = {"target": target.name, "number": number, "hex": data.hex(), "shape": shape(error)}
                found["text"] = "".join(traceback.format_exception(error, limit=-6))[-4000:]
                print(json.dumps(found), flush=True)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        number += arguments.step
    return 0


# --- the parent -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Job:
    """One child after another, over every ``step``-th case."""

    names: list[str]
    seed: int
    first: int
    step: int
    folder: Path
    cpu_seconds: float
    skip: int = 0
    cases: int = 0
    process: subprocess.Popen[bytes] | None = None
    rest: bytes = b""
    seen: tuple[int, int] = (0, 0)
    moved: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> Path:
        return self.folder / f"place-{self.first % self.step}"

    def start(self, seconds: float, cases: int | None) -> None:
        if not self.place.exists():
            self.place.write_bytes(bytes(PLACE.size))
        command = [
            sys.executable,
            __file__,
            "--child",
            "--place",
            str(self.place),
            "--targets",
            ",".join(self.names),
            "--seed",
            str(self.seed),
        ]
        command += [
            "--cpu-seconds",
            str(self.cpu_seconds),
            "--first",
            str(self.first),
            "--step",
            str(self.step),
            "--skip",
            str(self.skip),
            "--seconds",
            str(seconds),
        ]
        command += [] if cases is None else ["--cases", str(cases)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.moved = time.monotonic()

    def where(self) -> tuple[int, int]:
        index, number = PLACE.unpack(self.place.read_bytes())
        return index, number


class Report:
    """Findings, each shape told once."""

    def __init__(self, save: Path, most: int) -> None:
        self.save = save
        self.most = most
        self.shapes: Counter[str] = Counter()

    def tell(self, target: str, seed: int, number: int, data: bytes, shape: str, text: str) -> None:
        self.shapes[f"{target} {shape}"] += 1
        if self.shapes[f"{target} {shape}"] > 1 or len(self.shapes) > self.most:
            return
        self.save.mkdir(parents=True, exist_ok=True)
        path = self.save / f"{target}-{zlib.crc32(data):08x}.hex"
        path.write_text(data.hex() + "\n")
        print(f"\nFOUND in {target}, seed {seed}, case {number}, {len(data)} bytes: {shape}\n{text.rstrip()}")
        print(f"  input: {data.hex() if len(data) <= 2000 else data[:1000].hex() + '…, whole in ' + str(path)}")
        print(f"  replay: python tests/fuzz/mutate.py --replay {path}", flush=True)


def ended(job: Job, report: Report, known: dict[str, Target]) -> bool:
    """Say what the child died of. Whether another one should go on behind it."""
    assert job.process is not None
    _, errors = job.process.communicate()
    status = job.process.returncode
    job.process = None
    if status == 0:
        return False
    index, number = job.where()
    if status == 1:
        raise SystemExit(f"a child of the mutator failed by itself, near case {number}:\n{errors.decode(errors='replace')[-4000:]}")
    what = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    what = {"SIGVTALRM": "hang: more CPU time than one case may take", "SIGKILL": "killed (out of memory, or no progress)"}.get(what, what)
    target = known[job.names[index]]
    report.tell(target.name, job.seed, number, made(target, job.seed, number), f"crash: {what}", errors.decode(errors="replace")[-2000:])
    job.first, job.skip = number, index + 1
    return True


def run(arguments: argparse.Namespace) -> int:
    known = with_planted()
    names = arguments.only or list(targets())
    for name in names:
        if name not in known:
            raise SystemExit(f"no target {name!r}; there are {', '.join(targets())}")
    report = Report(arguments.save, arguments.most)
    began = time.monotonic()
    deadline = began + arguments.seconds
    memory = Path("/dev/shm")  # the files of channels, some thousand times a second
    with tempfile.TemporaryDirectory(prefix="valkeep-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        jobs = [
            Job(list(names), arguments.seed, first, arguments.jobs, Path(folder), arguments.cpu_seconds) for first in range(arguments.jobs)
        ]
        with selectors.DefaultSelector() as selector:
            try:
                for job in jobs:
                    _begin(job, selector, arguments, deadline)
                while selector.get_map():
                    for key, _ in selector.select(timeout=1.0):
                        _hear(key.data, key.fileobj, selector, report, known, arguments, deadline)
                    _watch(jobs)
            finally:
                for job in jobs:
                    if job.process is not None:
                        job.process.kill()
                        job.process.wait()
        done = sum((job.where()[1] - number) // job.step + 1 for number, job in enumerate(jobs))
    print(
        f"{len(names)} targets, about {done * len(names)} cases in {time.monotonic() - began:.0f} s, seed {arguments.seed}: "
        + (
            f"{len(report.shapes)} different findings ({sum(report.shapes.values())} cases), saved in {arguments.save}"
            if report.shapes
            else "nothing found"
        )
    )
    return 1 if report.shapes else 0


def _begin(job: Job, selector: selectors.BaseSelector, arguments: argparse.Namespace, deadline: float) -> None:
    job.start(0 if arguments.cases is not None else max(0.1, deadline - time.monotonic()), arguments.cases)
    assert job.process is not None
    assert job.process.stdout is not None
    selector.register(job.process.stdout, selectors.EVENT_READ, job)


def _hear(
    job: Job,
    pipe: Any,
    selector: selectors.BaseSelector,
    report: Report,
    known: dict[str, Target],
    arguments: argparse.Namespace,
    deadline: float,
) -> None:
    data = pipe.read()
    if data is None:
        return
    if data:
        lines = (job.rest + data).split(b"\n")
        job.rest = lines.pop()
        for line in lines:
            found = json.loads(line)
            report.tell(found["target"], job.seed, found["number"], bytes.fromhex(found["hex"]), found["shape"], found["text"])
        return
    selector.unregister(pipe)
    again = ended(job, report, known)
    if again and len(report.shapes) <= report.most and (arguments.cases is not None or time.monotonic() < deadline):
        _begin(job, selector, arguments, deadline)


def _watch(jobs: list[Job]) -> None:
    """A child that stands still without using the processor is ended; its end is then told like a crash."""
    now = time.monotonic()
    for job in jobs:
        seen = job.where()
        if seen != job.seen:
            job.seen, job.moved = seen, now
        elif job.process is not None and now - job.moved > WALL_SECONDS:
            job.process.kill()


def replay(arguments: argparse.Namespace) -> int:
    known = with_planted()
    if arguments.replay:
        name, data = arguments.replay.name.rpartition("-")[0], bytes.fromhex(arguments.replay.read_text())
    else:
        name = arguments.only[0]
        data = bytes.fromhex(arguments.hex) if arguments.hex is not None else made(known[name], arguments.seed, arguments.case)
    print(f"{name}: {data[:200]!r}{'…' if len(data) > 200 else ''}")
    measured(known[name], data)
    print("nothing found")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutates bytes for everything that reads bytes of others.")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default 120)")
    parser.add_argument("--cases", type=int, help="instead of --seconds: so many cases of each target")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--only", action="append", metavar="NAME", help="this target (may be given more than once)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument(
        "--save", type=Path, default=ROOT / ".cache" / "fuzz", metavar="DIR", help="where failing inputs go (default .cache/fuzz)"
    )
    parser.add_argument("--most", type=int, default=20, help="different findings to show (default 20)")
    parser.add_argument("--cpu-seconds", type=float, default=5.0, help="what one case may take (default 5; usual ones take milliseconds)")
    parser.add_argument("--list", action="store_true", help="the names of the targets")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a saved input, in this process")
    parser.add_argument("--hex", help="run this input of --only NAME, in this process")
    parser.add_argument("--case", type=int, help="run the case of this number of --only NAME and --seed, in this process")
    for name, kind in (("place", Path), ("targets", str), ("first", int), ("step", int), ("skip", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "little")
    if arguments.list:
        print("\n".join(targets()))
        return 0
    if (arguments.hex is not None or arguments.case is not None) and len(arguments.only or ()) != 1:
        parser.error("--hex and --case need --only NAME, once")
    if arguments.replay or arguments.hex is not None or arguments.case is not None:
        return replay(arguments)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
