"""Everything says which of the site's projects it counts in."""

from __future__ import annotations

from broker.remote import ThingKind
from tests.contract.sites import ContractSite, soon


def test_everything_says_its_project_and_it_is_one(site: ContractSite) -> None:
    site.launch()
    listing = site.adapter.listing(deadline=soon())
    assert {thing.kind for thing in listing.things} == {*ThingKind} - {ThingKind.SERVER}
    (project,) = {seen.project for seen in (*listing.machines, *listing.things)}
    assert project
