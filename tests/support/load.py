"""Writes of every kind at a source, as fast as it takes them: transactions, large values, several databases, and commands that a gateway has to translate."""

from __future__ import annotations

import threading
from random import Random
from typing import Any, Self

import valkey

__all__ = ["Load", "digest"]


class Load:
    """``with Load(port, seed) as load``; ``done`` counts what was written. ``stop`` returns when the last write was acknowledged."""

    def __init__(self, port: int, seed: int, *, pace: float = 0.001) -> None:
        self.done = 0
        self._port = port
        self._chance = Random(seed)
        self._pace = pace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def stop(self) -> None:
        self.__exit__()
        if self._error is not None:
            raise self._error

    def pause(self, seconds: float) -> None:
        """Wait while it goes on."""
        self._stop.wait(seconds)

    def _work(self) -> None:
        try:
            with valkey.Valkey(host="127.0.0.1", port=self._port) as here:
                while not self._stop.wait(self._pace):
                    self._write(here)
                    self.done += 1
        except Exception as error:  # noqa: BLE001 - told by ``stop``
            self._error = error

    def _write(self, here: Any) -> None:
        chance = self._chance
        kind = chance.randrange(10)
        number = chance.randrange(200)
        if kind == 0:
            here.set(f"large:{number % 5}", chance.randbytes(chance.choice([1 << 16, 1 << 20])))
            return
        pipe = here.pipeline(transaction=kind < 6)
        pipe.execute_command("SELECT", chance.randrange(3))
        for _ in range(chance.choice([1, 3, 40])):
            number = chance.randrange(200)
            match chance.randrange(8):
                case 0:
                    pipe.incr(f"counter:{number}")
                case 1:
                    pipe.rpush(f"list:{number % 20}", chance.randbytes(10))
                case 2:
                    pipe.hset(f"hash:{number % 20}", f"f{number}", number)
                    pipe.execute_command("HPEXPIRE", f"hash:{number % 20}", 10_000_000, "FIELDS", 1, f"f{number}")
                case 3:
                    pipe.hincrby(f"hash:{number % 20}", f"n{number % 3}", 1)
                case 4:
                    pipe.append(f"k{number}", "x")
                case 5:
                    pipe.delete(f"list:{number % 20}")
                case 6:
                    pipe.set(f"ttl:{number}", number, ex=100_000)
                case _:
                    pipe.sadd(f"set:{number % 9}", number, number + 1)
        pipe.execute()


def digest(node: Any, *, lasting: bool = False) -> dict[int, dict[bytes, Any]]:
    """Everything a server holds, by ordinary commands: of each database, each key's value and when it expires. ``lasting``: of a hash only the fields that do
    not expire."""
    found: dict[int, dict[bytes, Any]] = {}
    for database in range(3):
        node.execute_command("SELECT", database)
        keys = sorted(node.scan_iter(count=1000))
        pipe = node.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command("DEBUG", "DIGEST-VALUE", key)
            pipe.pexpiretime(key)
        replies = pipe.execute()
        found[database] = {key: (replies[at * 2], replies[at * 2 + 1]) for at, key in enumerate(keys)}
        for key in keys:
            if key.startswith(b"hash:"):  # whose digests are made differently by the two
                found[database][key] = _fields(node, key, lasting=lasting)
        found[database] = {key: value for key, value in found[database].items() if value}
    node.execute_command("SELECT", 0)
    return found


def _fields(node: Any, key: bytes, *, lasting: bool) -> dict[bytes, Any]:
    fields = node.hgetall(key)
    info = node.info("server")
    if not fields or (info.get("server_name") == "valkey" and info["valkey_version"] < "9"):
        return dict(fields)
    ends = node.execute_command("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
    found = {name: (value, end) for (name, value), end in zip(fields.items(), ends, strict=True)}
    return {name: value for name, (value, end) in found.items() if end == -1} if lasting else dict(found)
