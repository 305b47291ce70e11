"""`tests/contract/test_usage.py` on the rig.

Left out: that the account has exactly the machines that are listed, and nothing of the hour before: Nova's account
keeps what earlier tests deleted. Pages without links are left out as in `test_listing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.sites import ContractSite, Fresh
from tests.contract.test_usage import (
    test_a_deleted_machine_is_in_it_with_its_end,
    test_a_machine_is_in_it_with_its_size,
    test_a_refusal_is_no_empty_account,
    test_an_unclear_answer_is_unknown,
    test_another_project_sees_none_of_it,
    usages,
)
from tests.peers.openstack.contract.rig import Rig
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_a_deleted_machine_is_in_it_with_its_end",
    "test_a_machine_is_in_it_with_its_size",
    "test_a_refusal_is_no_empty_account",
    "test_an_unclear_answer_is_unknown",
    "test_another_project_sees_none_of_it",
    "usages",
]
pytestmark = PEER


@pytest.fixture
def site(rig: Rig, fresh_site: Fresh) -> Iterator[ContractSite]:
    """Nova's times are whole seconds, rounded: what began now may not count for half a second."""
    site = fresh_site(0)
    rig.hand.rest = 0.6
    yield site
    rig.hand.rest = 0.0
