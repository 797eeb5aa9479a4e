"""Certificates for servers that speak TLS in tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.errors import Refused
from valkeep.runtime import certificate

__all__ = ["self_signed"]


def self_signed(folder: Path, alternative: str) -> tuple[Path, Path]:
    """``cert.pem``, its own authority, and ``key.pem`` in ``folder``; skips the test where there is no openssl. ``alternative``: ``IP:127.0.0.1``,
    ``DNS:name``."""
    try:
        made = certificate.make(folder, [alternative])
    except Refused as error:
        pytest.skip(f"{error.message}; {error.remedy}")
    return made.cert, made.key
