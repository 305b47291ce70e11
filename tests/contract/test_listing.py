"""A listing is complete, or an error."""

from __future__ import annotations

import pytest

from broker.errors import Fenced, SiteUnknown
from broker.remote import PartKind
from tests.contract.sites import PAGE, ContractSite, Occasion, Trouble, soon


def test_a_page_without_its_link_loses_nothing(site: ContractSite) -> None:
    site.add_strangers(3 * PAGE)
    whole = site.adapter.listing(deadline=soon())
    site.trouble(Occasion.LIST, PartKind.SERVER, Trouble.LOST_LINK, None)
    assert site.adapter.listing(deadline=soon()) == whole
    assert len(whole.machines) > 3 * PAGE


def test_a_page_that_lacks_items_is_no_listing(site: ContractSite) -> None:
    site.add_strangers(3 * PAGE)
    site.trouble(Occasion.LIST, PartKind.SERVER, Trouble.SHORT_PAGE, 1)
    with pytest.raises(SiteUnknown):
        site.adapter.listing(deadline=soon())


def test_a_later_page_that_fails_fails_the_listing(site: ContractSite) -> None:
    site.add_strangers(3 * PAGE)
    for trouble in (Trouble.SERVER_ERROR, Trouble.FOREIGN_JSON, Trouble.WEB_PAGE, Trouble.CUT):
        site.trouble(Occasion.LIST, PartKind.PORT, trouble, 1)
        with pytest.raises(SiteUnknown):
            site.adapter.listing(deadline=soon())


def test_a_listing_has_every_machine_once_and_one_scope(site: ContractSite) -> None:
    site.add_strangers(3 * PAGE)
    made = site.launch()
    first, second = (site.adapter.listing(deadline=soon()) for _ in range(2))
    ids = [machine.remote_id for machine in first.machines]
    assert len(ids) == len(set(ids)) == 3 * PAGE + 3, "two strangers were there before"
    assert made[PartKind.SERVER] in ids
    assert first == second
    assert first.scope


def test_a_listing_tells_how_much_it_has_read_after_every_page(site: ContractSite) -> None:
    site.add_strangers(3 * PAGE)
    told: list[int] = []
    whole = site.adapter.listing(deadline=soon(), progress=told.append)
    assert len(told) > 3, "the machines alone are four pages"
    assert max(told) >= len(whole.machines) + len(whole.things), "ports and images of others are read too"
    assert min(told) < max(told) / 2, "it grows from page to page"


def test_what_the_progress_raises_ends_the_listing(site: ContractSite) -> None:
    def refuse(read: int) -> None:
        raise Fenced(f"nobody waits for {read} things any more")

    with pytest.raises(Fenced):
        site.adapter.listing(deadline=soon(), progress=refuse)
