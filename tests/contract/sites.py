"""The clouds that the contract suite runs against. A new adapter adds one line to `ADAPTERS`, and its function."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import partial

from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running, volumes
from adapters.sandbox.config import ServerFence, Timing, UserConfig
from adapters.sandbox.entities import AppCredential
from adapters.sandbox.images import Wish, take_snapshot
from adapters.sandbox.profiles import DEMO_PASSWORD
from adapters.sandbox.state import new_id, utc_now
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot
from broker.ports import CloudAdapter
from broker.remote import Deadline, Fence, MachineSpec, PartKind, RemotePart, Secret, SiteAddress, Tags, ThingKind

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJlYWQgdGhlIGNvbnRyYWN0IGJlZm9yZSB5b3Ugc2ln alice@laptop"
PAGE = 5  # machines in one page of the sandbox


class Trouble(Enum):
    """What can go wrong between us and a site."""

    SLOW = auto()  # answers after 2 seconds
    DRIP = auto()  # done; the answer comes a byte a second
    LARGE = auto()  # 10 MB more than is needed, and good
    CUT = auto()  # nothing done, no answer
    LOST = auto()  # done, no answer
    SERVER_ERROR = auto()
    FOREIGN_JSON = auto()
    WEB_PAGE = auto()
    UNAUTHORIZED = auto()
    FORBIDDEN = auto()
    BUSY = auto()  # come back in 7 seconds
    GENERAL_404 = auto()  # in the API's form, but not about the thing
    LOST_LINK = auto()  # a page that does not say that more follow
    SHORT_PAGE = auto()  # a page that lacks some of its items
    CONFLICT = auto()
    QUOTA = auto()
    NO_CAPACITY = auto()  # accepted, then the machine fails
    HIDDEN = auto()  # made, but not shown for half a second
    VANISH = auto()  # made, and gone at once without a deletion


UNCLEAR = (
    Trouble.SLOW,
    Trouble.CUT,
    Trouble.SERVER_ERROR,
    Trouble.FOREIGN_JSON,
    Trouble.WEB_PAGE,
)


class Occasion(Enum):
    """The request that trouble meets."""

    MAKE = auto()
    ACT = auto()  # on a machine that is there
    ACCOUNT = auto()  # the site's own, of machines
    ATTACH = auto()  # a volume to a machine that is there
    LOOK = auto()
    LIST = auto()
    ANY = auto()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


def new_tags() -> Tags:
    until = datetime.now(UTC) + timedelta(days=3)
    return Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "physik/Lauf 2 ü", until)


@dataclass(frozen=True)
class OwnCredential:
    """A credential of the same project that only this test has, and what its owner and its site may do to it."""

    adapter: CloudAdapter
    end_sessions: Callable[[], None]  # a new login is needed, and works
    revoke: Callable[[], None]
    expire: Callable[[], None]


@dataclass
class ContractSite:
    """One running cloud as the suite sees it."""

    adapter: CloudAdapter
    machine: MachineSpec
    trouble: Callable[[Occasion, PartKind | ThingKind, Trouble, int | None], None]  # None: until calm
    calm: Callable[[], None]
    existing: Callable[[PartKind, uuid.UUID], int]  # by the cloud's own account
    everything: Callable[[ThingKind], set[str]]  # the ids of what exists, by the cloud's own account
    most_active: Callable[[uuid.UUID], int]  # machines of a lease at one time, by the cloud's own account
    add_strangers: Callable[[int], None]
    save_by_hand: Callable[[str, str], None]  # what a person does with a machine: an image of it, of this name
    save_disk_by_hand: Callable[[str], str]  # the same: a snapshot of a volume, and a volume of that, tags and all
    elsewhere: Callable[[], CloudAdapter]  # the same site, with a credential of another project
    wrong: Callable[[], CloudAdapter]  # the same site, with a credential that is not right
    own_credential: Callable[[], OwnCredential]
    set_clock: Callable[[timedelta], None]  # how far the site's clock is ahead of ours
    reader: Callable[[bool], CloudAdapter]  # the same, with one that may only read; True: as a site that is observed
    dawdle: Callable[[float], None]  # what a machine is asked from now on takes so many seconds
    other_type: str  # an instance type that machines may become
    other_image: str  # an image that they may be made anew of
    tags: Tags = field(default_factory=new_tags)

    @property
    def fences(self) -> dict[PartKind, Fence]:
        """The parts of the plan, each with its fence."""
        return {part.kind: part.fence for part in self.adapter.plan(self.machine)}

    def carries(self, part: RemotePart | None, tags: Tags) -> bool:
        """Whether a part says whose it is.

        Where a repeated request must be the same one (TOKEN), the part knows neither its attempt nor the end date.
        """
        if part is None or part.tags is None:
            return False
        if self.fences.get(part.kind) is Fence.TOKEN:
            tags = dataclasses.replace(tags, attempt=part.tags.attempt, until=part.tags.until)
        return part.tags == tags

    def launch(self, *, until: PartKind | None = None, tags: Tags | None = None) -> dict[PartKind, str]:
        """Make the plan's parts in order, up to but without `until`."""
        made: dict[PartKind, str] = {}
        for part in self.adapter.plan(self.machine):
            if part.kind is until:
                break
            made[part.kind] = self.make(part.kind, made, tags=tags)
        return made

    def make(self, kind: PartKind, made: dict[PartKind, str], *, tags: Tags | None = None) -> str:
        return self.adapter.make(kind, self.machine, tags=tags or self.tags, made=made, deadline=soon())


# --- openstack ---------------------------------------------------------------------------------------------------

_FAULTS = {
    Trouble.SLOW: ("slow", 2.0),
    Trouble.DRIP: ("drip", 1.0),
    Trouble.LARGE: ("large", 0.0),
    Trouble.CUT: ("cut", 0.0),
    Trouble.LOST: ("answer_lost", 0.0),
    Trouble.SERVER_ERROR: ("500", 0.0),
    Trouble.FOREIGN_JSON: ("foreign_json", 0.0),
    Trouble.WEB_PAGE: ("html", 0.0),
    Trouble.UNAUTHORIZED: ("401", 0.0),
    Trouble.FORBIDDEN: ("403", 0.0),
    Trouble.BUSY: ("429", 7.0),
    Trouble.GENERAL_404: ("404", 0.0),
    Trouble.LOST_LINK: ("lost_link", 0.0),
    Trouble.SHORT_PAGE: ("short_page", 0.0),
    Trouble.CONFLICT: ("409", 0.0),
    Trouble.QUOTA: ("quota", 0.0),
    Trouble.NO_CAPACITY: ("no_capacity", 0.0),
    Trouble.HIDDEN: ("hidden", 0.5),
    Trouble.VANISH: ("vanish", 0.0),
}
_COLLECTIONS: dict[PartKind | ThingKind, tuple[str, str, str]] = {
    PartKind.KEY_PAIR: ("compute", "/os-keypairs", "key_pair"),
    PartKind.PORT: ("network", "/ports", "port"),
    PartKind.SERVER: ("compute", "/servers", "server"),
    PartKind.ADDRESS: ("network", "/floatingips", "floating_ip"),
    PartKind.SNAPSHOT: ("image", "/images", "snapshot"),
    ThingKind.VOLUME: ("volume", "/volumes", "volume"),
    ThingKind.VOLUME_SNAPSHOT: ("volume", "/snapshots", "volume_snapshot"),
}


def request_of(occasion: Occasion, kind: PartKind | ThingKind) -> tuple[str | None, str | None, str | None]:
    """Service, method and path of the request that an occasion is."""
    service, path, _ = _COLLECTIONS[kind]
    action = ("compute", "POST", "/action$")
    requests: dict[Occasion, tuple[str | None, str | None, str | None]] = {
        Occasion.MAKE: action if kind is PartKind.SNAPSHOT else (service, "POST", f"{path}$"),
        Occasion.ACT: action,
        Occasion.ACCOUNT: ("compute", "GET", "/os-simple-tenant-usage/"),
        Occasion.ATTACH: ("compute", "POST", "/os-volume_attachments$"),
        Occasion.LOOK: (service, "GET", f"{path}/[0-9a-z-]*[0-9][0-9a-z-]*$"),
        Occasion.LIST: (service, "GET", f"{path}(/detail)?$"),
    }
    return requests.get(occasion, (None, None, None))


def _openstack_site(cloud: SandboxCloud, registry: Registry, kind: str) -> ContractSite:
    settings = {"settle_time": "0.8"} | ({"fence": str(cloud.config.fence)} if kind == "sandbox" else {})
    address = SiteAddress(uuid.uuid4(), "aurora", kind, cloud.auth_url, "aurora-1", uuid.uuid4(), settings)
    secret = Secret({"username": "leeway", "password": "sandbox", "project_name": "leeway"})
    adapter = registry.open(address, secret)

    def trouble(occasion: Occasion, kind: PartKind | ThingKind, what: Trouble, times: int | None) -> None:
        fault, seconds = _FAULTS[what]
        service, method, path = request_of(occasion, kind)
        cloud.faults.add(fault, service=service, method=method, path=path, times=times, seconds=seconds)

    def existing(kind: PartKind, lease: uuid.UUID) -> int:
        noun = _COLLECTIONS[kind][2]
        alive = cloud.log.alive(noun)
        entries = [entry for entry in cloud.log.entries(kind=noun, event="created") if entry.id in alive]
        return sum(lease.hex in entry.name for entry in entries)

    def everything(kind: ThingKind) -> set[str]:
        nouns = ("snapshot", "image") if kind is ThingKind.SNAPSHOT else (_COLLECTIONS[kind][2],)
        return {identifier for noun in nouns for identifier in cloud.log.alive(noun)}

    def most_active(lease: uuid.UUID) -> int:
        return cloud.log.most_active("leeway:lease").get(str(lease), 0)

    def add_strangers(count: int) -> None:
        cloud.add_foreign_servers(count)

    def save_by_hand(machine_id: str, name: str) -> None:
        with cloud.cloud.lock:
            now = cloud.cloud.clock()
            take_snapshot(cloud.cloud, cloud.cloud.servers[machine_id], Wish(name=name, given={}), now)

    def elsewhere() -> CloudAdapter:
        alice = Secret({"username": "alice", "password": "sandbox", "project_name": "physics"})
        return registry.open(address, alice)

    def reader(observe_only: bool) -> CloudAdapter:
        rita = Secret({"username": "rita", "password": "sandbox", "project_name": "leeway"})
        return registry.open(dataclasses.replace(address, observe_only=observe_only), rita)

    def dawdle(seconds: float) -> None:
        times = dict.fromkeys(
            ("stop", "start", "suspend", "resize", "rebuild", "shelve", "unshelve", "volume", "attach"), seconds
        )
        timing = dataclasses.replace(
            cloud.cloud.config.timing, **{f"{name}_seconds": value for name, value in times.items()}
        )
        cloud.cloud.config = dataclasses.replace(cloud.cloud.config, timing=timing)

    flavors = {item.name: item.remote_id for item in adapter.offers(deadline=soon())}
    images = {item.logical: item.remote_id for item in adapter.images(deadline=soon())}
    machine = MachineSpec(
        name="Zug um Zug",
        instance_type=flavors["a1.small"],
        image=images["ubuntu-24.04"],
        public_address=True,
        ssh_key=PUBLIC_KEY,
        user_data="#cloud-config\n{}\n",
        volume_gib=10,
    )
    return ContractSite(
        adapter=adapter,
        machine=machine,
        trouble=trouble,
        calm=cloud.faults.clear,
        existing=existing,
        everything=everything,
        most_active=most_active,
        add_strangers=add_strangers,
        save_by_hand=save_by_hand,
        save_disk_by_hand=partial(_save_disk, cloud),
        elsewhere=elsewhere,
        wrong=partial(registry.open, address, Secret({**secret.reveal(), "password": "of somebody else"})),
        own_credential=partial(_own_credential, cloud, registry, address),
        set_clock=partial(_set_clock, cloud),
        reader=reader,
        dawdle=dawdle,
        other_type=flavors["a1.medium"],
        other_image=images["debian-12"],
    )


def _set_clock(cloud: SandboxCloud, ahead: timedelta) -> None:
    cloud.cloud.clock = lambda: utc_now() + ahead


def _own_credential(cloud: SandboxCloud, registry: Registry, address: SiteAddress) -> OwnCredential:
    """An application credential of the user leeway, as its owner would make it in the dashboard."""
    state = cloud.cloud
    user = next(user for user in state.users.values() if user.name == "leeway")
    project = next(project for project in state.projects.values() if project.name == "leeway")
    made = AppCredential(
        id=uuid.uuid4().hex,
        name=uuid.uuid4().hex,
        secret=uuid.uuid4().hex,
        user_id=user.id,
        project_id=project.id,
        description=None,
        roles=user.roles[project.id],
        unrestricted=False,
        expires_at=None,
    )
    state.app_credentials[made.id] = made

    def end_sessions() -> None:
        with state.lock:
            for token in [token for token in state.tokens.values() if token.app_credential_id == made.id]:
                del state.tokens[token.id]

    def revoke() -> None:
        del state.app_credentials[made.id]
        end_sessions()

    def expire() -> None:
        state.app_credentials[made.id] = dataclasses.replace(made, expires_at=state.clock() - timedelta(seconds=1))
        end_sessions()

    fields = {"application_credential_id": made.id, "application_credential_secret": made.secret}
    return OwnCredential(registry.open(address, Secret(fields)), end_sessions, revoke, expire)


def _save_disk(cloud: SandboxCloud, volume_id: str) -> str:
    """A snapshot of a volume, and another volume made of it, with all that people and tools copy; the id of that."""
    with cloud.cloud.lock:
        state, now = cloud.cloud, cloud.cloud.clock()
        volume = state.volumes[volume_id]
        copied = {name: getattr(volume, name) for name in ("name", "project_id", "user_id", "size_gib", "metadata")}
        saved = VolumeSnapshot(id=new_id(), serial=state.serial(), volume_id=volume.id, created=now, **copied)
        copy = Volume(id=new_id(), serial=state.serial(), snapshot_id=saved.id, created=now, **copied)
        volumes.make(state, saved, now)
        volumes.make(state, copy, now)
    return copy.id


# A cloud as just started; its machines take so many seconds from the request to running, its snapshots to be saved.
Fresh = Callable[[float], ContractSite]


@contextmanager
def openstack_on_sandbox(kind: str, fence: ServerFence) -> Iterator[Fresh]:
    """A new project's worth of cloud at each call."""
    aurora = profile("aurora")
    config = dataclasses.replace(
        aurora,
        users=(*aurora.users, UserConfig(name="rita", password=DEMO_PASSWORD, reader_of=("leeway",))),
        fence=fence,
        foreign_servers=2,
        foreign_volumes=2 * PAGE + 1,
        foreign_volume_snapshots=PAGE + 1,
        foreign_addresses=PAGE + 1,
        foreign_images=PAGE + 1,
        page_limit=PAGE,
    )
    registry = Registry()
    with running(config) as cloud:

        def fresh(building: float) -> ContractSite:
            timing = Timing(build_seconds=building, bind_seconds=building / 2, snapshot_seconds=building)
            cloud.cloud.config = dataclasses.replace(config, timing=timing)
            cloud.cloud.clock = utc_now
            cloud.reset(keep_identity=True)
            return _openstack_site(cloud, registry, kind)

        yield fresh
    registry.close()


ADAPTERS: dict[str, Callable[[], AbstractContextManager[Fresh]]] = {
    "openstack": partial(openstack_on_sandbox, "openstack", ServerFence.PART),
    "sandbox_name": partial(openstack_on_sandbox, "sandbox", ServerFence.NAME),
    "sandbox_token": partial(openstack_on_sandbox, "sandbox", ServerFence.TOKEN),
    "sandbox_none": partial(openstack_on_sandbox, "sandbox", ServerFence.NONE),
}
# These send the requests of `sandbox_token` without its header: what answers mean is not tried three times.
ALIKE = {"sandbox_name", "sandbox_none"}
