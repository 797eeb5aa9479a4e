"""The ``valkeep`` command: parsing, one call, rendering. One file per command group.

The first word picks a module from `COMMANDS`; only that module is imported, so ``valkeep --help`` stays fast however much the
commands pull in. A module has an ``app`` (`typer.Typer`); its functions return an `ExitCode` (or None for good).

Registering a group is one line in `COMMANDS`. Whatever goes wrong ends here, in one of these ways:

    ValkeepError       message, remedy and whether anything changed on stderr; its own exit code
    usage              what typer says on stderr; 2
    SIGINT             130, after the job has cleaned up behind itself
    SIGTERM, SIGHUP    143, likewise (all three reach it as KeyboardInterrupt)
    anything else      a bug of Valkeep, said so; 5, because nobody knows how far it got
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from valkeep import __version__
from valkeep.cli.argv import hide_passwords
from valkeep.errors import ExitCode, UsageError, ValkeepError

__all__ = ["COMMANDS", "Entry", "commands", "main", "run"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One first word: the module that has its ``app``, and what it is for in half a line."""

    module: str
    purpose: str


COMMANDS: dict[str, Entry] = {
    "rehearse": Entry("valkeep.cli.rehearse", "the whole story on servers of this machine, proven"),
    "migrate": Entry("valkeep.cli.migrate", "move a live Redis to Valkey: preflight, run, cutover, abort, verify, gateway"),
    "drill": Entry("valkeep.cli.drill", "faults on real servers, judged: list, run, observe, matrix, clients"),
    "up": Entry("valkeep.cli.up", "a topology that stands: standalone, sentinel or cluster, proven ready"),
    "status": Entry("valkeep.cli.status", "what is up: roles, slots, offsets, links, opinions"),
    "down": Entry("valkeep.cli.down", "end it; nothing is left"),
    "report": Entry("valkeep.cli.report", "render a report folder again"),
    "servers": Entry("valkeep.cli.servers", "the server programs on this machine; fetch the missing ones"),
    "doctor": Entry("valkeep.cli.doctor", "what works on this machine, and what each absence disables"),
    "version": Entry("valkeep.cli.version", "versions, and whether the hot path is compiled"),
}

BARE = """\
valkeep rehearse            see a live Redis become a live Valkey on this machine, proven
valkeep migrate preflight   look at your own source (--source URL --target URL); changes nothing
valkeep drill run NAME      see what a fault loses, and why, on real servers of this machine ('valkeep drill list' has the names)
valkeep --help              everything else; 'valkeep up sentinel' is a topology to break yourself
"""

_terminated = False


def commands() -> dict[str, Entry]:
    """The commands of this version: those whose module is there."""
    return {name: entry for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module) is not None}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script: `run`, then leave."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    hide_passwords(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without → is told so, and is no reason to stop in the middle
            stream.reconfigure(errors="backslashreplace")
    code = run(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # `valkeep … | head` is no error, and Python must not complain at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(int(code))


def run(argv: list[str]) -> ExitCode:
    """Run one command line; every way it can end becomes an exit code."""
    global _terminated
    _terminated = False
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
        if (
            signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        ):  # not under nohup: the terminal was closed, and the job cleans up as for SIGTERM
            signal.signal(signal.SIGHUP, _on_sigterm)
    except ValueError:
        pass  # not the main thread: an embedder handles its own signals
    try:
        return _dispatch(argv)
    except ValkeepError as error:
        _show(error)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        return ExitCode.GOOD
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _bug(error)


def _on_sigterm(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the protocol of handlers
    # As SIGINT, so that a job has one way to be stopped; asyncio.run() cancels its main task on it.
    global _terminated
    _terminated = True
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a script: Ctrl-C is not for it, SIGTERM is
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _interrupted() -> ExitCode:
    if _terminated:
        print("valkeep: terminated", file=sys.stderr)
        return ExitCode.TERMINATED
    print("valkeep: interrupted", file=sys.stderr)
    return ExitCode.INTERRUPTED


def _dispatch(argv: list[str]) -> ExitCode:
    if not argv:
        sys.stdout.write(_bare())
        return ExitCode.GOOD
    first, rest = argv[0], argv[1:]
    if first in ("--help", "-h", "help"):
        if first == "help" and rest and rest[0] in commands():
            return _invoke(rest[0], [*rest[1:], "--help"])
        sys.stdout.write(_help())
        return ExitCode.GOOD
    if first in ("--version", "-V"):
        print(f"valkeep {__version__}")
        return ExitCode.GOOD
    if first not in commands():
        import difflib

        near = difflib.get_close_matches(first, commands(), n=1)
        raise UsageError(
            f"valkeep has no command {first!r}",
            remedy=f"did you mean 'valkeep {near[0]}'?" if near else "valkeep --help lists the commands",
        )
    return _invoke(first, rest)


def _invoke(name: str, arguments: list[str]) -> ExitCode:
    import typer

    # typer carries its own click since 0.20-odd and used the installed one before; these are its classes either way.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    click_exception: type[Exception] = usage_error.__mro__[1]
    module = importlib.import_module(COMMANDS[name].module)
    command = typer.main.get_command(module.app)
    try:
        answer = command.main(args=arguments, prog_name=f"valkeep {name}", standalone_mode=False)
    except typer.Exit as left:
        answer = left.exit_code
    except typer.Abort:
        return _interrupted()
    except click_exception as error:
        error.show()  # type: ignore[attr-defined]
        return ExitCode.USAGE
    if answer == ExitCode.INTERRUPTED:  # newer typers turn KeyboardInterrupt into this; it may have been SIGTERM
        return _interrupted()
    return ExitCode(answer) if isinstance(answer, int) else ExitCode.GOOD


def _bare() -> str:
    there = commands()
    return "".join(line + "\n" for line in BARE.splitlines() if line.split()[1] in there or line.split()[1].startswith("-"))


def _help() -> str:
    there = commands()
    width = max(len(name) for name in there) + 4
    lines = [
        "Usage: valkeep COMMAND [OPTIONS]",
        "",
        "Move to Valkey. Keep everything.",
        "",
        *(f"  {name:{width}}{entry.purpose}" for name, entry in there.items()),
        "",
        "'valkeep COMMAND --help' explains a command. Exit codes: 0 good, 1 judged bad, 2 usage, 3 verdict unknown,",
        "4 could not run and surely nothing changed, 5 stopped with an uncertain state, 130/143 signals.",
    ]
    return "\n".join(lines) + "\n"


def _show(error: ValkeepError) -> None:
    """What happened and why, the remedy, whether anything changed."""
    loud = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    bold, red, plain = ("\x1b[1m", "\x1b[31m", "\x1b[0m") if loud else ("", "", "")
    code = f" [{error.code}]" if error.code else ""
    print(f"{red}valkeep: {plain}{bold}{error.message}{plain}{code}", file=sys.stderr)
    print(f"  remedy:   {error.remedy}", file=sys.stderr)
    if error.exit_code is not ExitCode.USAGE:
        changed = error.changed or ("nothing" if error.definite else "uncertain; look before you repeat it")
        print(f"  changed:  {changed}", file=sys.stderr)


def _bug(error: Exception) -> ExitCode:
    print(f"valkeep: unexpected {type(error).__name__}: {error}", file=sys.stderr)
    print("  remedy:   this is a bug of Valkeep; please report it with the lines that VALKEEP_DEBUG=1 adds", file=sys.stderr)
    print("  changed:  uncertain", file=sys.stderr)
    if os.environ.get("VALKEEP_DEBUG"):
        traceback.print_exception(error)
    return ExitCode.UNCERTAIN
