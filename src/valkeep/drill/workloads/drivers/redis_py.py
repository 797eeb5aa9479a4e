"""redis-py, as an application gets it; see `twins`."""

from __future__ import annotations

from typing import Final

from valkeep.drill.workloads.drivers.twins import Twin

__all__ = ["DRIVER"]

DRIVER: Final = Twin("redis-py", "redis", "Redis", "redis", cluster_transactions=True)
