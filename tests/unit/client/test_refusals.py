"""What servers say when they do not let us in becomes an error with the server's address and a remedy."""

from __future__ import annotations

import pytest

from valkeep.client.endpoint import Endpoint
from valkeep.client.refusals import harmless, login_refused
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError


@pytest.mark.parametrize(
    ("command", "kind", "text", "error", "says"),
    [
        ("AUTH", "WRONGPASS", "invalid username-password pair", Refused, "did not accept the password of the default user"),
        ("AUTH", "ERR", "Client sent AUTH, but no password is set", Refused, "has no password, but one was given"),
        ("AUTH", "ERR", "wrong number of arguments for 'auth' command", Refused, "does not know user names"),
        ("AUTH", "ERR", "unknown command 'AUTH'", Refused, "refused to log in the default user"),
        ("PING", "NOAUTH", "Authentication required.", Refused, "wants a password"),
        ("PING", "DENIED", "Redis is running in protected mode", ConnectionLost, "is in protected mode"),
        ("PING", "ERR", "max number of clients reached", ConnectionLost, "has no room for another client"),
        ("SELECT", "LOADING", "the dataset in memory", Refused, "can't select database 3 now"),
        ("SELECT", "ERR", "DB index is out of range", Refused, "has no database 3"),
    ],
)
def test_a_refused_login_is_told_with_place_and_remedy(command: str, kind: str, text: str, error: type[ValkeepError], says: str) -> None:
    told = login_refused(Endpoint("10.0.0.9", 6379, db=3), command, ServerError(kind, text))
    assert type(told) is error
    assert told.message.startswith("10.0.0.9:6379 ")
    assert says in told.message
    assert told.remedy
    assert told.definite


def test_a_server_that_loads_or_may_not_be_pinged_is_one_all_the_same() -> None:
    assert harmless("PING", ServerError("LOADING", "the dataset"))
    assert harmless("PING", ServerError("ERR", "unknown command 'PING'"))
    assert harmless("CLIENT", ServerError("ERR", "unknown subcommand"))
    assert not harmless("PING", ServerError("NOAUTH", "Authentication required."))
    assert not harmless("SELECT", ServerError("LOADING", "the dataset"))
