"""One sandbox cloud in memory: what exists, what is due, and the log of both.

Nothing runs on its own. What takes time is put on the agenda with its due time; whoever looks first calls `advance`,
which lets everything due happen in the order of its due time. So states, usage and the log are exact to the
microsecond although no timer ticks. Every use is under `lock`; the service modules get it from `wire`.
"""

import heapq
import ipaddress
import itertools
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from adapters.sandbox.config import CloudConfig
from adapters.sandbox.entities import (
    AppCredential,
    ClientToken,
    Flavor,
    FloatingIp,
    Image,
    KeyPair,
    Network,
    Port,
    Project,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    ServerGroup,
    Subnet,
    Token,
    Usage,
    User,
)
from adapters.sandbox.faults import FaultBoard
from adapters.sandbox.identity import Identity, hex_id
from adapters.sandbox.truth import Entry, TruthLog
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot

Clock = Callable[[], datetime]
Action = Callable[[datetime], None]


class Owned(Protocol):
    """What belongs to a project and may be hidden for a while."""

    project_id: str
    visible_at: datetime | None


OwnedT = TypeVar("OwnedT", bound=Owned)


def utc_now() -> datetime:
    """The clock of a cloud that runs in real time."""
    return datetime.now(UTC)


class Cloud:
    """Everything one cloud knows."""

    def __init__(self, config: CloudConfig, clock: Clock = utc_now, *, shared: Identity | None = None) -> None:
        """With the Keystone that it shares, or one of its own."""
        self.config = config
        self.has_keystone = shared is None
        self.identity = Identity(config) if shared is None else shared
        self.clock = clock
        self.lock = threading.RLock()
        self.faults = FaultBoard(config.faults, seed=config.seed)
        self.log = TruthLog(self.catch_up)
        self._fill()

    @property
    def projects(self) -> dict[str, Project]:
        return self.identity.projects

    @property
    def users(self) -> dict[str, User]:
        return self.identity.users

    @property
    def tokens(self) -> dict[str, Token]:
        return self.identity.tokens

    @property
    def app_credentials(self) -> dict[str, AppCredential]:
        return self.identity.app_credentials

    def _fill(self) -> None:
        """Everything as configured, nothing made yet."""
        config, now = self.config, self.clock()
        ids = {project.name: project.id for project in self.projects.values()}
        self._agenda: list[tuple[datetime, int, Action]] = []
        self._serials = itertools.count(1)
        flavors = (Flavor(config.identifier("flavor", f.name), f) for f in config.flavors)
        self.flavors = {flavor.id: flavor for flavor in sorted(flavors, key=lambda flavor: flavor.id)}
        self.images = {
            item.id: item
            for item in (
                Image(id=config.identifier("image", i.name), config=i, created=now, updated=now) for i in config.images
            )
        }
        self.key_pairs: dict[tuple[str, str], KeyPair] = {}
        self.servers: dict[str, Server] = {}
        self.deleted_servers: dict[str, Server] = {}
        self.server_groups: dict[str, ServerGroup] = {}
        self.client_tokens: dict[tuple[str, str], ClientToken] = {}
        self.usage = {project_id: Usage() for project_id in self.projects}
        self.networks: dict[str, Network] = {}
        self.subnets: dict[str, Subnet] = {}
        self.ports: dict[str, Port] = {}
        self.security_groups: dict[str, SecurityGroup] = {}
        self.security_group_rules: dict[str, SecurityGroupRule] = {}
        self.floating_ips: dict[str, FloatingIp] = {}
        self.volumes: dict[str, Volume] = {}
        self.volume_snapshots: dict[str, VolumeSnapshot] = {}
        for item in config.networks:
            self._add_network(item.name, item.cidr, ids.get(item.project or ""), external=item.external)
        for project in self.projects.values():
            self._add_default_group(project, now)

    def _add_network(self, name: str, cidr: str, project_id: str | None, *, external: bool) -> None:
        now = self.clock()
        owner = project_id or hex_id(self.config, "project", "admin")
        network = Network(
            id=self.config.identifier("network", name),
            name=name,
            project_id=owner,
            external=external,
            shared=project_id is None and not external,
            created=now,
        )
        subnet = Subnet(
            id=self.config.identifier("subnet", name),
            name=f"{name}-subnet",
            network_id=network.id,
            project_id=owner,
            cidr=ipaddress.IPv4Network(cidr),
            created=now,
        )
        network.subnet_ids.append(subnet.id)
        self.networks[network.id] = network
        self.subnets[subnet.id] = subnet

    def _add_default_group(self, project: Project, now: datetime) -> None:
        """Neutron's: all out, and in from members of the same group."""
        group = SecurityGroup(
            id=self.config.identifier("security_group", f"{project.name}/default"),
            name="default",
            description="Default security group",
            project_id=project.id,
            created=now,
            updated=now,
        )
        self.security_groups[group.id] = group
        for direction, ethertype in itertools.product(("egress", "ingress"), ("IPv4", "IPv6")):
            rule = SecurityGroupRule(
                id=self.config.identifier("rule", f"{project.name}/{direction}/{ethertype}"),
                group_id=group.id,
                project_id=project.id,
                direction=direction,
                ethertype=ethertype,
                protocol=None,
                port_range_min=None,
                port_range_max=None,
                remote_ip_prefix=None,
                remote_group_id=group.id if direction == "ingress" else None,
                description="",
                created=now,
            )
            self.security_group_rules[rule.id] = rule
            group.rule_ids.append(rule.id)

    def reset(self, *, keep_identity: bool = False) -> None:
        """Back to the configuration: nothing made, an empty log; `keep_identity` leaves tokens valid."""
        with self.lock:
            if self.has_keystone:
                self.identity.reset(keep_logins=keep_identity)
            self.faults.reset()
            self.log.clear()
            self._fill()

    def serial(self) -> int:
        """Rises with every call: the order in which things were made."""
        return next(self._serials)

    def plan(self, due: datetime, action: Action) -> None:
        """Let `action(due)` happen when the clock has reached `due`."""
        heapq.heappush(self._agenda, (due, self.serial(), action))

    def plan_after(self, now: datetime, seconds: float, action: Action) -> None:
        """As `plan`; what takes no time happens now."""
        if seconds <= 0:
            action(now)
        else:
            self.plan(now + timedelta(seconds=seconds), action)

    def advance(self, now: datetime) -> None:
        """Let everything happen that is due at `now`, in the order of its due time."""
        while self._agenda and self._agenda[0][0] <= now:
            due, _, action = heapq.heappop(self._agenda)
            action(due)

    def catch_up(self) -> None:
        with self.lock:
            self.advance(self.clock())

    def record(self, at: datetime, kind: str, event: str, thing: Any, **more: Any) -> None:
        """Write what happened to a thing into the log. What has no metadata may have a description instead."""
        description = getattr(thing, "description", None)
        self.log.add(
            Entry(
                at=at,
                kind=kind,
                event=event,
                id=thing.id,
                name=getattr(thing, "name", ""),
                project_id=thing.project_id,
                request_id=more.pop("request_id", ""),
                metadata=dict(more.pop("metadata", {"description": description} if description else {})),
                detail=more,
            )
        )


def visible(things: Iterable[OwnedT], project_id: str, now: datetime) -> list[OwnedT]:
    """The project's things that lists and GETs show."""
    return [
        thing
        for thing in things
        if thing.project_id == project_id and (thing.visible_at is None or thing.visible_at <= now)
    ]


def is_visible(thing: Owned, project_id: str, now: datetime) -> bool:
    return thing.project_id == project_id and (thing.visible_at is None or thing.visible_at <= now)


def new_id() -> str:
    return str(uuid.uuid4())
