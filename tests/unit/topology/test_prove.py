"""A topology is proven by a canary, which a server that is slow for a moment does not kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from valkeep.errors import ConnectionLost, ServerError, ValkeepError
from valkeep.runtime import converge
from valkeep.runtime.converge import NotReady, prove, told
from valkeep.topology.plan import Plan
from valkeep.topology.spec import TopologySpec
from valkeep.topology.view import NodeView, View

VIEW = View(7, {"n1": NodeView("n1", reached=True, role="primary")})


class Prober:
    """Answers, or raises, what is on the list; at its end always the last."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def call(self, *_: object, **__: object) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ValkeepError):
            raise answer
        return answer


def test_what_passes_is_tried_again() -> None:
    prober = Prober(ConnectionLost("no answer within 0.5 s", remedy="wait"), ServerError("NOREPLICAS", "not enough"), b"OK", 1, b"OK", 2)
    asyncio.run(prove(TopologySpec.sentinel(), prober, VIEW, timeout=10))  # type: ignore[arg-type]
    assert prober.answers == [2]


def test_what_does_not_pass_is_said_in_the_end() -> None:
    prober = Prober(ConnectionLost("no answer within 0.5 s", remedy="wait"))
    with pytest.raises(NotReady, match="n1 is not ready after 0 s: no answer within"):
        asyncio.run(prove(TopologySpec.sentinel(), prober, VIEW, timeout=0.05))  # type: ignore[arg-type]


class Looking:
    async def look(self) -> View:
        return VIEW


def plans(monkeypatch: pytest.MonkeyPatch, *untold: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What the plans say, one after the other, at the end always the last; what is left is what was not looked at."""
    left = list(untold)
    monkeypatch.setattr(converge, "plan_for", lambda *_: Plan((), (), left.pop(0) if len(left) > 1 else left[0]))
    return left


def test_a_cluster_is_looked_at_until_its_nodes_tell_clients_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    left = plans(monkeypatch, ("n1 does not tell clients of n4 yet",), ("n2 does not tell clients of n4 yet",), ())
    asyncio.run(told(TopologySpec.cluster(), Looking(), {}, timeout=10))  # type: ignore[arg-type]
    assert left == [()]


def test_what_clients_are_never_told_is_said_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    plans(monkeypatch, ("n1 does not tell clients of n4 yet",))
    with pytest.raises(NotReady, match="after 0 s: n1 does not tell clients of n4 yet"):
        asyncio.run(told(TopologySpec.cluster(), Looking(), {}, timeout=0.05))  # type: ignore[arg-type]
