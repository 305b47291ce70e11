"""From nothing to a running machine and back, through `CloudAdapter` alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from broker.errors import SiteConflict, SiteQuota, SiteRefused, SiteUnknown
from broker.ports import CloudAdapter
from broker.remote import Deadline, Fence, MachineState, PartKind, RemoteMachine
from tests.contract.sites import ContractSite, Occasion, Trouble, new_tags, soon

KINDS = tuple(PartKind)


def server(site: ContractSite, remote_id: str) -> RemoteMachine:
    seen = site.adapter.look(PartKind.SERVER, remote_id, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    return seen


def test_the_plan_has_one_server_and_a_key_and_an_address_only_if_asked_for(site: ContractSite) -> None:
    plan = site.adapter.plan(site.machine)
    kinds = [part.kind for part in plan]
    assert kinds.count(PartKind.SERVER) == 1
    assert len(set(kinds)) == len(kinds)
    bare = [part.kind for part in site.adapter.plan(replace(site.machine, ssh_key=None, public_address=False))]
    assert not {PartKind.KEY_PAIR, PartKind.ADDRESS} & set(bare)
    assert [kind for kind in kinds if kind not in (PartKind.KEY_PAIR, PartKind.ADDRESS)] == bare


def test_all_but_the_server_is_harmless(site: ContractSite) -> None:
    for part in site.adapter.plan(site.machine):
        assert part.is_harmless == (part.kind is not PartKind.SERVER)
        assert (part.fence is Fence.PART) <= (PartKind.PORT in site.fences)


def test_a_launch_through_the_plan_ends_in_a_running_machine(site: ContractSite) -> None:
    made = site.launch()
    machine = server(site, made[PartKind.SERVER])
    assert machine.state is MachineState.RUNNING
    assert machine.instance_type == site.machine.instance_type
    assert machine.launched_at is not None
    assert machine.created_at is not None
    assert machine.launched_at.utcoffset() is not None
    assert len(machine.addresses) == 2, "the private and the public one"


def test_every_part_carries_its_lease_in_look_find_and_listing(site: ContractSite) -> None:
    made = site.launch()
    listing = site.adapter.listing(deadline=soon())
    listed = {(part.kind, part.remote_id): part for part in (*listing.machines, *listing.parts)}
    for kind, remote_id in made.items():
        looked = site.adapter.look(kind, remote_id, deadline=soon())
        assert looked is not None
        assert site.carries(looked, site.tags)
        assert site.tags.lease.hex in looked.name
        found = site.adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon())
        assert [part.remote_id for part in found] == [remote_id]
        assert listed[kind, remote_id].tags == looked.tags


def test_a_search_does_not_find_the_parts_of_another_lease(site: ContractSite) -> None:
    site.launch(tags=new_tags())
    for kind in KINDS:
        assert not site.adapter.find(kind, lease=site.tags.lease, made={}, deadline=soon())


def test_after_a_lost_answer_the_part_is_found(site: ContractSite, kind: PartKind) -> None:
    made = site.launch(until=kind)
    site.trouble(Occasion.MAKE, kind, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.make(kind, made)
    found = site.adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon())
    assert len(found) == 1
    assert site.carries(found[0], site.tags)
    assert site.adapter.look(kind, found[0].remote_id, deadline=soon()) == found[0]


def test_what_shows_late_is_found_after_the_settle_time(site: ContractSite, kind: PartKind) -> None:
    made = site.launch(until=kind)
    site.trouble(Occasion.MAKE, kind, Trouble.HIDDEN, 1)
    remote_id = site.make(kind, made)
    time.sleep(site.adapter.settle_time.total_seconds())
    found = site.adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon())
    assert [part.remote_id for part in found] == [remote_id]


def test_a_key_pair_made_twice_is_the_same_and_never_somebody_elses(site: ContractSite) -> None:
    first = site.make(PartKind.KEY_PAIR, {})
    assert site.make(PartKind.KEY_PAIR, {}, tags=replace(site.tags, attempt=new_tags().attempt)) == first
    site.machine = replace(
        site.machine,
        ssh_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFub3RoZXIga2V5IG9mIHRoaXJ0eS10d28gYnl0ZXMu mallory@x",
    )
    with pytest.raises(SiteConflict):
        site.make(PartKind.KEY_PAIR, {})


def test_nothing_is_sent_after_the_deadline(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    late = Deadline.after(-1)
    with pytest.raises(SiteUnknown):
        site.adapter.make(PartKind.SERVER, site.machine, tags=site.tags, made=made, deadline=late)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def test_deletion_is_what_a_look_says_and_twice_is_fine(site: ContractSite) -> None:
    made = site.launch()
    for kind in reversed([part.kind for part in site.adapter.plan(site.machine)]):
        site.adapter.delete(kind, made[kind], deadline=soon())
        assert site.adapter.look(kind, made[kind], deadline=soon()) is None
        site.adapter.delete(kind, made[kind], deadline=soon())
    listing = site.adapter.listing(deadline=soon())
    assert not listing.parts
    assert all(machine.tags is None for machine in listing.machines)


def test_a_quota_refusal_says_so_and_makes_nothing(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.QUOTA, 1)
    with pytest.raises(SiteQuota):
        site.make(PartKind.SERVER, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def test_what_the_site_does_not_know_is_refused_and_makes_nothing(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.machine = replace(site.machine, image=str(new_tags().lease))
    with pytest.raises(SiteRefused):
        site.make(PartKind.SERVER, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def test_a_machine_that_fails_later_is_still_there_and_says_why(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.NO_CAPACITY, 1)
    machine = server(site, site.make(PartKind.SERVER, made))
    assert machine.state is MachineState.ERROR
    assert machine.fault


def test_an_unknown_id_is_not_there(adapter: CloudAdapter) -> None:
    for kind in KINDS:
        assert adapter.look(kind, str(new_tags().lease), deadline=soon()) is None
        adapter.delete(kind, str(new_tags().lease), deadline=soon())
