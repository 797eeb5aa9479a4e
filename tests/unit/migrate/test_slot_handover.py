"""The order of a handover: nothing of a slot crosses on a key whose copy was not asked for, and nobody has the slot before all copies are in the target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import ConnectionLost
from valkeep.migrate.resharding import handover, keys
from valkeep.migrate.resharding.handover import Handover
from valkeep.migrate.transform.territory import Territory
from valkeep.topology.slots import key_slot

HERE, THERE, NEW = b"{x}source", b"{x}target", b"{x}written"
SLOT = key_slot(HERE)


class Story:
    """A taker of one slot. ``happened``: in order; ``info``: what its server says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **info: object) -> None:
        self.happened: list[str] = []
        self.info = SimpleNamespace(**({"role": "primary", "replid": "h", "offset": 70} | info))
        self.territory = Territory([])
        gateway = SimpleNamespace(history="h", drained=self._drained, recopy=self._recopy)
        shard = SimpleNamespace(endpoint=SimpleNamespace(address="here"))
        holder: Any = SimpleNamespace(
            gateway=gateway, territory=self.territory, shard=shard, channel=SimpleNamespace(source_offset=90), name="2"
        )
        self.work = Handover(holder, [SLOT], SimpleNamespace())  # type: ignore[arg-type]
        monkeypatch.setattr(Connection, "open", self._open)
        monkeypatch.setattr(handover, "server_info", self._info)
        monkeypatch.setattr(keys, "counted", self._counted)
        monkeypatch.setattr(keys, "listed", self._listed)
        monkeypatch.setattr(keys, "heavy", self._heavy)
        monkeypatch.setattr(self.work, "_in_target", self._in_target)

    async def _open(self, *_: object, **__: object) -> Any:
        class Opened:
            endpoint = SimpleNamespace(address="here")

            async def __aenter__(self) -> Any:
                return self

            async def __aexit__(self, *_: object) -> None: ...

        return Opened()

    async def _info(self, _: object) -> Any:
        return self.info

    async def _drained(self, offset: int) -> None:
        self.happened.append(f"drained {offset}")

    async def _counted(self, *_: object) -> dict[int, int]:
        return {SLOT: 1}

    async def _listed(self, *_: object) -> dict[int, set[bytes]]:
        self.happened.append("listed")
        self.territory.left_out(NEW)  # by a command in the stream
        return {SLOT: {HERE}}

    async def _heavy(self, _: object, names: list[bytes]) -> list[int]:
        return [0] * len(names)

    async def _in_target(self, _: object) -> dict[int, set[bytes]]:
        self.happened.append("listed there")
        assert not self.territory.ranges  # nothing crosses yet
        return {SLOT: {THERE}}

    async def _recopy(self, places: tuple[tuple[int, bytes], ...], asked: Callable[[], None], *, why: str) -> None:
        del why
        assert not any(self.territory.crosses(key) for _, key in places)
        asked()
        assert all(self.territory.crosses(key) for _, key in places)
        self.happened += sorted(f"copied {key.decode()}" for _, key in places)

    def run(self) -> None:
        asyncio.run(self.work.run(lambda slots: self.happened.append(f"has {list(slots)}")))


def test_a_slot_is_its_takers_when_every_key_on_either_side_or_in_between_was_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch)
    story.run()
    copied = [f"copied {key.decode()}" for key in sorted([HERE, THERE, NEW])]
    assert story.happened == ["listed", "drained 70", "listed there", *copied, "drained 90", f"has [{SLOT}]"]
    assert story.territory.ranges == ((SLOT, SLOT),)


@pytest.mark.parametrize("info", [{"role": "replica"}, {"replid": "of another"}])
def test_the_list_of_another_history_or_of_a_replica_is_not_believed(info: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, **info)
    with pytest.raises(ConnectionLost) as error:
        story.run()
    assert not error.value.code  # it is tried again
    assert story.territory.ranges == ()
