"""What a gateway leaves for the next one, so that a kill -9 or a restart costs neither the source nor a target a full sync.

In the state folder stands a small file that says once what does not change (``gateway.json``: fsynced, renamed); in a folder on the spool's disk stand the
spools, and for each channel the checkpoint, which changes all the time (`checkpoint`)::

    <state>/gateway.json                    boot, source, policy, where it listened, channels; and where the spool is
    <spool>/valkeep-kept-<12 hex>/          snapshot-…  stream-…  held-…  lost-…  checkpoint-…

It can be gone on with from the moment when the snapshot is whole. Before that, and where it cannot be (another boot of this machine: what was not
synced to the disk may be gone), the folder is removed, and it begins with a full sync.

Whoever makes one holds the state folder's `control.Lock`: two gateways that continue the same offsets would tell a target two different things.

What it does not do: it does not judge whether the source can go on (the feed does), nor what a target did meanwhile (`delivery.target` does).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.errors import Refused, ValkeepError
from valkeep.migrate.gateway.checkpoint import CheckpointFile, Kept, Taken
from valkeep.migrate.gateway.ledger import LedgerMark
from valkeep.migrate.state import write_durably

if TYPE_CHECKING:
    from valkeep.migrate.feed import Origin
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.transform.target import FieldTtl, TargetFormat

__all__ = ["Rebooted", "Resumption", "discard"]

SCHEMA = 1
FILE = "gateway.json"
FOLDER = "valkeep-kept-"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Rebooted(ValkeepError):
    """The machine was started again since: nothing that was not synced to its disk can be believed."""

    code = "VK-STATE-BOOT"


@dataclass(frozen=True, slots=True)
class _Standing:
    """``gateway.json``. ``channels``: each a `_KeptChannel` as a dict; none before the snapshot is whole. ``listen``: host and port."""

    boot: str
    spool: str
    ledger: str | None
    policy: str = ""
    formats: tuple[str, ...] = ()
    source: str = ""
    speaks: tuple[int, ...] = ()
    listen: tuple[str, int] = ("", 0)
    channels: tuple[dict[str, Any], ...] = ()
    schema: int = SCHEMA


class Resumption:
    """In ``directory``; the spool goes below ``spool``. ``spool_folder``: of this gateway. ``channels``: to go on with, by our replication ids; none: begin.
    ``ledger``: how far that was written. ``listen``: where the gateway was (host and port, "" and 0: nowhere)."""

    def __init__(self, directory: Path, spool: Path, ledger: Path | None) -> None:
        self.path = directory / FILE
        self.channels: dict[str, Kept] = {}
        self.ledger: LedgerMark | None = None
        self._name = FOLDER + hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]
        self._standing = _Standing(boot_id(), str((spool / self._name).absolute()), str(ledger.absolute()) if ledger else None)

    @property
    def spool_folder(self) -> Path:
        return Path(self._standing.spool)

    @property
    def ledger_path(self) -> Path | None:
        return Path(self._standing.ledger) if self._standing.ledger is not None else None

    @property
    def listen(self) -> tuple[str, int]:
        return self._standing.listen

    def load(self) -> bool:
        """Whether there is something to go on with: then ``channels`` and the rest hold it.

        Raises ``ValkeepError`` where there is something that cannot be gone on with: `Rebooted`, of another version or purpose, damaged.
        """
        found = self._read()
        if found is None or not found.channels:
            return False
        if found.boot != self._standing.boot:
            raise Rebooted(
                f"this machine was started again since the gateway of {self.path.parent} ended: what it kept may not be whole",
                remedy="start anew with a full sync: --fresh",
            )
        for one in found.channels:
            try:
                replid, begins, taken = str(one["replid"]), int(one["begins"]), Taken(**one["taken"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._not_ours(error) from error
            self.channels[replid] = Kept(begins, taken, CheckpointFile(Path(found.spool) / f"checkpoint-{replid[:8]}").read())
        self._standing = found
        self.ledger = max((kept.checkpoint.ledger for kept in self.channels.values()), key=lambda mark: mark.size)
        return True

    def expect(self, policy: FieldTtl, formats: Iterable[TargetFormat]) -> None:
        """Raises ``Refused`` where what was loaded is for other targets."""
        found = self._standing
        if (found.policy, found.formats) != (policy.value, wanted := _named(formats)):
            raise Refused(
                f"the gateway of {self.path.parent} was one for {'; '.join(found.formats)} with --field-ttl {found.policy}, and this one is for "
                f"{'; '.join(wanted)} with {policy}",
                remedy="start it as it was; or anew with a full sync: --fresh; or give another --state DIR",
                code="VK-STATE-OTHER",
            )

    def check_source(self, origin: Origin) -> None:
        """Raises ``Refused`` where the source is a newer one than the translation was prepared for."""
        was, now = self._standing.speaks[:2], origin.speaks[:2]
        if now > was or not origin.name.startswith(self._standing.source.partition(" ")[0]):
            raise Refused(
                f"the source is {origin.name} now, and was {self._standing.source} when its snapshot was taken: its stream may hold what was not prepared for",
                remedy="give the source that it was; or start anew with a full sync: --fresh",
                code="VK-SOURCE-OTHER",
            )

    def begin(self, policy: FieldTtl, formats: Iterable[TargetFormat]) -> None:
        """Nothing is kept yet: an empty spool folder, named in the file so that whoever comes next finds it."""
        self.remove()
        try:
            self.spool_folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise ValkeepError(
                f"no spool folder can be made in {self.spool_folder.parent}: {error.strerror}",
                remedy="choose another one: --spool DIR",
                code="VK-SPOOL-WRITE",
            ) from error
        self._write(replace(self._standing, policy=policy.value, formats=_named(formats)))

    def complete(self, origin: Origin, listen: tuple[str, int], channels: Iterable[Channel]) -> None:
        """The snapshot is whole: from now on this can be gone on with."""
        kept = tuple({"replid": one.replid, "begins": one.begins, "taken": asdict(one.taken)} for one in channels)
        self._write(replace(self._standing, source=origin.name, speaks=origin.speaks, listen=listen, channels=kept))

    def ended(self) -> None:
        """The gateway is closed. What was never whole is of no use to anybody."""
        if not self._standing.channels:
            self.remove()

    def remove(self) -> None:
        """It will not be gone on with: give its space back. Also what an earlier one left that cannot be read, or elsewhere; but of a folder that is a copy
        of another only what is its own."""
        folders = {self.spool_folder}
        try:
            found = self._read()
        except ValkeepError:
            found = None
        if found is not None and Path(found.spool).name == self._name:
            folders.add(Path(found.spool))
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.path.unlink(missing_ok=True)
        self.channels = {}
        self.ledger = None

    def _write(self, standing: _Standing) -> None:
        write_durably(self.path, asdict(standing))
        self._standing = standing

    def _read(self) -> _Standing | None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA:
                raise ValueError(f"schema {content.get('schema')}")
            for name in ("formats", "speaks", "listen", "channels"):
                content[name] = tuple(content[name])
            return _Standing(**content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise self._not_ours(error) from error

    def _not_ours(self, error: Exception) -> ValkeepError:
        return ValkeepError(
            f"{self.path} is not the state of a gateway that this Valkeep understands: {error!r}",
            remedy="use the Valkeep that wrote it; or start anew with a full sync: --fresh",
            code="VK-STATE-READ",
        )


def discard(directory: Path) -> None:
    """What a gateway with this state folder left will not be gone on with."""
    Resumption(directory, directory, None).remove()


def _named(formats: Iterable[TargetFormat]) -> tuple[str, ...]:
    return tuple(f"{one.name}, {'a cluster' if one.cluster else f'{one.databases} databases'}" for one in formats)


def boot_id() -> str:
    """Of this run of this machine's kernel."""
    if sys.platform == "darwin":
        return subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True).stdout.strip()
    return BOOT_ID.read_text(encoding="ascii").strip()
