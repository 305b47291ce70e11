"""Disks of their own: a second one is a part like the others, a root disk that is a volume is the machine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.errors import SiteBusy, SiteConflict, SiteDenied, SiteError, SiteQuota, SiteRefused, SiteUnknown
from broker.ports import Volumes
from broker.remote import (
    Capability,
    Deadline,
    Fence,
    MachineState,
    PartKind,
    RemoteMachine,
    RemotePart,
    RemoteThing,
    ThingKind,
)
from tests.contract.sites import UNCLEAR, ContractSite, Fresh, Occasion, Trouble, new_tags, soon

KIND = PartKind.VOLUME
SHORT = 0.4  # seconds; trouble that is slow takes 2


@pytest.fixture
def site(fresh_site: Fresh) -> ContractSite:
    site = fresh_site(0)
    if Capability.VOLUMES not in site.adapter.capabilities:
        pytest.skip("not claimed")
    return site


@pytest.fixture
def volumes(site: ContractSite) -> Volumes:
    assert isinstance(site.adapter, Volumes)
    return site.adapter


def disks(site: ContractSite) -> dict[str, RemoteThing]:
    listing = site.adapter.listing(deadline=soon())
    assert not listing.unread
    return {thing.remote_id: thing for thing in listing.things if thing.kind is ThingKind.VOLUME}


def listed(site: ContractSite) -> list[RemotePart]:
    return [part for part in site.adapter.listing(deadline=soon()).parts if part.kind is KIND]


def machine(site: ContractSite, remote_id: str) -> RemoteMachine:
    seen = site.adapter.look(PartKind.SERVER, remote_id, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    return seen


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)


# --- a second disk -----------------------------------------------------------------------------------------------


def test_a_second_disk_is_made_before_the_machine_and_is_in_it(site: ContractSite) -> None:
    kinds = [part.kind for part in site.adapter.plan(site.machine)]
    assert kinds.index(KIND) < kinds.index(PartKind.SERVER)
    assert site.fences[KIND] is Fence.NONE
    bare = replace(site.machine, volume_gib=0)
    assert KIND not in [part.kind for part in site.adapter.plan(bare)]
    made = site.launch()
    disk = disks(site)[made[KIND]]
    assert disk.attached_to == made[PartKind.SERVER]
    assert disk.size_gib == site.machine.volume_gib
    assert disk.tags == site.tags
    assert [(part.remote_id, part.tags) for part in listed(site)] == [(made[KIND], site.tags)]


def test_a_disk_that_is_not_there_yet_is_asked_for_again_later(site: ContractSite) -> None:
    made = site.launch(until=KIND)
    site.dawdle(0.3)
    made[KIND] = site.make(KIND, made)
    with pytest.raises(SiteBusy):
        site.make(PartKind.SERVER, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0
    wait_until(lambda: disks(site)[made[KIND]].raw_status == "available")
    assert machine(site, site.make(PartKind.SERVER, made)).state is MachineState.RUNNING


def test_a_disk_that_failed_is_a_refusal_of_the_machine(site: ContractSite) -> None:
    made = site.launch(until=KIND)
    site.trouble(Occasion.MAKE, KIND, Trouble.NO_CAPACITY, 1)
    made[KIND] = site.make(KIND, made)
    with pytest.raises(SiteRefused) as refused:
        site.make(PartKind.SERVER, made)
    assert type(refused.value) is SiteRefused
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0
    site.adapter.delete(KIND, made[KIND], deadline=soon())
    assert site.adapter.look(KIND, made[KIND], deadline=soon()) is None


def test_a_disk_that_was_deleted_or_never_made_is_a_refusal_of_the_machine(site: ContractSite) -> None:
    made = site.launch(until=KIND)
    with pytest.raises(SiteRefused):
        site.make(PartKind.SERVER, made)
    with pytest.raises(SiteRefused):
        site.make(PartKind.SERVER, made | {KIND: str(new_tags().lease)})
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def test_a_second_machine_with_the_disk_is_a_conflict_and_not_a_refusal(site: ContractSite) -> None:
    """The first one's answer was lost: who then reads a refusal of the offer gives the machine up that runs."""
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.make(PartKind.SERVER, made)
    again = replace(site.tags, attempt=new_tags().attempt)
    if site.fences[PartKind.SERVER] is Fence.TOKEN:
        found = site.adapter.find(PartKind.SERVER, lease=site.tags.lease, made=made, deadline=soon())
        assert site.make(PartKind.SERVER, made, tags=again) == found[0].remote_id
    else:
        with pytest.raises(SiteConflict):
            site.make(PartKind.SERVER, made, tags=again)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 1


def test_a_disk_stays_promised_to_a_machine_that_found_no_room(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.NO_CAPACITY, 1)
    failed = site.make(PartKind.SERVER, made)
    assert machine(site, failed).state is MachineState.ERROR
    with pytest.raises(SiteConflict, match="reserved"):
        site.adapter.delete(KIND, made[KIND], deadline=soon())
    site.adapter.delete(PartKind.SERVER, failed, deadline=soon())
    site.adapter.delete(KIND, made[KIND], deadline=soon())
    assert site.adapter.look(KIND, made[KIND], deadline=soon()) is None


def test_a_disk_goes_after_its_machine_and_never_before(site: ContractSite) -> None:
    made = site.launch()
    with pytest.raises(SiteConflict, match="attached") as refused:
        site.adapter.delete(KIND, made[KIND], deadline=soon())
    assert made[PartKind.SERVER] in refused.value.detail
    site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert site.adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon()) is None
    assert disks(site)[made[KIND]].attached_to is None, "what is on it outlives the machine"
    for _ in range(2):
        site.adapter.delete(KIND, made[KIND], deadline=soon())
    assert site.adapter.look(KIND, made[KIND], deadline=soon()) is None
    assert not listed(site)


def test_two_disks_after_a_lost_answer_are_both_found(site: ContractSite) -> None:
    site.trouble(Occasion.MAKE, KIND, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.make(KIND, {})
    second = site.make(KIND, {}, tags=replace(site.tags, attempt=new_tags().attempt))
    found = site.adapter.find(KIND, lease=site.tags.lease, made={}, deadline=soon())
    assert len(found) == site.existing(KIND, site.tags.lease) == 2
    assert second in {part.remote_id for part in found}
    assert {part.remote_id for part in listed(site)} == {part.remote_id for part in found}


def test_a_refusal_of_a_disk_says_why_and_makes_nothing(site: ContractSite) -> None:
    for trouble, error in ((Trouble.QUOTA, SiteQuota), (Trouble.BUSY, SiteBusy), (Trouble.FORBIDDEN, SiteDenied)):
        site.trouble(Occasion.MAKE, KIND, trouble, 1)
        with pytest.raises(error):
            site.make(KIND, {})
    quota = {quota.resource: quota for quota in site.adapter.quotas(deadline=soon())}["volume_gib"]
    assert quota.limit is not None
    site.machine = replace(site.machine, volume_gib=int(quota.limit - quota.used) + 1)
    with pytest.raises(SiteQuota):
        site.make(KIND, {})
    with pytest.raises(SiteUnknown):
        site.adapter.make(KIND, site.machine, tags=site.tags, made={}, deadline=Deadline.after(-1))
    assert site.existing(KIND, site.tags.lease) == 0


@pytest.mark.parametrize("trouble", [*UNCLEAR, Trouble.GENERAL_404], ids=lambda trouble: trouble.name)
def test_an_unclear_answer_is_neither_absence_nor_success(site: ContractSite, trouble: Trouble) -> None:
    volume = site.make(KIND, {})
    site.trouble(Occasion.ANY, KIND, trouble, None)
    with pytest.raises(SiteUnknown):
        site.adapter.look(KIND, volume, deadline=soon(SHORT))
    if trouble is not Trouble.DRIP:  # an answer without content cannot be slow with it
        with pytest.raises(SiteUnknown):
            site.adapter.delete(KIND, volume, deadline=soon(SHORT))
    with pytest.raises(SiteError):
        site.adapter.find(KIND, lease=site.tags.lease, made={}, deadline=soon(SHORT))
    if trouble is not Trouble.GENERAL_404:
        with pytest.raises(SiteUnknown):
            site.adapter.make(KIND, site.machine, tags=site.tags, made={}, deadline=soon(SHORT))


def test_another_project_does_not_see_it(site: ContractSite) -> None:
    volume = site.make(KIND, {})
    other = site.elsewhere()
    assert other.look(KIND, volume, deadline=soon()) is None
    assert not other.find(KIND, lease=site.tags.lease, made={}, deadline=soon())
    assert not [part for part in other.listing(deadline=soon()).parts if part.kind is KIND]


def test_what_a_person_saves_of_it_is_not_ours(site: ContractSite) -> None:
    """It is never a leftover to be deleted, whatever it was given of our tags."""
    made = site.launch()
    copy = site.save_disk_by_hand(made[KIND])
    assert disks(site)[copy].name == disks(site)[made[KIND]].name
    assert (disks(site)[copy].tags, disks(site)[made[KIND]].tags) == (None, site.tags)
    parts = site.adapter.listing(deadline=soon()).parts
    assert not [part for part in parts if part.kind is PartKind.VOLUME_SNAPSHOT]
    assert [part.remote_id for part in parts if part.kind is KIND and part.tags] == [made[KIND]]


# --- a root disk -------------------------------------------------------------------------------------------------


def test_a_machine_boots_from_a_volume_that_goes_with_it(site: ContractSite) -> None:
    site.machine = replace(site.machine, boot_volume_gib=25)
    before = disks(site)
    made = site.launch()
    assert machine(site, made[PartKind.SERVER]).state is MachineState.RUNNING
    own = {volume: disk for volume, disk in disks(site).items() if disk.attached_to == made[PartKind.SERVER]}
    (root,) = own.keys() - before.keys() - {made[KIND]}
    assert own[root].size_gib == 25
    assert own[root].tags is None, "the site makes it, with nothing of ours on it"
    assert [part.remote_id for part in listed(site)] == [made[KIND]]
    site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert site.adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon()) is None
    assert disks(site).keys() == before.keys() | {made[KIND]}


def test_a_root_disk_needs_no_second_one(site: ContractSite) -> None:
    site.machine = replace(site.machine, boot_volume_gib=25, volume_gib=0)
    made = site.launch()
    assert machine(site, made[PartKind.SERVER]).state is MachineState.RUNNING
    assert KIND not in made


def test_a_machine_whose_root_disk_has_no_room_fails_and_leaves_nothing(site: ContractSite) -> None:
    quota = {quota.resource: quota for quota in site.adapter.quotas(deadline=soon())}["volume_gib"]
    assert quota.limit is not None
    before = disks(site).keys()
    site.machine = replace(site.machine, boot_volume_gib=int(quota.limit), volume_gib=0)
    made = site.launch(until=PartKind.ADDRESS)
    seen = machine(site, made[PartKind.SERVER])
    assert seen.state is MachineState.ERROR
    assert seen.fault
    assert "quota" in seen.fault
    site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert disks(site).keys() == before


def test_no_image_is_made_of_a_root_disk_that_is_a_volume(site: ContractSite) -> None:
    """Its bytes would be a snapshot in the site's Cinder that is nobody's, and that keeps the volume for ever."""
    if Capability.SNAPSHOT not in site.adapter.capabilities:
        pytest.skip("not claimed")
    site.machine = replace(site.machine, boot_volume_gib=25)
    made = site.launch()
    before = site.adapter.listing(deadline=soon()).things
    with pytest.raises(SiteRefused, match="volume"):
        site.make(PartKind.SNAPSHOT, made)
    assert site.adapter.listing(deadline=soon()).things == before


# --- given and taken while the machine is there ------------------------------------------------------------------


def test_a_disk_comes_and_goes_and_twice_is_fine(site: ContractSite, volumes: Volumes) -> None:
    made = site.launch()
    server, volume = made[PartKind.SERVER], made[KIND]
    for _ in range(2):
        volumes.detach(server, volume, deadline=soon())
        assert disks(site)[volume].attached_to is None
    for _ in range(2):
        volumes.attach(server, volume, deadline=soon())
        assert disks(site)[volume].attached_to == server


def test_what_is_under_way_is_fine_and_its_opposite_is_asked_for_later(site: ContractSite, volumes: Volumes) -> None:
    made = site.launch()
    server, volume = made[PartKind.SERVER], made[KIND]
    site.dawdle(60)
    volumes.detach(server, volume, deadline=soon())
    volumes.detach(server, volume, deadline=soon())
    with pytest.raises(SiteBusy):
        volumes.attach(server, volume, deadline=soon())
    site.dawdle(0)
    spare = site.make(KIND, {}, tags=new_tags())
    site.dawdle(60)
    volumes.attach(server, spare, deadline=soon())
    volumes.attach(server, spare, deadline=soon())
    with pytest.raises(SiteBusy):
        volumes.detach(server, spare, deadline=soon())


def test_a_disk_is_never_taken_from_another_machine(site: ContractSite, volumes: Volumes) -> None:
    first, second = site.launch(tags=new_tags()), site.launch(tags=new_tags())
    with pytest.raises(SiteConflict):
        volumes.attach(first[PartKind.SERVER], second[KIND], deadline=soon())
    volumes.detach(first[PartKind.SERVER], second[KIND], deadline=soon())
    assert disks(site)[second[KIND]].attached_to == second[PartKind.SERVER]


def test_the_root_disk_stays(site: ContractSite, volumes: Volumes) -> None:
    site.machine = replace(site.machine, boot_volume_gib=25)
    before = disks(site).keys()
    made = site.launch()
    (root,) = disks(site).keys() - before - {made[KIND]}
    with pytest.raises(SiteRefused):
        volumes.detach(made[PartKind.SERVER], root, deadline=soon())


def test_an_unknown_machine_or_disk_is_an_error(site: ContractSite, volumes: Volumes) -> None:
    made, nothing = site.launch(), str(new_tags().lease)
    with pytest.raises(SiteRefused):
        volumes.attach(nothing, made[KIND], deadline=soon())
    with pytest.raises(SiteRefused):
        volumes.attach(made[PartKind.SERVER], nothing, deadline=soon())
    with pytest.raises(SiteRefused):
        volumes.detach(nothing, made[KIND], deadline=soon())
    volumes.detach(made[PartKind.SERVER], nothing, deadline=soon())  # it surely does not have it


def test_after_a_lost_answer_the_disk_is_attached(site: ContractSite, volumes: Volumes) -> None:
    made = site.launch()
    server, spare = made[PartKind.SERVER], site.make(KIND, {}, tags=new_tags())
    site.trouble(Occasion.ATTACH, KIND, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        volumes.attach(server, spare, deadline=soon())
    volumes.attach(server, spare, deadline=soon())
    assert disks(site)[spare].attached_to == server
