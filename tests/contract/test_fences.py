"""What each fence promises when a request for one lease's machine goes out more than once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import SiteConflict, SiteUnknown
from broker.remote import Fence, MachineState, PartKind, RemoteMachine
from tests.contract.sites import ContractSite, Fresh, Occasion, Trouble, new_tags, soon

BUILDING = 0.4  # seconds


@pytest.fixture
def site(site: ContractSite) -> ContractSite:
    """Of machines without a disk of their own: one machine has that, whatever the fence is (see `test_disks`)."""
    site.machine = replace(site.machine, volume_gib=0)
    return site


def again(site: ContractSite, made: dict[PartKind, str]) -> str | None:
    """Ask once more, as another attempt after the lease was extended; None where the site says that it is there."""
    tags = replace(site.tags, attempt=new_tags().attempt, until=site.tags.until + timedelta(days=1))
    try:
        return site.make(PartKind.SERVER, made, tags=tags)
    except SiteConflict:
        return None


def machines(site: ContractSite, made: dict[PartKind, str]) -> dict[str, RemoteMachine]:
    """What a search for the lease's machines finds."""
    found = site.adapter.find(PartKind.SERVER, lease=site.tags.lease, made=made, deadline=soon())
    return {part.remote_id: part for part in found if isinstance(part, RemoteMachine)}


def fence(site: ContractSite) -> Fence:
    return site.fences[PartKind.SERVER]


def test_a_second_request_for_a_machine_that_is_there(site: ContractSite) -> None:
    made = site.launch()
    first = made[PartKind.SERVER]
    second = again(site, made)
    if fence(site) is Fence.NONE:
        assert second not in (None, first)
    else:
        assert second == (first if fence(site) is Fence.TOKEN else None)
    assert site.existing(PartKind.SERVER, site.tags.lease) == (2 if fence(site) is Fence.NONE else 1)


def test_a_second_request_after_a_lost_answer(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.make(PartKind.SERVER, made)
    second = again(site, made)
    found = machines(site, made)
    assert len(found) == site.existing(PartKind.SERVER, site.tags.lease) == (2 if fence(site) is Fence.NONE else 1)
    if fence(site) in (Fence.TOKEN, Fence.NONE):
        assert second in found
    else:
        assert second is None


def test_the_fence_holds_for_what_does_not_show_yet(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.HIDDEN, 1)
    first = site.make(PartKind.SERVER, made)
    second = again(site, made)
    assert first not in machines(site, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == (2 if fence(site) is Fence.NONE else 1)
    time.sleep(site.adapter.settle_time.total_seconds())
    assert set(machines(site, made)) == {first} | ({second} - {None})


def test_two_requests_at_once(fresh_site: Fresh) -> None:
    site = fresh_site(BUILDING)
    site.machine = replace(site.machine, volume_gib=0)
    lease = site.tags.lease
    made = site.launch(until=PartKind.SERVER)
    with ThreadPoolExecutor(2) as pool:
        answers = [future.result() for future in [pool.submit(again, site, made) for _ in range(2)]]
    limit = time.monotonic() + 10
    while any(machine.state is MachineState.BUILDING for machine in machines(site, made).values()):
        assert time.monotonic() < limit, "a machine does not get ready"
        time.sleep(0.05)
    exist, active = site.existing(PartKind.SERVER, lease), site.most_active(lease)
    assert set(answers) - {None} <= set(machines(site, made))
    match fence(site):
        case Fence.NAME:
            assert (exist, active, answers.count(None)) == (1, 1, 1)
        case Fence.TOKEN:
            assert (exist, active, len(set(answers))) == (1, 1, 1)
        case Fence.PART:  # both may be accepted; the one that comes second to the port fails
            assert exist == 2 - answers.count(None)
            assert active == 1
        case Fence.NONE:
            assert (exist, active, answers.count(None)) == (2, 2, 0)


def test_the_name_of_a_machine_does_not_change_what_its_refusal_means(site: ContractSite) -> None:
    site.machine = replace(site.machine, name="quota")
    made = site.launch()
    assert (again(site, made) in (None, made[PartKind.SERVER])) == (fence(site) is not Fence.NONE)
