"""INFO: the sections of a Redis 7.2, with what a gateway can say.

A field that cannot be known here says what an idle server says (0, ``ok``, ``no``). Not so: the offsets, which are the channel's own; ``loading``, which is 1
until the snapshot is whole; ``used_memory`` and the keyspace, which are as the source said when the gateway looked at it, for those who plan by them. One field
is ours: ``valkeep_gateway``, so that a person sees what they talk to.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Final

from valkeep import __version__

from .aspect import Aspect

__all__ = ["SECTIONS", "info"]

Fields = dict[str, object]
NOBODY: Final = "0" * 40
SERVER_MEMORY: Final = 1 << 20  # what a server without data takes


def info(wanted: Sequence[str], aspect: Aspect) -> str:
    """``wanted``: sections, in any case; none: the default ones. Unknown names give nothing."""
    names = {name.lower() for name in wanted} or {"default"}
    if names & {"all", "everything", "default"}:
        names |= set(SECTIONS) - ({"commandstats", "latencystats"} if not names & {"all", "everything"} else set())
    parts = []
    for name, fields in SECTIONS.items():
        if name in names:
            lines = [f"{field}:{value}" for field, value in fields(aspect).items()]
            parts.append("\r\n".join((f"# {name.capitalize() if name != 'cpu' else 'CPU'}", *lines, "")))
    return "\r\n".join(parts)


def _server(aspect: Aspect) -> Fields:
    uptime = max(0, int(aspect.now - aspect.started))
    return {
        "redis_version": aspect.version,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0",
        "server_name": "redis",
        "redis_mode": "standalone",
        "valkeep_gateway": __version__,
        "os": f"{platform.system()} {platform.machine()}",
        "arch_bits": 64,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": "epoll",
        "atomicvar_api": "c11-builtin",
        "gcc_version": "0.0.0",
        "process_id": os.getpid(),
        "process_supervised": "no",
        "run_id": aspect.run_id,
        "tcp_port": aspect.port,
        "server_time_usec": int(aspect.now * 1_000_000),
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86_400,
        "hz": 10,
        "configured_hz": 10,
        "lru_clock": int(aspect.now) & 0xFFFFFF,
        "executable": "/valkeep",
        "config_file": "",
        "io_threads_active": 0,
    }


def _clients(aspect: Aspect) -> Fields:
    return {
        "connected_clients": len(aspect.guests),
        "cluster_connections": 0,
        "maxclients": 10000,
        "client_recent_max_input_buffer": 0,
        "client_recent_max_output_buffer": 0,
        "blocked_clients": 0,
        "tracking_clients": 0,
        "clients_in_timeout_table": 0,
    }


def _memory(aspect: Aspect) -> Fields:
    used = aspect.memory or SERVER_MEMORY
    return {
        "used_memory": used,
        "used_memory_human": _human(used),
        "used_memory_rss": used,
        "used_memory_rss_human": _human(used),
        "used_memory_peak": used,
        "used_memory_peak_human": _human(used),
        "used_memory_peak_perc": "100.00%",
        "used_memory_overhead": SERVER_MEMORY,
        "used_memory_startup": SERVER_MEMORY,
        "used_memory_dataset": max(0, used - SERVER_MEMORY),
        "used_memory_dataset_perc": "100.00%",
        "allocator_allocated": used,
        "allocator_active": used,
        "allocator_resident": used,
        "total_system_memory": 0,
        "total_system_memory_human": "0B",
        "used_memory_lua": 0,
        "used_memory_lua_human": "0B",
        "used_memory_scripts": 0,
        "used_memory_scripts_human": "0B",
        "number_of_cached_scripts": 0,
        "number_of_functions": 0,
        "number_of_libraries": 0,
        "maxmemory": 0,
        "maxmemory_human": "0B",
        "maxmemory_policy": "noeviction",
        "mem_fragmentation_ratio": "1.00",
        "mem_fragmentation_bytes": 0,
        "mem_not_counted_for_evict": 0,
        "mem_replication_backlog": aspect.backlog,
        "mem_total_replication_buffers": aspect.backlog,
        "mem_clients_slaves": 0,
        "mem_clients_normal": 0,
        "mem_cluster_links": 0,
        "mem_aof_buffer": 0,
        "mem_allocator": "libc",
        "active_defrag_running": 0,
        "lazyfree_pending_objects": 0,
        "lazyfreed_objects": 0,
    }


def _persistence(aspect: Aspect) -> Fields:
    return {
        "loading": int(aspect.loading),
        "async_loading": 0,
        "current_cow_peak": 0,
        "current_cow_size": 0,
        "current_cow_size_age": 0,
        "current_fork_perc": "0.00",
        "current_save_keys_processed": 0,
        "current_save_keys_total": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": int(aspect.started),
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": 0,
        "rdb_current_bgsave_time_sec": -1,
        "rdb_saves": 0,
        "rdb_last_cow_size": 0,
        "rdb_last_load_keys_expired": 0,
        "rdb_last_load_keys_loaded": 0,
        "aof_enabled": 0,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1,
        "aof_current_rewrite_time_sec": -1,
        "aof_last_bgrewrite_status": "ok",
        "aof_rewrites": 0,
        "aof_rewrites_consecutive_failures": 0,
        "aof_last_write_status": "ok",
        "aof_last_cow_size": 0,
        "module_fork_in_progress": 0,
        "module_fork_last_cow_size": 0,
    }


def _stats(aspect: Aspect) -> Fields:
    known: Fields = {
        "total_connections_received": aspect.connections,
        "total_commands_processed": aspect.commands,
        "rejected_connections": aspect.refused_connections,
        "sync_full": aspect.full_syncs,
        "sync_partial_ok": aspect.partial_syncs,
    }
    return known | dict.fromkeys(_IDLE.split(), 0)


_IDLE: Final = (  # fields that are always 0
    "instantaneous_ops_per_sec total_net_input_bytes total_net_output_bytes total_net_repl_input_bytes "
    "total_net_repl_output_bytes instantaneous_input_kbps instantaneous_output_kbps instantaneous_input_repl_kbps "
    "instantaneous_output_repl_kbps sync_partial_err expired_keys expired_stale_perc expired_time_cap_reached_count "
    "expire_cycle_cpu_milliseconds evicted_keys evicted_clients total_eviction_exceeded_time current_eviction_exceeded_time "
    "keyspace_hits keyspace_misses pubsub_channels pubsub_patterns pubsubshard_channels latest_fork_usec total_forks "
    "migrate_cached_sockets slave_expires_tracked_keys active_defrag_hits active_defrag_misses active_defrag_key_hits "
    "active_defrag_key_misses tracking_total_keys tracking_total_items tracking_total_prefixes unexpected_error_replies "
    "total_error_replies dump_payload_sanitizations total_reads_processed total_writes_processed io_threaded_reads_processed "
    "io_threaded_writes_processed reply_buffer_shrinks reply_buffer_expands total_active_defrag_time current_active_defrag_time"
)


def _replication(aspect: Aspect) -> Fields:
    fields: Fields = {"role": "master", "connected_slaves": len(aspect.replicas)}
    for number, one in enumerate(aspect.replicas):
        fields[f"slave{number}"] = f"ip={one.address},port={one.port},state={one.state},offset={one.offset},lag={one.lag}"
    return fields | {
        "master_failover_state": "no-failover",
        "master_replid": aspect.replid,
        "master_replid2": NOBODY,
        "master_repl_offset": aspect.offset,
        "second_repl_offset": -1,
        "repl_backlog_active": 1,
        "repl_backlog_size": max(aspect.backlog, 1 << 20),
        "repl_backlog_first_byte_offset": aspect.backlog_first,
        "repl_backlog_histlen": aspect.backlog,
    }


def _cpu(aspect: Aspect) -> Fields:
    del aspect
    times = os.times()
    return {
        "used_cpu_sys": f"{times.system:.6f}",
        "used_cpu_user": f"{times.user:.6f}",
        "used_cpu_sys_children": f"{times.children_system:.6f}",
        "used_cpu_user_children": f"{times.children_user:.6f}",
        "used_cpu_sys_main_thread": f"{times.system:.6f}",
        "used_cpu_user_main_thread": f"{times.user:.6f}",
    }


def _nothing(aspect: Aspect) -> Fields:
    del aspect
    return {}


def _keyspace(aspect: Aspect) -> Fields:
    return {f"db{one.database}": f"keys={one.keys},expires={one.expires},avg_ttl={one.average_ttl}" for one in aspect.keyspaces if one.keys}


def _human(size: int) -> str:
    value = float(size)
    for unit in "BKMG":
        if value < 1024:
            return f"{value:.2f}{unit}" if unit != "B" else f"{size}B"
        value /= 1024
    return f"{value:.2f}T"


SECTIONS: Final[dict[str, Callable[[Aspect], Fields]]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "modules": _nothing,
    "commandstats": _nothing,
    "errorstats": _nothing,
    "latencystats": _nothing,
    "cluster": lambda _: {"cluster_enabled": 0},
    "keyspace": _keyspace,
}
