"""What the tests of verification share: two servers compared, data of every kind, writers that write everything."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.support.proxy import Proxy
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.runtime.node import Process

__all__ = ["FAR", "Writers", "bounded", "compare", "endpoint", "fill", "follow"]

FAR = 2_000_000_000_000  # unix ms: 2033


def bounded(job: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(90):
            return await job

    return asyncio.run(main())


def endpoint(node: Process) -> Endpoint:
    return Endpoint.parse(node.endpoint)


def compare(source: Process, target: Process, policy: FieldTtl = FieldTtl.REFUSE) -> Comparison:
    async def job() -> Comparison:
        async with Verifier(endpoint(source), endpoint(target), policy) as verifier:
            return await verifier.full()

    result: Comparison = bounded(job())
    return result


def fill(c: Any, *, functions: bool = True) -> None:
    """Every kind of key, small and large encodings, in three databases, by commands alone."""
    for database in (0, 3, 9):
        c.execute_command("SELECT", database)
        for size in (3, 700):
            c.set(f"string:{size}", b"x" * size)
            c.rpush(f"list:{size}", *[f"item {i}" for i in range(size)])
            c.sadd(f"intset:{size}", *range(size))
            c.sadd(f"set:{size}", *[f"member {i}" for i in range(size)])
            c.zadd(f"zset:{size}", {f"member {i}": i / 7 for i in range(size)})
            c.hset(f"hash:{size}", mapping={f"field {i}": f"value {i}" for i in range(size)})
        c.set("int", 12345)
        c.set("ttl", "soon", pxat=FAR)
        c.set(b"\xff\x00 binary", b"\x00\x01")
        for i in range(1, 150):
            c.xadd("stream", {"n": i, "text": "x" * 20}, id=f"{i}-1")
        c.xdel("stream", "7-1")
        c.xgroup_create("stream", "group", "0")
        c.xreadgroup("group", "alice", {"stream": ">"}, count=5)
        c.xreadgroup("group", "bob", {"stream": ">"}, count=5)
        c.xack("stream", "group", "2-1")
        c.pfadd("hll", *range(100))
    c.execute_command("SELECT", 0)
    if functions:
        c.function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)")


def follow(c: Any, source: Process | Proxy) -> None:
    c.replicaof("127.0.0.1", source.port)
    until(lambda: c.info("replication").get("master_link_status") == "up", "the replica's link")


class Writers:
    """Threads that write everything all the time."""

    def __init__(self, port: int, fields_expire: bool) -> None:
        self.port, self.fields_expire = port, fields_expire
        self.writes = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,), daemon=True) for seed in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _write(self, seed: int) -> None:
        import valkey

        rng = random.Random(seed)
        with contextlib.closing(valkey.Valkey(host="127.0.0.1", port=self.port, db=seed * 3)) as c:
            while not self._stop.is_set():
                pipe = c.pipeline(transaction=rng.random() < 0.3)
                for _ in range(20):
                    self._one(pipe, rng)
                with contextlib.suppress(valkey.exceptions.ResponseError):
                    pipe.execute(raise_on_error=False)
                self.writes += 20
                self._stop.wait(0.005)

    def _one(self, pipe: Any, rng: random.Random) -> None:
        k = rng.randrange(3000)
        choice = rng.randrange(15)
        if choice == 0:
            pipe.set(f"s:{k}", rng.random())
        elif choice == 1:
            pipe.incr("hot")
        elif choice == 2:
            pipe.hset(f"h:{k}", f"f{rng.randrange(5)}", rng.random())
        elif choice == 3:
            pipe.rpush(f"l:{k % 300}", rng.random())
        elif choice == 4:
            pipe.lpop(f"l:{k % 300}")
        elif choice == 5:
            pipe.sadd(f"st:{k}", rng.randrange(1000))
        elif choice == 6:
            pipe.spop(f"st:{k}")
        elif choice == 7:
            pipe.zadd(f"z:{k % 100}", {f"m{rng.randrange(9)}": rng.random()})
        elif choice == 8:
            pipe.xadd(f"x:{k % 20}", {"a": k}, maxlen=100)
        elif choice == 9:
            pipe.pexpire(f"s:{k}", rng.randrange(1, 1500))
        elif choice == 10:
            pipe.delete(f"s:{k}", f"h:{k}")
        elif choice == 11:
            pipe.execute_command("COPY", f"h:{k}", f"h2:{k}", "DB", 5, "REPLACE")
        elif choice == 12:
            pipe.execute_command("EVAL", "redis.call('SET', KEYS[1], ARGV[1]); redis.call('INCR', KEYS[2])", 2, f"s:{k}", "hot2", k)
        elif choice == 13 and self.fields_expire:
            pipe.execute_command("HPEXPIRE", f"h:{k}", rng.randrange(1, 1500), "FIELDS", 1, "f1")
        elif choice == 14:
            pipe.execute_command("MOVE", f"st:{k}", 7)
