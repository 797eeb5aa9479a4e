"""The way back: after the cut-over the old server is kept current, until somebody says that it is not needed any more (commit), or cuts back to it
(rollback).

    forward    old server ──▶ gateway ──▶ new server        until the promotion
    back       new server ──▶ gateway ──▶ old server        from there on: `WayBack`

**No full sync, in neither direction.** When the target is promoted, both servers hold the same data, and each knows where that was in its own history: the
new one keeps the history that it had from our gateway as its second id, up to the promotion, and goes on from there for whoever asks (PSYNC2); the old one,
made a replica, asks to go on from its own last byte. So a gateway between them asks the new server for what was written since (``feed``), and answers
the old one "go on" in the old one's own offsets (`channel.Joined`). Nobody's data is dropped, and there is no snapshot that could be too new for a Redis.

**The old server is fenced twice**: by the cut-over's fence, and as a replica, which takes no writes from clients. It is made a replica in a transaction
that reads its offset, so that nothing of its own can come between.

**What it wrote by itself.** From the cut-over's last look until then it was a primary still, and removed keys that expired (``gap``). A key that the
new server gave a longer life in that time is missing on the old one: all keys in that gap are copied again.

**The way back ends with a restart of either**, and of nothing else: a new server that was restarted has another history; an old one that was restarted is a
primary with whatever was on its disk, and without its fence. Both are noticed and told. Broken links and a gateway that was killed are gone on from.

**The rollback** is a cut-over like the first one, with the roles changed (``returning``): the new server is paused, drained, fenced; the old one is promoted,
and then its first fence is lifted.

**State.** The way back has a state file of its own, in the folder ``back`` of the migration's, which reads like that of a migration from the new server to the
old one; so a rollback that was killed is undone as a cut-over is (``recovery``). The migration's own says "promoted" until the end.
"""
