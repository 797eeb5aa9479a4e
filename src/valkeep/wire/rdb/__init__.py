"""RDB, the snapshot format: opcodes (the dispatch table), scan (steps over), decode (opens), encode (writes), convert (re-encodes)."""
