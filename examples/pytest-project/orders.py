"""Orders of a small shop, kept on a primary behind sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from valkey import exceptions
from valkey.sentinel import MasterNotFoundError, Sentinel

T = TypeVar("T")
_AGAIN = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError, MasterNotFoundError)


class NotStored(Exception):
    """The order was not confirmed in time; whether it is there is not known."""


class Orders:
    """``sentinels``: (host, port) of each; ``name``: what they call the primary. ``patience``: seconds for a call, failovers included."""

    def __init__(self, sentinels: list[tuple[str, int]], name: str, patience: float = 40.0) -> None:
        self._primary = Sentinel(sentinels, socket_timeout=0.5).master_for(name, socket_timeout=0.5)
        self._patience = patience

    def place(self, number: int, what: str) -> None:
        """An order is placed when a replica has it too. Placing it again does no harm: its number says that it is the same."""

        def attempt() -> None:
            with self._primary.pipeline(transaction=False) as pipeline:
                pipeline.hset("orders", str(number), what)
                pipeline.execute_command("WAIT", 1, 500)
                if pipeline.execute()[1] < 1:
                    raise exceptions.ConnectionError("no replica confirmed")

        self._persist(attempt)

    def all(self) -> dict[int, str]:
        stored = self._persist(lambda: self._primary.hgetall("orders"))
        return {int(number): what.decode() for number, what in stored.items()}

    def close(self) -> None:
        self._primary.close()

    def _persist(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return attempt()
            except _AGAIN as error:
                if time.monotonic() > deadline:
                    raise NotStored(f"not within {self._patience:g} s: {error}") from error
                time.sleep(0.05)
