"""A site's own account of its machines: whole, also of those that are gone, and only of the period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import SiteDenied, SiteError, SiteUnknown
from broker.ports import Usages
from broker.remote import Deadline, PartKind, RemoteUsage
from broker.values import Period
from tests.contract.sites import PAGE, UNCLEAR, ContractSite, Occasion, Trouble, new_tags, soon

HOUR = timedelta(hours=1)
SHORT = 0.4  # seconds; trouble that is slow takes 2


@pytest.fixture
def usages(site: ContractSite) -> Usages:
    if not isinstance(site.adapter, Usages):
        pytest.skip("not claimed")
    return site.adapter


def today() -> Period:
    now = datetime.now(UTC)
    return Period(now - HOUR, now + HOUR)


def read(usages: Usages, period: Period | None = None) -> dict[str, RemoteUsage]:
    rows = usages.usage(period or today(), deadline=soon())
    assert len({row.remote_id for row in rows}) == len(rows)
    return {row.remote_id: row for row in rows}


def launch(site: ContractSite) -> str:
    return site.launch(tags=new_tags(), until=PartKind.ADDRESS)[PartKind.SERVER]


def test_every_machine_is_in_it_on_however_many_pages(site: ContractSite, usages: Usages) -> None:
    site.add_strangers(2 * PAGE)  # with the two that are there, no whole number of pages
    machines = {machine.remote_id: machine for machine in site.adapter.listing(deadline=soon()).machines}
    rows = read(usages)
    assert rows.keys() == machines.keys()
    assert len(rows) == 2 * PAGE + 2
    site.add_strangers(PAGE - 2)
    assert len(read(usages)) == 3 * PAGE, "the last page may be full"
    for remote_id, row in rows.items():
        assert row.name == machines[remote_id].name
        assert row.started_at == machines[remote_id].launched_at
        assert row.ended_at is None


def test_a_machine_is_in_it_with_its_size(site: ContractSite, usages: Usages) -> None:
    offer = next(
        offer for offer in site.adapter.offers(deadline=soon()) if offer.remote_id == site.machine.instance_type
    )
    machine = launch(site)
    row = read(usages)[machine]
    assert (row.instance_type, row.cores, row.memory_mib, row.disk_gib) == (
        offer.name,
        offer.cores,
        offer.memory_mib,
        offer.disk_gib,
    )


def test_a_deleted_machine_is_in_it_with_its_end(site: ContractSite, usages: Usages) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    machine = launch(site)
    there = read(usages)[machine]
    site.adapter.delete(PartKind.SERVER, machine, deadline=soon())
    gone = read(usages)[machine]
    assert gone.ended_at is not None
    assert begun <= gone.started_at <= gone.ended_at <= datetime.now(UTC)
    assert float(gone.hours) == pytest.approx((gone.ended_at - gone.started_at) / HOUR, abs=1e-6)
    assert there.hours >= 0
    assert gone.raw_status != there.raw_status


def test_only_the_period_counts(site: ContractSite, usages: Usages) -> None:
    machine = launch(site)
    now = datetime.now(UTC)
    before = Period(now - 2 * HOUR, now - HOUR)
    assert read(usages, before) == {}
    later = Period(now + HOUR, now + 2 * HOUR)
    assert read(usages, later) == {}, "nothing was used yet"
    assert read(usages, Period(now, now)) == {}
    started = read(usages)[machine].started_at
    since_then = read(usages, Period(started, now + HOUR))[machine]
    assert since_then.hours <= (datetime.now(UTC) - started) / HOUR, "the future is not counted"
    ended = Period(started, started + timedelta(milliseconds=1))
    assert float(read(usages, ended)[machine].hours * 3_600_000) == pytest.approx(1, abs=1e-3)


def test_another_project_sees_none_of_it(site: ContractSite, usages: Usages) -> None:
    machine = launch(site)
    other = site.elsewhere()
    assert isinstance(other, Usages)
    assert machine not in read(other)
    assert machine in read(usages)


def trouble(site: ContractSite, what: Trouble) -> None:
    site.trouble(Occasion.ACCOUNT, PartKind.SERVER, what, 1)


def test_a_lost_link_loses_nothing_and_a_short_page_is_an_error(site: ContractSite, usages: Usages) -> None:
    site.add_strangers(2 * PAGE)
    trouble(site, Trouble.LOST_LINK)
    assert len(read(usages)) == 2 * PAGE + 2
    trouble(site, Trouble.SHORT_PAGE)
    with pytest.raises(SiteUnknown):
        read(usages)


def test_a_refusal_is_no_empty_account(site: ContractSite, usages: Usages) -> None:
    trouble(site, Trouble.FORBIDDEN)
    with pytest.raises(SiteDenied):
        read(usages)
    trouble(site, Trouble.GENERAL_404)
    with pytest.raises(SiteError):
        read(usages)
    with pytest.raises(SiteUnknown):
        usages.usage(today(), deadline=Deadline.after(-1))


@pytest.mark.parametrize("what", UNCLEAR, ids=lambda what: what.name)
def test_an_unclear_answer_is_unknown(site: ContractSite, usages: Usages, what: Trouble) -> None:
    trouble(site, what)
    with pytest.raises(SiteUnknown):
        usages.usage(today(), deadline=soon(SHORT))
