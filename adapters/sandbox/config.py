"""What a sandbox cloud offers, as one frozen value: from Python, or from a JSON file.

Nothing here reads the clock, the environment or the network. `from_document` refuses what it does not know and says
which field is wrong, why, and what would be right.
"""

import dataclasses
import ipaddress
import json
import types
import typing
import uuid
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

from adapters.sandbox.errors import ConfigError
from adapters.sandbox.faults import Fault

NAMESPACE = uuid.UUID("6f2d1c54-35b8-5c0e-9d2e-1b1f6c9a7e01")
UNLIMITED = -1


class ServerFence(StrEnum):
    """What keeps a second POST of a server from making a second one; clouds differ in nothing more.

    PART is Nova: a port that one server has is refused to another. With NAME the name of a server that exists is
    refused too (Google; Nova with `osapi_compute_unique_server_name_scope`). With TOKEN the header `Client-Token` makes
    the request idempotent (EC2). With NONE it is PART again, for clients that make servers without ports.
    """

    PART = "part"
    NAME = "name"
    TOKEN = "token"  # noqa: S105 - the name of a fence, not a secret
    NONE = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlavorConfig:
    """One size of machine. `ram_mib` and `disk_gib` are what Nova calls `ram` and `disk`."""

    name: str
    vcpus: int
    ram_mib: int
    disk_gib: int = 20
    ephemeral_gib: int = 0
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """One image. `properties` are the custom ones Glance shows beside its own fields."""

    name: str
    os_distro: str = "linux"
    os_version: str = ""
    size_bytes: int = 600 * 1024**2
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    status: str = "active"
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One IPv4 network with one subnet. Without a project it is everybody's (shared)."""

    name: str
    cidr: str
    external: bool = False
    project: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuotaConfig:
    """The limits of one project; -1 means unlimited, as in OpenStack."""

    instances: int = 10
    cores: int = 20
    ram_mib: int = 51200
    key_pairs: int = 100
    ports: int = 100
    floating_ips: int = 10
    networks: int = 10
    subnets: int = 10
    security_groups: int = 10
    security_group_rules: int = 100
    volumes: int = 10
    volume_gib: int = 1000
    volume_snapshots: int = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """One project and its limits."""

    name: str
    quota: QuotaConfig = QuotaConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserConfig:
    """One user, member of `projects`, and in those of `reader_of` a reader, who changes nothing."""

    name: str
    password: str = dataclasses.field(repr=False)
    projects: tuple[str, ...] = ()
    reader_of: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long things take, in seconds from the request; 0 means done when next looked at.

    `bind_seconds` is when a new server takes its ports. In Nova the compute node does that, after the 202; so two
    requests for one port may both be answered 202, and the later machine ends in ERROR. `suspend_seconds` are those of
    pausing, resuming and unpausing too, `resize_seconds` those of confirming and reverting.
    """

    build_seconds: float = 0.0
    bind_seconds: float = 0.0
    stop_seconds: float = 0.0
    start_seconds: float = 0.0
    reboot_seconds: float = 0.0
    shelve_seconds: float = 0.0
    offload_seconds: float = 0.0
    unshelve_seconds: float = 0.0
    snapshot_seconds: float = 0.0
    suspend_seconds: float = 0.0
    resize_seconds: float = 0.0
    rebuild_seconds: float = 0.0
    delete_seconds: float = 0.0
    volume_seconds: float = 0.0
    attach_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the whole cloud can place; beyond it a build ends in ERROR with "No valid host was found"."""

    cores: int
    ram_mib: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """One sandbox cloud. `page_limit` is the most items of one page, as Nova's `max_limit`.

    `hosts` matter to server groups alone; how much fits in all is `capacity`.

    The other foreign things belong to the people who have the foreign servers: without these there are none. Without
    `has_volumes` the cloud has no Cinder.

    A client token is remembered for `token_life_seconds`. `faults` are on from the start; `seed` sets the dice of those
    that hit by chance.
    """

    name: str
    projects: tuple[ProjectConfig, ...]
    users: tuple[UserConfig, ...]
    flavors: tuple[FlavorConfig, ...]
    images: tuple[ImageConfig, ...]
    networks: tuple[NetworkConfig, ...]
    region: str = "RegionOne"
    timing: Timing = Timing()
    capacity: Capacity | None = None
    token_seconds: float = 4 * 3600.0
    page_limit: int = 1000
    hosts: int = 16
    foreign_servers: int = 0
    foreign_volumes: int = 0
    foreign_volume_snapshots: int = 0
    foreign_addresses: int = 0
    foreign_images: int = 0
    has_volumes: bool = True
    fence: ServerFence = ServerFence.PART
    token_life_seconds: float = 24 * 3600.0
    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration whose names do not fit together."""
        for field in ("projects", "users", "flavors", "images", "networks"):
            names = [item.name for item in getattr(self, field)]
            if not names:
                raise ConfigError(f"{field}: is empty; a cloud needs at least one")
            for name in sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"{field}: {name!r} appears twice; give each its own name")
        projects = {project.name for project in self.projects}
        for user in self.users:
            _check_user(user, projects)
        for network in self.networks:
            if network.project is not None:
                _check_project(f"networks.{network.name}.project", network.project, projects)
            try:
                ipaddress.IPv4Network(network.cidr)
            except ValueError as error:
                raise ConfigError(f"networks.{network.name}.cidr: {error}; write e.g. 10.20.0.0/24") from error
        for field in ("page_limit", "hosts"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}: is {getattr(self, field)}; must be 1 or more")

    def identifier(self, noun: str, name: str) -> str:
        """The id of a configured thing: the same at every start, so that clients' notes stay right."""
        return str(uuid.uuid5(NAMESPACE, f"{self.name}/{noun}/{name}"))


def _check_user(user: UserConfig, projects: set[str]) -> None:
    for field, named in (("projects", user.projects), ("reader_of", user.reader_of)):
        for name in named:
            _check_project(f"users.{user.name}.{field}", name, projects)
    for name in sorted(set(user.projects) & set(user.reader_of)):
        raise ConfigError(f"users.{user.name}.reader_of: {name!r} is in projects, too; a member reads already")


def _check_project(field: str, name: str, projects: set[str]) -> None:
    if name not in projects:
        raise ConfigError(f"{field}: no project {name!r}; there are {', '.join(sorted(projects))}")


def from_file(path: Path) -> CloudConfig:
    """Read a JSON file with the fields of `CloudConfig`.

    Raises:
        ConfigError: the file cannot be read, is not JSON, or holds something unknown or of the wrong type.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a readable JSON file") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error}); see the fields of CloudConfig") from error
    return from_document(document)


def from_document(document: Any) -> CloudConfig:
    """A configuration out of plain JSON values.

    Raises:
        ConfigError: names the field, the reason and the way out.
    """
    config: CloudConfig = _read(CloudConfig, document, "configuration")
    return config


def _read(wanted: Any, value: Any, field: str) -> Any:
    """`value` as the type `wanted`, recursively."""
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _read_dataclass(wanted, value, field)
    origin = get_origin(wanted)
    if origin is types.UnionType:
        inner = next(option for option in get_args(wanted) if option is not type(None))
        return None if value is None else _read(inner, value, field)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{field}: is {type(value).__name__}; must be a list")
        return tuple(_read(get_args(wanted)[0], item, f"{field}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{field}: is {type(value).__name__}; must be an object of texts")
        return {key: _read(str, item, f"{field}.{key}") for key, item in value.items()}
    return _read_plain(wanted, value, field)


def _read_plain(wanted: type[Any], value: Any, field: str) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise ConfigError(f"{field}: is {value!r}; must be one of {', '.join(wanted)}")
        return wanted(value)
    if type(value) is not wanted:  # not isinstance: True is no number here
        raise ConfigError(f"{field}: is {value!r}; must be of type {wanted.__name__}")
    return value


def _read_dataclass(wanted: type[Any], value: Any, field: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{field}: is {type(value).__name__}; must be an object with the fields of {wanted.__name__}")
    known = {item.name: item for item in dataclasses.fields(wanted)}
    for key in value:
        if key not in known:
            raise ConfigError(f"{field}.{key}: is not known; known are {', '.join(known)}")
    for name, item in known.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ConfigError(f"{field}.{name}: is missing; add it")
    hints = typing.get_type_hints(wanted)
    fields = {key: _read(hints[key], item, f"{field}.{key}") for key, item in value.items()}
    try:
        return wanted(**fields)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error}") from error
