"""A control plane that speaks ElastiCache's API over a real Valkey, and migrates into it as AWS documents it: what stands in for AWS in tests.

Real boto3 talks to it over HTTP (``--aws-endpoint-url``). What AWS' users see of their target is a Valkey whose default user may not run REPLICAOF,
CONFIG, SYNC, PSYNC and DEBUG; the plane has a login of its own. What it does when it is asked:

    TestMigration       probes the source that it is told (`probe`), and notes the outcome as an event
    StartMigration      the same, then REPLICAOF; a target that is not in sync within ``patience`` is detached again, which is an event, too
    CompleteMigration   refuses where data is not in sync (``Force``: all the same), else REPLICAOF NO ONE

AWS publishes neither its probes nor most of its events: these are what its documents ask of a source. So nothing that passes here proves anything of
AWS itself. Faults are planted by changing ``group``, ``denied``, ``newest``, and so on, before or while it runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

import valkey

from tests.support.aws_wire import Denial, failed, parameters, replied
from tests.support.waiting import until
from valkeep.runtime.node import Process

__all__ = ["DENIED_COMMANDS", "PlaneOfTests", "ProbeFailed", "probe"]

DENIED_COMMANDS = (
    "replicaof",
    "slaveof",
    "config",
    "sync",
    "psync",
    "debug",
    "bgsave",
    "bgrewriteaof",
    "save",
    "shutdown",
    "module",
    "acl|setuser",
)
ADMIN, PASSWORD = "elasticache", "of-the-plane"
GROUP = "lab"
NEEDED = ("info", "config", "command", "cluster", "sync", "psync")


class ProbeFailed(Exception):
    """The source does not fit; what is said in the event."""


def probe(host: str, port: int, *, databases: int, newest: tuple[int, ...]) -> None:
    """What AWS' documents ask of a source, asked as a client without a password. Raises ``ProbeFailed``."""
    client: Any = valkey.Valkey(host=host, port=port, socket_timeout=2, socket_connect_timeout=2)
    try:
        with client:
            client.ping()
            info = client.info()
            version = tuple(int(part) for part in str(info["redis_version"]).split("."))
            if version > newest:
                raise ProbeFailed(f"source engine version {info['redis_version']} is not supported")
            if info["role"] != "master" and info.get("master_link_status") != "up":
                raise ProbeFailed("source is a replica without its primary")
            if int(info.get("cluster_enabled", 0)):
                raise ProbeFailed("source has cluster mode enabled")
            if int(info["master_repl_offset"]) < 0:
                raise ProbeFailed("source has no replication offset")
            if str(client.config_get("protected-mode").get("protected-mode")) != "no":
                raise ProbeFailed("source has protected-mode enabled")
            if int(client.config_get("databases").get("databases", 0)) != databases:
                raise ProbeFailed(f"source and target have different numbers of databases (target {databases})")
            known = {str(name).lower() for name in client.command()}
            if missing := [name for name in NEEDED if name not in known]:
                raise ProbeFailed(f"commands are renamed or denied on the source: {', '.join(missing)}")
            client.execute_command("CLUSTER", "INFO")
    except valkey.exceptions.AuthenticationError as error:
        raise ProbeFailed("source requires AUTH") from error
    except valkey.exceptions.ResponseError as error:
        if "cluster support disabled" in str(error).lower():
            return
        raise ProbeFailed(f"source refused a command: {error}") from error
    except (valkey.exceptions.ConnectionError, valkey.exceptions.TimeoutError) as error:
        raise ProbeFailed(f"unable to connect to the source, or no answer: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ProbeFailed(f"source's answer was not understood: {error!r}") from error


class PlaneOfTests:
    """``with PlaneOfTests(target) as plane``: an API at ``plane.url`` for the group "lab", whose primary is ``target``.

    ``patience``: seconds until a target that is not in sync is given up. ``calls``: actions in order; ``denied``: actions that IAM does not permit;
    ``newest``: the newest source that is accepted; ``delay``: seconds that each step takes. ``before``: called with the action before it is answered.
    ``lose``: actions that are carried out once without an answer; ``refuse_to_answer``: nothing is answered, or carried out.
    """

    def __init__(self, target: Process, *, databases: int = 16, patience: float = 90.0) -> None:
        self.target = target
        self.databases = databases
        self.patience = patience
        self.newest: tuple[int, ...] = (7, 2, 99)
        self.delay = 0.0
        self.denied: set[str] = set()
        self.calls: list[str] = []
        self.events: list[tuple[datetime, str]] = []
        self.lose: set[str] = set()
        self.refuse_to_answer = False
        self.promotes = threading.Event()  # cleared: it waits with a promotion
        self.promotes.set()
        self.starts = threading.Event()  # cleared: it waits before it does what StartMigration asked for
        self.starts.set()
        self.promoting = False  # it found the data in sync, and is about to promote
        self.before: Callable[[str], None] | None = None
        self.source: tuple[str, int] = ("", 0)
        self.group = self._group()
        self.cluster: dict[str, Any] = {}
        self.security_groups = [_open_group("sg-cache"), _open_group("sg-gateway")]
        self.subnets = [{"SubnetId": "subnet-a", "CidrBlock": "127.0.0.0/8", "VpcId": "vpc-1"}]
        self.parameters = {"databases": str(databases), "reserved-memory-percent": "25", "maxmemory-policy": "volatile-lru"}
        self.maxmemory = 3_317_862_236  # cache.t3.medium, by AWS' table of node-type specific parameters
        self._server: ThreadingHTTPServer | None = None
        self._work: list[threading.Thread] = []
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.admin: Any = valkey.Valkey(host="127.0.0.1", port=target.port, username=ADMIN, password=PASSWORD, socket_timeout=10)

    # -- life ------------------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.take_rights()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def take_rights(self) -> None:
        """Of the target's users; again after a restart of it."""
        with valkey.Valkey(host="127.0.0.1", port=self.target.port) as user:
            user.execute_command("ACL", "SETUSER", ADMIN, "on", f">{PASSWORD}", "~*", "&*", "+@all")
            user.execute_command("ACL", "SETUSER", "default", *(f"-{name}" for name in DENIED_COMMANDS))

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for thread in self._work:
            thread.join(20)
        self.admin.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that talks to this plane: credentials that mean nothing, and no file or metadata service of the machine."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "never-shown-anywhere",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    @property
    def options(self) -> tuple[str, ...]:
        return ("--target", f"elasticache:{GROUP}", "--aws-endpoint-url", self.url)

    def said(self, text: str) -> bool:
        return any(text.lower() in message.lower() for _, message in self.events)

    def wait_for(self, text: str) -> None:
        until(lambda: self.said(text), lambda: f"no event {text!r}: {self.events}")

    # -- what it is ------------------------------------------------------------------------------------------------------------------

    def _group(self) -> dict[str, Any]:
        members = [
            {
                "CacheClusterId": f"{GROUP}-00{number}",
                "CacheNodeId": "0001",
                "ReadEndpoint": {"Address": f"127.0.0.{number}", "Port": self.target.port},
                "PreferredAvailabilityZone": f"eu-west-1{zone}",
                "CurrentRole": role,
            }
            for number, zone, role in ((1, "a", "primary"), (2, "b", "replica"))
        ]
        return {
            "ReplicationGroupId": GROUP,
            "Status": "available",
            "MemberClusters": [f"{GROUP}-001", f"{GROUP}-002"],
            "NodeGroups": [
                {
                    "NodeGroupId": "0001",
                    "Status": "available",
                    "PrimaryEndpoint": {"Address": "127.0.0.1", "Port": self.target.port},
                    "NodeGroupMembers": members,
                }
            ],
            "AutomaticFailover": "enabled",
            "MultiAZ": "enabled",
            "ClusterEnabled": False,
            "CacheNodeType": "cache.t3.medium",
            "AuthTokenEnabled": False,
            "TransitEncryptionEnabled": False,
            "AtRestEncryptionEnabled": True,
            "DataTiering": "disabled",
            "Engine": "valkey",
        }

    def _cluster(self, name: str) -> dict[str, Any]:
        return {
            "CacheClusterId": name,
            "CacheNodeType": "cache.t3.medium",
            "Engine": "valkey",
            "EngineVersion": "8.2",
            "CacheClusterStatus": "available",
            "CacheParameterGroup": {"CacheParameterGroupName": "default.valkey8"},
            "CacheSubnetGroupName": "lab-subnets",
            "SecurityGroups": [{"SecurityGroupId": "sg-cache", "Status": "active"}],
            "ReplicationGroupId": GROUP,
        } | self.cluster

    # -- the API ---------------------------------------------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode(), keep_blank_values=True)
                action = form["Action"][0]
                if plane.refuse_to_answer:
                    self.close_connection = True
                    return
                service = "ec2" if form["Version"][0].startswith("2016") else "elasticache"
                try:
                    status, body = 200, replied(service, action, plane.answer(service, action, parameters(form)))
                except Denial as denial:
                    status, body = denial.status, failed(service, denial)
                if action in plane.lose:
                    plane.lose.remove(action)
                    self.close_connection = True
                    return
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "text/xml")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, service: str, action: str, given: dict[str, Any]) -> dict[str, Any]:
        if self.before is not None:
            self.before(action)
        with self._lock:
            self.calls.append(action)
            if action in self.denied:
                code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
                who = "arn:aws:sts::111122223333:assumed-role/lab/i-0"
                raise Denial(code, f"User: {who} is not authorized to perform: {service}:{action}", 403)
            if given.get("ReplicationGroupId", GROUP) != GROUP:
                raise Denial("ReplicationGroupNotFoundFault", f"ReplicationGroup {given['ReplicationGroupId']} not found.", 404)
            answer: dict[str, Any] = getattr(self, f"on_{action}")(given)
            return answer

    def on_DescribeReplicationGroups(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"ReplicationGroups": [self.group]}

    def on_DescribeCacheClusters(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"CacheClusters": [self._cluster(given["CacheClusterId"])]}

    def on_DescribeCacheParameters(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "Parameters": [{"ParameterName": name, "ParameterValue": value} for name, value in self.parameters.items()],
            "CacheNodeTypeSpecificParameters": [
                {
                    "ParameterName": "maxmemory",
                    "CacheNodeTypeSpecificValues": [{"CacheNodeType": "cache.t3.medium", "Value": str(self.maxmemory)}],
                }
            ],
        }

    def on_DescribeCacheSubnetGroups(self, _: dict[str, Any]) -> dict[str, Any]:
        subnets = [{"SubnetIdentifier": one["SubnetId"]} for one in self.subnets]
        return {"CacheSubnetGroups": [{"CacheSubnetGroupName": "lab-subnets", "VpcId": "vpc-1", "Subnets": subnets}]}

    def on_DescribeEvents(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "Events": [
                {"SourceIdentifier": GROUP, "SourceType": "replication-group", "Message": message, "Date": when}
                for when, message in reversed(self.events)
            ]
        }

    def on_DescribeSecurityGroups(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"SecurityGroups": self.security_groups}

    def on_DescribeSubnets(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Subnets": self.subnets}

    def on_DescribeRouteTables(self, _: dict[str, Any]) -> dict[str, Any]:
        routes = [{"DestinationCidrBlock": "127.0.0.0/8", "GatewayId": "local", "State": "active"}]
        return {"RouteTables": [{"RouteTableId": "rtb-1", "Associations": [{"Main": True}], "Routes": routes}]}

    def on_DescribeNetworkInterfaces(self, given: dict[str, Any]) -> dict[str, Any]:
        address = given["Filter"]["1"]["Value"]["1"]
        interface = {"NetworkInterfaceId": "eni-1", "SubnetId": "subnet-a", "VpcId": "vpc-1", "PrivateIpAddress": address}
        return {"NetworkInterfaces": [interface | {"Groups": [{"GroupId": "sg-gateway"}]}]}

    # -- the migration ---------------------------------------------------------------------------------------------------------------

    def on_TestMigration(self, given: dict[str, Any]) -> dict[str, Any]:
        self._accept(given)
        self._begin(self._test)
        return {"ReplicationGroup": self.group}

    def on_StartMigration(self, given: dict[str, Any]) -> dict[str, Any]:
        self._accept(given)
        self.group["Status"] = "migrating"
        self._begin(self._migrate)
        return {"ReplicationGroup": self.group}

    def on_CompleteMigration(self, given: dict[str, Any]) -> dict[str, Any]:
        if self.group["Status"] != "migrating":
            raise Denial("ReplicationGroupNotUnderMigrationFault", f"Replication group {GROUP} is not under migration")
        self._begin(self._complete, given.get("Force", "false") == "true")
        return {"ReplicationGroup": self.group}

    def _accept(self, given: dict[str, Any]) -> None:
        if self.group["Status"] == "migrating":
            raise Denial("ReplicationGroupAlreadyUnderMigrationFault", f"Replication group {GROUP} is already under migration")
        if self.group["Status"] != "available":
            raise Denial("InvalidReplicationGroupState", f"Replication group {GROUP} is {self.group['Status']}")
        if self.group["TransitEncryptionEnabled"]:
            raise Denial("InvalidParameterCombination", "In-transit encryption must be disabled for migration")
        if self.group["MultiAZ"] != "enabled":
            raise Denial("InvalidParameterCombination", "Multi-AZ must be enabled for migration")
        endpoint = given["CustomerNodeEndpointList"]["member"]["1"]
        self.source = (endpoint["Address"], int(endpoint["Port"]))

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._work.append(thread)
        thread.start()

    def _note(self, message: str) -> None:
        self.events.append((datetime.now(UTC), message))

    def _test(self) -> None:
        self._ending.wait(self.delay)
        try:
            probe(*self.source, databases=self.databases, newest=self.newest)
        except ProbeFailed as why:
            self._note(f"Test migration failed for {GROUP}: {why}")
        else:
            self._note(f"Test migration successful for {GROUP}")

    def _migrate(self) -> None:
        self._ending.wait(self.delay)
        while not self._ending.is_set() and not self.starts.wait(0.05):
            pass
        try:
            probe(*self.source, databases=self.databases, newest=self.newest)
            self.admin.execute_command("REPLICAOF", *self.source)
            deadline = time.monotonic() + self.patience
            while self.admin.info("replication").get("master_link_status") != "up":
                if self._ending.is_set() or self.group["Status"] != "migrating":
                    return
                if time.monotonic() > deadline:
                    raise ProbeFailed("the snapshot of the source did not arrive in time")
                self._ending.wait(0.05)
            self._note(f"Start migration successful for {GROUP}: replicating from {self.source[0]}:{self.source[1]}")
        except (ProbeFailed, valkey.exceptions.ValkeyError) as why:
            with contextlib.suppress(valkey.exceptions.ValkeyError):
                self.admin.execute_command("REPLICAOF", "NO", "ONE")
            self.group["Status"] = "available"
            self._note(f"Start migration failed for {GROUP}: {why}")

    def _complete(self, force: bool) -> None:
        if not force and not self._in_sync():
            self._note(f"Complete migration failed for {GROUP}: data not in sync")
            return
        self.promoting = True
        self._ending.wait(self.delay)
        while not self._ending.is_set() and not self.promotes.wait(0.05):
            pass
        self.admin.execute_command("REPLICAOF", "NO", "ONE")
        self.group["Status"] = "available"
        self._note(f"Complete Migration successful for {GROUP}")

    def _in_sync(self) -> bool:
        """Link up, and at the offset that the source says it is at."""
        here = self.admin.info("replication")
        if here.get("master_link_status") != "up":
            return False
        try:
            client: Any = valkey.Valkey(host=self.source[0], port=self.source[1], socket_timeout=2)
            with client:
                there = client.info("replication")
            for _ in range(5):
                if int(self.admin.info("replication")["slave_repl_offset"]) >= int(there["master_repl_offset"]):
                    return str(here["master_replid"]) == str(there["master_replid"])
                self._ending.wait(0.1)
        except valkey.exceptions.ValkeyError:
            pass
        return False


def _open_group(name: str) -> dict[str, Any]:
    """Everything between the two of them, as a lab's security group has it."""
    rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": "127.0.0.0/8"}]}
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    return {"GroupId": name, "GroupName": name, "IpPermissions": [rule], "IpPermissionsEgress": [everything]}
