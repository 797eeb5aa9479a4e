"""The spool: an append-only log on disk, cut into segments, addressed by absolute offsets."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path

import pytest

from valkeep.errors import LocalProtocolError, ValkeepError
from valkeep.migrate.spool import AsideFile, Spool, SpoolDamaged, SpoolFull, room


def everything(spool: Spool, piece: int) -> bytes:
    out, at = b"", spool.start
    while data := spool.read(at, piece):
        out += data
        at += len(data)
    return out


def test_what_was_appended_is_read_at_its_offset_whatever_the_segments(tmp_path: Path) -> None:
    chance = random.Random(7)
    spool = Spool(tmp_path, "s", start=812, segment_bytes=100)
    data = b""
    while len(data) < 2000:
        part = chance.randbytes(chance.choice([0, 1, 7, 99, 100, 101, 350]))
        form: bytes | bytearray | memoryview = (part, bytearray(part), memoryview(part))[len(data) % 3]
        spool.append(form)
        data += part
    assert spool.end == 812 + len(data)
    for piece in (1, 64, 100, 5000):
        assert everything(spool, piece) == data
    for _ in range(200):
        at = chance.randrange(len(data))
        size = chance.randrange(1, 300)
        found = spool.read(812 + at, size)
        assert found
        assert data[at : at + size].startswith(found)
    assert spool.read(spool.end, 10) == b""
    spool.close()


def test_trimming_gives_whole_segments_back_to_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s", segment_bytes=100)
    spool.append(bytes(950))
    assert len(list(tmp_path.iterdir())) == 10
    spool.trim(350)
    assert spool.start == 300
    assert len(list(tmp_path.iterdir())) == 7
    spool.trim(10_000)  # the last segment stays, it is written to
    assert (spool.start, spool.end) == (900, 950)
    assert spool.read(900, 100) == bytes(50)
    spool.append(b"more")
    assert spool.read(950, 100) == b"more"
    with pytest.raises(LocalProtocolError, match="keeps 900"):
        spool.read(899, 1)
    with pytest.raises(LocalProtocolError):
        spool.read(955, 1)
    spool.close()


def test_the_limit_counts_what_is_kept_and_leaves_what_was_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s", limit=250, segment_bytes=100)
    spool.append(b"x" * 250)
    with pytest.raises(SpoolFull, match="250") as full:
        spool.append(b"y")
    assert "--spool-limit" in full.value.remedy
    assert everything(spool, 1000) == b"x" * 250
    spool.trim(200)
    spool.append(b"y" * 200)
    assert everything(spool, 1000) == b"x" * 50 + b"y" * 200
    spool.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_with_a_remedy_and_nothing_before_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    spool = Spool(tmp_path, "s")
    spool.append(b"kept")

    def full(fd: int, data: memoryview, at: int) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(SpoolFull, match="space") as error:
            spool.append(b"lost")
    assert "--spool" in error.value.remedy
    assert everything(spool, 100) == b"kept"
    spool.append(b" and more")
    assert everything(spool, 100) == b"kept and more"
    spool.close()


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
    spool = Spool(tmp_path, "s", segment_bytes=10)
    spool.append(b"0123456789abcdef")
    assert everything(spool, 100) == b"0123456789abcdef"
    spool.close()


def test_another_error_of_the_disk_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "s")
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(ValkeepError, match="I/O error") as error:
        spool.append(b"x")
    assert error.value.code == "VK-SPOOL-WRITE"
    spool.close()


def test_a_spool_that_cannot_be_read_says_so_and_is_not_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "s")
    spool.append(b"0123456789")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(ValkeepError, match="I/O error") as error:
            spool.read(0, 10)
    assert error.value.code == "VK-SPOOL-WRITE"
    (file,) = tmp_path.iterdir()
    os.truncate(file, 4)
    assert spool.read(0, 10) == b"0123"
    with pytest.raises(ValkeepError, match=f"{tmp_path} .*cut short"):
        spool.read(4, 10)
    spool.close()


def test_what_lies_aside_comes_back_and_leaves_no_file(tmp_path: Path) -> None:
    aside = AsideFile(tmp_path / "aside")
    assert list(tmp_path.iterdir()) == []
    aside.write(b"01234")
    aside.write(b"56789")
    assert b"".join(aside.chunks()) == b"0123456789"
    aside.clear()
    assert list(aside.chunks()) == []
    aside.write(b"new")
    assert b"".join(aside.chunks()) == b"new"
    aside.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "VK-SPOOL-FULL"), (errno.EIO, "VK-SPOOL-WRITE")])
def test_a_disk_that_fails_what_lies_aside_is_the_spools_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    aside = AsideFile(tmp_path / "aside")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
        with pytest.raises(ValkeepError, match=str(tmp_path)) as error:
            aside.write(b"x")
    assert error.value.code == code
    assert "--spool" in error.value.remedy
    aside.close()


def test_a_folder_that_cannot_be_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeepError, match="file") as error:
        Spool(tmp_path / "file", "s")
    assert "--spool" in error.value.remedy


def test_readers_wait_for_growth_and_wake_at_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(tmp_path, "s", start=10)
        await spool.grown(9)
        waiting = [asyncio.create_task(spool.grown(10)), asyncio.create_task(spool.grown(11))]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        spool.append(b"x")
        await waiting[0]
        await asyncio.sleep(0)
        assert not waiting[1].done()
        spool.seal()
        await waiting[1]
        with pytest.raises(LocalProtocolError):
            spool.append(b"y")
        assert spool.read(10, 5) == b"x"
        spool.close()

    asyncio.run(run())


def test_closing_removes_every_file_and_the_files_are_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s", segment_bytes=10)
    spool.append(bytes(55))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_committed_is_not_read_and_something_can_be_put_before_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s", start=100, segment_bytes=10, staged=True)
    spool.append(b"a" * 25)
    assert (spool.committed, spool.end, spool.read(100, 99)) == (100, 125, b"")
    spool.commit(112)
    assert everything(spool, 7) == b"a" * 12
    spool.insert(b"PING")
    assert (spool.committed, spool.end) == (112, 129)
    spool.commit(116)
    assert everything(spool, 7) == b"a" * 12 + b"PING"
    spool.commit(129)
    assert everything(spool, 7) == b"a" * 12 + b"PING" + b"a" * 13
    spool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [100, 101, 109, 110, 111, 125, None])
def test_another_process_goes_on_with_what_was_recorded(tmp_path: Path, end: int | None) -> None:
    data = bytes(range(25))
    first = Spool(tmp_path, "s", start=100, segment_bytes=10)
    first.append(data)
    first.leave()
    again = Spool.reopen(tmp_path, "s", end=end, segment_bytes=10)
    assert (again.start, again.end, again.committed) == (100, end or 125, end or 125)
    again.append(b"more than ten bytes")
    assert everything(again, 100) == data[: (end or 125) - 100] + b"more than ten bytes"
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_hold_what_was_recorded_are_not_believed(tmp_path: Path) -> None:
    def left() -> list[Path]:
        spool = Spool(tmp_path, "s", start=100, segment_bytes=10)
        spool.append(b"0123456789" * 3)
        spool.leave()
        return sorted(tmp_path.iterdir())

    with pytest.raises(SpoolDamaged, match="there is no s"):
        Spool.reopen(tmp_path, "s", end=130)
    left()[1].unlink()
    with pytest.raises(SpoolDamaged, match="nothing from 110 to 120"):
        Spool.reopen(tmp_path, "s", end=130)
    os.truncate(left()[2], 4)
    with pytest.raises(SpoolDamaged, match="100 to 124, and 130 is recorded"):
        Spool.reopen(tmp_path, "s", end=130)
    left()[0].unlink()
    with pytest.raises(SpoolDamaged, match="110 to 130, and 105 is recorded"):
        Spool.reopen(tmp_path, "s", end=105)
    left()[0].unlink()
    with pytest.raises(SpoolDamaged, match="begins at 110, and not at 100"):
        Spool.reopen(tmp_path, "s", start=100, end=130)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_cannot_be_put_in_for_want_of_space_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int) -> None:
    spool = Spool(tmp_path, "s", segment_bytes=100, staged=True)
    spool.append(b"x" * 90)
    spool.commit(90)
    tail = bytes(range(150))
    spool.append(tail)
    write, left = os.pwrite, [where]

    def pwrite(fd: int, data: bytes, at: int) -> int:
        grown = at + len(data) > os.fstat(fd).st_size
        if grown and not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= grown
        return write(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    said = b"OWN" * 100
    with pytest.raises(SpoolFull):
        spool.insert(said)
    monkeypatch.setattr(os, "pwrite", write)
    assert (spool.committed, spool.end) == (90, 240)
    spool.append(b"more")
    spool.commit(spool.end)
    assert everything(spool, 1000) == b"x" * 90 + tail + b"more"
    spool.close()


def test_what_is_put_in_stands_before_what_is_not_committed_whatever_the_segments(tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(300):
        spool = Spool(tmp_path, f"s{number}", segment_bytes=chance.choice([7, 64, 1000]), staged=True)
        head, tail, said = (chance.randbytes(chance.choice([0, 1, 6, 7, 8, 64, 200])) for _ in range(3))
        spool.append(head)
        spool.commit(len(head))
        spool.append(tail)
        spool.insert(said)
        assert spool.committed == len(head)
        spool.commit(spool.end)
        assert everything(spool, 1000) == head + said + tail
        spool.close()


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_its_disk(tmp_path: Path) -> None:
    free = room(tmp_path / "not" / "yet")
    assert free is not None
    assert free > 0
    assert room(Path("/proc/self/no such folder")) is not None  # a disk of its own, and never an error
