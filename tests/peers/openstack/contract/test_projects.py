"""`tests/contract/test_projects.py` on the rig, in a project that has a thing of each kind."""

from __future__ import annotations

import pytest

from tests.contract.sites import ContractSite
from tests.contract.test_projects import (
    test_everything_says_its_project_and_it_is_one,
)
from tests.peers.openstack.contract.rig import Rig
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_everything_says_its_project_and_it_is_one",
]
pytestmark = PEER


@pytest.fixture
def site(rig: Rig) -> ContractSite:
    site = rig.site()
    rig.hand.furnish()
    return site
