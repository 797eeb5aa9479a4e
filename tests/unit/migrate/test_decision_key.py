"""Enter on the terminal is a person's word that the cut-over may be: nothing else is."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest

from valkeep.cli import decision_key
from valkeep.migrate.cutover.handover import Ready

CTRL_D = b"\x04"


class Terminal:
    """``typed`` is what the person types; in the foreground or not."""

    def __init__(self) -> None:
        self.keyboard, self.stdin = pty.openpty()

    def type(self, text: bytes) -> None:
        os.write(self.keyboard, text)

    def hang_up(self) -> None:
        os.close(self.keyboard)
        self.keyboard = -1

    def close(self) -> None:
        for one in (self.keyboard, self.stdin):
            if one >= 0:
                os.close(one)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: terminal.stdin, isatty=lambda: True))
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    yield terminal
    terminal.close()


def went(ready: Ready, act: Callable[[], Awaitable[None]], patience: float = 0.5) -> bool:
    """Whether somebody said go, within ``patience`` seconds after ``act``."""

    async def story() -> bool:
        async with decision_key.key_decides(ready, enabled=True):
            await act()
            try:
                await asyncio.wait_for(ready.go.wait(), patience)
            except TimeoutError:
                return False
        return True

    return asyncio.run(story())


def test_enter_means_go_once_the_migration_waits(terminal: Terminal) -> None:
    async def act() -> None:
        terminal.type(b"\n")

    assert went(Ready(waiting=True), act, 10.0)


def test_enter_before_that_is_forgotten(terminal: Terminal) -> None:
    ready = Ready()

    async def act() -> None:
        terminal.type(b"\n")
        await asyncio.sleep(0.3)
        ready.waiting = True

    assert not went(ready, act)


@pytest.mark.parametrize("end", ["Ctrl-D", "hang-up"])
def test_the_end_of_the_terminal_is_nobodys_decision(terminal: Terminal, end: str) -> None:
    async def act() -> None:
        if end == "Ctrl-D":
            terminal.type(CTRL_D)
        else:
            terminal.hang_up()

    assert not went(Ready(waiting=True), act)


def test_a_job_in_the_background_leaves_the_terminal_to_its_owner(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading there would stop the whole process (SIGTTIN), in the middle of a migration."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)

    async def act() -> None:
        terminal.type(b"ls\n")

    assert not went(Ready(waiting=True), act)
    assert os.read(terminal.stdin, 100) == b"ls\n"
