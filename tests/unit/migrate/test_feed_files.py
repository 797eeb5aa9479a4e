"""Files as a source, without servers: what is a file, what belongs together, where a log ends, and what is told about a bad one."""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.errors import ExitCode, RemoteProtocolError, ValkeepError
from valkeep.migrate.feed.aof import LogReader
from valkeep.migrate.feed.file import FileFeed, NotInFile, commands_of, place_of
from valkeep.migrate.feed.files import DataFiles
from valkeep.migrate.feed.manifest import parse_manifest
from valkeep.migrate.feed.survey import Survey, survey
from valkeep.wire.rdb.encode import SnapshotWriter
from valkeep.wire.rdb.opcodes import DIALECT_REDIS, KIND_STRING
from valkeep.wire.rdb.record import Record
from valkeep.wire.resp import encode

SELECT = encode(b"SELECT", b"0")


def snapshot(keys: int = 3, version: int = 9, aux: dict[bytes, bytes] | None = None) -> bytes:
    writer = SnapshotWriter(DIALECT_REDIS, version)
    for name, value in (aux or {}).items():
        writer.aux(name, value)
    for number in range(keys):
        writer.record(Record(number % 2, b"key:%d" % number, -1, KIND_STRING, b"value"))
    return writer.finish()


def looked_at(path: Path) -> Survey:
    with DataFiles.open(path) as files:
        return asyncio.run(survey(files, lambda _event: None, lambda: 0.0))


def given_out(path: Path) -> bytes:
    async def collect() -> bytes:
        with DataFiles.open(path) as files:
            found = await survey(files, lambda _event: None, lambda: 0.0)
            return b"".join([piece async for piece in commands_of(found)])

    return asyncio.run(collect())


def refusal(path: Path) -> ValkeepError:
    with pytest.raises(ValkeepError) as error:
        looked_at(path)
    assert error.value.remedy
    assert error.value.definite
    return error.value


# -- the grammar of a log ----------------------------------------------------------------------------------------------------------

words = st.sampled_from([b"SET", b"set", b"DEL", b"NEWCOMMAND", b"#FOO", b"XADD", b"EXPIRE", b"EVAL", b"GETDEL"])
values = st.one_of(st.binary(max_size=20), st.sampled_from([b"\r\n#TS:1\r\n", b"#TS:2\r\n", b"x\n#", b"*1\r\n$4\r\nEXEC\r\n", b"\n" * 5]))
commands = st.builds(lambda name, args: encode(name, *args), words, st.lists(values, min_size=1, max_size=3))
notes = st.sampled_from([b"#TS:1763731200\r\n", b"#\r\n", b"# anything\n"])
transactions = st.builds(lambda inside: [encode(b"MULTI"), *inside, encode(b"EXEC")], st.lists(st.one_of(commands, notes), max_size=4))
logs = st.lists(st.one_of(commands.map(lambda one: [one]), notes.map(lambda one: [one]), transactions), max_size=8)


@given(logs, st.data())
def test_a_log_counts_up_to_its_last_whole_command_or_transaction_wherever_it_is_cut_and_in_whatever_pieces(
    logs: list[list[bytes]], data: Any
) -> None:
    whole = b"".join(b"".join(group) for group in logs)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [0]
    counts = [0]
    clean = [b""]
    for group in logs:
        ends.append(ends[-1] + sum(map(len, group)))
        counts.append(counts[-1] + sum(not one.startswith(b"#") for one in group))
        clean.append(clean[-1] + b"".join(one for one in group if not one.startswith(b"#")))
    last = max(number for number, end in enumerate(ends) if end <= cut)

    reader = LogReader()
    out = b""
    at = 0
    while at < cut:
        size = data.draw(st.integers(1, 60))
        out += b"".join(reader.feed(whole[at : min(at + size, cut)]))
        at += size

    assert (reader.whole, reader.commands) == (ends[last], counts[last])
    assert out.startswith(clean[last])
    assert clean[-1].startswith(out)


@pytest.mark.parametrize("broken", [b"*x\r\n", b"*1\r\n+OK\r\n", b"\0" * 40, b"*2\r\n$3\r\nSETxx", b"SET a b\r\n", b"*0\r\n"])
def test_what_is_no_command_is_damage_and_not_an_end(broken: bytes) -> None:
    reader = LogReader()
    with pytest.raises(RemoteProtocolError):
        reader.feed(encode(b"SET", b"a", b"1") + broken + encode(b"SET", b"a", b"1"))


# -- manifests ----------------------------------------------------------------------------------------------------------------------


def test_a_manifest_gives_its_base_and_its_increments_in_order_and_not_its_history() -> None:
    found = parse_manifest(
        "# made by hand\nfile a.aof.2.base.rdb seq 2 type b\nfile a.aof.1.incr.aof seq 1 type h\n\n"
        'file a.aof.4.incr.aof seq 4 type i\nfile "a b.aof" seq 5 type i startoffset 12 endoffset 40\n',
        "m",
    )
    assert (found.base, found.increments) == ("a.aof.2.base.rdb", ("a.aof.4.incr.aof", "a b.aof"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no file"),
        ("file a seq 1 type h\n", "names no file"),
        ("file a seq 1 type i\nfile c seq 3 type i\n", "no increment with seq 2"),
        ("file a seq 2 type i\nfile b seq 1 type i\n", "after a (seq 2)"),
        ("file a seq 1 type b\nfile b seq 2 type b\n", "two bases: a and b"),
        ("file a seq 1 type x\n", "type 'x'"),
        ("file ../a seq 1 type b\n", "is a path"),
        ("file a seq one type b\n", "line 1 of m"),
        ("file a seq 1\n", "line 1 of m"),
        ("file 'a seq 1 type b\n", "line 1 of m"),
        ("\x7fELF\0\0", "line 1 of m"),
    ],
)
def test_a_manifest_that_no_server_would_load_or_that_lacks_an_increment_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r".") as error:
        parse_manifest(text, "m")
    assert said in error.value.message
    assert error.value.code == "VK-FILE-MANIFEST"


def multipart(folder: Path, *, base: bytes = b"", increments: tuple[bytes, ...] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    lines = []
    if base:
        (folder / "a.1.base.rdb").write_bytes(base)
        lines.append("file a.1.base.rdb seq 1 type b")
    for number, log in enumerate(increments, 1):
        (folder / f"a.{number}.incr.aof").write_bytes(log)
        lines.append(f"file a.{number}.incr.aof seq {number} type i")
    (folder / "a.manifest").write_text("\n".join(lines) + "\n")
    return folder


def test_parts_are_read_in_order_each_from_database_0_on(tmp_path: Path) -> None:
    one, two = encode(b"SELECT", b"5") + encode(b"SET", b"a", b"1"), b"#TS:1\r\n" + encode(b"SET", b"b", b"2")
    folder = multipart(tmp_path / "aof", base=snapshot(), increments=(one, b"", two))
    for path in (folder, folder / "a.manifest"):
        found = looked_at(path)
        assert (sum(found.keys.values()), found.commands, [part.log for part in found.parts]) == (3, 3, [0, len(one), 0, len(two)])
    assert given_out(folder) == SELECT + one + SELECT + encode(b"SET", b"b", b"2")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = multipart(tmp_path / "aof", base=snapshot(), increments=(b"", SELECT))
    (folder / "a.2.incr.aof").unlink()
    assert "a.2.incr.aof" in refusal(folder).message


def test_only_the_last_part_may_be_cut_off(tmp_path: Path) -> None:
    folder = multipart(tmp_path / "aof", increments=(SELECT + b"*2\r\n$3\r\n", SELECT))
    error = refusal(folder)
    assert (error.code, "begins at byte 23" in error.message) == ("VK-FILE-DAMAGED", True)
    multipart(tmp_path / "aof", increments=(SELECT, SELECT + b"*2\r\n$3\r\n"))
    assert (looked_at(folder).torn or found_none()).tail == 8


def found_none() -> Any:
    raise AssertionError("no tail was found")


def test_a_part_alone_is_not_the_data(tmp_path: Path) -> None:
    folder = multipart(tmp_path / "aof", base=snapshot(), increments=(SELECT,))
    error = refusal(folder / "a.1.base.rdb")
    assert "a.manifest" in error.remedy
    assert error.exit_code is ExitCode.USAGE


# -- files that are none -----------------------------------------------------------------------------------------------------------


def test_what_is_no_file_of_a_server_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = snapshot()
    (tmp_path / "dump.rdb.gz").write_bytes(gzip.compress(data))
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("dump.rdb.gz", "compressed (gzip)"),
        ("text", "begins with b'hello'"),
        ("empty", "it is empty"),
        ("folder", "without a .manifest"),
        ("pipe", "is a pipe"),
        ("nothing", "there is no file"),
    ):
        error = refusal(tmp_path / name)
        assert said in error.message, name
        assert error.exit_code is ExitCode.USAGE
    assert "standard input" in refusal(Path("-")).message


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(snapshot())

    def denied(*_arguments: object, **_more: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("valkeep.migrate.feed.files.os.open", denied)
    error = refusal(path)
    assert (error.code, error.exit_code) == ("VK-FILE-READ", ExitCode.NOT_RUN)


def test_damage_is_found_with_its_file_and_place_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    data = snapshot(keys=50)
    log = encode(b"SET", b"a", b"1") * 20
    cases = [
        (data[:-30], "VK-SNAPSHOT-TRUNCATED", "in the middle of its snapshot"),
        (data + log + b"rubbish" + log, "VK-FILE-DAMAGED", f"behind byte {len(data) + len(log)}"),
        (b"REDIS0099" + data[9:], "VK-FILE-DAMAGED", "version 99"),
        (data[:9] + b"\x7f" + data[10:], "VK-FILE-DAMAGED", str(path)),
    ]
    for content, code, said in cases:
        path.write_bytes(content)
        error = refusal(path)
        assert (error.code, said in error.message) == (code, True), error.message


def test_who_wrote_a_snapshot_is_what_it_says_or_what_its_format_says(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(snapshot(aux={b"redis-ver": b"7.0.15", b"used-mem": b"1234"}, version=10))
    found = looked_at(path)
    assert (found.product, found.version, found.kind, found.used_memory) == ("Redis 7.0.15", (7, 0, 15), "redis", 1234)
    assert dict(found.keys) == {0: 2, 1: 1}
    path.write_bytes(snapshot(version=9))
    assert looked_at(path).product == "Redis 5.0 and later, before 7.0"
    path.write_bytes(encode(b"SET", b"a", b"1"))
    found = looked_at(path)
    assert (found.product, found.census, found.origin.speaks) == ("an append-only file", None, (99, 0))


def test_a_file_that_is_written_to_or_replaced_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "appendonly.aof"
    path.write_bytes(SELECT)
    with DataFiles.open(path) as files:
        files.expect_unchanged()
        with path.open("ab") as more:
            more.write(SELECT)
        with pytest.raises(ValkeepError) as error:
            files.expect_unchanged()
        assert (error.value.code, "had 23 bytes, and has 46" in error.value.message) == ("VK-FILE-CHANGED", True)
    with DataFiles.open(path) as files:
        (tmp_path / "new").write_bytes(SELECT)
        (tmp_path / "new").replace(path)
        with pytest.raises(ValkeepError, match="another file"):
            files.expect_unchanged()
    with DataFiles.open(path) as files:
        os.truncate(path, 5)
        with pytest.raises(ValkeepError, match="ends at byte 5"):
            asyncio.run(survey(files, lambda _event: None, lambda: 0.0))


# -- the feed -----------------------------------------------------------------------------------------------------------------------


class Taken:
    """A receiver."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def full_resync(self, replid: str, offset: int) -> None:
        self.said.append((len(replid), offset))

    def continued(self, *_: object) -> None:
        raise AssertionError("nothing is continued here")

    def snapshot(self, data: memoryview) -> None:
        self.said.append(bytes(data))

    def snapshot_end(self) -> None:
        self.said.append("end")

    def stream(self, data: memoryview) -> None:
        self.said.append(bytes(data))


def test_a_log_without_a_snapshot_gets_an_empty_one_and_no_key_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "appendonly.aof"
    log = b"#TS:1\r\n" + encode(b"SET", b"a", b"1") + b"*1\r\n$4"
    path.write_bytes(log)

    async def run() -> tuple[list[object], FileFeed]:
        with DataFiles.open(path) as files:
            found = await survey(files, lambda _event: None, lambda: 0.0)
            taken, feed = Taken(), FileFeed(found)
            await feed.start(taken, 0)
            running = asyncio.create_task(feed.run())
            await feed.read_all.wait()
            with pytest.raises(NotInFile, match="'a' in database 3"):
                await feed.read([(3, b"a")])
            await feed.close()
            await running
            assert await place_of(found, feed.received - 1) == f"{path}, near byte {len(log) - 7}"
            return taken.said, feed

    said, feed = asyncio.run(run())
    assert said[0] == (40, 0)
    assert isinstance(said[1], bytes)
    assert (said[1][:9], said[2]) == (b"REDIS0006", "end")
    assert b"".join(one for one in said[3:] if isinstance(one, bytes)) == SELECT + encode(b"SET", b"a", b"1")
    assert feed.received == len(SELECT) + 27


def test_the_files_of_servers_are_theirs_alone(tmp_path: Path) -> None:
    """What this test stands for: nothing here changes a file, not even its times of change."""
    path = tmp_path / "dump.rdb"
    path.write_bytes(snapshot())
    path.chmod(stat.S_IRUSR)
    before = path.stat()
    looked_at(path)
    assert (path.stat().st_mtime_ns, path.stat().st_mode, path.stat().st_size) == (before.st_mtime_ns, before.st_mode, before.st_size)
