"""What the command line says of a target that attaches by itself (`valkeep migrate run --attach external`), and of what the gateway shows to who looks."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from valkeep.errors import UsageError

__all__ = ["Attach", "Metrics", "PresentAs", "PromoteWithin", "delivery", "expect_use", "presented"]

ATTACHED = ("native", "external")

Attach = Annotated[
    str,
    typer.Option(
        metavar="native|external",
        help="Who lets the target replicate from the gateway, and promotes it: we by REPLICAOF, or somebody else.",
    ),
]
PresentAs = Annotated[str, typer.Option(metavar="X.Y.Z", help="The version of Redis that the gateway shows to those who look at it.")]
PromoteWithin = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=1,
        max=3600,
        help="With --attach external: how long you may take to promote the target, while nobody can write.",
    ),
]
Metrics = Annotated[str, typer.Option(metavar="HOST:PORT", help="Serve the gateway's /metrics, /health and /ready there.")]


def delivery(attach: str, deliver: str) -> str:
    """How the target gets the data, by both options. Raises ``UsageError``."""
    if attach not in ATTACHED:
        remedy = f"say --attach {' or --attach '.join(ATTACHED)}; whether we write to the target ourselves is --deliver"
        raise UsageError(f"--attach {attach!r} is not known", remedy=remedy)
    if attach == "external" and deliver != "native":
        raise UsageError(
            f"--attach external and --deliver {deliver} are two ways to the target",
            remedy="leave one out: a target that attaches is not written to",
        )
    return "external" if attach == "external" else deliver


_IDLE = {
    "push": ("listen", "announce", "allow", "gateway_cert", "gateway_key", "present_as", "promote_within"),
    "native": ("promote_within",),
}
"""Options of the command that mean nothing where the target gets the data in this way."""


def expect_use(context: typer.Context, how: str) -> None:
    """Raises ``UsageError`` for an option that was given and would be ignored."""
    for name in _IDLE.get(how, ()):
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            why = "nobody attaches to the gateway" if how == "push" else "we promote the target ourselves"
            raise UsageError(f"--{name.replace('_', '-')} means nothing with delivery {how}: {why}", remedy="leave it out")


def presented(version: str) -> str:
    """Raises ``UsageError`` for what is no version."""
    if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", version):
        raise UsageError(f"--present-as {version!r} is no version", remedy="write it like --present-as 7.2.4")
    return version
