"""A certificate for a topology that speaks TLS, made on the spot: one for all nodes, its own authority, good for a week.

Made by ``openssl``, because Python's standard library makes none. Servers show it to clients and to each other; clients believe it because
they are given it as the authority (``ca=``). Clients need no certificate of their own.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from valkeep.errors import Refused

__all__ = ["Certificate", "make"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files. ``authority`` is what clients are given; ``key`` is for the owner alone (0600)."""

    authority: Path
    cert: Path
    key: Path


def make(folder: Path, names: Iterable[str]) -> Certificate:
    """``names``: ``IP:127.0.0.1`` or ``DNS:name``, what the certificate is for. Raises ``Refused`` where there is no openssl that can."""
    program = shutil.which("openssl")
    if program is None:
        raise Refused("TLS needs a certificate, and there is no openssl to make one", remedy="apt-get install openssl, or leave TLS out")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        program,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "7",
        "-subj",
        "/CN=valkeep",
    ]
    command += ["-addext", f"subjectAltName={','.join(names)}", "-keyout", str(key), "-out", str(cert)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"openssl made no certificate: {done.stderr.strip()[-200:]}", remedy="it has to be openssl 1.1.1 or newer")
    key.chmod(0o600)
    return Certificate(cert, cert, key)
