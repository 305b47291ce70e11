"""Answers that are large, late by the clock, empty or somebody else's: each is taken for what it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from broker.errors import SiteUnknown
from broker.ports import CloudAdapter, Endings, Increments
from broker.pricing import RateCard
from broker.remote import MachineState, PartKind, RemoteMachine, RemoteQuota, ThingKind
from broker.values import Commodity
from broker.worth import PriceList
from tests.contract.sites import ADAPTERS, ALIKE, PAGE, ContractSite, Fresh, Occasion, Trouble, soon


@pytest.fixture(scope="module", params=sorted(ADAPTERS.keys() - ALIKE))
def fresh_site(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with ADAPTERS[request.param]() as fresh:
        yield fresh


# --- large -------------------------------------------------------------------------------------------------------


def test_an_answer_of_ten_megabytes_is_read_whole(site: ContractSite) -> None:
    site.add_strangers(PAGE)
    made = site.launch()
    adapter = site.adapter
    small = (
        adapter.listing(deadline=soon()),
        adapter.offers(deadline=soon()),
        adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon()),
    )
    site.trouble(Occasion.ANY, PartKind.SERVER, Trouble.LARGE, None)
    large = (
        adapter.listing(deadline=soon(60)),
        adapter.offers(deadline=soon(60)),
        adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon(60)),
    )
    assert large == small


def test_a_machine_is_made_and_deleted_though_each_answer_has_ten_megabytes(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.ANY, PartKind.SERVER, Trouble.LARGE, None)
    machine = site.adapter.make(PartKind.SERVER, site.machine, tags=site.tags, made=made, deadline=soon(60))
    site.adapter.delete(PartKind.SERVER, machine, deadline=soon(60))
    assert site.adapter.look(PartKind.SERVER, machine, deadline=soon(60)) is None


# --- empty, and somebody else's ----------------------------------------------------------------------------------

FOREIGN = (Trouble.FOREIGN_JSON, Trouble.WEB_PAGE)


def test_a_project_without_anything_is_empty_and_not_an_error(site: ContractSite) -> None:
    other = site.elsewhere()
    listing = other.listing(deadline=soon())
    assert (listing.machines, listing.parts) == ((), ())
    assert listing.scope
    for kind in PartKind:
        if kind is not PartKind.VOLUME_SNAPSHOT:
            assert list(other.find(kind, lease=site.tags.lease, made={}, deadline=soon())) == []


@pytest.mark.parametrize("trouble", FOREIGN, ids=lambda trouble: trouble.name)
def test_another_services_answer_is_no_empty_list(site: ContractSite, trouble: Trouble) -> None:
    """200, and in one case even JSON with a list of items in it."""
    other = site.elsewhere()
    other.listing(deadline=soon())
    for listed in (PartKind.KEY_PAIR, PartKind.PORT, PartKind.SERVER, PartKind.ADDRESS, PartKind.SNAPSHOT):
        site.trouble(Occasion.LIST, listed, trouble, 1)
        with pytest.raises(SiteUnknown):
            other.listing(deadline=soon())
        site.calm()


@pytest.mark.parametrize("trouble", FOREIGN, ids=lambda trouble: trouble.name)
def test_a_deletion_that_somebody_else_answers_is_not_done(
    site: ContractSite, kind: PartKind, trouble: Trouble
) -> None:
    made = site.launch()
    site.trouble(Occasion.ANY, kind, trouble, None)
    with pytest.raises(SiteUnknown):
        site.adapter.delete(kind, made[kind], deadline=soon())
    site.calm()
    assert site.adapter.look(kind, made[kind], deadline=soon()) is not None


# --- clocks ------------------------------------------------------------------------------------------------------

SKEWS = (timedelta(minutes=-4), timedelta(minutes=4), timedelta(days=-400), timedelta(days=400))


@pytest.fixture(params=SKEWS, ids=str)
def skewed(request: pytest.FixtureRequest, fresh_site: Fresh) -> ContractSite:
    """A site whose clock differs, with a login of its own, made by that clock."""
    site = fresh_site(0)
    site.set_clock(request.param)
    site.adapter = site.own_credential().adapter
    return site


def test_a_site_whose_clock_is_off_is_logged_in_to_launched_at_and_listed(skewed: ContractSite) -> None:
    made = skewed.launch()
    machine = skewed.adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert isinstance(machine, RemoteMachine)
    assert machine.state is MachineState.RUNNING
    assert machine.tags is not None
    assert skewed.carries(machine, skewed.tags), "our own times come back as they were"
    assert machine in skewed.adapter.listing(deadline=soon()).machines


def test_times_of_machines_are_the_sites_own_words(skewed: ContractSite, request: pytest.FixtureRequest) -> None:
    ahead: timedelta = request.node.callspec.params["skewed"]
    machine = skewed.launch()[PartKind.SERVER]
    seen = skewed.adapter.look(PartKind.SERVER, machine, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    for moment in (seen.created_at, seen.launched_at):
        assert moment is not None
        assert abs(moment - datetime.now(UTC) - ahead) < timedelta(seconds=30)
    if isinstance(skewed.adapter, Endings):
        skewed.adapter.delete(PartKind.SERVER, machine, deadline=soon())
        since = seen.created_at
        assert since is not None
        ended = skewed.adapter.ended_at(machine, since=since, deadline=soon())
        assert ended is not None
        assert abs(ended - datetime.now(UTC) - ahead) < timedelta(seconds=30)


@pytest.mark.parametrize("ahead", [timedelta(minutes=-4), timedelta(minutes=4)], ids=str)
def test_no_change_is_missed_where_clocks_differ_by_minutes(site: ContractSite, ahead: timedelta) -> None:
    if not isinstance(site.adapter, Increments):
        pytest.skip("not claimed")
    site.set_clock(ahead)
    site.adapter = site.own_credential().adapter
    assert isinstance(site.adapter, Increments)
    begun = datetime.now(UTC)
    machine = site.launch()[PartKind.SERVER]
    seen = site.adapter.changes(since=begun, deadline=soon())
    assert machine in {one.remote_id for one in seen.machines}


def test_a_check_tells_by_how_much_the_clocks_differ(site: ContractSite) -> None:
    site.set_clock(timedelta(minutes=-7))
    failed = [step for step in site.adapter.check(deadline=soon()) if not step.ok]
    assert [step.step for step in failed] == ["clock"]
    assert failed[0].hint


# --- slow to show ------------------------------------------------------------------------------------------------


def test_what_does_not_show_yet_is_in_no_listing_and_then_in_every_one(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.HIDDEN, 1)
    machine = site.make(PartKind.SERVER, made)
    limit = time.monotonic() + site.adapter.settle_time.total_seconds() + 5
    while machine not in {seen.remote_id for seen in site.adapter.listing(deadline=soon()).machines}:
        assert time.monotonic() < limit, "the settle time was promised"
        time.sleep(0.05)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 1


# --- what is not known -------------------------------------------------------------------------------------------


def test_a_price_that_no_card_names_is_none_and_never_zero(site: ContractSite) -> None:
    """No cloud of this kind says what it costs: an offer without a line in a rate card has no price, nor has a disk."""
    offers = {offer.remote_id: offer.name for offer in site.adapter.offers(deadline=soon())}
    listing = site.adapter.listing(deadline=soon())
    bare = PriceList(RateCard(uuid4(), "bare", 1, Commodity("EUR"), {}), offers)
    for prices in (bare, PriceList(None, offers)):
        for machine in listing.machines:
            asked = prices.hourly(ThingKind.SERVER, state=machine.state, instance_type=machine.instance_type)
            assert asked is None
    for thing in listing.things:
        assert bare.hourly(thing.kind, size_gib=thing.size_gib) is None


def test_a_machine_that_is_still_made_has_no_time_of_its_running(fresh_site: Fresh) -> None:
    site = fresh_site(60)
    machine = site.adapter.look(PartKind.SERVER, site.launch(until=PartKind.ADDRESS)[PartKind.SERVER], deadline=soon())
    assert isinstance(machine, RemoteMachine)
    assert machine.state is MachineState.BUILDING
    assert machine.launched_at is None


def test_a_limit_that_is_none_is_unlimited_and_every_use_is_a_number(adapter: CloudAdapter) -> None:
    quotas: dict[str, RemoteQuota] = {quota.resource: quota for quota in adapter.quotas(deadline=soon())}
    assert {"instances", "cores", "memory_mib"} <= quotas.keys()
    for quota in quotas.values():
        assert quota.used >= 0
        assert quota.limit is None or quota.limit >= 0
