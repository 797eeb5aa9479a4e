"""A primary that sentinels know by a name: the URL that a person gives, and who it is now.

    redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/name[/database][?option=…]

The form is that of Redis-Sentinel-Url, which Prefect, LangChain and others took over: sentinels before the name, their port 26379 unless it says otherwise;
user and password are those of the data nodes. The sentinels' own are options: ``sentinel_username``, and one of ``sentinel_password``,
``sentinel_password_file``, ``sentinel_password_env``. TLS (``rediss+sentinel``, ``valkeys+sentinel``) is for both, with the options of any other URL.

Who it is can change at any time. ``resolve`` asks all sentinels and takes what the newest configuration says, if that server says so, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

from valkeep.client.endpoint import SCHEMES, Endpoint, Secret, decoded, wrong_url
from valkeep.client.sentinel import SentinelDirectory
from valkeep.client.shard_primary import ShardPrimary
from valkeep.errors import UsageError

__all__ = ["NamedPrimary", "Source", "parse_source"]

SENTINEL_PORT: Final = 26379
SUFFIX: Final = "+sentinel"
FORM: Final = "redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/name-of-the-primary (rediss+sentinel:// with TLS)"
USERNAME, PASSWORD, FILE, ENV = "sentinel_username", "sentinel_password", "sentinel_password_file", "sentinel_password_env"


@dataclass(frozen=True, slots=True)
class NamedPrimary:
    """``sentinels``: with the login that they want. ``name``: what they call the primary. ``login``: of the data nodes; its host and port mean nothing."""

    sentinels: tuple[Endpoint, ...]
    name: str
    login: Endpoint

    @classmethod
    def parse(cls, url: str) -> NamedPrimary:
        """Read a URL. Raises ``UsageError``, without the secrets."""
        scheme, _, rest = url.strip().partition("://")
        plain = scheme.lower().removesuffix(SUFFIX)
        if plain not in SCHEMES:
            raise wrong_url(url, f"the scheme {scheme!r} is not one of {', '.join(known + SUFFIX for known in SCHEMES)}")
        login, at, place = rest.rpartition("@")
        place, _, query = place.partition("?")
        hosts, _, path = place.partition("/")
        name, _, database = path.partition("/")
        if not name:
            raise wrong_url(url, "it does not say what the sentinels call the primary", f"the form is {FORM}")
        ours, others = _split(query)
        options = f"?{others}" if others else ""
        first, *more = hosts.split(",")
        node = _part(url, f"{plain}://{login}{at}{first}/{database}{options}")
        theirs = replace(node, db=0, username=None, password=None)
        named = [theirs, *(_part(url, f"{plain}://{host}{options}") for host in more)]
        ports = [host.rpartition("]")[2].partition(":")[2] for host in (first, *more)]
        username, password = _login(url, ours)
        sentinels = tuple(
            replace(sentinel, port=sentinel.port if port else SENTINEL_PORT, username=username, password=password)
            for sentinel, port in zip(named, ports, strict=True)
        )
        return cls(sentinels, decoded(url, name), node)

    @property
    def db(self) -> int:
        return self.login.db

    @property
    def address(self) -> str:
        """For messages."""
        return f"{self.name} ({', '.join(sentinel.address for sentinel in self.sentinels)})"

    @property
    def display(self) -> str:
        """The URL without its secrets: for every message, log and report."""
        scheme, _, rest = self.login.display.partition("://")
        login = rest.rpartition("@")[0]
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"{scheme}{SUFFIX}://{login}{'@' if login else ''}{hosts}/{self.name}{f'/{self.db}' if self.db else ''}"

    def __str__(self) -> str:
        return self.display

    def with_password_from(self, *, file: str | os.PathLike[str] | None = None, env: str | None = None) -> NamedPrimary:
        """The same with the data nodes' password from a file or an environment variable."""
        return replace(self, login=self.login.with_password_from(file=file, env=env))

    def at(self, host: str, port: int) -> Endpoint:
        """A data node."""
        return self.login.at(host, port)

    def directory(self) -> SentinelDirectory:
        return SentinelDirectory(self.sentinels, self.name, login=self.login)

    async def resolve(self) -> Endpoint:
        """Who it is now. Raises ``NoPrimary``, definite: later there may be one."""
        return await self.directory().newest()


Source = Endpoint | NamedPrimary | ShardPrimary


def parse_source(url: str) -> Endpoint | NamedPrimary:
    """A server's URL, or that of a primary that sentinels know."""
    return NamedPrimary.parse(url) if url.partition("://")[0].strip().lower().endswith(SUFFIX) else Endpoint.parse(url)


def _part(url: str, text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except UsageError as error:  # it shows a part only
        raise wrong_url(url, error.message.partition("URL: ")[2] or "it can't be read", f"the form is {FORM}") from None


def _split(query: str) -> tuple[dict[str, str], str]:
    """The sentinels' own options (still encoded), and the rest of the query."""
    ours: dict[str, str] = {}
    others = []
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        if name in (USERNAME, PASSWORD, FILE, ENV):
            ours[name] = value
        else:
            others.append(part)
    return ours, "&".join(others)


def _login(url: str, options: dict[str, str]) -> tuple[str | None, Secret | None]:
    given = {name: decoded(url, value) for name, value in options.items()}
    for name, value in given.items():
        if not value:
            raise wrong_url(url, f"the option {name!r} is empty", f"give {name}=…, or leave it out")
    ways = [name for name in (PASSWORD, FILE, ENV) if name in given]
    if len(ways) > 1:
        raise wrong_url(url, f"{' and '.join(ways)} are given", "give one of them")
    if FILE in given or ENV in given:
        holder = Endpoint("").with_password_from(file=given.get(FILE), env=given.get(ENV))
        return given.get(USERNAME), holder.password
    return given.get(USERNAME), Secret(given[PASSWORD]) if PASSWORD in given else None
