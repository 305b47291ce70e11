"""A claimed capability works, and the readings make sense together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import SiteError, SiteUnknown
from broker.ports import (
    CloudAdapter,
    Endings,
    Increments,
    Powers,
    Rebuilds,
    Resizes,
    Shelves,
    Suspends,
    Usages,
    Volumes,
)
from broker.remote import Capability, MachineState, PartKind, RemoteMachine
from tests.contract.sites import PAGE, ContractSite, Occasion, Trouble, new_tags, soon


def state(site: ContractSite, remote_id: str) -> MachineState:
    seen = site.adapter.look(PartKind.SERVER, remote_id, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    return seen.state


def test_stop_and_start_work_twice(site: ContractSite) -> None:
    if Capability.POWER not in site.adapter.capabilities:
        pytest.skip("not claimed")
    adapter = site.adapter
    assert isinstance(adapter, Powers)
    machine = site.launch()[PartKind.SERVER]
    for _ in range(2):
        adapter.stop(machine, deadline=soon())
        assert state(site, machine) is MachineState.STOPPED
    for _ in range(2):
        adapter.start(machine, deadline=soon())
        assert state(site, machine) is MachineState.RUNNING


def test_shelve_and_unshelve_work_twice(site: ContractSite) -> None:
    if Capability.SHELVE not in site.adapter.capabilities:
        pytest.skip("not claimed")
    adapter = site.adapter
    assert isinstance(adapter, Shelves)
    machine = site.launch()[PartKind.SERVER]
    for _ in range(2):
        adapter.shelve(machine, deadline=soon())
        assert state(site, machine) is MachineState.SHELVED
    for _ in range(2):
        adapter.unshelve(machine, deadline=soon())
        assert state(site, machine) is MachineState.RUNNING


def test_power_over_a_machine_that_is_not_there_is_an_error(site: ContractSite) -> None:
    adapter = site.adapter
    if isinstance(adapter, Powers):
        with pytest.raises(SiteError):
            adapter.stop(str(new_tags().lease), deadline=soon())


def test_what_is_claimed_is_implemented(adapter: CloudAdapter) -> None:
    assert isinstance(adapter, Powers) == (Capability.POWER in adapter.capabilities)
    assert isinstance(adapter, Shelves) == (Capability.SHELVE in adapter.capabilities)
    assert isinstance(adapter, Endings) == (Capability.ENDINGS in adapter.capabilities)
    assert isinstance(adapter, Increments) == (Capability.CHANGES in adapter.capabilities)
    assert isinstance(adapter, Suspends) == (Capability.SUSPEND in adapter.capabilities)
    assert isinstance(adapter, Resizes) == (Capability.RESIZE in adapter.capabilities)
    assert isinstance(adapter, Rebuilds) == (Capability.REBUILD in adapter.capabilities)
    assert isinstance(adapter, Usages) == (Capability.USAGE in adapter.capabilities)
    assert isinstance(adapter, Volumes) == (Capability.VOLUMES in adapter.capabilities)


@pytest.fixture
def endings(adapter: CloudAdapter) -> Endings:
    if Capability.ENDINGS not in adapter.capabilities:
        pytest.skip("not claimed")
    assert isinstance(adapter, Endings)
    return adapter


def test_a_deleted_machine_says_when_it_ended(site: ContractSite, endings: Endings) -> None:
    begun = datetime.now(UTC)
    machine, other = (site.launch(tags=new_tags())[PartKind.SERVER] for _ in range(2))
    site.adapter.delete(PartKind.SERVER, machine, deadline=soon())
    site.adapter.delete(PartKind.SERVER, other, deadline=soon())
    ended = datetime.now(UTC)
    site.add_strangers(2 * PAGE)  # changed later, so that it stands on a page behind theirs
    said = endings.ended_at(machine, since=begun, deadline=soon())
    assert said is not None
    assert begun <= said <= ended
    assert said < (endings.ended_at(other, since=begun, deadline=soon()) or begun)


def test_what_was_not_deleted_has_no_end(site: ContractSite, endings: Endings) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    running = site.launch(until=PartKind.ADDRESS)[PartKind.SERVER]
    tags = new_tags()
    made = site.launch(until=PartKind.SERVER, tags=tags)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.VANISH, 1)
    vanished = site.make(PartKind.SERVER, made, tags=tags)
    assert site.adapter.look(PartKind.SERVER, vanished, deadline=soon()) is None
    for machine in (running, vanished, str(new_tags().lease)):
        assert endings.ended_at(machine, since=since, deadline=soon()) is None


def test_no_clear_answer_is_no_end(site: ContractSite, endings: Endings) -> None:
    site.trouble(Occasion.LIST, PartKind.SERVER, Trouble.FOREIGN_JSON, None)
    with pytest.raises(SiteUnknown):
        endings.ended_at(str(new_tags().lease), since=datetime.now(UTC), deadline=soon())


def test_the_scope_is_the_listings_and_another_projects_is_another(site: ContractSite) -> None:
    scope = site.adapter.scope(deadline=soon())
    assert scope
    assert site.adapter.listing(deadline=soon()).scope == scope
    other = site.elsewhere()
    assert other.scope(deadline=soon()) == other.listing(deadline=soon()).scope != scope


def test_a_good_credential_passes_every_step(adapter: CloudAdapter) -> None:
    steps = adapter.check(deadline=soon())
    assert steps
    assert [step for step in steps if not step.ok] == []


def test_the_readings_name_what_a_machine_is_asked_for_with(site: ContractSite) -> None:
    adapter = site.adapter
    offers = {offer.remote_id: offer for offer in adapter.offers(deadline=soon())}
    offer = offers[site.machine.instance_type]
    assert offer.cores > 0
    assert offer.memory_mib > 0
    assert site.machine.image in {image.remote_id for image in adapter.images(deadline=soon())}
    networks = adapter.networks(deadline=soon())
    assert {network.is_external for network in networks} == {True, False}


def test_the_quotas_count_what_was_launched(site: ContractSite) -> None:
    before = {quota.resource: quota for quota in site.adapter.quotas(deadline=soon())}
    site.launch()
    after = {quota.resource: quota for quota in site.adapter.quotas(deadline=soon())}
    grown = {name: after[name].used - before[name].used for name in after}
    assert grown["instances"] == 1
    assert grown["cores"] > 0
    assert grown["memory_mib"] > 0
    for quota in after.values():
        assert quota.limit is None or quota.limit >= 0
