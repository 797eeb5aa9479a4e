"""Certificates for servers that speak TLS in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

__all__ = ["self_signed"]


def self_signed(folder: Path, alternative: str) -> tuple[Path, Path]:
    """``cert.pem``, its own authority, and ``key.pem`` in ``folder``; skips the test where there is no openssl. ``alternative``: ``IP:127.0.0.1``,
    ``DNS:name``."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=valkeep -addext subjectAltName={alternative}"
    try:
        subprocess.run([*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificate here: {error}")
    return cert, key
