"""Pure functions from a history and an observed end state to a judgement. One file for each kind of promise.

    operations (invoke / ok / fail / info)  +  what ordinary commands read at the end  ->  Judgement(verdict, lost, anomalies)

An acked operation must show, a failed one must not, an indefinite one may. What can be *lost* is counted in acked operations;
everything else that is wrong is an anomaly of its own kind (changed, duplicated, reordered, resurrected, partial, phantom).
"""
