"""`tests/contract/test_listing.py` on the rig.

Left out: pages without their link and pages that lack things, which the front does not make up. Nova's pages have 1,000
machines: there is one.
"""

from __future__ import annotations

import pytest

from tests.contract import test_listing
from tests.contract.sites import ContractSite, Fresh
from tests.contract.test_listing import (
    test_a_later_page_that_fails_fails_the_listing,
    test_a_listing_has_every_machine_once_and_one_scope,
    test_a_listing_tells_how_much_it_has_read_after_every_page,
    test_what_the_progress_raises_ends_the_listing,
)
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_a_later_page_that_fails_fails_the_listing",
    "test_a_listing_has_every_machine_once_and_one_scope",
    "test_a_listing_tells_how_much_it_has_read_after_every_page",
    "test_what_the_progress_raises_ends_the_listing",
]
pytestmark = PEER


@pytest.fixture
def site(fresh_site: Fresh, monkeypatch: pytest.MonkeyPatch) -> ContractSite:
    """With the two strangers that the suite's clouds begin with, and few more to come: each takes its time to build."""
    monkeypatch.setattr(test_listing, "PAGE", 1)
    site = fresh_site(0)
    site.add_strangers(2)
    return site
