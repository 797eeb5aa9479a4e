"""What a client library has to offer to be drilled in place of the recorder's own connections.

The recorder keeps what is the same for all: which operations, when, what is written down. A driver opens *sessions*; each is used by one
task, which performs one operation after the other and never two at once. So a history's order holds whatever the library does about its
connections inside. A library that calls block performs them in a thread (``asyncio.to_thread``).

    the library returned                        the reply or replies, as the wire says them: the mix understands them
    the library raised a server's refusal       ``ServerError`` with the server's first word: surely not done …
    … after it may have tried before            ``Shown(…, definite=False)``: a hidden retry may have done it
    the library raised anything else            ``Shown``, definite only where nothing can have been sent

An operation in doubt ends its process, as everywhere; the session is used on, because that is what an application does with a client.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.mixes import Step
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import UsageError, ValkeepError

__all__ = ["DRIVERS", "Answer", "Driver", "Session", "Shown", "driver_of"]

DRIVERS: Final[Mapping[str, str]] = {"valkey-py": "valkey_py", "redis-py": "redis_py", "glide": "glide", "valkeep": "resilient"}
"""Name → module in `drivers`. The recorder itself is no driver."""


class Shown(ValkeepError):
    """An error that a library showed to its caller. ``kind``: one word, the name of the exception; it is what histories record."""

    def __init__(self, kind: str, text: str, *, definite: bool) -> None:
        super().__init__(f"{kind}: {text}", remedy="see the library's documentation", definite=definite)
        self.kind = kind


class Answer(NamedTuple):
    """``replies``: one for each command of the step (bytes, int, None, list or ServerError). ``node``: the name of the node that answered,
    "" where the library does not tell (`Targets.place` finds the name to an address)."""

    replies: Sequence[Any]
    node: str = ""


class Session(Protocol):
    """One client as an application has it."""

    async def perform(self, step: Step) -> Answer:
        """All commands of the step (a transaction: MULTI, …, EXEC). Raises ``ServerError`` or `Shown`."""

    async def close(self) -> None: ...


class Driver(Protocol):
    """A library. ``version``: as the library says."""

    name: str

    @property
    def version(self) -> str: ...

    async def open(self, client: ClientSpec, targets: Targets) -> Session:
        """A session of its own for each call. Raises ``ValkeepError`` when the library is missing or does not fit this kind of topology."""


def driver_of(name: str) -> Driver:
    """Raises ``UsageError`` when there is none of this name."""
    if name not in DRIVERS:
        raise UsageError(f"there is no client called {name!r}", remedy=f"clients are recorder, {', '.join(DRIVERS)}")
    driver: Driver = importlib.import_module(f"valkeep.drill.workloads.drivers.{DRIVERS[name]}").DRIVER
    return driver
