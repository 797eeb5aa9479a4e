"""Targets that read snapshots, records and DUMP payloads."""

from __future__ import annotations

from functools import partial
from random import Random
from types import ModuleType
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.bits import cut
from tests.fuzz.oracle import Failure, Finding, Target, agree, attempt, by_both, failure, installed, same, twin
from tests.support.rdb_trace import tracer
from valkeep.errors import ValkeepError
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb.convert import DROP_FIELD, KEEP_FIELD, TO_HASH_2, TO_REDIS_EX

MAX_BLOB = 1 << 20
HEADER = 9
HASHES = (22, 23, 24, 25)


# --- scanner --------------------------------------------------------------------------------------------------------------------


def scanned(scan: ModuleType, pieces: list[bytes], attention: bytes) -> list[Any]:
    """What became of each flagged item, and the end; does not depend on the pieces."""
    told: list[Any] = []
    held = bytearray()
    step: Any = None
    taking = False
    try:
        for piece in pieces:
            held += piece
            pos = 0
            if step is None:
                header = scan.parse_header(held)
                if header is None:
                    continue
                step = scan.Scanner(attention, header.dialect, header.version)
                pos = HEADER
            while True:
                offset = step.offset
                after = step.scan(held, pos, len(held))
                if not pos <= after <= len(held) or step.offset != offset + after - pos:
                    raise Finding(f"scan from {pos} to {len(held)} gave {after}, offset {offset} became {step.offset}")
                pos = after
                if step.stop == scan.ATTENTION:
                    if not taking:
                        told.append(("attention", step.offset, step.type))
                    step.take()
                    taking = True
                elif step.stop == scan.ITEM:
                    taking = False
                    told.append(("item", step.offset, step.keys, step.expires, step.database))
                else:
                    break
            if step.stop == scan.END:
                break
            del held[:pos]
    except ValkeepError as error:
        told.append(failure(error))
        return told
    told.append((step.stop, step.keys, step.expires, step.database, step.offset, step.inside) if step is not None else "no header")
    return told


def without_words(told: list[Any]) -> list[Any]:
    return [entry.kind if isinstance(entry, Failure) else entry for entry in told]


def check_scanner(data: bytes, rng: Random) -> None:
    scan, other = installed("rdb.scan"), twin("rdb.scan")
    attention = bytes(256) if rng.random() < 0.4 else bytes(number != 255 and rng.random() < 0.5 for number in range(256))
    whole = scanned(scan, [data], attention)
    same("compiled and interpreted scanner", whole, scanned(other, [data], attention))
    pieces = cut(rng, data)
    split = scanned(scan, pieces, attention)
    same("compiled and interpreted scanner in pieces", split, scanned(other, pieces, attention))
    same("scanner whole and in pieces", without_words(whole), without_words(split))
    for start in (HEADER, rng.randrange(len(data) + 1)):
        same("what stands at one place", *by_both("rdb.scan", partial(read_at, data, min(start, len(data)))))


def read_at(data: bytes, at: int, scan: ModuleType) -> list[Any]:
    """What the reading functions of the scanner make of that place."""
    dialect = int(data[:1] == b"V")
    return [
        attempt(partial(scan.read_length, data, at, len(data))),
        attempt(partial(scan.read_string, data, at, len(data))),
        attempt(lambda: repr(scan.parse_record_prefix(data, at, len(data), dialect))),
    ]


# --- decoder --------------------------------------------------------------------------------------------------------------------


def told(build: tuple[ModuleType, ModuleType], chunks: list[bytes]) -> list[Any]:
    """The calls of a decoder, and how it ended."""
    decode, handler = build
    keep, calls = tracer(handler)
    decoder = decode.Decoder(keep, MAX_BLOB)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
        decoder.close()
    except ValkeepError as error:
        calls.append(failure(error))  # type: ignore[arg-type]
        return calls
    calls.append(("finished", decoder.unused, decoder.offset))
    return calls


def builds() -> list[tuple[ModuleType, ModuleType]]:
    return [(installed("rdb.decode"), installed("rdb.handler")), (twin("rdb.decode"), twin("rdb.handler"))]


def check_decoder(data: bytes, rng: Random) -> None:
    compiled, other = builds()
    whole = told(compiled, [data])
    same("compiled and interpreted decoder", whole, told(other, [data]))
    pieces = cut(rng, data)
    split = told(compiled, pieces)
    same("compiled and interpreted decoder in pieces", split, told(other, pieces))
    same("decoder whole and in pieces", without_words(whole), without_words(split))


def check_boundaries(data: bytes, rng: Random) -> None:
    """Fed the same pieces, scanner and decoder have passed the same number of records after each, as long as both accept."""
    scan, decode, handler = installed("rdb.scan"), installed("rdb.decode"), installed("rdb.handler")
    keep, calls = tracer(handler)
    decoder = decode.Decoder(keep, MAX_BLOB)
    pieces = cut(rng, data)
    held = b""
    step: Any = None
    try:
        for piece in pieces:
            held += piece
            decoder.feed(piece)
            if step is None:
                header = scan.parse_header(held)
                if header is None:
                    continue
                step = scan.Scanner(bytes(256), header.dialect, header.version)
                held = held[HEADER:]
            if step.stop != scan.END:
                held = held[step.scan(held, 0, len(held)) :]
            records = sum(call[0] == "end_key" for call in calls)
            if step.keys != records:
                raise Finding(f"the scanner passed {step.keys} records, the decoder {records}, {step.offset} bytes in")
        decoder.close()
    except ValkeepError as error:
        failure(error)
        return
    footer = 8 if header.version >= 5 else 0
    if step is None or step.stop != scan.END or step.offset + 1 + footer != decoder.offset:
        raise Finding(f"the decoder ended at {decoder.offset}, the scanner {'nowhere' if step is None else step.offset}")


def check_collect(data: bytes, rng: Random) -> None:
    found = by_both("rdb.record", lambda m: repr(m.snapshot_records(data, MAX_BLOB)))
    same("records", *found)


def check_payload_record(data: bytes, rng: Random) -> None:
    found = by_both("rdb.record", lambda m: repr(m.payload_record(data, b"key", MAX_BLOB)))
    same("the payload's record", *found)


def check_digest(data: bytes, rng: Random) -> None:
    """Both builds make the same rows of what they were told, also up to an error."""
    mode = rng.randrange(3)
    key = rng.randbytes(16)
    pieces = cut(rng, data)
    rows = []
    for decode, digest in ((installed("rdb.decode"), installed("digest")), (twin("rdb.decode"), twin("digest"))):
        digester = digest.Digester(key, mode)
        decoder = decode.Decoder(digester, MAX_BLOB)
        ended: Any = None
        try:
            for piece in pieces:
                decoder.feed(piece)
            decoder.close()
        except ValkeepError as error:
            ended = failure(error)
        row = digester.drain()
        rows.append((row, digester.keys, digester.absent, digester.functions, digester.functions_digest, ended))
        if len(row) != 32 * digester.keys:
            raise Finding(f"{digester.keys} keys in {len(row)} bytes of rows")
    same("rows", *rows)


# --- hashes whose fields expire -------------------------------------------------------------------------------------------------


def converted(module: ModuleType, data: bytes, dialect: int, mode: int) -> Any:
    converter = module.RecordConverter(dialect, mode)
    out = bytearray()

    def work() -> Any:
        pos = converter.convert(data, 0, len(data), out)
        return bytes(out), converter.fields, converter.fields_with_ttl, converter.fields_dropped, converter.empty, pos

    return attempt(work)


def converted_in_pieces(module: ModuleType, data: bytes, kind: int, dialect: int, mode: int, pieces: list[bytes]) -> Any:
    def work() -> Any:
        converter = module.HashConverter(kind, dialect, mode)
        out = bytearray()
        held = b""
        for piece in pieces:
            held += piece
            held = held[converter.feed(held, 0, len(held), out) :]
            if converter.done:
                break
        return bytes(out), converter.fields, converter.fields_with_ttl, converter.fields_dropped, converter.done

    return attempt(work)


def record_calls(data: bytes, dialect: int) -> list[Any] | None:
    """What a decoder tells of that one record, or None when it does not accept it."""
    whole = (b"VALKEY080" if dialect else b"REDIS0012") + data + b"\xff"
    calls = told(builds()[0], [whole + crc64(whole).to_bytes(8, "little")])
    return None if isinstance(calls[-1], Failure) else calls[1:-2]


def after_policy(calls: list[Any], mode: int) -> list[Any]:
    """``calls`` of a source's snapshot as they are after the transformation, without records that are empty."""
    out: list[Any] = []
    record: list[Any] = []
    for call in calls:
        if call[0] == "field" and mode in (KEEP_FIELD, DROP_FIELD):
            if call[3] != "-1" and mode == DROP_FIELD:
                continue
            call = (*call[:3], "-1")
        elif call[0] == "field" and mode == TO_REDIS_EX and call[3] == "0":
            call = (*call[:3], "1")  # 0 is "none" there; 1 has passed as well
        record.append(call)
        if call[0] == "begin_key":
            out += record[:-1]
            record = [call]
        elif call[0] == "end_key":
            if len(record) > 2:
                out += record
            record = []
    return out + record


def check_converter(data: bytes, rng: Random) -> None:
    dialect, data = data[0] & 1, data[1:]
    mode = rng.choice((KEEP_FIELD, DROP_FIELD, TO_REDIS_EX if dialect else TO_HASH_2))
    module, other, scan = installed("rdb.convert"), twin("rdb.convert"), installed("rdb.scan")
    prefix = attempt(lambda: scan.parse_record_prefix(data, 0, len(data), dialect))
    if not isinstance(prefix, scan.Prefix) or prefix.type not in (HASHES if dialect == 0 else (22,)):
        return
    whole = converted(module, data, dialect, mode)
    same("compiled and interpreted RecordConverter", whole, converted(other, data, dialect, mode))
    value = data[prefix.value_pos :]
    pieces = cut(rng, value)
    split = converted_in_pieces(module, data, prefix.type, dialect, mode, pieces)
    same("compiled and interpreted HashConverter", split, converted_in_pieces(other, data, prefix.type, dialect, mode, pieces))
    agree("HashConverter whole and in pieces", converted_in_pieces(module, data, prefix.type, dialect, mode, [value]), split)
    source = record_calls(data if isinstance(whole, Failure) or whole[5] == 0 else data[: whole[5]], dialect)
    if isinstance(whole, Failure) or whole[5] == 0:
        refused = isinstance(whole, Failure) and whole.kind == "Refused"
        if source is not None and not refused:
            raise Finding(f"the decoder accepts what the converter does not: {whole}")
        if not isinstance(split, Failure) and split[4]:
            raise Finding(f"in pieces it is accepted, whole not: {whole}")
        return
    if not isinstance(split, Failure) and split[1:4] != whole[1:4]:
        raise Finding(f"counts whole {whole[1:4]}, in pieces {split[1:4]}")
    if source is None:
        return
    target = 1 if mode == TO_HASH_2 else 0
    got = record_calls(whole[0], target)
    if got is None:
        raise Finding("the decoder does not accept what the converter made of a good record")
    same("the record before and after", after_policy(_typeless(source), mode), after_policy(_typeless(got), TO_HASH_2))


def _typeless(calls: list[Any]) -> list[Any]:
    return [call for call in calls if call[0] != "begin"]


def check_translate(data: bytes, rng: Random) -> None:
    """RecordConverter.translate over a whole snapshot, in pieces, with the hashes flagged."""
    mode = rng.choice((KEEP_FIELD, DROP_FIELD))
    pieces = cut(rng, data)
    outcomes = []
    for convert, scan in ((installed("rdb.convert"), installed("rdb.scan")), (twin("rdb.convert"), twin("rdb.scan"))):
        out = bytearray()

        def work(convert: ModuleType = convert, scan: ModuleType = scan, out: bytearray = out) -> Any:
            held = b""
            step: Any = None
            for piece in pieces:
                held += piece
                if step is None:
                    header = scan.parse_header(held)
                    if header is None:
                        continue
                    flags = bytes(number in ((22,) if header.dialect else HASHES) for number in range(256))
                    step = scan.Scanner(flags, header.dialect, header.version)
                    converter = convert.RecordConverter(header.dialect, mode)
                    held = held[HEADER:]
                pos = converter.translate(step, held, 0, len(held), out)
                if not 0 <= pos <= len(held):
                    raise Finding(f"translate gave {pos} of {len(held)}")
                held = held[pos:]
                if converter.stop in (scan.END, scan.ATTENTION):
                    return converter.stop, step.keys, converter.records, converter.changes
            return "more", len(held)

        outcomes.append((attempt(work), bytes(out)))
    same("translate", *outcomes)


# --- payloads -------------------------------------------------------------------------------------------------------------------

_TARGETS = ((0, 11, KEEP_FIELD), (0, 11, DROP_FIELD), (1, 80, KEEP_FIELD), (1, 80, TO_HASH_2), (0, 12, KEEP_FIELD))


def check_payload(data: bytes, rng: Random) -> None:
    module = installed("rdb.convert")
    dialect, version, mode = rng.choice(_TARGETS)
    results = by_both("rdb.convert", lambda m: _parts(m.reencode_payload(data, dialect, version, mode)))
    same("reencode_payload", *results)
    if isinstance(results[0], Failure):
        return
    payload, with_ttl, dropped, empty = results[0]
    if empty:
        if payload or (with_ttl and not dropped):
            raise Finding(f"empty, and {len(payload)} bytes")
        return
    if payload[-10:-8] != version.to_bytes(2, "little") or crc64(payload[:-8]) != int.from_bytes(payload[-8:], "little"):
        raise Finding("the footer is not the target's, or the checksum is wrong")
    again = attempt(lambda: _parts(module.reencode_payload(payload, dialect, version, mode)))
    same("re-encoded once and twice", payload, again if isinstance(again, Failure) else again[0])
    before = attempt(lambda: _payload_calls(data))
    if isinstance(before, Failure):
        return
    if version > 11:
        mode = TO_REDIS_EX if dialect == 0 and data[-10] >= 80 else TO_HASH_2
    elif not with_ttl:
        mode = TO_HASH_2
    after = attempt(lambda: _payload_calls(payload))
    if isinstance(after, Failure):
        raise Finding(f"the decoder accepts what came and not what was made of it: {after.text}")
    same("the value before and after", after_policy(before, mode), after_policy(after, TO_HASH_2))


def _parts(found: Any) -> Any:
    return found.payload, found.fields_with_ttl, found.fields_dropped, found.empty


def _payload_calls(payload: bytes) -> list[Any]:
    keep, calls = tracer(installed("rdb.handler"))
    installed("rdb.decode").decode_payload(payload, keep, b"key", MAX_BLOB)
    return [call for call in calls if call[0] != "begin"]


TARGETS = (
    Target("scanner", seeds.snapshots, check_scanner),
    Target("decoder", seeds.snapshots, check_decoder),
    Target("boundaries", seeds.snapshots, check_boundaries),
    Target("collect", seeds.snapshots, check_collect),
    Target("digest", seeds.snapshots, check_digest),
    Target("converter", seeds.expiring_hash, check_converter),
    Target("translate", seeds.snapshots, check_translate),
    Target("payload", seeds.payloads, check_payload),
    Target("payload-record", seeds.payloads, check_payload_record),
)
