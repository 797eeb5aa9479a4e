"""Move to Valkey. Keep everything.

Valkeep moves the live data of a Redis to Valkey and proves that all of it arrived. The command is ``valkeep``; the map of the code
is ARCHITECTURE.md.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
