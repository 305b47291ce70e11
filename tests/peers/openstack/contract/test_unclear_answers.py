"""`tests/contract/test_trouble.py` on the rig: unclear answers, which change nothing, to questions about one machine.

Of the parts one of Cinder and one of Neutron: servers have theirs in `test_faults.py`, key pairs and ports are made and
asked for as these are.
"""

from __future__ import annotations

import pytest

from broker.remote import PartKind
from tests.contract.sites import ContractSite, soon
from tests.contract.test_trouble import (
    logged_in,
    test_an_unclear_answer_to_a_deletion_raises,
    test_an_unclear_answer_to_a_look_is_never_absence,
    test_an_unclear_answer_to_a_making_is_unknown,
    test_an_unclear_answer_to_a_reading_is_unknown,
    test_an_unclear_answer_to_a_search_is_no_empty_result,
)
from tests.peers.openstack.federation import PEER

__all__ = [
    "logged_in",
    "test_an_unclear_answer_to_a_deletion_raises",
    "test_an_unclear_answer_to_a_look_is_never_absence",
    "test_an_unclear_answer_to_a_making_is_unknown",
    "test_an_unclear_answer_to_a_reading_is_unknown",
    "test_an_unclear_answer_to_a_search_is_no_empty_result",
]
pytestmark = PEER


@pytest.fixture
def site(standing: ContractSite) -> ContractSite:
    standing.calm()
    standing.adapter.networks(deadline=soon())  # with a token: trouble is not for the login
    return standing


@pytest.fixture(params=(PartKind.VOLUME, PartKind.ADDRESS))
def kind(request: pytest.FixtureRequest) -> PartKind:
    wanted: PartKind = request.param
    return wanted
