"""A listing is complete, or an error."""

from __future__ import annotations

import pytest

from broker.errors import SiteUnknown
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
