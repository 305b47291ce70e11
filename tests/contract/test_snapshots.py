"""A snapshot is one more part of a lease: made once, found again, told apart from everybody else's images."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from broker.errors import SiteBusy, SiteDenied, SiteError, SiteQuota, SiteRefused, SiteUnknown
from broker.ports import Shelves
from broker.remote import (
    Capability,
    Deadline,
    MachineState,
    PartKind,
    RemoteMachine,
    RemotePart,
    RemoteSnapshot,
    SnapshotState,
)
from tests.contract.sites import PAGE, UNCLEAR, ContractSite, Fresh, Occasion, Trouble, new_tags, soon

KIND = PartKind.SNAPSHOT
SHORT = 0.4  # seconds; trouble that is slow takes 2


@pytest.fixture
def site(fresh_site: Fresh) -> ContractSite:
    site = fresh_site(0)
    if Capability.SNAPSHOT not in site.adapter.capabilities:
        pytest.skip("not claimed")
    return site


@pytest.fixture
def made(site: ContractSite) -> dict[PartKind, str]:
    """The parts of a running machine."""
    return site.launch()


def look(site: ContractSite, snapshot: str) -> RemoteSnapshot | None:
    seen = site.adapter.look(KIND, snapshot, deadline=soon())
    assert seen is None or isinstance(seen, RemoteSnapshot)
    return seen


def find(site: ContractSite, made: dict[PartKind, str]) -> list[str]:
    return [part.remote_id for part in site.adapter.find(KIND, lease=site.tags.lease, made=made, deadline=soon())]


def listed(site: ContractSite) -> list[RemotePart]:
    return [part for part in site.adapter.listing(deadline=soon()).parts if part.kind is KIND]


def images(site: ContractSite) -> set[str]:
    return {image.remote_id for image in site.adapter.images(deadline=soon())}


def test_a_snapshot_is_saved_found_listed_started_from_and_deleted(
    site: ContractSite, made: dict[PartKind, str]
) -> None:
    snapshot = site.make(KIND, made)
    seen = look(site, snapshot)
    assert seen is not None
    assert seen.state is SnapshotState.READY
    assert seen.size_gib is not None
    assert seen.size_gib > 0
    assert seen.tags == site.tags
    assert seen.name.startswith("zug-um-zug-")
    assert find(site, made) == [snapshot]
    assert listed(site) == [seen]
    image = next(image for image in site.adapter.images(deadline=soon()) if image.remote_id == snapshot)
    assert image.name == seen.name
    assert image.logical is None, "somebody's disk is no new release of the system that it was started from"
    site.machine = replace(site.machine, image=snapshot)
    assert site.launch(tags=new_tags())
    site.adapter.delete(KIND, snapshot, deadline=soon())
    assert look(site, snapshot) is None
    assert find(site, made) == []
    assert listed(site) == []
    site.adapter.delete(KIND, snapshot, deadline=soon())


def test_a_snapshot_that_is_being_saved_is_there_but_no_image_yet(fresh_site: Fresh) -> None:
    site = fresh_site(0.3)
    if Capability.SNAPSHOT not in site.adapter.capabilities:
        pytest.skip("not claimed")
    made = site.launch(until=PartKind.ADDRESS)
    limit = time.monotonic() + 10
    while True:
        machine = site.adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
        assert isinstance(machine, RemoteMachine)
        if machine.state is MachineState.RUNNING:
            break
        assert time.monotonic() < limit
        time.sleep(0.05)
    snapshot = site.make(KIND, made)
    seen = look(site, snapshot)
    if seen is not None and seen.state is not SnapshotState.READY:  # a slow machine may look too late
        assert (seen.state, seen.size_gib) == (SnapshotState.SAVING, None)
        assert find(site, made) == [snapshot]
    while True:
        startable = images(site)
        seen = look(site, snapshot)
        assert seen is not None
        if seen.state is SnapshotState.READY:
            break
        assert snapshot not in startable
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert snapshot in images(site)


def test_after_a_lost_answer_the_snapshot_is_found(site: ContractSite, made: dict[PartKind, str]) -> None:
    site.trouble(Occasion.MAKE, KIND, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.make(KIND, made)
    (found,) = find(site, made)
    assert look(site, found) is not None
    assert site.existing(KIND, site.tags.lease) == 1


def test_what_shows_late_is_found_after_the_settle_time(site: ContractSite, made: dict[PartKind, str]) -> None:
    site.trouble(Occasion.MAKE, KIND, Trouble.HIDDEN, 1)
    snapshot = site.make(KIND, made)
    assert look(site, snapshot) is None
    time.sleep(site.adapter.settle_time.total_seconds())
    assert find(site, made) == [snapshot]


def test_a_snapshot_that_fails_later_is_still_there_and_no_image(site: ContractSite, made: dict[PartKind, str]) -> None:
    site.trouble(Occasion.MAKE, KIND, Trouble.NO_CAPACITY, 1)
    snapshot = site.make(KIND, made)
    seen = look(site, snapshot)
    assert seen is not None
    assert seen.state is SnapshotState.FAILED
    assert find(site, made) == [snapshot]
    assert snapshot not in images(site)
    site.adapter.delete(KIND, snapshot, deadline=soon())
    assert look(site, snapshot) is None


def test_a_machine_that_does_something_else_is_asked_again_later(fresh_site: Fresh) -> None:
    site = fresh_site(60)
    if Capability.SNAPSHOT not in site.adapter.capabilities:
        pytest.skip("not claimed")
    made = site.launch(until=PartKind.ADDRESS)
    with pytest.raises(SiteBusy):
        site.make(KIND, made)
    assert site.existing(KIND, site.tags.lease) == 0


def test_a_refusal_says_so_and_makes_nothing(site: ContractSite, made: dict[PartKind, str]) -> None:
    for trouble, error in ((Trouble.QUOTA, SiteQuota), (Trouble.BUSY, SiteBusy), (Trouble.FORBIDDEN, SiteDenied)):
        site.trouble(Occasion.MAKE, KIND, trouble, 1)
        with pytest.raises(error):
            site.make(KIND, made)
    with pytest.raises(SiteRefused):
        site.make(KIND, made | {PartKind.SERVER: str(new_tags().lease)})
    with pytest.raises(SiteUnknown):
        site.adapter.make(KIND, site.machine, tags=site.tags, made=made, deadline=Deadline.after(-1))
    assert site.existing(KIND, site.tags.lease) == 0


@pytest.mark.parametrize("trouble", [*UNCLEAR, Trouble.GENERAL_404], ids=lambda trouble: trouble.name)
def test_an_unclear_answer_is_neither_absence_nor_success(
    site: ContractSite, made: dict[PartKind, str], trouble: Trouble
) -> None:
    snapshot = site.make(KIND, made)
    site.trouble(Occasion.ANY, KIND, trouble, None)
    with pytest.raises(SiteUnknown):
        site.adapter.look(KIND, snapshot, deadline=soon(SHORT))
    with pytest.raises(SiteUnknown):
        site.adapter.delete(KIND, snapshot, deadline=soon(SHORT))
    with pytest.raises(SiteError):
        site.adapter.find(KIND, lease=site.tags.lease, made=made, deadline=soon(SHORT))
    with pytest.raises(SiteError):
        site.adapter.listing(deadline=soon(SHORT))
    if trouble is not Trouble.GENERAL_404:
        with pytest.raises(SiteUnknown):
            site.adapter.make(KIND, site.machine, tags=site.tags, made=made, deadline=soon(SHORT))


def test_other_peoples_images_are_not_ours(site: ContractSite, made: dict[PartKind, str]) -> None:
    for number in range(2 * PAGE):  # more than a page of them
        site.save_by_hand(made[PartKind.SERVER], f"my disk {number}")
    assert find(site, made) == []
    assert listed(site) == []
    snapshot = site.make(KIND, made)
    for number in range(2 * PAGE):
        site.save_by_hand(made[PartKind.SERVER], f"my newer disk {number}")
    assert find(site, made) == [snapshot]
    assert [part.remote_id for part in listed(site)] == [snapshot]


def test_another_project_does_not_see_it(site: ContractSite, made: dict[PartKind, str]) -> None:
    snapshot = site.make(KIND, made)
    other = site.elsewhere()
    assert other.look(KIND, snapshot, deadline=soon()) is None
    assert snapshot not in {image.remote_id for image in other.images(deadline=soon())}
    assert not other.find(KIND, lease=site.tags.lease, made=made, deadline=soon())
    assert not [part for part in other.listing(deadline=soon()).parts if part.kind is KIND]


def test_what_inherits_our_tags_is_not_ours(site: ContractSite, made: dict[PartKind, str]) -> None:
    """A machine that was started from a snapshot hands its tags on: to a person's image of it, and when shelved."""
    snapshot = site.make(KIND, made)
    site.machine = replace(site.machine, image=snapshot)
    tags = new_tags()
    child = site.launch(tags=tags)
    site.save_by_hand(child[PartKind.SERVER], "my own disk")
    own = site.make(KIND, child, tags=tags)
    if isinstance(site.adapter, Shelves):
        site.adapter.shelve(child[PartKind.SERVER], deadline=soon())
    assert find(site, made) == [snapshot]
    parts = site.adapter.find(KIND, lease=tags.lease, made=child, deadline=soon())
    assert [(part.remote_id, part.tags) for part in parts] == [(own, tags)]
    assert {part.remote_id: part.tags for part in listed(site)} == {snapshot: site.tags, own: tags}


def test_the_image_of_a_shelved_machine_is_not_ours(site: ContractSite, made: dict[PartKind, str]) -> None:
    if not isinstance(site.adapter, Shelves):
        pytest.skip("not claimed")
    before = images(site)
    site.adapter.shelve(made[PartKind.SERVER], deadline=soon())
    assert images(site) > before, "the site keeps the disk as an image"
    assert find(site, made) == []
    assert listed(site) == []
    with pytest.raises(SiteBusy):
        site.make(KIND, made)
