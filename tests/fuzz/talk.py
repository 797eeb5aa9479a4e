"""Targets that read RESP, the command stream and the PSYNC conversation."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.bits import cut
from tests.fuzz.oracle import Failure, Finding, Target, agree, attempt, failure, installed, same, twin
from valkeep.errors import ValkeepError
from valkeep.migrate.transform.commands import verbatim
from valkeep.migrate.transform.target import TargetFormat
from valkeep.wire import commands, psync
from valkeep.wire.psync.events import MARK_SIZE

# --- RESP -----------------------------------------------------------------------------------------------------------------------


def stable(value: Any) -> str:
    """Its repr, with the members of sets in order."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(stable(each) for each in value))}}}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(stable(each) for each in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{stable(key)}: {stable(each)}' for key, each in value.items())}}}"
    return repr(value)


def parsed(module: ModuleType, pieces: list[bytes], max_bulk: int) -> list[Any]:
    parser = module.Parser(max_bulk)
    values: list[Any] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            for value in parser:  # one by one: those before an error count
                values.append(stable(value))  # noqa: PERF401
    except ValkeepError as error:
        values.append(failure(error))
        again = attempt(parser.next)
        if not isinstance(again, Failure) or again.text != error.message:
            raise Finding(f"a broken parser goes on with {again!r}") from error
        return values
    values.append(("pending", parser.pending, len(parser.take_rest())) if not parser.pending else ("pending", True))
    return values


def check_resp(data: bytes, rng: Random) -> None:
    module, other = installed("resp"), twin("resp")
    limit = rng.choice((1 << 30, 100, 5))
    whole = parsed(module, [data], limit)
    same("compiled and interpreted parser", whole, parsed(other, [data], limit))
    pieces = cut(rng, data)
    split = parsed(module, pieces, limit)
    same("compiled and interpreted parser in pieces", split, parsed(other, pieces, limit))
    _alike("parser whole and in pieces", whole, split)


def _alike(what: str, whole: list[Any], split: list[Any]) -> None:
    same(what, *[[entry.kind if isinstance(entry, Failure) else entry for entry in told] for told in (whole, split)])


# --- the command stream ---------------------------------------------------------------------------------------------------------

_PASS: tuple[frozenset[bytes], ...] = (
    frozenset({b"SET", b"MULTI", b"EXEC", b"DEL", b"PING"}),
    verbatim((8, 0), TargetFormat((8, 1))),
    frozenset(),
)


def stepped(stream: ModuleType, pieces: list[bytes], names: frozenset[bytes], finish: bool) -> list[Any]:
    """(bytes that passed, commands that stopped it, how it ended) as one list."""
    scanner = stream.CommandScanner(names)
    passed = bytearray()
    stopped: list[Any] = []
    held = b""
    ended: Any = None
    try:
        for piece in pieces:
            held += piece
            at = 0
            while True:
                after = scanner.finish(held, at, len(held)) if finish and not scanner.at_boundary else at
                if scanner.at_boundary or not finish:
                    after = scanner.scan(held, after, len(held))
                if not at <= after <= len(held) or not (scanner.boundary == -1 or scanner.boundary <= after):
                    raise Finding(f"scan from {at} gave {after}, boundary {scanner.boundary}, of {len(held)}")
                passed += held[at:after]
                at = after
                if scanner.stop != stream.ATTENTION:
                    break
                found = scanner.command(held, at, len(held))
                if found is None:
                    break
                args, after = found
                if args[0].upper() != scanner.name or len(args) != scanner.argc or scanner.name in names:
                    raise Finding(f"stopped at {scanner.name!r} of {scanner.argc}, read {args[:1]!r} of {len(args)}")
                commands.keys_of(args, rng_database(args))
                stopped.append(args)
                scanner.resume_after()
                at = after
            held = held[at:]
            if scanner.stop != stream.ATTENTION and len(held) > 200:
                raise Finding(f"{len(held)} bytes held back")
    except ValkeepError as error:
        ended = failure(error)
    return [bytes(passed), stopped, ended, None if ended else (scanner.at_boundary, scanner.in_multi, scanner.commands, held)]


def rng_database(args: list[bytes]) -> int:
    return len(args) % 16


def check_stream(data: bytes, rng: Random) -> None:
    module, other = installed("stream"), twin("stream")
    names = rng.choice(_PASS)
    finish = rng.random() < 0.3
    whole = stepped(module, [data], names, finish)
    same("compiled and interpreted scanner", whole, stepped(other, [data], names, finish))
    pieces = cut(rng, data)
    split = stepped(module, pieces, names, finish)
    same("compiled and interpreted scanner in pieces", split, stepped(other, pieces, names, finish))
    if whole[2] is None and split[2] is None:
        same("scanner whole and in pieces", [*whole[:2], whole[3][:3]], [*split[:2], split[3][:3]])
    else:
        agree("scanner whole and in pieces", whole[2], split[2])
        same("commands before the error", whole[1], split[1])


def check_writes(data: bytes, rng: Random) -> None:
    """WriteReader: what is noted, compiled and interpreted, whole and in pieces."""
    pieces = cut(rng, data)
    outcomes = []
    for module in (installed("writes"), twin("writes")):
        for parts in ([data], pieces):
            reader = module.WriteReader(1000, 0)

            def work(reader: Any = reader, parts: list[bytes] = parts) -> Any:
                for part in parts:
                    reader.feed(part)
                return "fed"

            ended = attempt(work)
            others = [(each.database, each.offset, each.args) for each in reader.others]
            for each in others:
                if all(arg is not None for arg in each[2]):
                    commands.keys_of(each[2], each[0])
            noted = (others, reader.position, reader.commands, reader.noted(), reader.take())
            outcomes.append((ended.kind if isinstance(ended, Failure) else ended, noted))
    for outcome in outcomes[1:]:
        same("written keys", outcomes[0], outcome)


# --- PSYNC ----------------------------------------------------------------------------------------------------------------------


def _events(events: list[Any]) -> list[str]:
    for event in events:
        if isinstance(event, psync.Failed) and not event.error.remedy:
            raise Finding(f"{event} has no remedy")
    return [type(event).__name__ if isinstance(event, psync.Failed) else repr(event) for event in events]


def check_replica(data: bytes, rng: Random) -> None:
    known, password = rng.random() < 0.5, rng.choice((None, "right"))

    def run(pieces: list[bytes]) -> Any:
        side = psync.ReplicaSide(listening_port=1, psync=("a" * 40, 7) if known else None, password=password)
        out, events, body = side.data_to_send(), [], b""
        payload: psync.Payload | None = None
        for piece in pieces:
            open_before = side.state in (psync.Asking.PAYLOAD, psync.Asking.STREAM)
            new = side.receive(piece)
            for event in new:
                if isinstance(event, psync.PayloadStart):
                    payload = psync.Payload(event)
                if isinstance(event, psync.Failed) and password and password in str(event.error):
                    raise Finding("the password is in a message")
            events += _events(new)
            if side.state in (psync.Asking.PAYLOAD, psync.Asking.STREAM):
                rest = side.rest()
                body += rest
                if open_before and not new and rest != piece:
                    raise Finding("bytes behind the conversation went missing")
            out += side.data_to_send()
        snapshot, kept = b"", b""
        if payload is not None:
            for part in cut(rng, body):
                kept += part
                if not payload.done:
                    size, used = payload.split(kept, len(kept))
                    snapshot, kept = snapshot + kept[:size], kept[used:]
            if not payload.done and len(kept) >= MARK_SIZE:
                raise Finding(f"{len(snapshot)} bytes of {len(body)} handed on, {len(kept)} kept back without reason")
        return events, out, body, side.state.name, snapshot, kept, payload is not None and payload.done

    whole = attempt(lambda: run([data]))
    same("replica side whole and in pieces", whole, attempt(lambda: run(cut(rng, data))))
    if isinstance(whole, Failure):
        raise Finding(f"an error instead of an event: {whole}")


def check_primary(data: bytes, rng: Random) -> None:
    password = rng.choice((None, "right"))
    answer = rng.randrange(4)

    # our own steps depend on what came before them, so that the two runs differ unless they come at the same request
    def run(pieces: list[bytes]) -> Any:
        side = psync.PrimarySide(password=password)
        events: list[Any] = []
        out = b""
        for piece in pieces:
            while found := side.receive(piece):  # it stops behind a command, which is to be answered first
                piece = b""
                for event in found:
                    events += _events([event])
                    if isinstance(event, psync.Command) and side.state.name in ("OPEN", "LOCKED"):
                        side.reply(psync.error_reply("ERR no"))
            out += side.data_to_send()
        repr(side), repr(side.replica)
        if events and events[-1].startswith("PsyncRequest"):
            if answer == 0:
                side.refuse()
            elif answer == 1:
                side.continue_with("b" * 40)
            else:
                side.keep_alive()
                side.full_resync("a" * 40, 5)
                marked = "eof" in side.replica.capabilities
                side.begin_payload(length=None if marked else 0, mark=b"m" * 40 if marked else None)
                events += _events(side.receive(b"REPLCONF ACK 5\r\n"))
                if side.state is not psync.Serving.OVER:  # half a request may have been there before
                    side.end_payload()
                events += _events(side.receive(b"REPLCONF ACK 6 FACK 3\r\nREPLCONF x y\r\n"))
            out += side.data_to_send()
        return events, side.state.name

    whole = attempt(lambda: run([data]))
    same("primary side whole and in pieces", whole, attempt(lambda: run(cut(rng, data))))
    if isinstance(whole, Failure):
        raise Finding(f"an error instead of an event: {whole}")


TARGETS = (
    Target("resp", seeds.replies, check_resp),
    Target("stream", seeds.command_streams, check_stream),
    Target("writes", seeds.command_streams, check_writes),
    Target("replica", seeds.source_talk, check_replica),
    Target("primary", seeds.replica_talk, check_primary),
)
