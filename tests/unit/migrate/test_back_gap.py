"""Which keys a server wrote by itself in a stretch of its history."""

from __future__ import annotations

import pytest

from tests.support.scripted_primary import command
from valkeep.errors import RemoteProtocolError
from valkeep.migrate.back.gap import keys_in


def test_removed_keys_and_pings_are_told_apart() -> None:
    data = command("PING") + command("SELECT 0") + command("DEL a") + command("PING") + command("SELECT 3") + command("UNLINK b c")
    assert keys_in(data, {0}) == {(0, b"a"), (3, b"b"), (3, b"c")}


def test_a_key_before_the_first_select_may_be_in_any_database() -> None:
    assert keys_in(command("DEL a") + command("SELECT 1") + command("DEL b"), {0, 5}) == {(0, b"a"), (5, b"a"), (1, b"b")}


def test_a_transaction_is_looked_into() -> None:
    assert keys_in(command("MULTI") + command("DEL a") + command("EXEC"), {0}) == {(0, b"a")}


@pytest.mark.parametrize("words", ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "NEWCOMMAND a"])
def test_what_names_no_keys_is_refused(words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words.split(maxsplit=1)[0]):
        keys_in(command("SELECT 0") + command(words), {0})


def test_a_command_that_was_cut_off_is_left_out() -> None:
    assert keys_in(command("SELECT 0") + command("DEL a") + command("DEL b")[:-4], {0}) == {(0, b"a")}
