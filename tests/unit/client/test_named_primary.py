"""URLs of primaries that sentinels know: taken apart, shown without secrets, refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.client.endpoint import Endpoint, Secret
from valkeep.client.named_primary import NamedPrimary, parse_source
from valkeep.errors import UsageError


def parsed(url: str) -> NamedPrimary:
    source = parse_source(url)
    assert isinstance(source, NamedPrimary)
    return source


def test_sentinels_name_and_login_are_told_apart() -> None:
    source = parsed("redis+sentinel://mover:p%40ss@s1:26380,s2,[::1]:5000/mymaster")
    assert [sentinel.address for sentinel in source.sentinels] == ["s1:26380", "s2:26379", "[::1]:5000"]
    assert source.name == "mymaster"
    assert (source.login.username, source.login.password) == ("mover", Secret("p@ss"))
    assert all((sentinel.username, sentinel.password, sentinel.tls) == (None, None, None) for sentinel in source.sentinels)
    assert source.display == "redis+sentinel://mover:***@s1:26380,s2:26379,[::1]:5000/mymaster"
    assert parse_source(source.display.replace(":***", "")).display == source.display.replace(":***", "")


def test_what_is_no_such_url_is_a_server_s() -> None:
    assert parse_source("valkey://h:1") == Endpoint("h", 1)


def test_the_sentinels_have_a_login_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    monkeypatch.setenv("OF_SENTINELS", "from the environment")
    base = "valkey+sentinel://:data@s1,s2/m?sentinel_username=watcher"
    for more, password in (
        ("&sentinel_password=in%20it", "in it"),
        (f"&sentinel_password_file={tmp_path / 'secret'}", "from a file"),
        ("&sentinel_password_env=OF_SENTINELS", "from the environment"),
        ("", None),
    ):
        source = parsed(base + more)
        assert {(one.username, one.password) for one in source.sentinels} == {("watcher", Secret(password) if password else None)}
        assert source.login.password == Secret("data")
        assert source.display == "redis+sentinel://:***@s1:26379,s2:26379/m"
        assert "in it" not in repr(source)


def test_tls_is_for_sentinels_and_data_nodes() -> None:
    source = parsed("rediss+sentinel://s1,s2/m?ca=ca.pem&sentinel_password=secret&verify=ca")
    assert {one.tls.ca for one in (*source.sentinels, source.login) if one.tls is not None} == {"ca.pem"}
    assert source.sentinels[1].tls == source.login.tls is not None
    assert source.display.startswith("rediss+sentinel://s1:")


def test_the_data_nodes_password_may_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "word")
    source = parsed("redis+sentinel://mover@s1/m").with_password_from(env="DATA")
    assert source.login.password == Secret("word")
    assert source.sentinels[0].password is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://:secret@s1:26379", "what the sentinels call the primary"),
        ("redis+sentinel://:secret@s1:26379/", "what the sentinels call the primary"),
        ("redis+sentinel://:secret@s1:x/m", "the port 'x' is not a number"),
        ("redis+sentinel://:secret@s1,,s2/m", "it has no host"),
        ("redis+sentinel://:secret@s1/m/zero", "the database 'zero' is not a number"),
        ("redis+sentinel://:secret@s1/m?ca=x", "without TLS"),
        ("redis+sentinel://:secret@s1/m?sentinel_passwort=secret", "the option 'sentinel_passwort' is unknown"),
        ("redis+sentinel://s1/m?sentinel_password=secret&sentinel_password_env=X", "are given"),
        ("redis+sentinel://s1/m?sentinel_username=&sentinel_password=secret", "is empty"),
        ("http+sentinel://:secret@s1/m", "the scheme 'http+sentinel'"),
    ],
)
def test_what_is_wrong_with_it_is_said_without_the_secret(url: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_source(url)
    assert why in raised.value.message
    assert raised.value.remedy
    if "passwort" not in url:
        assert "secret" not in raised.value.message + raised.value.remedy
