"""Several projects of one cloud at one observed site, each with a token of its own."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from adapters.cloud import Bulkhead
from adapters.openstack.adapter import OpenStack
from adapters.openstack.login import Credential
from adapters.openstack.session import Channel, Session
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import Timing
from broker.errors import InvalidInput, SiteDenied, SiteUnknown
from broker.remote import Deadline, MachineSpec, PartKind, Secret, SiteAddress, Tags, ThingKind

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJlYWQgdGhlIGNvbnRyYWN0IGZpcnN0LCB0aGVu alice@laptop"
Open = Callable[..., OpenStack]


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.fixture(scope="module")
def one_cloud() -> Iterator[SandboxCloud]:
    with running(dataclasses.replace(profile("aurora"), timing=Timing())) as cloud:
        yield cloud


@pytest.fixture
def cloud(one_cloud: SandboxCloud) -> SandboxCloud:
    one_cloud.reset()
    return one_cloud


@pytest.fixture
def open_it(cloud: SandboxCloud) -> Iterator[Open]:
    """The site as alice sees it, who is in both projects; with these settings, or as another user."""
    opened: list[OpenStack] = []

    def open_one(*, observe_only: bool = True, secret: dict[str, str] | None = None, **settings: str) -> OpenStack:
        installation = uuid.UUID(int=1)
        site = SiteAddress(
            uuid.uuid4(), "aurora", "openstack", cloud.auth_url, "aurora-1", installation, settings, observe_only
        )
        login = {"username": "alice", "password": "sandbox", "project_name": "leeway"}
        opened.append(OpenStack(site, Secret(secret or login), Bulkhead("aurora")))
        return opened[-1]

    yield open_one
    for adapter in opened:
        adapter.close()


def ids(cloud: SandboxCloud) -> dict[str, str]:
    return {project.name: project.id for project in cloud.cloud.projects.values()}


def counted(adapter: OpenStack) -> Counter[str | None]:
    return Counter(machine.project for machine in adapter.listing(deadline=soon()).machines)


# --- what is shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["leeway,physics", "physics, leeway", "*"])
def test_what_is_in_any_project_is_shown_and_says_in_which(cloud: SandboxCloud, open_it: Open, wanted: str) -> None:
    cloud.add_foreign_servers(3, project="physics")
    project = ids(cloud)
    assert counted(open_it(projects=wanted)) == {project["leeway"]: 2, project["physics"]: 3}
    assert counted(open_it()) == {project["leeway"]: 2}
    assert counted(open_it(projects="physics")) == {project["physics"]: 3}, "the login's own only where it is named"
    assert counted(open_it(projects=project["physics"])) == {project["physics"]: 3}


def test_things_of_each_project_are_shown_once(open_it: Open) -> None:
    both = open_it(projects="*").listing(deadline=soon())
    own = open_it().listing(deadline=soon())
    physics = open_it(projects="physics").listing(deadline=soon())
    assert {thing.kind for thing in own.things} == {*ThingKind} - {ThingKind.SERVER}
    assert sorted(thing.remote_id for thing in both.things) == sorted(
        thing.remote_id for thing in (*own.things, *physics.things)
    )


def test_a_key_pair_is_its_users_and_shown_once(cloud: SandboxCloud, open_it: Open) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    tags = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "physics", until)
    machine = MachineSpec("m", "f", "i", ssh_key=PUBLIC_KEY)
    open_it(observe_only=False).make(PartKind.KEY_PAIR, machine, tags=tags, made={}, deadline=soon())
    parts = open_it(projects="leeway,physics").listing(deadline=soon()).parts
    assert [(part.kind, part.tags) for part in parts] == [(PartKind.KEY_PAIR, tags)]
    assert cloud.log.alive("key_pair")


def test_a_machine_of_another_project_is_found_by_its_id_and_its_end_is_known(
    cloud: SandboxCloud, open_it: Open
) -> None:
    since = datetime.now(UTC)
    (server,) = cloud.add_foreign_servers(1, project="physics")
    several, own = open_it(projects="*"), open_it()
    assert own.look(PartKind.SERVER, server, deadline=soon()) is None
    seen = several.look(PartKind.SERVER, server, deadline=soon())
    assert seen is not None
    assert seen.remote_id == server
    assert server in {machine.remote_id for machine in several.changes(since=since, deadline=soon()).machines}
    login = {"username": "alice", "password": "sandbox", "project_name": "physics"}
    open_it(observe_only=False, secret=login).delete(PartKind.SERVER, server, deadline=soon())
    assert several.look(PartKind.SERVER, server, deadline=soon()) is None
    changes = several.changes(since=since, deadline=soon())
    ended = changes.ended[server]
    assert ended is not None
    assert changes.scope == several.scope(deadline=soon())
    assert several.ended_at(server, since=since, deadline=soon()) == ended
    assert several.look(PartKind.SERVER, str(uuid.uuid4()), deadline=soon()) is None


def test_quotas_are_the_sum_and_unlimited_where_one_is(cloud: SandboxCloud, open_it: Open) -> None:
    cloud.add_foreign_servers(3, project="physics")

    def instances(adapter: OpenStack) -> tuple[Decimal | None, Decimal]:
        quotas = {quota.resource: quota for quota in adapter.quotas(deadline=soon())}
        return quotas["instances"].limit, quotas["instances"].used

    assert instances(open_it()) == (40, 2)
    assert instances(open_it(projects="*")) == (50, 5)
    project = cloud.cloud.projects[ids(cloud)["physics"]]
    project.quota = dataclasses.replace(project.quota, instances=-1)
    assert instances(open_it(projects="*")) == (None, 5)


def test_a_quota_that_one_project_does_not_say_is_not_summed(cloud: SandboxCloud, open_it: Open) -> None:
    adapter = open_it(projects="*")
    cloud.faults.add("500", service="volume", path=f"{ids(cloud)['physics']}/os-quota-sets")
    resources = {quota.resource for quota in adapter.quotas(deadline=soon())}
    assert "instances" in resources
    assert "volumes" not in resources


def test_disks_that_cannot_be_read_in_one_project_are_unread(cloud: SandboxCloud, open_it: Open) -> None:
    adapter = open_it(projects="*")
    cloud.faults.add("500", service="volume", path=f"{ids(cloud)['physics']}/volumes")
    listing = adapter.listing(deadline=soon())
    assert set(listing.unread) == {ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT}
    assert not {thing.kind for thing in listing.things} & set(listing.unread)


# --- tokens and scope --------------------------------------------------------------------------------------------


def logins(cloud: SandboxCloud) -> Counter[str]:
    return Counter(token.project.name for token in cloud.cloud.tokens.values() if token.project is not None)


def test_each_project_has_one_token_for_all_that_is_asked(cloud: SandboxCloud, open_it: Open) -> None:
    adapter = open_it(projects="leeway,physics")
    for _ in range(3):
        adapter.listing(deadline=soon())
        adapter.quotas(deadline=soon())
        adapter.look(PartKind.SERVER, str(uuid.uuid4()), deadline=soon())
    # That of the login for its own project finds out which there are.
    assert logins(cloud) == {"leeway": 2, "physics": 1}


def test_the_scope_stays_the_same_however_the_projects_are_named(cloud: SandboxCloud, open_it: Open) -> None:
    project = ids(cloud)
    both = f"aurora-1/{','.join(sorted(project.values()))}"
    for wanted in ("leeway,physics", "physics,leeway", f"{project['physics']}, leeway"):
        adapter = open_it(projects=wanted)
        assert adapter.scope(deadline=soon()) == both
        assert adapter.listing(deadline=soon()).scope == both
    assert open_it(projects="*").scope(deadline=soon()) == "aurora-1/*"
    assert open_it(projects="*").listing(deadline=soon()).scope == "aurora-1/*"
    assert open_it().scope(deadline=soon()) == f"aurora-1/{project['leeway']}"


def test_a_token_that_was_revoked_is_made_anew(cloud: SandboxCloud, open_it: Open) -> None:
    adapter = open_it(projects="*")
    before = adapter.listing(deadline=soon())
    cloud.cloud.tokens.clear()
    assert adapter.listing(deadline=soon()) == before


class LastOneTaken(deque[Channel]):
    """Another thread takes the last idle connections after it was seen that there are some."""

    def __len__(self) -> int:
        return 1


def test_idle_connections_that_another_thread_takes_are_no_error(cloud: SandboxCloud) -> None:
    site = SiteAddress(uuid.uuid4(), "aurora", "openstack", cloud.auth_url, "aurora-1", uuid.UUID(int=1))
    login = Secret({"username": "alice", "password": "sandbox", "project_name": "leeway"})
    session = Session(site, Credential.read(login), Bulkhead("aurora"), LastOneTaken())
    assert session.token(soon()).project == "leeway"


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_project_that_may_not_be_entered_fails_the_listing_and_is_named(open_it: Open) -> None:
    adapter = open_it(projects="leeway,biology")
    for read in (adapter.listing, adapter.quotas, adapter.scope):
        with pytest.raises(SiteDenied, match="project 'biology' cannot be entered") as refused:
            read(deadline=soon())
        assert "leeway (" in str(refused.value.hint)
        assert "physics (" in str(refused.value.hint)
    *steps, last = adapter.check(deadline=soon())
    assert all(step.ok for step in steps)
    assert (last.step, last.ok) == ("projects", False)
    assert "biology" in last.detail


def test_the_check_names_the_projects(open_it: Open) -> None:
    *_, last = open_it(projects="*").check(deadline=soon())
    assert (last.step, last.ok, last.detail) == ("projects", True, "2: leeway, physics")
    assert "projects" not in [step.step for step in open_it().check(deadline=soon())]


def test_an_error_says_of_which_project(cloud: SandboxCloud, open_it: Open) -> None:
    adapter = open_it(projects="*")
    cloud.faults.add("500", service="network", path="quotas/" + ids(cloud)["physics"])
    with pytest.raises(SiteUnknown, match=r"^project physics \(\w+\): reading Neutron's quota"):
        adapter.quotas(deadline=soon())


def test_a_project_that_was_taken_away_fails_the_listing_unless_all_are_wanted(
    cloud: SandboxCloud, open_it: Open
) -> None:
    named, every = open_it(projects="leeway,physics"), open_it(projects="*")
    for adapter in (named, every):
        adapter.listing(deadline=soon())
    cloud.take_roles("alice", "physics")
    with pytest.raises(SiteDenied, match="'physics' cannot be entered"):
        named.listing(deadline=soon())
    assert set(counted(every)) == {ids(cloud)["leeway"]}
    cloud.take_roles("alice", "leeway")
    with pytest.raises(SiteDenied):
        every.listing(deadline=soon())


@pytest.mark.parametrize("wanted", ["", " ", "a,,b", "a,", "*,a"])
def test_a_list_that_is_none_is_refused_at_once(open_it: Open, wanted: str) -> None:
    with pytest.raises(InvalidInput, match=r"settings\.projects") as refused:
        open_it(projects=wanted)
    assert "commas" in str(refused.value.hint)


def test_a_brokered_site_has_one_project(open_it: Open) -> None:
    with pytest.raises(InvalidInput, match=r"settings\.projects: is for observed sites"):
        open_it(observe_only=False, projects="*")


def test_an_application_credential_is_for_its_own_project(open_it: Open) -> None:
    secret: dict[str, Any] = {"application_credential_id": "i", "application_credential_secret": "s"}
    with pytest.raises(InvalidInput, match="for its own project alone"):
        open_it(projects="*", secret=secret)
