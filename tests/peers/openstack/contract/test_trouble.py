"""`tests/contract/test_trouble.py` on the rig: what a fresh site needs; the rest is in `test_unclear_answers.py`."""

from __future__ import annotations

from tests.contract.test_trouble import (
    test_a_refused_credential_says_nothing_of_what_exists,
    test_a_token_that_dies_is_renewed_without_anybody_noticing,
    test_busy_says_when_to_come_back_and_makes_nothing,
)
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_a_refused_credential_says_nothing_of_what_exists",
    "test_a_token_that_dies_is_renewed_without_anybody_noticing",
    "test_busy_says_when_to_come_back_and_makes_nothing",
]
pytestmark = PEER
