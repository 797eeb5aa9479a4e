"""The checkpoint file: the newest whole one is found, whatever became of the last write."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.checkpoint import SLOT, Checkpoint, CheckpointFile
from valkeep.migrate.gateway.ledger import LedgerMark

REPLID = "ab" * 20
ONE = Checkpoint(
    REPLID, 1000, 900, 3, ((0, b"k\xff"), (15, b"")), LedgerMark(812, ((("degraded", "field-ttl", "keep-field"), 7),)), 77, False
)


def at(offset: int) -> Checkpoint:
    return Checkpoint(REPLID, offset, offset + 1, 0)


def test_what_was_written_last_is_read_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first = CheckpointFile(path)
    for point in (at(1), ONE, at(5), ONE):
        assert first.write(point)
        assert CheckpointFile(path).read() == point
    first.close()
    again = CheckpointFile(path)
    assert again.read() == ONE
    again.write(at(9))
    assert CheckpointFile(path).read() == at(9)
    again.remove()
    assert not path.exists()


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_write_that_was_torn_leaves_the_one_before(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "checkpoint"
    file = CheckpointFile(path)
    for offset in (1, 2, 3, 4):
        file.write(at(offset))
    before = path.read_bytes()
    file.write(at(5))
    file.close()
    after = path.read_bytes()
    changed = next(number for number in range(2 * SLOT) if before[number] != after[number]) // SLOT * SLOT
    path.write_bytes(before[:changed] + after[changed : changed + cut] + before[changed + cut :])
    assert CheckpointFile(path).read() in (at(4), at(5))


def test_copies_by_the_thousand_are_not_recorded_and_the_one_before_holds(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoint")
    file.write(at(1))
    assert not file.write(Checkpoint(REPLID, 2, 2, 0, tuple((0, b"%060d" % number) for number in range(2000))))
    assert file.read() == at(1)
    file.close()


@pytest.mark.parametrize("content", [None, b"", b"\0" * 2 * SLOT, b"x" * 2 * SLOT])
def test_a_file_that_holds_none_is_said_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValkeepError, match="does not say where the gateway was") as error:
        CheckpointFile(path).read()
    assert error.value.code == "VK-STATE-DAMAGED"
    assert "--fresh" in error.value.remedy


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValkeepError, match="cannot be written") as error:
        CheckpointFile(tmp_path / "no" / "folder").write(at(1))
    assert error.value.code == "VK-STATE-WRITE"
