"""Whether the machine itself stood still for so long that timers of the servers ran out for no other reason."""

from __future__ import annotations

from collections.abc import Sequence

from valkeep.drill.checkers.judgement import Judgement

__all__ = ["check_host"]


def check_host(stalls: Sequence[tuple[int, float]], timeout_ms: float) -> Judgement:
    """``stalls``: (ns, ms late). ``timeout_ms``: down-after or node-timeout; 0: there is none. Unknown where one was longer than half of it."""
    worst = max((late for _, late in stalls), default=0.0)
    if timeout_ms and worst > timeout_ms / 2:
        note = f"the machine stood still for {worst:.0f} ms, more than half of the timeout of {timeout_ms:.0f} ms"
        return Judgement("host", "unknown", 0, 0, {}, (), note)
    return Judgement("host", "valid", 0, 0, {}, (), f"the machine stood still for {worst:.0f} ms at most" if stalls else "")
