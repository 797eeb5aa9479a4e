"""The processes of a verification: ``python -m valkeep.migrate.verify.worker NAME``, for `lines.Worker` only.

``main`` drives the whole (`session.Session`); ``side`` reads the target's snapshot and compares half of the partitions. Each ends when its
standard input does, that is, also when whoever started it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from valkeep.errors import ExitCode, LocalProtocolError
from valkeep.migrate.verify.crossing import Line, endpoint_from, error_from, pack, unpack
from valkeep.migrate.verify.lines import Mouth
from valkeep.migrate.verify.result import Comparison, Difference

__all__: list[str] = []


async def _side(mouth: Mouth) -> None:
    from valkeep.client.replication_reader import ReplicationReader
    from valkeep.migrate.verify.compare import compare_partitions
    from valkeep.migrate.verify.file_side import read_file
    from valkeep.migrate.verify.memory import peak_memory
    from valkeep.migrate.verify.mode import Mode
    from valkeep.migrate.verify.scan import read_by_scan
    from valkeep.migrate.verify.side import PRESENT_AS, Snapshot, Spill, read_snapshot
    from valkeep.wire.psync import ReplicationDenied

    asked: Line = {}
    link: ReplicationReader | None = None
    about = 0

    def progress(keys: int, size: int) -> None:
        mouth.say("progress", about, keys=keys, bytes=size)

    def spill() -> Spill:
        return Spill(
            Path(asked["directory"]),
            "target",
            unpack(asked["key"]),
            asked["partitions"],
            Mode.EXACT,
            more=asked["more"],
            ranges=asked["ranges"],
        )

    def done(read: Snapshot) -> None:
        mouth.say("done", about, keys=read.keys, bytes=read.bytes, functions=read.functions, memory=peak_memory())

    async for line in mouth.asked_or_gone():
        about = line["id"]
        try:
            if line["do"] == "snapshot":
                asked = line
                if line["read"] == "scan":
                    mouth.say("denied", about)
                    continue
                try:
                    link = await ReplicationReader.open(endpoint_from(line["endpoint"]), present_as=PRESENT_AS)
                except ReplicationDenied:
                    mouth.say("denied", about)
                else:
                    mouth.say("fork", about, replid=link.replid, offset=link.offset)
            elif line["do"] == "drop" and link is not None:
                await link.close()
            elif line["do"] == "go" and link is not None:
                read = await read_snapshot(link.snapshot(), spill(), progress)
                await link.close()
                done(read)
            elif line["do"] == "scan":
                done(await read_by_scan(endpoint_from(asked["endpoint"]), spill(), progress, asked["ranges"]))
            elif line["do"] == "file":
                done(await read_file(line, progress))
            elif line["do"] == "compare":
                directory = Path(line["directory"])
                counts = await compare_partitions(
                    directory, line["partitions"], line["deadline"], final=line["final"], out=directory / line["out"]
                )
                mouth.say("compared", about, counts=counts)
        except Exception as error:  # noqa: BLE001 - told to the other end, which raises it
            mouth.fail(error, about)


class _Main:
    """Works on one request after the other, and meanwhile hears the answers to what it asked itself, and what is given up on."""

    def __init__(self, mouth: Mouth, directory: Path) -> None:
        self.mouth = mouth
        self.directory = directory
        self.session: Any = None
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._barrier_closes: Callable[[], Awaitable[None]] | None = None

    async def run(self) -> None:
        try:
            async for line in self.mouth.asked():
                if line["do"] == "answer":
                    self._answered(line)
                elif line["do"] == "cancel":
                    if (job := self._jobs.get(line["about"])) is not None:
                        job.cancel()
                else:
                    self._jobs[line["id"]] = asyncio.create_task(self._job(line))
        finally:
            for task in list(self._jobs.values()):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            if self.session is not None:
                await self.session.close()
            if self._barrier_closes is not None:
                await self._barrier_closes()

    def _answered(self, line: Line) -> None:
        future = self._answers.pop(line["about"], None)
        if future is not None and not future.done():  # nobody may be waiting any more
            if line["error"] is None:
                future.set_result(None)
            else:
                future.set_exception(error_from(line["error"]))

    async def _job(self, line: Line) -> None:
        try:
            async with self._turn:
                result = await self._do(line)
            self.mouth.say("result", line["id"], result=result.to_json() if isinstance(result, Comparison) else result)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the other end, which raises it
            self.mouth.fail(error, line["id"])
        finally:
            del self._jobs[line["id"]]

    async def _do(self, line: Line) -> Any:
        match line["do"]:
            case "open":
                return await self._open(line)
            case "full":
                return await self.session.full()
            case "round":
                return await self.session.round()
            case "final":
                return await self.session.final(line["offset"])
            case "repair":
                chosen = None if line["chosen"] is None else [Difference.from_json(one) for one in line["chosen"]]
                return await self.session.repair(chosen, self._recopy if line["recopy"] else None)
        raise LocalProtocolError(f"unknown request {line['do']!r}", remedy="this is a bug of Valkeep: please report it")

    async def _open(self, line: Line) -> Line:
        from valkeep.migrate.transform.target import FieldTtl
        from valkeep.migrate.verify.barrier import Relation, StandaloneBarrier
        from valkeep.migrate.verify.session import Session, VerifySettings
        from valkeep.migrate.verify.shards import Shards

        slots = tuple((first, last) for first, last in line["slots"])
        source = await Shards.open(endpoint_from(line["source"]), only=slots)
        try:
            target = await Shards.open(endpoint_from(line["target"]), within=slots)
        except BaseException:
            await source.close()
            raise
        relation = Relation.PIPELINE
        barrier: Callable[[int], Awaitable[None]] = self._barrier
        try:
            if not line["barrier"]:
                own = await StandaloneBarrier.between(source, target)
                self._barrier_closes = own.close
                barrier, relation = own, own.relation
        except BaseException:
            await source.close()
            await target.close()
            raise
        read, patience = line["read"], line["patience"]
        settings = VerifySettings(source, target, FieldTtl(line["policy"]), relation, self.directory, patience, read[0], read[1], slots)
        self.session = Session(settings, barrier, self.mouth.say)
        await self.session.open()
        return {"barrier": str(relation), "shards": (len(source), len(target))}

    async def _ask(self, word: str, **more: Any) -> None:
        self._number += 1
        number = self._number
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self.mouth.say(word, id=number, **more)
        try:
            await future
        finally:
            self._answers.pop(number, None)

    async def _barrier(self, offset: int) -> None:
        await self._ask("barrier", offset=offset)

    async def _recopy(self, database: int, key: bytes) -> None:
        await self._ask("recopy", database=database, key=pack(key))


async def _run(name: str) -> None:
    mouth = await Mouth.open()
    if name == "side":
        await _side(mouth)
        return
    async for line in mouth.asked():
        try:
            await _Main(mouth, Path(line["folder"])).run()
        finally:
            shutil.rmtree(line["folder"], ignore_errors=True)
        return


def main() -> None:
    # Ctrl-C reaches the foreground's whole process group; this process is in its own, and ends when its standard input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(ExitCode.TERMINATED)))
    asyncio.run(_run(sys.argv[1]))


if __name__ == "__main__":
    main()
