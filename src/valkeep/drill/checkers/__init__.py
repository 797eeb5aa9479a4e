"""Pure functions from a history and an observed end state to a judgement. One file for each kind of promise.

    operations (invoke / ok / fail / info)  +  what ordinary commands read at the end  ->  Judgement(verdict, lost, anomalies)

An acked operation must show, a failed one must not, an indefinite one may. What can be *lost* is counted in acked operations;
everything else that is wrong is an anomaly of its own kind (changed, duplicated, reordered, resurrected, partial, phantom).

Two families, because they have different things to work with:

    a drill        `verdicts` runs all: they take `Evidence`, a history by columns in which each operation has a reign and a fate, because
                   any number of failovers lie in it: loss, journals, linear, monotonic, counters.check_increments, sets.check_additions, …
    the rehearsal  `rehearsal.judge` runs all: they take operations one by one, each writer has keys of its own, and there is one failover
                   whose replica and offset are known: registers, sequences, expiry, failover, counters.check_counters,
                   sets.check_pools, transactions.check_transactions
"""
