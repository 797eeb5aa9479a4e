"""What is made for servers is known to who cleans up before it is there, and nothing is started after the end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from valkeep.runtime import standing
from valkeep.runtime.folder import temporary_folder
from valkeep.runtime.node import NodeFailed, Process
from valkeep.runtime.servers import ServerBinary


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_every_name_of_a_folder_is_told_before_it_is_made(place: Path) -> None:
    told: list[tuple[Path, bool]] = []
    folder = temporary_folder(lambda path: told.append((path, path.exists())))
    assert [was_there for _, was_there in told] == [False, False]
    assert [path for path, _ in told][-1] == folder
    assert set(place.iterdir()) == {folder} <= {path for path, _ in told}
    assert folder.name.startswith(f"valkeep-node-{os.getpid()}-")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_file_of_a_name_is_told_before_it_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "state_folder", lambda: place)
    there: list[bool] = []

    class Janitor:
        def run(self, command: list[str]) -> None:
            there.append(Path(command[-1]).exists())

    with standing._claimed("mine", Janitor()):  # type: ignore[arg-type]
        assert (place / "mine.json").exists()
        assert there == [False]
    assert not (place / "mine.json").exists()


def test_a_server_that_was_put_away_while_another_thread_starts_it_is_not_started(tmp_path: Path) -> None:
    process = Process(ServerBinary("valkey", (9, 1, 0), Path("/bin/sleep")), {}, tmp_path, ("127.0.0.1", 1))
    process.dispose()
    with pytest.raises(NodeFailed, match="put away"):
        process.launch(0.1)
    assert not process.alive
