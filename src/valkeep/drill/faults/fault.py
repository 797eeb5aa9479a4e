"""What a fault is: a name, whom it can strike, and one coroutine that does it and returns how to undo it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from valkeep.client.connection import Argument, Connection
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.errors import UsageError
from valkeep.runtime.deployment import Machine
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["ALWAYS", "Deed", "Fault", "Inject", "Undo", "ask", "only_on"]

Undo = Callable[[], Awaitable[None]]
Fits = Callable[[TopologySpec, Step], str]


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done. ``undo``: makes it good again, None where there is nothing to undo; may be called once. ``detail``: for the report, or "".
    ``nodes``: whom it met, where that is not simply whom it was aimed at."""

    undo: Undo | None = None
    detail: str = ""
    nodes: tuple[str, ...] = ()


Inject = Callable[[Stage, Step, tuple[str, ...]], Awaitable[Deed]]
"""``inject(stage, step, targets)``: targets are names of nodes and clients, resolved at this moment. Returns when the fault is in force."""


def ALWAYS(_spec: TopologySpec, _step: Step) -> str:  # noqa: N802 - used as a constant
    return ""


def only_on(*kinds: Kind) -> Fits:
    """Fits these kinds of topology."""

    def fits(spec: TopologySpec, _step: Step) -> str:
        return "" if spec.kind in kinds else f"it needs {' or '.join(kind.value for kind in kinds)}, and this is {spec.described}"

    return fits


@dataclass(frozen=True, slots=True)
class Fault:
    """``does``: one sentence for `valkeep drill list`. ``fits``: why a step can not be done on a topology, or "". ``needs``: abilities of
    the deployment. ``clients``: whether a client may be among its targets. ``options``: name → what it means."""

    name: str
    does: str
    inject: Inject
    fits: Fits = ALWAYS
    needs: frozenset[str] = frozenset()
    clients: bool = False
    options: tuple[tuple[str, str], ...] = ()

    def check_options(self, step: Step) -> None:
        """Raises ``UsageError`` for an option that this fault does not know."""
        known = dict(self.options)
        for name, _ in step.options:
            if name not in known and "*" not in known:
                raise UsageError(
                    f"{step}: {self.name} has no option {name!r}", remedy=f"it knows {', '.join(known)}" if known else "it has no options"
                )


PATIENCE: Final = 5.0


async def ask(machine: Machine, *words: Argument, timeout: float = PATIENCE) -> Any:
    """One command to one node, on a connection of its own. Raises what the server or the connection says."""
    connection = await Connection.open(machine.endpoint, timeout=timeout, client_name="valkeep-fault")
    try:
        return await connection.call(*words, timeout=timeout)
    finally:
        await connection.close()
