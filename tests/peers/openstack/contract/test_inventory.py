"""`tests/contract/test_inventory.py` on the rig, in a project that has a machine and a thing of each kind.

Left out: pages (there is one of each); machines of other users (lena is the only one); sizes, and dates of
years ago; changes, whose margin for clocks reaches back to what earlier tests deleted: these are in `test_adapter.py`
and `test_increments.py` here.
"""

from __future__ import annotations

import pytest

from tests.contract.sites import ContractSite
from tests.contract.test_inventory import (
    increments,
    test_a_list_that_fails_is_never_taken_for_empty,
    test_only_ours_have_our_tags,
    test_the_quotas_count_the_volumes_of_all,
    test_what_did_not_change_is_not_shown,
)
from tests.peers.openstack.contract.rig import Rig
from tests.peers.openstack.federation import PEER

__all__ = [
    "increments",
    "test_a_list_that_fails_is_never_taken_for_empty",
    "test_only_ours_have_our_tags",
    "test_the_quotas_count_the_volumes_of_all",
    "test_what_did_not_change_is_not_shown",
]
pytestmark = PEER


@pytest.fixture(scope="module")
def furnished(rig: Rig) -> ContractSite:
    site = rig.site()
    rig.hand.furnish()
    site.add_strangers(1)
    return site


@pytest.fixture
def site(furnished: ContractSite) -> ContractSite:
    furnished.calm()
    return furnished
