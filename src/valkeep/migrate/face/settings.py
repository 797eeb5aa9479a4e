"""CONFIG GET: the parameters of a Redis 7.2 with its defaults, as nothing of them applies here; and those that say something about the gateway.

What tools look for before they attach: ``databases`` (the target's), ``bind``, ``protected-mode``, ``requirepass`` (never shown), ``maxmemory``, ``save``,
``appendonly``, ``repl-backlog-size``. CONFIG SET is refused: there is nothing to set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .aspect import Aspect

__all__ = ["matches", "matching"]

LONGEST = 256  # letters of a pattern


def _own(aspect: Aspect) -> dict[str, str]:
    """What is true of this gateway."""
    port = str(aspect.port)
    return {
        "appendonly": "no",
        "bind": aspect.address,
        "cluster-enabled": "no",
        "databases": str(aspect.databases),
        "maxmemory": "0",
        "port": "0" if aspect.tls else port,
        "protected-mode": "no",
        "repl-backlog-size": str(max(aspect.backlog, 1 << 20)),
        "requirepass": "",  # a server would show it, and we never do
        "save": "",
        "tls-port": port if aspect.tls else "0",
    }


def matching(patterns: Iterable[str], aspect: Aspect) -> dict[str, str]:
    """The parameters whose names match one of these globs (``*``, ``?``, ``[ab]``, in any case)."""
    known = _DEFAULTS | _own(aspect)
    wanted = [pattern.lower()[:LONGEST] for pattern in patterns]
    return {name: value for name, value in sorted(known.items()) if any(matches(one, name) for one in wanted)}


def matches(pattern: str, name: str) -> bool:
    """Whether a server's glob matches. No pattern takes longer than its length times the name's: only the last star is ever tried again."""
    at = place = 0
    star, tried = -1, 0
    while place < len(name):
        found, behind = _one(pattern, at, name[place])
        if at < len(pattern) and pattern[at] == "*":
            star, tried, at = at, place, at + 1
        elif found:
            at, place = behind, place + 1
        elif star >= 0:
            tried += 1
            at, place = star + 1, tried
        else:
            return False
    return not pattern[at:].strip("*")


def _one(pattern: str, at: int, letter: str) -> tuple[bool, int]:
    """Whether what stands at ``at`` takes this letter, and where it ends."""
    if at >= len(pattern):
        return False, at
    one = pattern[at]
    if one == "?":
        return True, at + 1
    if one == "[" and (end := pattern.find("]", at + 1)) > 0:
        body = pattern[at + 1 : end]
        negated = body.startswith("^")
        ranges = re.findall(r"(.)-(.)", body)
        inside = letter in body[negated:] or any(low <= letter <= high for low, high in ranges)
        return inside is not negated, end + 1
    if one == "\\" and at + 1 < len(pattern):
        return pattern[at + 1] == letter, at + 2
    return one == letter, at + 1


_TABLE: Final = """
acl-pubsub-default resetchannels
aclfile
acllog-max-len 128
active-defrag-cycle-max 25
active-defrag-cycle-min 1
active-defrag-ignore-bytes 104857600
active-defrag-max-scan-fields 1000
active-defrag-threshold-lower 10
active-defrag-threshold-upper 100
active-expire-effort 1
activedefrag no
activerehashing yes
always-show-logo no
aof-disable-auto-gc no
aof-load-truncated yes
aof-rewrite-incremental-fsync yes
aof-timestamp-enabled no
aof-use-rdb-preamble yes
aof_rewrite_cpulist
appenddirname appendonlydir
appendfilename appendonly.aof
appendfsync everysec
auto-aof-rewrite-min-size 67108864
auto-aof-rewrite-percentage 100
bgsave_cpulist
bind-source-addr
bio_cpulist
busy-reply-threshold 5000
client-output-buffer-limit normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60
client-query-buffer-limit 1073741824
cluster-allow-pubsubshard-when-down yes
cluster-allow-reads-when-down no
cluster-allow-replica-migration yes
cluster-announce-bus-port 0
cluster-announce-hostname
cluster-announce-human-nodename
cluster-announce-ip
cluster-announce-port 0
cluster-announce-tls-port 0
cluster-config-file nodes.conf
cluster-link-sendbuf-limit 0
cluster-migration-barrier 1
cluster-node-timeout 15000
cluster-port 0
cluster-preferred-endpoint-type ip
cluster-replica-no-failover no
cluster-replica-validity-factor 10
cluster-require-full-coverage yes
cluster-slave-no-failover no
cluster-slave-validity-factor 10
crash-log-enabled yes
crash-memcheck-enabled yes
daemonize no
dbfilename dump.rdb
dir /
disable-thp yes
dynamic-hz yes
enable-debug-command no
enable-module-command no
enable-protected-configs no
hash-max-listpack-entries 512
hash-max-listpack-value 64
hash-max-ziplist-entries 512
hash-max-ziplist-value 64
hll-sparse-max-bytes 3000
hz 10
ignore-warnings
io-threads 1
io-threads-do-reads no
jemalloc-bg-thread yes
latency-monitor-threshold 0
latency-tracking yes
latency-tracking-info-percentiles 50 99 99.9
lazyfree-lazy-eviction no
lazyfree-lazy-expire no
lazyfree-lazy-server-del no
lazyfree-lazy-user-del no
lazyfree-lazy-user-flush no
lfu-decay-time 1
lfu-log-factor 10
list-compress-depth 0
list-max-listpack-size -2
list-max-ziplist-size -2
locale-collate
logfile
loglevel notice
lua-time-limit 5000
masterauth
masteruser
maxclients 10000
maxmemory-clients 0
maxmemory-eviction-tenacity 10
maxmemory-policy noeviction
maxmemory-samples 5
min-replicas-max-lag 10
min-replicas-to-write 0
min-slaves-max-lag 10
min-slaves-to-write 0
no-appendfsync-on-rewrite no
notify-keyspace-events
oom-score-adj no
oom-score-adj-values 0 200 800
pidfile
propagation-error-behavior ignore
proto-max-bulk-len 536870912
rdb-del-sync-files no
rdb-save-incremental-fsync yes
rdbchecksum yes
rdbcompression yes
repl-backlog-ttl 3600
repl-disable-tcp-nodelay no
repl-diskless-load disabled
repl-diskless-sync yes
repl-diskless-sync-delay 5
repl-diskless-sync-max-replicas 0
repl-ping-replica-period 10
repl-ping-slave-period 10
repl-timeout 60
replica-announce-ip
replica-announce-port 0
replica-announced yes
replica-ignore-disk-write-errors no
replica-ignore-maxmemory yes
replica-lazy-flush no
replica-priority 100
replica-read-only yes
replica-serve-stale-data yes
replicaof
sanitize-dump-payload no
server_cpulist
set-max-intset-entries 512
set-max-listpack-entries 128
set-max-listpack-value 64
set-proc-title yes
shutdown-on-sigint default
shutdown-on-sigterm default
shutdown-timeout 10
slave-announce-ip
slave-announce-port 0
slave-ignore-maxmemory yes
slave-lazy-flush no
slave-priority 100
slave-read-only yes
slave-serve-stale-data yes
slaveof
slowlog-log-slower-than 10000
slowlog-max-len 128
socket-mark-id 0
stop-writes-on-bgsave-error yes
stream-node-max-bytes 4096
stream-node-max-entries 100
supervised no
syslog-enabled no
syslog-facility local0
syslog-ident redis
tcp-backlog 511
tcp-keepalive 300
timeout 0
tls-auth-clients yes
tls-ca-cert-dir
tls-ca-cert-file
tls-cert-file
tls-ciphers
tls-ciphersuites
tls-client-cert-file
tls-client-key-file
tls-client-key-file-pass
tls-cluster no
tls-dh-params-file
tls-key-file
tls-key-file-pass
tls-prefer-server-ciphers no
tls-protocols
tls-replication no
tls-session-cache-size 20480
tls-session-cache-timeout 300
tls-session-caching yes
tracking-table-max-keys 1000000
unixsocket
unixsocketperm 0
zset-max-listpack-entries 128
zset-max-listpack-value 64
zset-max-ziplist-entries 128
zset-max-ziplist-value 64
"""

_DEFAULTS: Final[dict[str, str]] = {line.partition(" ")[0]: line.partition(" ")[2] for line in _TABLE.strip().splitlines()}
