"""A listing shows everybody's things, not only ours; and what changed can be asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from broker.errors import SiteError, SiteUnknown
from broker.ports import CloudAdapter, Increments
from broker.remote import PartKind, RemoteThing, ThingKind
from tests.contract.sites import PAGE, ContractSite, Occasion, Trouble, new_tags, soon

KINDS = [kind for kind in ThingKind if kind is not ThingKind.SERVER]
DISKS = {ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT}


def things(site: ContractSite, *kinds: ThingKind) -> list[RemoteThing]:
    return [thing for thing in site.adapter.listing(deadline=soon()).things if thing.kind in kinds]


# --- everything --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing_kind", KINDS)
def test_every_thing_is_listed_once_over_all_pages(site: ContractSite, thing_kind: ThingKind) -> None:
    listed = [thing.remote_id for thing in things(site, thing_kind)]
    assert len(listed) == len(set(listed)) > PAGE
    assert set(listed) == site.everything(thing_kind)


def test_machines_are_no_things_and_say_whose_they_are(site: ContractSite) -> None:
    made = site.launch()
    listing = site.adapter.listing(deadline=soon())
    assert not [thing for thing in listing.things if thing.kind is ThingKind.SERVER]
    owners = {machine.remote_id: machine.owner for machine in listing.machines}
    ours = owners.pop(made[PartKind.SERVER])
    assert ours
    assert ours not in owners.values()
    assert None not in owners.values()


def test_volumes_and_addresses_say_what_has_them(site: ContractSite) -> None:
    machines = {machine.remote_id for machine in site.adapter.listing(deadline=soon()).machines}
    for kind in (ThingKind.VOLUME, ThingKind.ADDRESS):
        holders = {thing.attached_to for thing in things(site, kind)}
        assert None in holders, f"some {kind} are attached to nothing"
        assert holders & machines, f"some {kind} are in use"


def test_what_is_billed_by_its_size_says_it(site: ContractSite) -> None:
    for thing in things(site, ThingKind.VOLUME, ThingKind.SNAPSHOT, ThingKind.VOLUME_SNAPSHOT):
        assert thing.size_gib
        assert thing.size_gib > 0
        assert thing.owner
        assert thing.name
    assert {thing.size_gib for thing in things(site, ThingKind.ADDRESS)} == {None}


def test_every_thing_is_of_the_past_and_in_a_state(site: ContractSite) -> None:
    now = datetime.now(UTC)
    for thing in things(site, *KINDS):
        assert thing.raw_status
        assert thing.created_at is not None
        assert thing.created_at < now - timedelta(days=100)


def test_only_ours_have_our_tags(site: ContractSite) -> None:
    made = site.launch()
    made[PartKind.SNAPSHOT] = site.make(PartKind.SNAPSHOT, made)
    tagged = {thing.remote_id: thing for thing in things(site, *KINDS) if thing.tags is not None}
    assert set(tagged) == {made[PartKind.VOLUME], made[PartKind.ADDRESS], made[PartKind.SNAPSHOT]}
    assert {thing.tags for thing in tagged.values()} == {site.tags}
    for kind in (PartKind.VOLUME, PartKind.ADDRESS):
        assert tagged[made[kind]].attached_to == made[PartKind.SERVER]


@pytest.mark.parametrize("thing_kind", KINDS)
def test_a_list_without_its_links_loses_nothing(site: ContractSite, thing_kind: ThingKind) -> None:
    whole = site.adapter.listing(deadline=soon())
    site.trouble(Occasion.LIST, thing_kind, Trouble.LOST_LINK, None)
    assert site.adapter.listing(deadline=soon()) == whole


@pytest.mark.parametrize("thing_kind", KINDS)
def test_a_list_that_fails_is_never_taken_for_empty(site: ContractSite, thing_kind: ThingKind) -> None:
    for trouble in (
        Trouble.SERVER_ERROR,
        Trouble.FOREIGN_JSON,
        Trouble.WEB_PAGE,
        Trouble.CUT,
        Trouble.FORBIDDEN,
        Trouble.GENERAL_404,
    ):
        site.trouble(Occasion.LIST, thing_kind, trouble, 1)
        if thing_kind in DISKS:  # no lease is made of them, so no machine waits for them
            listing = site.adapter.listing(deadline=soon())
            assert set(listing.unread) == DISKS, trouble
            assert not DISKS & {thing.kind for thing in listing.things}
            assert listing.machines
            continue
        with pytest.raises(SiteError):
            site.adapter.listing(deadline=soon())


@pytest.mark.parametrize("thing_kind", [ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT, ThingKind.SNAPSHOT])
def test_a_page_that_lacks_things_is_no_listing(site: ContractSite, thing_kind: ThingKind) -> None:
    site.trouble(Occasion.LIST, thing_kind, Trouble.SHORT_PAGE, 1)
    if thing_kind in DISKS:
        assert set(site.adapter.listing(deadline=soon()).unread) == DISKS
        return
    with pytest.raises(SiteUnknown):
        site.adapter.listing(deadline=soon())


def test_the_quotas_count_the_volumes_of_all(site: ContractSite) -> None:
    quotas = {quota.resource: quota.used for quota in site.adapter.quotas(deadline=soon())}
    volumes, saved = things(site, ThingKind.VOLUME), things(site, ThingKind.VOLUME_SNAPSHOT)
    assert [quotas["volumes"], quotas["snapshots"]] == [len(volumes), len(saved)]
    assert quotas["volume_gib"] == sum((thing.size_gib or Decimal(0) for thing in (*volumes, *saved)), Decimal(0))


# --- what changed ------------------------------------------------------------------------------------------------


@pytest.fixture
def increments(adapter: CloudAdapter) -> Increments:
    if not isinstance(adapter, Increments):
        pytest.skip("not claimed")
    return adapter


def test_what_was_made_and_what_was_deleted_are_changes(site: ContractSite, increments: Increments) -> None:
    since = datetime.now(UTC)
    kept, deleted = (site.launch(tags=new_tags())[PartKind.SERVER] for _ in range(2))
    site.adapter.delete(PartKind.SERVER, deleted, deadline=soon())
    site.add_strangers(2 * PAGE)  # so that there are several pages
    seen = increments.changes(since=since, deadline=soon())
    machines = {machine.remote_id: machine for machine in seen.machines}
    listed = {machine.remote_id: machine for machine in site.adapter.listing(deadline=soon()).machines}
    assert machines == listed, "all were made within the difference that clocks may have"
    assert kept in machines
    assert set(seen.ended) == {deleted}
    ended = seen.ended[deleted]
    assert ended is not None
    assert since <= ended <= datetime.now(UTC)
    assert seen.scope == site.adapter.scope(deadline=soon())


def test_what_did_not_change_is_not_shown(site: ContractSite, increments: Increments) -> None:
    site.launch()
    seen = increments.changes(since=datetime.now(UTC) + timedelta(hours=1), deadline=soon())
    assert (seen.machines, dict(seen.ended)) == ((), {})


def test_changes_are_complete_or_an_error(site: ContractSite, increments: Increments) -> None:
    site.add_strangers(2 * PAGE)
    for trouble in (
        Trouble.SHORT_PAGE,
        Trouble.SERVER_ERROR,
        Trouble.FOREIGN_JSON,
        Trouble.WEB_PAGE,
        Trouble.CUT,
    ):
        site.trouble(Occasion.LIST, PartKind.SERVER, trouble, 1)
        with pytest.raises(SiteUnknown):
            increments.changes(since=datetime.now(UTC), deadline=soon())
