"""One connection of somebody who looks: what it said about itself, and its next answer."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Guest"]


class Guest:
    """``number``: its id. ``now``: seconds since 1970. ``answer`` takes a request and gives the bytes of the reply, by ``reply`` (see `answers.reply`).
    ``unwelcome``: why it gets no answer any more, not even its last one, and is hung up on."""

    def __init__(self, number: int, reply: Callable[[Guest, tuple[bytes, ...]], bytes], now: float) -> None:
        self.number = number
        self.proto = 2
        self.database = 0
        self.name = ""
        self.unwelcome = ""
        self.library = {"lib-name": "", "lib-ver": ""}
        self.peer = "?:0"
        self.local = "?:0"
        self.came = now
        self.heard = now
        self.command = ""
        self.commands = 0
        self._reply = reply

    def answer(self, args: tuple[bytes, ...]) -> bytes:
        """Nothing that is asked makes this raise: what is not known is an error reply."""
        self.commands += 1
        return self._reply(self, args)

    def reset(self) -> None:
        """As if it had just connected."""
        self.proto, self.database, self.name = 2, 0, ""

    def line(self, now: float) -> str:
        """Its line of CLIENT LIST."""
        library = " ".join(f"{name}={value}" for name, value in self.library.items())
        return (
            f"id={self.number} addr={self.peer} laddr={self.local} fd={self.number} name={self.name} age={int(now - self.came)} "
            f"idle={max(0, int(now - self.heard))} flags=N db={self.database} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 "
            f"rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={self.command or 'NULL'} user=default redir=-1 resp={self.proto} {library}\n"
        )
