"""A history in Jepsen's form: every operation begins and ends, one at a time in each process, faults in between."""

from __future__ import annotations

import re
from collections import Counter

from tests.support.drill_model import simulated
from valkeep.drill.history import History
from valkeep.drill.jepsen import NemesisEvent, edn


def lines() -> list[str]:
    history = History()
    first = history.invoke(7, "append", b"j:{a}", 1, 1000)
    second = history.invoke(7, "read", b"r:{a}:0", None, 1000)
    history.invoke(8, "delete", b'r:{"\xff', None, 1500)
    history.ok(first, 2000, "n1", 3)
    history.ok(second, 2000, "n1", 42)
    lost = history.invoke(7, "incr", b"c:{a}", None, 2500)
    history.info(lost, 3000, "n1", 'LOST "it"')
    refused = history.invoke(7, "write", b"r:{a}:0", b"text", 3500)
    history.fail(refused, 3600, "n2", "READONLY")
    missing = history.invoke(7, "read", b"r:{a}:0", None, 3700)
    history.ok(missing, 3800, "n2", None)
    return list(edn(history, [NemesisEvent(2200, "kill", ("n1",)), NemesisEvent(900, "slow-link", ("n1", "n2"))]))


def test_every_event_is_a_map_on_a_line_of_its_own_in_order_of_time() -> None:
    assert lines() == [
        '{:index 0, :time 0, :type :info, :process :nemesis, :f :slow-link, :value ["n1" "n2"]}\n',
        '{:index 1, :time 100, :type :invoke, :process 0, :f :append, :value ["j:{a}" 1]}\n',
        '{:index 2, :time 100, :type :invoke, :process 1, :f :read, :value ["r:{a}:0" nil]}\n',
        '{:index 3, :time 600, :type :invoke, :process 2, :f :delete, :value ["r:{\\"\\\\xff" nil]}\n',
        '{:index 4, :time 1100, :type :ok, :process 0, :f :append, :value ["j:{a}" 1], :result 3, :node "n1", :connection 7}\n',
        '{:index 5, :time 1100, :type :ok, :process 1, :f :read, :value ["r:{a}:0" 42], :node "n1", :connection 7}\n',
        '{:index 6, :time 1300, :type :info, :process :nemesis, :f :kill, :value ["n1"]}\n',
        '{:index 7, :time 1600, :type :invoke, :process 0, :f :incr, :value ["c:{a}" nil]}\n',
        '{:index 8, :time 2100, :type :info, :process 0, :f :incr, :value ["c:{a}" nil], :error "LOST \\"it\\"", :node "n1", :connection 7}\n',
        '{:index 9, :time 2600, :type :invoke, :process 1, :f :write, :value ["r:{a}:0" "text"]}\n',
        '{:index 10, :time 2700, :type :fail, :process 1, :f :write, :value ["r:{a}:0" "text"], :error "READONLY", :node "n2", :connection 7}\n',
        '{:index 11, :time 2800, :type :invoke, :process 1, :f :read, :value ["r:{a}:0" nil]}\n',
        '{:index 12, :time 2900, :type :ok, :process 1, :f :read, :value ["r:{a}:0" nil], :node "n2", :connection 7}\n',
        '{:index 13, :time 2900, :type :info, :process 2, :f :delete, :value ["r:{\\"\\\\xff" nil], :connection 8}\n',
    ]


def test_a_process_has_one_operation_at_a_time_and_none_after_an_indefinite_one() -> None:
    busy: set[str] = set()
    gone: set[str] = set()
    seen: Counter[str] = Counter()
    case = simulated(5, reigns=3, maybe=0.3, batches=30)
    for line in edn(case.history):
        kind, process = re.findall(r":type :(\w+), :process (\d+)", line)[0]
        seen[kind] += 1
        if kind == "invoke":
            assert process not in busy | gone
            busy.add(process)
        else:
            busy.remove(process)
            gone |= {process} if kind == "info" else set()
    assert not busy
    counts = case.history.counts()
    assert seen == {"invoke": len(case.history), **{kind: count for kind, count in counts.items() if count}}


def test_an_empty_history_has_no_lines() -> None:
    assert list(edn(History())) == []
