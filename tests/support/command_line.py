"""As much of ``valkey-cli`` as the documents use: ``python -m tests.support.command_line [-u URL] [-h HOST] [-p PORT] COMMAND…``."""

from __future__ import annotations

import argparse
import sys

import valkey


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser("valkey-cli", add_help=False)
    parser.add_argument("-u", default="")
    parser.add_argument("-h", default="127.0.0.1")
    parser.add_argument("-p", type=int, default=6379)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    with valkey.Valkey.from_url(given.u) if given.u else valkey.Valkey(host=given.h, port=given.p) as client:
        reply = client.execute_command(*given.command)
    print(reply.decode() if isinstance(reply, bytes) else reply)


if __name__ == "__main__":
    main(sys.argv[1:])
