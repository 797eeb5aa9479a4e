"""URLs of servers: what they mean, what is wrong with them, and that no form of them shows a password."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.errors import UsageError


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://localhost", Endpoint("localhost")),
        ("valkey://10.0.0.1:7000/3", Endpoint("10.0.0.1", 7000, 3)),
        ("REDIS://h:1", Endpoint("h", 1)),
        ("redis://h/", Endpoint("h")),
        ("redis://[::1]:7000", Endpoint("::1", 7000)),
        ("redis://[fe80::1]", Endpoint("fe80::1")),
        ("redis://:pw@h", Endpoint("h", password=Secret("pw"))),
        ("redis://user:pw@h", Endpoint("h", username="user", password=Secret("pw"))),
        ("redis://user@h", Endpoint("h", username="user")),
        ("redis://us%40er:p%2Fw%3A%25@h", Endpoint("h", username="us@er", password=Secret("p/w:%"))),
        ("redis://u:p@w@h", Endpoint("h", username="u", password=Secret("p@w"))),
        ("redis://u:p:w@h", Endpoint("h", username="u", password=Secret("p:w"))),
        ("redis://:p%C3%A9@h", Endpoint("h", password=Secret("pé"))),
        ("rediss://h", Endpoint("h", tls=TLS())),
        (
            "valkeys://h:6380/1?ca=/etc/ca.pem&cert=c.pem&key=k.pem&verify=ca&server_name=x.y",
            Endpoint("h", 6380, 1, tls=TLS("/etc/ca.pem", "c.pem", "k.pem", "ca", "x.y")),
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://h",
        "unix:///tmp/s",
        "redis://",
        "redis://:6379",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:x",
        "redis://h:+1",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/1/2",
        "redis://::1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://h h",
        "redis://h#x",
        "redis://h?ca=x",
        "rediss://h?what=x",
        "rediss://h?ca=",
        "rediss://h?ca",
        "rediss://h?verify=maybe",
        "rediss://h?key=k",
        "redis://:p%ff@h",
    ],
)
def test_what_is_no_url_is_a_usage_error_with_a_remedy(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(url)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "url",
    ["redis://u:hunter2@h:x", "http://u:hunter2@h", "u:hunter2@h", "redis://u:hun/hunter2@h", "redis://:hunter2@h h", "redis://:hunter2@"],
)
def test_an_unusable_url_is_named_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(url)
    assert "hunter2" not in repr(caught.value) + str(caught.value) + caught.value.remedy


def test_a_password_shows_itself_in_no_form() -> None:
    endpoint = Endpoint.parse("rediss://user:hunter2@h/2")
    forms = [
        repr(endpoint),
        str(endpoint),
        f"{endpoint}",
        f"{endpoint.password:>20}",
        f"{endpoint.password!r}",
        endpoint.display,
        f"{endpoint.password}",
    ]
    assert "hunter2" not in "".join(forms)
    assert endpoint.display == "rediss://user:***@h:6379/2"
    assert endpoint.password is not None
    assert endpoint.password.reveal() == "hunter2"
    assert pickle.loads(pickle.dumps(endpoint)) == copy.deepcopy(endpoint) == endpoint


def test_what_is_given_apart_wins_over_the_url() -> None:
    assert Endpoint.parse("redis://:url@h", password=Secret("apart")).password == Secret("apart")
    assert Endpoint.parse("rediss://h?ca=url", tls=TLS(ca="apart")).tls == TLS(ca="apart")
    with pytest.raises(UsageError, match="without TLS"):
        Endpoint.parse("redis://h", tls=TLS())


def test_a_password_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("h")
    file = tmp_path / "password"
    file.write_text(" hunter2 \n")
    assert endpoint.with_password_from(file=file).password == Secret(" hunter2 ")
    monkeypatch.setenv("THE_PASSWORD", "hunter3")
    assert endpoint.with_password_from(env="THE_PASSWORD").password == Secret("hunter3")
    file.write_text("\n")
    for wrong in ({"file": file}, {"file": tmp_path / "absent"}, {"env": "NOT_SET_ANYWHERE"}, {}, {"file": file, "env": "X"}):
        with pytest.raises(UsageError) as caught:
            endpoint.with_password_from(**wrong)
        assert caught.value.remedy


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_a_usage_error(text: str) -> None:
    for url in (text, f"redis://{text}", f"rediss://u:p@{text}"):
        try:
            endpoint = Endpoint.parse(url)
        except UsageError:
            continue
        assert endpoint.host
        assert 0 < endpoint.port < 65536


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_percent_encoded_logins_come_back(password: str, username: str) -> None:
    from urllib.parse import quote

    try:
        url = f"redis://{quote(username, safe='')}:{quote(password, safe='')}@h"
    except UnicodeEncodeError:
        return
    endpoint = Endpoint.parse(url)
    assert endpoint.password == Secret(password)
    assert endpoint.username == (username or None)
