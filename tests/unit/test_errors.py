"""Errors keep what they know when they are said again."""

from __future__ import annotations

import pytest

from valkeep.errors import ConnectionLost, ExitCode, RemoteProtocolError, ServerError, ValkeepError


class Odd(ConnectionLost):
    """Made from something else than a message."""

    code = "VK-ODD"

    def __init__(self, port: int) -> None:
        super().__init__(f"nobody at {port}", remedy="look")
        self.port = port


def test_an_error_said_again_is_a_new_one_of_its_kind_that_keeps_the_rest() -> None:
    first = Odd(7)
    first.changed = "nothing"
    again = first.saying("127.0.0.1: nobody at 7")
    assert type(again) is Odd
    assert again is not first
    assert (again.message, str(again), again.args) == ("127.0.0.1: nobody at 7",) * 2 + (("127.0.0.1: nobody at 7",),)
    assert (again.remedy, again.definite, again.code, again.changed, again.port) == ("look", True, "VK-ODD", "nothing", 7)
    assert (first.message, str(first)) == ("nobody at 7", "nobody at 7")


def test_an_error_said_again_has_no_traceback_of_the_first() -> None:
    with pytest.raises(ValkeepError) as raised:
        raise RemoteProtocolError("no", remedy="do")
    again = raised.value.saying()
    assert (again.__traceback__, again.__context__, again.message) == (None, None, "no")


def test_a_lost_connection_is_passing_unless_somebody_knew_that_it_is_not() -> None:
    assert ConnectionLost("gone", remedy="look").passing
    assert not ConnectionLost("gone", remedy="look", code="VK-A").passing
    assert not Odd(7).passing


def test_what_is_given_is_said_instead() -> None:
    error = ConnectionLost("gone", remedy="look", code="VK-A")
    again = error.saying(remedy="look twice", code="VK-B")
    assert (again.message, again.remedy, again.code) == ("gone", "look twice", "VK-B")
    assert (error.remedy, error.code) == ("look", "VK-A")


def test_the_exit_code_follows_whether_anything_may_have_happened() -> None:
    sure = ConnectionLost("gone", remedy="look")
    unsure = sure.saying(definite=False)
    assert (sure.exit_code, unsure.exit_code) == (ExitCode.NOT_RUN, ExitCode.UNCERTAIN)
    assert unsure.saying().exit_code is ExitCode.UNCERTAIN
    assert unsure.saying(definite=True).exit_code is ExitCode.NOT_RUN
    judged = ConnectionLost("gone", remedy="look")
    judged.exit_code = ExitCode.UNKNOWN
    assert judged.saying(definite=False).exit_code is ExitCode.UNKNOWN


def test_a_servers_error_said_again_keeps_its_kind() -> None:
    again = ServerError("NOPERM", "no permissions").saying(remedy="permit it")
    assert (again.kind, again.text, again.message, again.remedy) == ("NOPERM", "no permissions", "NOPERM no permissions", "permit it")
