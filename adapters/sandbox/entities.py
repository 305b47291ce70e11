"""The things a cloud holds. Plain values with identity; what changes them is in `machines` and in the service modules.

Times are aware UTC. `visible_at` is set only by the fault `hidden`: until then lists and GETs do not show the thing.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from adapters.sandbox.config import FlavorConfig, ImageConfig, QuotaConfig

READER, MEMBER = "reader", "member"
BOTH = (MEMBER, READER)  # member implies reader


class VmState(StrEnum):
    """Nova's `OS-EXT-STS:vm_state`, as far as the sandbox goes."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESIZED = "resized"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    ERROR = "error"
    DELETED = "deleted"


@dataclass(slots=True)
class Project:
    id: str
    name: str
    quota: QuotaConfig


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    password: str = field(repr=False)
    roles: Mapping[str, tuple[str, ...]]  # by project id


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of the user, for one project or (None) unscoped."""

    id: str = field(repr=False)
    user: User
    project: Project | None
    issued_at: datetime
    expires_at: datetime
    methods: tuple[str, ...]
    audit_ids: tuple[str, ...]
    roles: tuple[str, ...] = ()
    app_credential_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCredential:
    id: str
    name: str
    secret: str = field(repr=False)
    user_id: str
    project_id: str
    description: str | None
    roles: tuple[str, ...]
    unrestricted: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Flavor:
    id: str
    config: FlavorConfig


@dataclass(slots=True, kw_only=True)
class Image:
    """A configured image is everybody's; one made of a server is its project's. `given` came with the request."""

    id: str
    config: ImageConfig
    created: datetime
    updated: datetime
    project_id: str = ""
    protected: bool = False
    given: dict[str, str] = field(default_factory=dict)
    log_kind: str = "image"
    visible_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A user's public key; the project is only the one whose token brought it."""

    name: str
    user_id: str
    project_id: str
    public_key: str
    fingerprint: str
    type: str
    created: datetime

    @property
    def id(self) -> str:
        return self.name


@dataclass(slots=True, kw_only=True)
class ServerFault:
    message: str
    code: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Nic:
    """What a create request asked for: a port of its owner's, or a new one on a network."""

    network_id: str
    port_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Action:
    """One order that a server took, as `os-instance-actions` tells it."""

    name: str
    request_id: str
    user_id: str
    started: datetime
    finished: datetime | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Former:
    """What a resized server was before: it goes back to that, unless the resize is confirmed."""

    flavor: Flavor
    vm_state: VmState


@dataclass(frozen=True, slots=True, kw_only=True)
class RootDisk:
    """A root disk that is to be a volume: of which image, how large, and whether it goes with its server."""

    image: Image
    size_gib: int
    goes_with_it: bool


@dataclass(slots=True, kw_only=True)
class Server:
    """One machine. `epoch` rises with every accepted order, so that what an older order planned does nothing.

    One that boots from a volume has a `root_disk`, and the id of its image only where its request named it twice.
    """

    id: str
    serial: int
    name: str
    project_id: str
    user_id: str
    flavor: Flavor
    image_id: str
    image_config: ImageConfig
    created: datetime
    updated: datetime
    nics: tuple[Nic, ...] = ()
    key_name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    security_groups: list[str] = field(default_factory=lambda: ["default"])
    availability_zone: str = "nova"
    user_data: str | None = None
    description: str | None = None
    vm_state: VmState = VmState.BUILDING
    task_state: str | None = "scheduling"
    power_state: int = 0
    host: str = ""
    launched_at: datetime | None = None
    terminated_at: datetime | None = None
    fault: ServerFault | None = None
    locked: bool = False
    locked_reason: str | None = None
    epoch: int = 0
    port_ids: list[str] = field(default_factory=list)
    volume_ids: list[str] = field(default_factory=list)
    root_disk: RootDisk | None = None
    group_id: str = ""
    shelved_image_id: str = ""
    former: Former | None = None
    actions: list[Action] = field(default_factory=list)
    visible_at: datetime | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class ClientToken:
    """What a request with a client token made. `document` is what was asked for."""

    server: Server
    document: dict[str, Any]
    forgotten_at: datetime


@dataclass(slots=True, kw_only=True)
class Network:
    id: str
    name: str
    project_id: str
    external: bool
    shared: bool
    created: datetime
    subnet_ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Subnet:
    """One IPv4 subnet and the addresses it has given out."""

    id: str
    name: str
    network_id: str
    project_id: str
    cidr: ipaddress.IPv4Network
    created: datetime
    tags: list[str] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    cursor: int = 2

    @property
    def gateway(self) -> str:
        return str(self.cidr.network_address + 1)

    def allocate(self) -> str | None:
        """The next free address, or None when there is none; addresses are used again as late as possible."""
        last = self.cidr.num_addresses - 2
        for _ in range(2, last + 1):
            offset = self.cursor if 2 <= self.cursor <= last else 2
            self.cursor = offset + 1
            if offset not in self.taken:
                self.taken.add(offset)
                return str(self.cidr.network_address + offset)
        return None

    def claim(self, address: str) -> bool:
        """Take this address; False when it is outside the subnet or taken."""
        offset = int(ipaddress.IPv4Address(address)) - int(self.cidr.network_address)
        if not 2 <= offset <= self.cidr.num_addresses - 2 or offset in self.taken:
            return False
        self.taken.add(offset)
        return True

    def release(self, address: str) -> None:
        self.taken.discard(int(ipaddress.IPv4Address(address)) - int(self.cidr.network_address))


@dataclass(slots=True, kw_only=True)
class Port:
    """One port with one fixed address. `made_by_nova` ones are deleted with their server, the others only let go.

    `device_id` is Neutron's word for who has it; `holder` is Nova's own record, which alone decides.
    """

    id: str
    name: str
    project_id: str
    network_id: str
    subnet_id: str
    address: str
    mac_address: str
    created: datetime
    updated: datetime
    description: str = ""
    device_id: str = ""
    device_owner: str = ""
    holder: str = ""
    made_by_nova: bool = False
    admin_state_up: bool = True
    security_group_ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    revision: int = 1
    visible_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class SecurityGroupRule:
    id: str
    group_id: str
    project_id: str
    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    description: str | None  # none of a rule that came with its group
    created: datetime


@dataclass(slots=True, kw_only=True)
class SecurityGroup:
    id: str
    name: str
    description: str
    project_id: str
    created: datetime
    updated: datetime
    rule_ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class FloatingIp:
    id: str
    address: str
    network_id: str
    subnet_id: str
    project_id: str
    created: datetime
    updated: datetime
    description: str = ""
    port_id: str | None = None
    tags: list[str] = field(default_factory=list)
    visible_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGroup:
    """Nova's group of servers that are kept together or apart; who is in it, the servers say."""

    id: str
    name: str
    policy: str
    rules: dict[str, int]
    project_id: str
    user_id: str


@dataclass(slots=True)
class Usage:
    """What a project's servers use of its quota; it ends when the server is gone, not when it is stopped."""

    instances: int = 0
    cores: int = 0
    ram_mib: int = 0
