"""Views read from replies of real servers, and the plans that follow from them."""

from __future__ import annotations

from dataclasses import replace

from valkeep.topology.members import ClusterMember
from valkeep.topology.plan import plan_for
from valkeep.topology.slots import even_ranges
from valkeep.topology.spec import TopologySpec
from valkeep.topology.view import NodeView, SentinelView, View, data_view, sentinel_view

INFO = (
    b"# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.1.2,port=7000,state=online,offset=3174,lag=1,type=replica\r\n"
    b"slave1:ip=127.0.1.3,port=7000,state=wait_bgsave,offset=0,lag=0,type=replica\r\nmaster_replid:81b7ce03c549dbe21a4ac07e0a9f2664024ee5e2\r\n"
    b"master_repl_offset:3188\r\n"
)
NODES = (
    b"81efd06fd14378f067ba606ce4f75af4bf2e2997 127.0.1.1:7000@17000,,tls-port=0,shard-id=73f7 myself,master - 0 0 1 connected 0-5460 [5461->-aa]\n"
    b"11568539437e59e2c3776b7b686e3aacbb831d7e 127.0.1.4:7000@17000 slave 81efd06fd14378f067ba606ce4f75af4bf2e2997 0 1700000000000 1 connected\n"
    b"c29388a7d81040710e52831bdaa61e856cb81e21 127.0.1.2:7000@17000 master,fail - 1 1 2 disconnected 5462-10922 16000\n"
)
SLOTS = [[0, 5460, [b"127.0.1.1", 7000, b"81efd06fd14378f067ba606ce4f75af4bf2e2997", []]]]


def test_a_primary_counts_only_replicas_that_are_online() -> None:
    seen = data_view("n1", [INFO])
    assert (seen.role, seen.offset, dict(seen.online)) == ("primary", 3188, {"127.0.1.2:7000": 3174})


def test_members_of_a_cluster_are_read_with_flags_slots_and_migrations() -> None:
    seen = data_view("n1", [INFO, b"cluster_state:ok\r\ncluster_my_epoch:1\r\n", NODES, SLOTS])
    me, replica, failed = seen.members
    assert me.ranges == ((0, 5460),)
    assert me.moving
    assert replica.primary_id == me.id
    assert failed.failing
    assert failed.ranges == ((5462, 10922), (16000, 16000))
    assert seen.slot_count == 5461
    assert View(0, {"n1": seen}).covered(seen) == 5461  # what the failed one has is not served
    assert seen.named == frozenset({me.id})  # of the replica no client hears yet
    assert data_view("n1", [INFO, None, NODES, None]).named is None


def test_a_node_that_said_nothing_is_not_reached() -> None:
    assert not data_view("n1", [None, None, None, None]).reached
    assert not data_view("n1", []).reached


def test_a_sentinel_that_knows_no_such_primary_is_reached_and_watches_nothing() -> None:
    seen = sentinel_view("s1", [[b"ip", b"127.0.1.1", b"port", b"7000", b"flags", b"master,s_down"], [], []])
    assert (seen.primary, seen.down) == ("127.0.1.1:7000", True)
    assert sentinel_view("s1", [None, None, None]).primary == ""
    assert not sentinel_view("s1", []).reached


SENTINEL = TopologySpec.sentinel()
AT = {"n1": "h1:1", "n2": "h2:1", "n3": "h3:1", "s1": "h4:1", "s2": "h5:1", "s3": "h6:1"}


def _sentinel_view(primary: str = "n1") -> View:
    others = [name for name in ("n1", "n2", "n3") if name != primary]
    nodes = {name: NodeView(name, reached=True, role="replica", primary=AT[primary], link_up=True) for name in others}
    nodes[primary] = NodeView(primary, reached=True, role="primary", link_up=True, online={AT[name]: 1 for name in others})
    replicas = {AT[name]: True for name in others}
    watching = {
        name: SentinelView(
            name, reached=True, primary=AT[primary], replicas=replicas, sentinels={AT[o]: True for o in ("s1", "s2", "s3") if o != name}
        )
        for name in ("s1", "s2", "s3")
    }
    return View(0, dict(sorted(nodes.items())), watching)


def test_a_whole_sentinel_topology_misses_nothing_whoever_is_primary() -> None:
    assert plan_for(SENTINEL, _sentinel_view("n1"), AT).missing == ()
    assert plan_for(SENTINEL, _sentinel_view("n3"), AT).missing == ()


def test_two_primaries_are_not_whole() -> None:
    view = _sentinel_view()
    split = {**view.nodes, "n2": replace(view.nodes["n2"], role="primary")}
    assert "2 nodes say that they are the primary" in plan_for(SENTINEL, View(0, split, view.sentinels), AT).missing[0]


def test_a_replica_that_is_not_online_behind_the_primary_is_missed() -> None:
    view = _sentinel_view()
    nodes = {**view.nodes, "n1": replace(view.nodes["n1"], online={AT["n2"]: 1})}
    assert plan_for(SENTINEL, View(0, nodes, view.sentinels), AT).missing == ("n1 does not count n3 as online",)


def test_a_sentinel_without_links_to_the_others_is_missed() -> None:
    view = _sentinel_view()
    lonely = {**view.sentinels, "s2": replace(view.sentinels["s2"], sentinels={AT["s1"]: True, AT["s3"]: False})}
    assert plan_for(SENTINEL, View(0, view.nodes, lonely), AT).missing == ("s2 has links to 1 of 2 other sentinels",)


def test_a_node_that_does_not_answer_is_all_that_is_said() -> None:
    view = _sentinel_view()
    nodes = {**view.nodes, "n3": NodeView("n3", reached=False)}
    assert plan_for(SENTINEL, View(0, nodes, view.sentinels), AT).missing == ("n3 does not answer",)


CLUSTER = TopologySpec.cluster(shards=3, replicas=1)
CLUSTER_AT = {f"n{number}": f"h{number}:1" for number in range(1, 7)}


def _members(me: str, known: tuple[str, ...], *, slots: bool = True) -> tuple[ClusterMember, ...]:
    ranges = even_ranges(3)
    found = []
    for name in known:
        number = int(name[1])
        primary = number <= 3
        flags = {"master" if primary else "slave"} | ({"myself"} if name == me else set())
        found.append(
            ClusterMember(
                f"id{number}",
                CLUSTER_AT[name],
                frozenset(flags),
                "" if primary else f"id{number - 3}",
                number,
                True,
                (ranges[number - 1],) if primary and slots else (),
            )
        )
    return tuple(found)


def _cluster_view(known: tuple[str, ...] = tuple(CLUSTER_AT)) -> View:
    nodes = {}
    for name in CLUSTER_AT:
        number = int(name[1])
        primary = number <= 3
        nodes[name] = NodeView(
            name, reached=True, role="primary" if primary else "replica", primary="" if primary else CLUSTER_AT[f"n{number - 3}"], link_up=True,
            online={CLUSTER_AT[f"n{number + 3}"]: 1} if primary else {}, state="ok", epoch=number, members=_members(name, known),
        )  # fmt: skip
    return View(0, nodes)


def test_slots_and_epochs_come_before_the_nodes_meet() -> None:
    fresh = View(
        0, {name: NodeView(name, reached=True, role="primary", members=_members(name, (name,), slots=False)) for name in CLUSTER_AT}
    )
    words = [(command.node, command.words[1]) for command in plan_for(CLUSTER, fresh, CLUSTER_AT).commands]
    assert words == [(f"n{number}", word) for number in (1, 2, 3) for word in ("SET-CONFIG-EPOCH", "ADDSLOTSRANGE")]


def test_slots_of_one_primary_that_were_refused_are_given_out_again() -> None:
    view = _cluster_view()
    nodes = {
        name: replace(node, members=tuple(replace(m, ranges=() if m.id == "id2" else m.ranges) for m in node.members))
        for name, node in view.nodes.items()
    }
    (command,) = plan_for(CLUSTER, View(0, nodes), CLUSTER_AT).commands
    assert (command.node, command.words[:2]) == ("n2", ("CLUSTER", "ADDSLOTSRANGE"))


def test_strangers_are_met() -> None:
    view = _cluster_view()
    nodes = {**view.nodes, "n1": replace(view.nodes["n1"], members=_members("n1", ("n1", "n2")))}
    assert [command.words for command in plan_for(CLUSTER, View(0, nodes), CLUSTER_AT).commands] == [
        ("CLUSTER", "MEET", f"h{number}", "1") for number in (3, 4, 5, 6)
    ]


def test_a_node_without_slots_follows_whoever_has_the_slots_of_its_shard() -> None:
    view = _cluster_view()
    alone = replace(view.nodes["n5"], role="primary", primary="")
    plan = plan_for(CLUSTER, View(0, {**view.nodes, "n5": alone}), CLUSTER_AT)
    assert [(command.node, command.words) for command in plan.commands] == [("n5", ("CLUSTER", "REPLICATE", "id2"))]


def test_a_whole_cluster_misses_nothing_and_one_with_a_failed_state_does() -> None:
    view = _cluster_view()
    assert plan_for(CLUSTER, view, CLUSTER_AT).missing == ()
    nodes = {**view.nodes, "n4": replace(view.nodes["n4"], state="fail")}
    assert plan_for(CLUSTER, View(0, nodes), CLUSTER_AT).missing == ("n4 says that the cluster's state is fail",)


def test_a_node_that_would_not_name_a_replica_yet_is_waited_for() -> None:
    view = _cluster_view()
    members = tuple(replace(member, primary_id="") if member.id == "id5" else member for member in view.nodes["n6"].members)
    plan = plan_for(CLUSTER, View(0, {**view.nodes, "n6": replace(view.nodes["n6"], members=members)}), CLUSTER_AT)
    assert (plan.missing, plan.commands) == (("n6 does not know yet whose replica is n5",), ())


def test_a_node_that_leaves_out_a_replica_is_whole_and_named_to_who_waits_for_that() -> None:
    """An empty cluster's offsets are 0 until something is written: who waited for it before would wait for the next ping of the stream."""
    view = _cluster_view()
    everybody = frozenset(member.id for member in view.nodes["n6"].members)
    for named, untold in ((None, ()), (everybody, ()), (everybody - {"id5"}, ("n6 does not tell clients of n5 yet",))):
        nodes = {**view.nodes, "n6": replace(view.nodes["n6"], named=named)}
        plan = plan_for(CLUSTER, View(0, nodes), CLUSTER_AT)
        assert (plan.missing, plan.untold) == ((), untold)
