"""Is the target what the source says it should be? Every key, value, expiry and field, under live writes, without a command per key.

Verification compares two snapshot streams, not two sequences of commands, because a snapshot is a *moment*. What makes the comparison
sound is knowing which moments, and which keys changed in between.

**What is claimed.** Let S(o) be the source's data after its byte o of replication, T the target's, and f the policy (identity, or what
happens to fields' expiries where the target has none). ``valid`` says: for every key, at the moments it was looked at, T = f(S(o)) for
one o that lies between two offsets in which the key was not written. A hash that the ledger names is compared with f of its source like
any other.

**Which differences are final.**

1. The source forks its snapshot at offset S1. From there on we also read its stream, and so know every key written after S1, with the
   offset of its last write.
2. ``barrier(S1)`` returns when the target has applied everything up to S1. Only then the target is asked for its snapshot; the offset
   it names must not lie before the one it had when the barrier fell (a primary may hand out a snapshot that it had begun for somebody
   else; such a one is refused and asked for again).
3. After the target's fork, O2 = the source's offset. Whatever the target holds came from some x with S1 ≤ x ≤ O2.
4. So a key that was not written in (S1, O2] had one value all that time, and must have it on both sides. Any difference is *final*: no later
   look can excuse it, even when the key is written over afterwards.

**Which may be looked at again.** Keys written in (S1, O2] – *all* of them, also those whose rows are equal: equality with S1's value says
nothing about the write that came later. They are looked at by commands (DUMP, PEXPIRETIME), in batches: let a = how far we have read
the source's stream; read the batch on the source; ``barrier(a)``; read it on the target; let b = the source's offset now, and read the stream
up to b. A key of the batch not written in (a, b] was constant from the one reading to the other: equal settles it, different is
final. One that was written in (a, b] stays for the next round.

**Why hot keys settle.** A round is repeated with what is left, so batches get smaller, and (a, b] shrinks to some milliseconds. A key
settles when one gap between two of its writes is longer than that. One that is written every millisecond never settles while
writers run: it is reported ``unsettled`` and the verdict is unknown, not valid – until ``final``. Looking ends in bounded time
(``patience``, and a second for each 2,000 keys), whatever the link or the target does; what was not reached by then is unsettled.

**What a paused source changes.** Under CLIENT PAUSE WRITE (or behind the fence) there are no writes, no expirations and no evictions, so
(a, b] holds nothing but PINGs: one round settles everything. ``final`` looks only at keys written since they were last found equal, which
is why it takes milliseconds and not minutes.

**Expiry without false alarms.** A primary removes an expired key when it comes across it and replicates the DEL; until then the key lies
in its snapshot (Redis before 5 leaves it out), and in its replica's. So the same key may be there on one side and not on the other, and no
client sees it on either. Rule: D is a time read from *both* servers after both snapshots were complete, the later of the two clocks. A key that is
missing, extra or different, and whose expiry is ≤ D wherever it exists, counts as ``expired``, not as a difference; a difference of
expiries with one of them after D is a difference. Fields of hashes: when a hash differs and a field of it had expired by D, the key is
looked at again, and compared without its expired fields (and, where the policy drops the expiries, also as it stands). A DEL by expiry is in the stream like
any other write, so it also makes its key a written one. A Valkey 9 source leaves expired fields out of its snapshot before it replicates the HDEL; under
``keep-field`` the target still has such a field, without expiry, so there a differing hash counts only when it stays different for two seconds (and in a
pause it is unsettled). Two independent primaries with different clocks expire at different moments: hence the later clock.

**What can't be judged is unknown.** A broken snapshot link or stream, a server that restarts, FLUSHALL, FLUSHDB, SWAPDB or a command
that we don't know in the stream (``full`` starts over twice, then says unknown), more written keys than can be looked at, a worker that was
killed, a ``full`` that did not come to its end (there is nothing that a ``round`` could go on from), an address that leads to two servers: never valid.
A bug of ours is told as one, with its traceback (`crossing.VerifierBug`).
Scripts replicated as scripts (sources before 7.0) may write keys that they don't declare: after one, every difference is looked at
again before it counts.

**The barrier.** With a gateway the pipeline knows the offset that the target has acknowledged. Alone (``valkeep migrate verify``) there are
three cases (`barrier.py`): the target replicates under the source's own id – offsets are compared; it replicates under another id (a
gateway's) – we wait until its offset has stood still or has moved on by a while, and since that proves nothing, a difference counts only
when it is still there after repeated looks; it is a primary – then it is compared as it stands.

**Digests.** 128 bits, keyed with 16 random bytes per run, so that nobody can prepare two values that look equal; the chance of a
difference unseen among 10^9 keys is below 10^-29. The database is part of the key's digest: a key in the wrong database is one missing and one extra.

**Memory.** Nothing is proportional to the data. A side appends 48 bytes per record (`wire.rows`) and the key's name to files, partitioned by key digest;
partitions are compared one at a time, and names are read only of partitions with differences. Written keys spill to a file above
200,000. Looking again takes a batch's payloads: some MB, or one large value. Disk: 56 bytes and the name per key and side.

**Processes.** The caller's process stays free: a *worker* reads the source's snapshot and stream, and drives everything; a second one reads the target's
snapshot, so that two cores are used; both compare half of the partitions. They speak JSON lines over their standard streams, and
passwords come that way only. Requests have ids: the answer to one that was given up on is not taken
for another's. ``PSYNC`` makes each server fork once, which is said before it happens.

**Where PSYNC is denied** (managed services) a side is read by SCAN and DUMP (`scan.py`), key by key, each at some moment between the beginning and the end.
For the *target* O2 is the source's offset at the end of the scan: a key not written in (S1, O2] had one value whenever it was read, and a key that was is
looked at again; so is every difference, before it counts. What somebody else writes to the target behind the scan is not seen. For the *source* there is no
stream (`source_side.Unfollowed`), hence no written keys: two scans are compared, and what differs is looked at again, the source first, then ``barrier`` of its
offset after that, then the target. Equal settles it. A difference counts when it was seen in several looks over some seconds with one value on the source; a
value that changes starts that over, so that a hot key stays unsettled. ``valid`` then says: each key was equal at the moment it was looked at. ``final`` knows
of nothing that it could look at alone, and compares everything again, while nobody writes: there every difference is final.

**Clusters.** A side may be several servers that hold one key space, each the keys of its slots (`shards.py`). Their snapshots feed the same rows, one after
the other, so that O2 is the source's offset after the last fork; keys are looked at on the owner of their slot (`eyes.py`). A cluster as the source is not
followed: its snapshots are compared as two scans are. One shard of it is followed, for the slots that it owns; of the target's shards those are read that own
some of these. All of it rests on slots that stand still, which is asked at both ends. What lies on a shard that does not own its slot is a difference by
itself, whatever the owner has.

**Tolerances.** A source before 7.0 has no PEXPIRETIME: when a key is *looked at again* its expiry is TIME + PTTL, read in one MULTI, and 2 ms of
difference are accepted (rows of snapshots are exact). Not compared: LRU and LFU data, a consumer's seen and active time, the delivery time of
pending entries, encodings.
"""

from __future__ import annotations

from valkeep.migrate.verify.barrier import Barrier
from valkeep.migrate.verify.repair import Recopy
from valkeep.migrate.verify.result import Comparison, Difference, merged
from valkeep.migrate.verify.verifier import PATIENCE, Verifier

__all__ = ["PATIENCE", "Barrier", "Comparison", "Difference", "Recopy", "Verifier", "merged"]
