"""Writes that show when they are done twice, or not at all: counters, appended letters, lists, transactions. And who breaks a push meanwhile."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Self

import valkey

from tests.support.rdb_oracle import said
from valkeep.migrate.delivery.push.door import NAME

__all__ = ["Counting", "kill_pushing", "same"]


class Counting:
    """``with Counting(client, seed) as load``: writes until ``stop``, or until the server refuses. ``done``: pipelines so far."""

    def __init__(self, client: Any, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.done = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        rng = self._random
        while not self._stop.is_set():
            pipe = self._client.pipeline(transaction=rng.random() < 0.3)
            for _ in range(rng.randint(1, 20)):
                self._one(pipe, rng, rng.randint(0, 9))
            try:
                pipe.execute()
            except valkey.ResponseError:  # the source is fenced
                return
            self.done += 1
            time.sleep(0.001)

    @staticmethod
    def _one(pipe: Any, rng: random.Random, name: int) -> None:
        match rng.randint(0, 7):
            case 0:
                pipe.incr(f"counter:{name}")
            case 1:
                pipe.append(f"text:{name}", "x")
            case 2:
                pipe.rpush(f"row:{name}", rng.random())
            case 3:
                pipe.lpop(f"row:{name}")
            case 4:
                pipe.hincrby(f"map:{name}", "n", 3)
            case 5:
                pipe.zincrby(f"board:{name}", 1, "player")
            case 6:
                pipe.set(f"timed:{name}", "v", px=rng.randint(50, 3000))
            case _:
                pipe.expire(f"timed:{name}", 100)


def kill_pushing(there: Any) -> None:
    """Break the delivery's own connections; the verification's stay."""
    for one in there.client_list():
        if one["name"] == NAME:
            there.execute_command("CLIENT", "KILL", "ID", one["id"])


def same(here: Any, there: Any) -> None:
    keys = {key for key in here.keys("*") if not key.startswith(b"timed:")}
    assert keys == {key for key in there.keys("*") if not key.startswith(b"timed:")}
    for key in sorted(keys):
        assert said(here, key) == said(there, key)
