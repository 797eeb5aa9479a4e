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

from valkeep.errors import ExitCode, ValkeepError
from valkeep.migrate.verify.lines import Line, Mouth, endpoint_from, pack, unpack
from valkeep.migrate.verify.result import Comparison, Difference

__all__: list[str] = []


async def _side(mouth: Mouth) -> None:
    from valkeep.client.replication_reader import ReplicationReader
    from valkeep.migrate.verify.compare import compare_partitions
    from valkeep.migrate.verify.memory import peak_memory
    from valkeep.migrate.verify.scan import read_by_scan
    from valkeep.migrate.verify.side import PRESENT_AS, read_snapshot
    from valkeep.wire.psync import ReplicationDenied

    asked: Line = {}
    link: ReplicationReader | None = None

    def progress(keys: int, size: int) -> None:
        mouth.say("progress", keys=keys, bytes=size)

    async for line in mouth.asked_or_gone():
        try:
            if line["do"] == "snapshot":
                asked = line
                try:
                    link = await ReplicationReader.open(endpoint_from(line["endpoint"]), present_as=PRESENT_AS)
                except ReplicationDenied as error:
                    mouth.say("denied", reason=error.message)
                else:
                    mouth.say("fork", replid=link.replid, offset=link.offset)
            elif line["do"] == "drop" and link is not None:
                await link.close()
            elif line["do"] == "go" and link is not None:
                directory, key = Path(asked["directory"]), unpack(asked["key"])
                done = await read_snapshot(link.snapshot(), directory, "target", key, asked["partitions"], asked["mode"], progress)
                await link.close()
                mouth.say("done", keys=done.keys, bytes=done.bytes, functions=done.functions, memory=peak_memory())
            elif line["do"] == "scan":
                directory, key = Path(asked["directory"]), unpack(asked["key"])
                server = endpoint_from(asked["endpoint"])
                done = await read_by_scan(server, directory, "target", key, asked["partitions"], asked["mode"], progress)
                mouth.say("done", keys=done.keys, bytes=done.bytes, functions=done.functions, memory=peak_memory())
            elif line["do"] == "compare":
                directory = Path(line["directory"])
                counts = compare_partitions(
                    directory, line["partitions"], line["deadline"], final=line["final"], out=directory / line["out"]
                )
                mouth.say("compared", counts=counts)
        except Exception as error:  # noqa: BLE001 - told to the other end, which raises it
            mouth.fail(error)


class _Main:
    """Takes requests one at a time, and meanwhile the answers to what it asked itself."""

    def __init__(self, mouth: Mouth, directory: Path) -> None:
        self.mouth = mouth
        self.directory = directory
        self.session: Any = None
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._jobs: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            async for line in self.mouth.asked():
                if line["do"] == "answer":
                    future = self._answers.pop(line["id"], None)
                    if future is not None and not future.done():
                        if line["ok"]:
                            future.set_result(None)
                        else:
                            future.set_exception(ValkeepError(line["message"], remedy=line["remedy"]))
                    continue
                task = asyncio.create_task(self._job(line))
                self._jobs.add(task)
                task.add_done_callback(self._jobs.discard)
        finally:
            for task in list(self._jobs):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            if self.session is not None:
                await self.session.close()

    async def _job(self, line: Line) -> None:
        try:
            result = await self._do(line)
            self.mouth.say("result", comparison=result.to_json() if isinstance(result, Comparison) else result)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the other end, which raises it
            self.mouth.fail(error)

    async def _do(self, line: Line) -> Any:
        if line["do"] == "open":
            return await self._open(line)
        if line["do"] == "full":
            return await self.session.full()
        if line["do"] == "round":
            return await self.session.round()
        if line["do"] == "final":
            return await self.session.final(line["offset"])
        if line["do"] == "repair":
            chosen = None if line["chosen"] is None else [Difference.from_json(one) for one in line["chosen"]]
            return await self.session.repair(chosen, self._recopy if line["recopy"] else None)
        raise ValkeepError(f"unknown request {line['do']!r}", remedy="this is a bug of Valkeep: please report it")

    async def _open(self, line: Line) -> Line:
        from valkeep.client.connection import Connection
        from valkeep.migrate.verify.barrier import StandaloneBarrier
        from valkeep.migrate.verify.session import Session, Settings

        source, target = endpoint_from(line["source"]), endpoint_from(line["target"])
        exact, how = True, "the pipeline's barrier"
        barrier: Callable[[int], Awaitable[None]] = self._barrier
        if not line["barrier"]:
            one = await Connection.open(source, client_name="valkeep-verify")
            try:
                other = await Connection.open(target, client_name="valkeep-verify")
                own = await StandaloneBarrier.between(one, other)
            finally:
                await one.close()
            barrier, exact, how = own, own.exact, own.how
        self.session = Session(Settings(source, target, line["mode"], exact, self.directory), barrier, self.mouth.say)
        await self.session.open()
        return {
            "source": self.session.source_info.name,
            "target": self.session.target_info.name,
            "barrier": how,
            "exact": exact,
        }

    async def _ask(self, word: str, **more: Any) -> None:
        self._number += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = future
        self.mouth.say(word, id=self._number, **more)
        await future

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
