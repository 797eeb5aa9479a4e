"""valkey-py, as an application gets it; see `twins`."""

from __future__ import annotations

from typing import Final

from valkeep.drill.workloads.drivers.twins import Twin

__all__ = ["DRIVER"]

DRIVER: Final = Twin("valkey-py", "valkey", "Valkey", "valkey", cluster_transactions=False)
