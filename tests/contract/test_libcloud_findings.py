"""What libcloud's OpenStack driver gets wrong, one test each: ours, which uses libcloud's connection, must not.

The findings were made with apache-libcloud 3.9.1 against a real OpenStack (Zed). What goes wrong there:

     1  its token cache mixes users up               test_a_cached_token_never_serves_another_user
     2  adminPass stays in the node it returns       test_admin_pass_is_never_kept
     3  without `api_version` it asks Nova's old     test_networks_are_neutrons
        network proxies
     4  an endpoint that ends in /v3 is a 404        test_an_endpoint_may_end_in_v3
     5  a project by its id is refused; none, and    test_a_project_by_id_or_name_and_never_guessed
        it takes the first one there is
     6  wrong projects and tokens end as ValueError, test_whatever_is_wrong_with_a_login_it_is_denied
        TypeError or a plain HTTP error
     7  a deleted application credential is a 404    test_a_deleted_application_credential_is_denied
     8  a token that dies costs one request          test_a_token_that_dies_costs_no_request
    10  it waits for a public address, and waits     test_a_machine_on_a_private_network_runs,
        for a machine in ERROR                       test_a_machine_in_error_is_not_waited_for
    11  no PAUSED, SHELVED, SOFT_DELETED; what waits test_paused_and_shelved_states_are_known,
        for a confirmation is `running`              test_every_status_of_nova_is_known
    12  a second deletion is an error                test_deleting_a_deleted_machine_is_no_error
    13  a listed node has no size; lists take no     test_a_listed_machine_says_its_flavor,
        filter                                       test_what_changed_can_be_asked_for_alone
    14  flavors are cut at a page, and have no extra test_flavors_are_not_cut_at_a_page_and_say_their_gpus,
        specs; images that are not active are listed test_an_image_that_is_not_active_is_not_offered
    15  addresses are cut at a page, do not say      test_addresses_are_not_cut_at_a_page_and_say_who_has_them,
        whose they are, and stay after a deletion    test_the_floating_ip_is_not_left_behind
    17  all refusals are one error with a text       test_quota_and_policy_403_are_told_apart,
                                                     test_wrong_state_and_bad_request_are_told_apart
    18  no valid host is no error of the creation    test_no_valid_host_is_an_error_later
    19  addresses in Nova's quota are a relic, -1;   test_the_quota_of_addresses_is_neutrons,
        quotas need the project's id                 test_quotas_are_read_by_who_knows_only_the_projects_name
    20  usage stops at 1,000 servers without a word, test_usage_is_not_cut_at_a_thousand,
        and without a period it is of no time at all test_usage_is_of_its_period
    21  one microversion for all requests            test_a_newer_microversion_for_one_request_is_not_for_all

Of these nothing is tested, as Leeway does not do it: 9 (application credentials are neither made nor deleted, tokens
not revoked), 16 (hypervisors are not listed). Of 5 and 6 what concerns OIDC: no site is logged in to with it.

Of other drivers, what an OpenStack could do as well: the token is fetched when the driver is made
(test_opening_a_site_asks_nothing), and an answer in another form is an empty list (test_answers.py).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from adapters.openstack.states import machine_state
from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import CloudConfig, FlavorConfig, Timing
from broker.errors import InvalidInput, SiteConflict, SiteDenied, SiteQuota, SiteRefused
from broker.ports import CloudAdapter, Increments, Powers, Rebuilds, Shelves, Usages
from broker.remote import MachineSpec, MachineState, PartKind, RemoteMachine, Secret, SiteAddress, Tags, ThingKind
from broker.values import Period
from tests.contract.sites import PUBLIC_KEY, new_tags, soon
from tests.unit.sandbox.wire_client import Client

PAGE = 3
GPU = {"resources:CUSTOM_GPU_A100": "2", "trait:CUSTOM_GPU_NVIDIA_A100": "required"}
LEEWAY = {"username": "leeway", "password": "sandbox", "project_name": "leeway"}


def config(**changes: Any) -> CloudConfig:
    aurora = profile("aurora")
    more = tuple(FlavorConfig(name=f"g1.{n}", vcpus=n, ram_mib=1024, disk_gib=8, extra_specs=GPU) for n in range(1, 4))
    made = replace(aurora, flavors=(*aurora.flavors, *more), timing=Timing(), foreign_servers=0, page_limit=PAGE)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def started() -> Iterator[SandboxCloud]:
    with running(config()) as cloud:
        yield cloud


@pytest.fixture
def cloud(started: SandboxCloud) -> SandboxCloud:
    started.cloud.config = config()
    started.reset()
    return started


Open = Callable[..., CloudAdapter]


@pytest.fixture
def open_it(cloud: SandboxCloud) -> Iterator[Open]:
    registry = Registry()
    site = SiteAddress(uuid.uuid4(), "aurora", "openstack", cloud.auth_url, "aurora-1", uuid.uuid4())

    def open_as(fields: dict[str, str] | None = None, **changes: Any) -> CloudAdapter:
        return registry.open(replace(site, **changes), Secret(fields or LEEWAY))

    yield open_as
    registry.close()


@pytest.fixture
def adapter(open_it: Open) -> CloudAdapter:
    return open_it()


@pytest.fixture
def machine(adapter: CloudAdapter) -> MachineSpec:
    flavor = next(offer for offer in adapter.offers(deadline=soon()) if offer.name == "a1.small")
    image = next(iter(adapter.images(deadline=soon())))
    return MachineSpec("one", flavor.remote_id, image.remote_id, public_address=True, ssh_key=PUBLIC_KEY)


def launch(
    adapter: CloudAdapter, machine: MachineSpec, tags: Tags | None = None, *, until: PartKind | None = None
) -> dict[PartKind, str]:
    tags, made = tags or new_tags(), dict[PartKind, str]()
    for part in adapter.plan(machine):
        if part.kind is until:
            break
        made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
    return made


def look(adapter: CloudAdapter, remote_id: str) -> RemoteMachine:
    seen = adapter.look(PartKind.SERVER, remote_id, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    return seen


# --- logging in: 1, 3 to 8 ---------------------------------------------------------------------------------------


def test_a_cached_token_never_serves_another_user(open_it: Open, machine: MachineSpec) -> None:
    """Two users of one project; and one whose password is wrong, while the right one's token lives."""
    leeway, alice = open_it(), open_it({**LEEWAY, "username": "alice"})
    pair = leeway.make(PartKind.KEY_PAIR, machine, tags=new_tags(), made={}, deadline=soon())
    assert alice.scope(deadline=soon()) == leeway.scope(deadline=soon())
    assert alice.look(PartKind.KEY_PAIR, pair, deadline=soon()) is None, "a key pair is its user's own"
    mine, theirs = (launch(one, machine)[PartKind.SERVER] for one in (leeway, alice))
    assert look(leeway, mine).owner != look(leeway, theirs).owner
    for wrong in ("Sandbox", "sandbox "):
        with pytest.raises(SiteDenied):
            open_it({**LEEWAY, "password": wrong}).listing(deadline=soon())


def test_opening_a_site_asks_nothing(open_it: Open) -> None:
    assert open_it(endpoint="http://127.0.0.1:1/v3").capabilities


def test_networks_are_neutrons(adapter: CloudAdapter) -> None:
    networks = {network.name: network.is_external for network in adapter.networks(deadline=soon())}
    assert networks == {"public": True, "leeway-net": False}, "Nova's proxies know of neither what is external"


@pytest.mark.parametrize("ending", ["", "/", "/v3", "/v3/", "/v3/auth/tokens"])
def test_an_endpoint_may_end_in_v3(open_it: Open, cloud: SandboxCloud, ending: str) -> None:
    assert open_it(endpoint=cloud.url + ending).scope(deadline=soon())


def test_a_project_by_id_or_name_and_never_guessed(open_it: Open) -> None:
    by_name = open_it().scope(deadline=soon())
    user = {"username": "alice", "password": "sandbox"}
    project_id = by_name.rpartition("/")[2]
    assert open_it({**user, "project_id": project_id}).scope(deadline=soon()) == by_name
    assert open_it({**user, "project_name": "physics"}).scope(deadline=soon()) != by_name
    with pytest.raises(InvalidInput) as caught:
        open_it(user)
    assert caught.value.field == "secret.project_name"


WRONG = {
    "project": {"project_name": "nowhere"},
    "project_id": {"project_id": uuid.uuid4().hex},
    "project_of_others": {"project_name": "physics"},
    "domain": {"user_domain_name": "Elsewhere"},
    "project_domain": {"project_domain_name": "Elsewhere"},
    "user": {"username": "nobody"},
    "password": {"password": "x"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_with_a_login_it_is_denied(open_it: Open, wrong: str) -> None:
    with pytest.raises(SiteDenied):
        open_it({**LEEWAY, **WRONG[wrong]}).listing(deadline=soon())


@pytest.mark.parametrize("token", ["garbage", "gAAAAA" + "x" * 180])
def test_whatever_is_wrong_with_a_token_it_is_denied(open_it: Open, token: str) -> None:
    with pytest.raises(SiteDenied):
        open_it({"token": token, "project_name": "leeway"}).listing(deadline=soon())


def test_a_deleted_application_credential_is_denied(open_it: Open, cloud: SandboxCloud) -> None:
    """Keystone says 404, which must not be read as "no such project" or "nothing there"; also in mid-run."""
    owner = Client(cloud)
    path = f"/v3/users/{owner.user_id}/application_credentials"
    answer = owner("POST", path, {"application_credential": {"name": "leeway"}})
    made = answer.json()["application_credential"]
    fields = {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}
    used, unused = open_it(fields), open_it(fields, site_id=uuid.uuid4())
    used.listing(deadline=soon())
    assert owner("DELETE", f"{path}/{made['id']}").status_code == 204
    for adapter in (used, unused):
        with pytest.raises(SiteDenied) as caught:
            adapter.listing(deadline=soon())
        assert caught.value.http_status == 404
        assert "application credential" in (caught.value.hint or "")


def test_a_token_that_dies_costs_no_request(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    tags, made = new_tags(), dict[PartKind, str]()
    for part in adapter.plan(machine):
        cloud.cloud.tokens.clear()
        made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
    assert len(cloud.log.alive("server")) == 1
    cloud.cloud.tokens.clear()
    assert adapter.listing(deadline=soon()).machines


# --- machines: 2, 10 to 13, 17, 18 -------------------------------------------------------------------------------


def test_admin_pass_is_never_kept(
    adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """The answers that make or rebuild a server hold a root password: nothing of them but the id goes on."""
    raw = Client(cloud)
    flavor, image = raw.get("/compute/v2.1/flavors")["flavors"][0]["id"], machine.image
    networks = [{"uuid": raw.network_id}]
    request = {"server": {"name": "x", "flavorRef": flavor, "imageRef": image, "networks": networks}}
    assert "adminPass" in raw("POST", "/compute/v2.1/servers", request).json()["server"], "there is one to keep"
    caplog.set_level(logging.DEBUG)
    made = launch(adapter, machine)[PartKind.SERVER]
    assert uuid.UUID(made)
    assert isinstance(adapter, Rebuilds)
    adapter.rebuild(made, machine.image, deadline=soon())
    told = repr((look(adapter, made), adapter.listing(deadline=soon()))) + caplog.text
    assert "adminPass" not in told
    assert "admin_pass" not in told


def test_a_machine_on_a_private_network_runs(adapter: CloudAdapter, machine: MachineSpec) -> None:
    seen = look(adapter, launch(adapter, replace(machine, public_address=False))[PartKind.SERVER])
    assert seen.state is MachineState.RUNNING
    assert len(seen.addresses) == 1


def test_a_machine_in_error_is_not_waited_for(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1)
    made = launch(adapter, replace(machine, public_address=False))[PartKind.SERVER]
    assert look(adapter, made).state is MachineState.ERROR


def test_paused_and_shelved_states_are_known(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    assert isinstance(adapter, Powers)
    assert isinstance(adapter, Shelves)
    person, made = Client(cloud), launch(adapter, machine)[PartKind.SERVER]
    for action, state in (
        ("pause", MachineState.STOPPED),
        ("unpause", MachineState.RUNNING),
        ("suspend", MachineState.STOPPED),
        ("resume", MachineState.RUNNING),
        ("shelve", MachineState.SHELVED),
    ):
        assert person("POST", f"/compute/v2.1/servers/{made}/action", {action: None}).status_code == 202
        assert look(adapter, made).state is state, action
        listed = {one.remote_id: one.state for one in adapter.listing(deadline=soon()).machines}
        assert listed[made] is state
    adapter.unshelve(made, deadline=soon())
    assert look(adapter, made).state is MachineState.RUNNING


# nova/api/openstack/common.py, _STATE_MAP; UNKNOWN is Nova's own word for a state that it does not know.
STATUSES = {
    "ACTIVE": "running",
    "BUILD": "building",
    "DELETED": "deleting",
    "ERROR": "error",
    "HARD_REBOOT": "running",
    "MIGRATING": "running",
    "PASSWORD": "running",
    "PAUSED": "stopped",
    "REBOOT": "running",
    "REBUILD": "building",
    "RESCUE": "running",
    "RESIZE": "running",
    "REVERT_RESIZE": "running",
    "SHELVED": "stopped",
    "SHELVED_OFFLOADED": "shelved",
    "SHUTOFF": "stopped",
    "SOFT_DELETED": "deleting",
    "SUSPENDED": "stopped",
    "UNKNOWN": "unknown",
    "VERIFY_RESIZE": "running",
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_of_nova_is_known(status: str) -> None:
    assert machine_state({"status": status}) == STATUSES[status]


def test_deleting_a_deleted_machine_is_no_error(adapter: CloudAdapter, machine: MachineSpec) -> None:
    made = launch(adapter, machine)[PartKind.SERVER]
    for _ in range(3):
        adapter.delete(PartKind.SERVER, made, deadline=soon())
        assert adapter.look(PartKind.SERVER, made, deadline=soon()) is None


def test_a_listed_machine_says_its_flavor(adapter: CloudAdapter, machine: MachineSpec) -> None:
    launch(adapter, machine)
    flavors = {offer.remote_id for offer in adapter.offers(deadline=soon())}
    assert {one.instance_type for one in adapter.listing(deadline=soon()).machines} <= flavors
    assert machine.instance_type in flavors


def test_what_changed_can_be_asked_for_alone(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    assert isinstance(adapter, Increments)
    cloud.cloud.clock = lambda: datetime.now(UTC) - timedelta(hours=2)
    cloud.add_foreign_servers(2 * PAGE)
    cloud.cloud.clock = lambda: datetime.now(UTC)
    made = launch(adapter, machine)[PartKind.SERVER]
    changes = adapter.changes(since=datetime.now(UTC) - timedelta(minutes=1), deadline=soon())
    assert [one.remote_id for one in changes.machines] == [made]


def test_quota_and_policy_403_are_told_apart(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    made = launch(adapter, machine, until=PartKind.SERVER)
    for fault, error in (("quota", SiteQuota), ("403", SiteDenied)):
        cloud.faults.add(fault, path="/servers$", method="POST", times=1)
        with pytest.raises(error) as caught:
            adapter.make(PartKind.SERVER, machine, tags=new_tags(), made=made, deadline=soon())
        assert type(caught.value) is error
        assert caught.value.http_status == 403


def test_wrong_state_and_bad_request_are_told_apart(adapter: CloudAdapter, machine: MachineSpec) -> None:
    assert isinstance(adapter, Powers)
    assert isinstance(adapter, Shelves)
    made = launch(adapter, machine)
    adapter.shelve(made[PartKind.SERVER], deadline=soon())
    with pytest.raises(SiteConflict) as conflict:
        adapter.stop(made[PartKind.SERVER], deadline=soon())
    assert conflict.value.http_status == 409
    for changes in ({"instance_type": "no-such-flavor"}, {"image": str(uuid.uuid4())}):
        wrong = replace(machine, **changes)  # type: ignore[arg-type] # names of fields
        with pytest.raises(SiteRefused) as refused:
            adapter.make(PartKind.SERVER, wrong, tags=new_tags(), made=made, deadline=soon())
        assert type(refused.value) is SiteRefused
        assert refused.value.http_status == 400


def test_no_valid_host_is_an_error_later(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1)
    tags = new_tags()
    made = launch(adapter, replace(machine, public_address=False), tags)
    seen = look(adapter, made[PartKind.SERVER])
    assert seen.state is MachineState.ERROR
    assert "No valid host" in (seen.fault or "")
    assert len(cloud.log.alive("server")) == 1, "it is there, and counts"
    found = adapter.find(PartKind.SERVER, lease=tags.lease, made=made, deadline=soon())
    assert [one.remote_id for one in found] == [made[PartKind.SERVER]]


# --- what there is to order: 14, 15, 19, 21 ----------------------------------------------------------------------


def test_flavors_are_not_cut_at_a_page_and_say_their_gpus(adapter: CloudAdapter, cloud: SandboxCloud) -> None:
    offers = {offer.name: offer for offer in adapter.offers(deadline=soon())}
    assert offers.keys() == {flavor.name for flavor in cloud.config.flavors}
    assert len(offers) > 2 * PAGE
    assert (offers["g1.1"].gpus, offers["g1.1"].gpu_model) == (2, "A100")
    assert offers["a1.small"].gpus == 0


def test_an_image_that_is_not_active_is_not_offered(
    adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec
) -> None:
    made, tags = launch(adapter, machine), new_tags()
    cloud.cloud.config = replace(cloud.cloud.config, timing=Timing(snapshot_seconds=60))
    snapshot = adapter.make(PartKind.SNAPSHOT, machine, tags=tags, made=made, deadline=soon())
    assert adapter.look(PartKind.SNAPSHOT, snapshot, deadline=soon()) is not None
    assert snapshot not in {image.remote_id for image in adapter.images(deadline=soon())}


def test_addresses_are_not_cut_at_a_page_and_say_who_has_them(
    adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec
) -> None:
    leases = [launch(adapter, machine) for _ in range(PAGE + 1)]
    seen = {thing.remote_id: thing for thing in adapter.listing(deadline=soon()).things}
    for made in leases:
        assert seen[made[PartKind.ADDRESS]].attached_to == made[PartKind.SERVER]
    addresses = {thing.remote_id for thing in seen.values() if thing.kind is ThingKind.ADDRESS}
    assert addresses == set(cloud.log.alive("floating_ip"))


def test_the_floating_ip_is_not_left_behind(adapter: CloudAdapter, cloud: SandboxCloud, machine: MachineSpec) -> None:
    """It outlives its machine and is paid for: a part of the lease like any other, which is not over before it is."""
    before, tags = set(cloud.log.alive("floating_ip")), new_tags()
    made = launch(adapter, machine, tags)
    adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    left = {part.remote_id: part.tags for part in adapter.listing(deadline=soon()).parts}
    assert left[made[PartKind.ADDRESS]] == tags
    for part in reversed(adapter.plan(machine)):
        adapter.delete(part.kind, made[part.kind], deadline=soon())
    assert set(cloud.log.alive("floating_ip")) == before
    assert adapter.listing(deadline=soon()).parts == ()


def test_the_quota_of_addresses_is_neutrons(adapter: CloudAdapter, machine: MachineSpec) -> None:
    before = {quota.resource: quota for quota in adapter.quotas(deadline=soon())}
    launch(adapter, machine)
    after = {quota.resource: quota for quota in adapter.quotas(deadline=soon())}
    assert after["floating_ips"].limit == Decimal(20)
    assert after["floating_ips"].used == before["floating_ips"].used + 1


def test_quotas_are_read_by_who_knows_only_the_projects_name(open_it: Open) -> None:
    by_name, by_id = open_it(), open_it({**LEEWAY, "project_id": open_it().scope(deadline=soon()).rpartition("/")[2]})
    assert by_name.quotas(deadline=soon()) == by_id.quotas(deadline=soon())


def test_a_newer_microversion_for_one_request_is_not_for_all(adapter: CloudAdapter, machine: MachineSpec) -> None:
    """From 2.47 on a server has no flavor's id; extra specs are in the list of flavors from 2.61 on."""
    adapter.offers(deadline=soon())
    made = launch(adapter, machine)[PartKind.SERVER]
    assert look(adapter, made).instance_type == machine.instance_type
    assert adapter.offers(deadline=soon())
    assert look(adapter, made).instance_type == machine.instance_type


# --- usage: 20 ---------------------------------------------------------------------------------------------------


def test_usage_is_not_cut_at_a_thousand(cloud: SandboxCloud, adapter: CloudAdapter) -> None:
    assert isinstance(adapter, Usages)
    cloud.cloud.config = config(page_limit=1000)
    made = set(cloud.add_foreign_servers(1_001))
    now = datetime.now(UTC)
    rows = adapter.usage(Period(now - timedelta(days=1), now), deadline=soon(60))
    assert {row.remote_id for row in rows} == made


def test_usage_is_of_its_period(adapter: CloudAdapter, cloud: SandboxCloud) -> None:
    assert isinstance(adapter, Usages)
    cloud.cloud.clock = lambda: datetime.now(UTC) - timedelta(days=3)
    cloud.add_foreign_servers(1)
    cloud.cloud.clock = lambda: datetime.now(UTC)
    end = datetime.now(UTC)
    (row,) = adapter.usage(Period(end - timedelta(hours=10), end), deadline=soon())
    assert float(row.hours) == pytest.approx(10, abs=0.01)
