"""A replication group of Amazon ElastiCache as a target: its control plane, and what can be known of it.

ElastiCache denies REPLICAOF, CONFIG, PSYNC and DEBUG to its users; its own migration (StartMigration) makes the target a replica of "your Redis", which
here is the gateway. So everything that `delivery.native` does with one command is an API call that takes minutes, is asynchronous, and is judged by the
group's status, its events, and what INFO says on the target itself.

    address    `elasticache:ID`, its region and the API's address
    plane      the calls, by boto3 (the extra `[aws]`), each error with its code and its remedy
    group      facts: the group, its nodes, its parameters, its network; frozen
    survey     asks for all of that; a missing permission is a fact, too
    probe      asks the gateway what ElastiCache will ask it

**AWS itself was never part of a test.** Everything here was run against a control plane of the tests, which speaks this API over a real Valkey 8.1.
"""
