"""A topology is proven by a canary, which a server that is slow for a moment does not kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from valkeep.errors import ConnectionLost, ServerError, ValkeepError
from valkeep.runtime.converge import NotReady, prove
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
