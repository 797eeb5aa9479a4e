"""How a replica introduces itself: ``REPLCONF option value …``, any number of times before it asks to sync.

What it says is kept in bounds (whoever connects may say anything), and an option that nobody here knows is refused, which no replica takes amiss.
"""

from __future__ import annotations

import re
from typing import Final

from .events import Replica
from .replies import error_reply, simple_reply

MOST_WORDS: Final = 64  # capabilities, and unknown options, that are kept


class Introduction:
    """What one replica has said about itself so far."""

    def __init__(self) -> None:
        self.capabilities: set[str] = set()
        self._listening_port = 0
        self._ip_address = ""
        self._version: tuple[int, ...] = ()
        self._node_id = ""
        self._unknown: list[str] = []

    @property
    def replica(self) -> Replica:
        return Replica(
            self._listening_port, self._ip_address, frozenset(self.capabilities), self._version, self._node_id, tuple(self._unknown)
        )

    def heard(self, args: list[bytes]) -> bytes:
        """Take a REPLCONF (any but ACK) and give its answer; b"" to GETACK, which asks for none."""
        if len(args) % 2 == 0:
            return error_reply("ERR syntax error")
        for raw_option, raw in zip(args[1::2], args[2::2], strict=True):
            option = raw_option[:64].lower().decode("ascii", "backslashreplace")
            value = raw[:256].decode("utf-8", "backslashreplace")
            if option == "listening-port":
                if not re.fullmatch("[0-9]{1,5}", value):
                    return error_reply("ERR value is not an integer or out of range")
                self._listening_port = int(value)
            elif option == "ip-address":
                self._ip_address = value
            elif option == "capa":
                if len(self.capabilities) < MOST_WORDS:
                    self.capabilities.add(value.lower())
            elif option == "version":
                found = re.match(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}", value)
                if found is None:
                    return error_reply("ERR Unrecognized version format")
                self._version = tuple(int(part) for part in found.group().split("."))
            elif option == "set-cluster-node-id":
                self._node_id = value
            elif option == "getack":
                return b""
            else:  # rdb-only, rdb-channel, main-ch-client-id, rdb-filter-only, …: nothing that we could do
                if len(self._unknown) < MOST_WORDS:
                    self._unknown.append(option)
                return error_reply(f"ERR Unrecognized REPLCONF option: {option}")
        return simple_reply("OK")
