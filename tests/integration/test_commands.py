"""The table of commands against what real servers say of themselves: COMMAND (names, flags) and COMMAND GETKEYSANDFLAGS (keys)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from valkeep.wire.commands import _RULES, VALKEY_COMMANDS, keys_of

Client = Callable[..., Any]

#: One line of arguments for each shape, and a few variants; {} stands for an empty argument. Every write command has to have one.
EXAMPLES = """
set k v | setnx k v | setex k 1 v | psetex k 1 v | getset k v | getdel k | getex k ex 5 | append k v | setrange k 0 v | incr k | decr k
incrby k 1 | decrby k 1 | incrbyfloat k 1 | setbit k 0 1 | bitfield k set u8 0 1 | bitop and d a b | bitop not d a | mset a 1 b 2
msetnx a 1 b 2 | msetex 2 a 1 b 2 ex 5 | pfadd k a | pfcount a b | pfmerge d a b | pfdebug encoding k | del a b c | unlink a b | delifeq k v
expire k 1 | expireat k 1 | pexpire k 1 | pexpireat k 1 | persist k | restore k 0 x | restore-asking k 0 x | rename a b | renamenx a b
copy a b | copy a b replace | sort k | sort k by x* limit 0 1 get y* get # store d | sort k store d store e | lpush k v | rpush k v
lpushx k v | rpushx k v | lpop k | rpop k 2 | linsert k before a b | lset k 0 v | lrem k 0 v | ltrim k 0 1 | rpoplpush a b | brpoplpush a b 0
lmove a b left right | blmove a b left right 0 | blpop a b 0 | brpop a 0 | lmpop 2 a b left | blmpop 0 2 a b left count 3 | sadd k a b
srem k a | spop k 2 | smove a b m | sdiffstore d a b | sinterstore d a | sunionstore d a b | zadd k 1 a | zincrby k 1 a | zrem k a
zpopmin k | zpopmax k 2 | zremrangebylex k - + | zremrangebyrank k 0 1 | zremrangebyscore k 0 1 | zunionstore d 2 a b weights 1 2
zinterstore d 1 a aggregate max | zdiffstore d 2 a b | zrangestore d s 0 -1 | geoadd k 1 1 a | geosearchstore d s fromlonlat 1 1 byradius 1 km
georadius k 1 1 1 km | georadius k 1 1 1 km withdist count 1 | georadius k 1 1 1 km store d | georadius k 1 1 1 km asc storedist d
georadiusbymember k m 1 km store d | bzpopmin a b 0 | bzpopmax a 0 | zmpop 2 a b min | bzmpop 0 1 a max count 2 | hset k f v | hsetnx k f v
hmset k f v | hincrby k f 1 | hincrbyfloat k f 1 | hdel k f | hexpire k 1 fields 1 f | hexpireat k 1 fields 1 f | hpexpire k 1 fields 1 f
hpexpireat k 1 fields 1 f | hpersist k fields 1 f | hsetex k ex 1 fields 1 f v | hgetex k ex 1 fields 1 f | hgetdel k fields 1 f
xadd k * f v | xdel k 1-1 | xtrim k maxlen 1 | xsetid k 1-1 | xack k g 1-1 | xclaim k g c 0 1-1 | xautoclaim k g c 0 0
xgroup create k g $ mkstream | xgroup setid k g 0 | xgroup destroy k g | xgroup createconsumer k g c | xgroup delconsumer k g c
xreadgroup group g streams count 1 block 5 noack streams a b > 0 | VADD k values 1 1 a | VREM k a | VSETATTR k a x
eval s 2 a b c | eval s 0 c | evalsha s 1 a | fcall f 1 a b | migrate h 1 k 0 1 copy | migrate h 1 {} 0 1 auth2 keys pw keys a b
eval_ro s 1 a | evalsha_ro s 1 a | fcall_ro f 1 a b
"""
COMMANDS = [
    [b"" if word == "{}" else word.encode() for word in line.split()] for row in EXAMPLES.strip().splitlines() for line in row.split("|")
]
KEYLESS = {b"FLUSHALL", b"FLUSHDB", b"SWAPDB"}
#: GETKEYS knows one database; tests/unit/wire/test_commands.py has what it can't say.
OTHER_DATABASE = {b"MOVE"}


def listed(connection: Any) -> dict[bytes, set[str]]:
    """Every command of the server in upper case, with its flags."""
    connection.send_command("COMMAND")
    return {
        row[0].upper(): {flag.decode() if isinstance(flag, bytes) else str(flag) for flag in row[2]} for row in connection.read_response()
    }


def connection_of(client: Any) -> Any:
    return client.connection_pool.get_connection("COMMAND")


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1"])
def test_every_write_command_of_the_server_has_a_rule_that_finds_the_keys_the_server_finds(
    server: Server, client: Client, spec: str
) -> None:
    connection = connection_of(client(server(spec)))
    known = listed(connection)
    writes = {name for name, flags in known.items() if "write" in flags}
    assert writes - set(_RULES) == set()
    assert writes - {args[0].upper() for args in COMMANDS} - KEYLESS - OTHER_DATABASE == set()
    checked = 0
    for args in COMMANDS:
        if args[0].upper() not in known:
            continue
        keys = keys_of(args, 7)
        assert keys is not None, args
        connection.send_command("COMMAND", "GETKEYSANDFLAGS", *args)
        try:
            answer = connection.read_response()
        except valkey.ResponseError as error:
            answer = error
        if isinstance(answer, Exception):
            assert "no key arguments" in str(answer), (args, answer)
            answer = []
        ours = sorted(keys.written + keys.read)
        assert ours == sorted((7, key) for key, _ in answer), args
        if args[0] == b"xreadgroup":
            assert not keys.read
            continue
        assert sorted(keys.written) == sorted((7, key) for key, flags in answer if b"RO" not in flags), args
        checked += 1
    assert checked > 100


@pytest.mark.parametrize("spec", ["valkey-8.0", "valkey-8.1", "valkey-9.1"])
def test_the_names_of_a_valkey_release_are_those_that_the_server_knows(server: Server, client: Client, spec: str) -> None:
    node = server(spec)
    connection = connection_of(client(node))
    known = listed(connection)
    writes = {name for name, flags in known.items() if "write" in flags}
    table = VALKEY_COMMANDS[node.binary.version[:2]]
    assert table - set(known) == set()
    assert writes - table == set()


def test_names_came_to_valkey_when_the_newest_server_says_they_did(server: Server, client: Client) -> None:
    connection = connection_of(client(server("valkey-9.1")))
    connection.send_command("COMMAND", "DOCS")
    answer = connection.read_response()
    since: dict[bytes, tuple[int, int]] = {}
    for name, facts in zip(answer[::2], answer[1::2], strict=True):
        told = dict(zip(facts[::2], facts[1::2], strict=True))
        if b"since" in told:
            major, minor = told[b"since"].split(b".")[:2]
            since[name.upper()] = (int(major), int(minor))
    for version, names in VALKEY_COMMANDS.items():
        assert {name for name in names if since[name] > version} == set(), version
        assert {name for name in VALKEY_COMMANDS[9, 1] - names if since[name] <= version} == set(), version
