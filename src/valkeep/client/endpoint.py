"""Where a server is and how to get in: the URL that a person gives, taken apart once.

    redis://[[user]:password@]host[:port][/database][?option=…]
    rediss, valkeys: with TLS           valkey = redis

Options (TLS only): ``ca``, ``cert``, ``key`` (paths of PEM files), ``server_name``, and ``verify``: ``full``, ``ca`` (without the
host name) or ``none``.

A password is a ``Secret``: it has no text form, so it can't reach a log, an exception or a report by accident. ``reveal()`` is called
in one place, where the AUTH command is written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, quote, unquote

from valkeep.errors import UsageError

__all__ = ["DEFAULT_PORT", "SCHEMES", "TLS", "Endpoint", "Secret", "decoded", "wrong_url"]

DEFAULT_PORT: Final = 6379
SCHEMES: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
FORM: Final = "redis://[[user]:password@]host[:port][/database] (rediss:// with TLS; valkey:// and valkeys:// mean the same)"

Verify = Literal["full", "ca", "none"]


class Secret:
    """A password. Its text is behind ``reveal()``; every other form is ``***``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. For the wire only."""
        return self._text

    def hide_in(self, text: str) -> str:
        """``text`` without this secret, for messages that a peer composed."""
        return text.replace(self._text, "***") if self._text else text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._text,)


@dataclass(frozen=True, slots=True)
class TLS:
    """``ca``: whom to believe (PEM; None = the system's store). ``cert``, ``key``: who we are. ``verify``: ``full`` checks chain and
    host name, ``ca`` the chain only, ``none`` nothing. ``server_name``: the name to check and to send (SNI), if not the host."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: Verify = "full"
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server. ``db`` is selected after connecting; ``username`` needs Redis ≥ 6."""

    host: str
    port: int = DEFAULT_PORT
    db: int = 0
    username: str | None = None
    password: Secret | None = None
    tls: TLS | None = None

    @classmethod
    def parse(cls, url: str, *, password: Secret | None = None, tls: TLS | None = None) -> Endpoint:
        """Read a URL. ``password`` and ``tls`` given separately win over what the URL says. Raises ``UsageError``, without the secret."""
        scheme, separator, rest = url.strip().partition("://")
        if not separator:
            raise wrong_url(url, "it has no scheme")
        if scheme.lower() not in SCHEMES:
            raise wrong_url(url, f"the scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
        rest, _, fragment = rest.partition("#")
        if fragment:
            raise wrong_url(url, "'#' begins a fragment, and there are none here (in a password, write %23)")
        # the last '@' ends the password; what follows it has none
        login, at, place = rest.rpartition("@")
        place, _, query = place.partition("?")
        address, _, path = place.partition("/")
        if "?" in login or "/" in login:
            raise wrong_url(url, "'/', '?' and '#' in a password have to be written %2F, %3F and %23, and '@' after the host %40")
        host, port = _address(url, address)
        username: str | None = None
        if at:
            name, colon, word = login.partition(":")
            if colon:
                username = decoded(url, name) or None
                password = password or (Secret(decoded(url, word)) if word else None)
            else:
                username = decoded(url, name) or None
        database, options = _database(url, path), _options(url, query)
        if SCHEMES[scheme.lower()]:
            tls = tls or _tls(url, options)
        elif options or tls is not None:
            what = ", ".join(options) or "TLS"
            raise wrong_url(
                url, f"{what} given, but {scheme}:// is without TLS", "use rediss:// or valkeys://, or leave the TLS options out"
            )
        return cls(host=host, port=port, db=database, username=username, password=password, tls=tls)

    def with_password_from(self, *, file: str | os.PathLike[str] | None = None, env: str | None = None) -> Endpoint:
        """The same endpoint with the password read from a file (one trailing newline is dropped) or an environment variable."""
        if (file is None) == (env is None):
            raise UsageError("a password comes from a file or from a variable, not both", remedy="give one of the two")
        if file is not None:
            try:
                text = Path(file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"can't read the password file {file}: {error}", remedy="check its path and that you may read it"
                ) from None
            text = text.removesuffix("\n").removesuffix("\r")
            if not text:
                raise UsageError(f"the password file {file} is empty", remedy="put the password into it, or give another file")
        else:
            text = os.environ.get(env or "", "")
            if not text:
                raise UsageError(f"the environment variable {env} is not set or empty", remedy=f"export {env}=… with the password")
        return replace(self, password=Secret(text))

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def display(self) -> str:
        """The URL without its secret: for every message, log and report."""
        login = ""
        if self.username or self.password:
            login = quote(self.username or "", safe="") + (":***" if self.password else "") + "@"
        return f"{'rediss' if self.tls else 'redis'}://{login}{self.address}{f'/{self.db}' if self.db else ''}"

    def __str__(self) -> str:
        return self.display

    async def resolve(self) -> Endpoint:
        """Itself: who has an address need not be looked for (as `named_primary.NamedPrimary` has to be)."""
        return self

    def at(self, host: str, port: int) -> Endpoint:
        """Another server, with the same login."""
        return replace(self, host=host, port=port)

    def without_database(self) -> Endpoint:
        """The same server, database 0."""
        return replace(self, db=0)


def _address(url: str, address: str) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise wrong_url(url, "an IPv6 address has to stand in [brackets]")
        port = rest[1:]
    elif address.count(":") > 1:
        raise wrong_url(url, "an IPv6 address has to stand in [brackets]")
    else:
        host, _, port = address.partition(":")
        host = decoded(url, host)
    if not host:
        raise wrong_url(url, "it has no host")
    if re.search(r"[\s\x00-\x1f]", host):
        raise wrong_url(url, "its host contains a space")
    if not port:
        return host, DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise wrong_url(url, f"the port {port!r} is not a number from 1 to 65535")
    return host, int(port)


def _database(url: str, path: str) -> int:
    if not path:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", path):
        raise wrong_url(url, f"the database {path!r} is not a number")
    return int(path)


def _options(url: str, query: str) -> dict[str, str]:
    known = {"ca", "cert", "key", "verify", "server_name"}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise wrong_url(url, "what follows '?' is not name=value pairs") from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise wrong_url(url, f"the option {name!r} is unknown", f"known options: {', '.join(sorted(known))}")
        if not value:
            raise wrong_url(url, f"the option {name!r} is empty", f"give {name}=…, or leave it out")
        options[name] = value
    return options


def _tls(url: str, options: dict[str, str]) -> TLS:
    verify = options.get("verify", "full")
    if verify not in get_args(Verify):
        raise wrong_url(url, f"verify={verify!r} is not one of {', '.join(get_args(Verify))}")
    if "key" in options and "cert" not in options:
        raise wrong_url(url, "key without cert", "give the client's certificate as cert=…, too")
    checked: Verify = "full" if verify == "full" else "ca" if verify == "ca" else "none"
    return TLS(
        ca=options.get("ca"), cert=options.get("cert"), key=options.get("key"), verify=checked, server_name=options.get("server_name")
    )


def decoded(url: str, text: str) -> str:
    """A part of ``url`` without its percent-encoding."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise wrong_url(url, "its percent-encoding is not UTF-8") from None


def wrong_url(url: str, why: str, remedy: str = f"the form is {FORM}") -> UsageError:
    """What is wrong with ``url``, without its secrets: whatever stands before the last '@' may hold a password, also in a URL that can't be read, and so
    may an option whose name says so."""
    scheme, separator, rest = url.strip().partition("://")
    place = re.sub(r"(password=)[^&#]*", r"\1***", rest if separator else scheme)
    shown = (f"{scheme}://" if separator else "") + (f"***@{place.rpartition('@')[2]}" if "@" in place else place)
    return UsageError(f"{shown!r} is not a server's URL: {why}", remedy=remedy)
