"""`tests/contract/test_credentials.py` on the rig: what Keystone itself says of wrong and deleted credentials.

A credential that is over is skipped: Keystone has no way to bring that forward.
"""

from __future__ import annotations

from tests.contract.test_credentials import (
    credential,
    test_a_credential_that_ends_before_it_is_used_is_denied_with_what_to_do,
    test_a_credential_that_ends_in_mid_run_says_nothing_of_what_exists,
    test_a_denied_making_is_tried_again_with_a_new_credential,
    test_a_session_that_ends_is_begun_anew_without_anybody_noticing,
    test_a_wrong_credential_is_denied_and_says_nothing_of_what_exists,
    test_a_wrong_credential_never_borrows_the_session_of_a_right_one,
    test_one_list_that_refuses_the_credential_fails_the_listing,
    test_the_check_names_the_credential,
)
from tests.peers.openstack.federation import PEER

__all__ = [
    "credential",
    "test_a_credential_that_ends_before_it_is_used_is_denied_with_what_to_do",
    "test_a_credential_that_ends_in_mid_run_says_nothing_of_what_exists",
    "test_a_denied_making_is_tried_again_with_a_new_credential",
    "test_a_session_that_ends_is_begun_anew_without_anybody_noticing",
    "test_a_wrong_credential_is_denied_and_says_nothing_of_what_exists",
    "test_a_wrong_credential_never_borrows_the_session_of_a_right_one",
    "test_one_list_that_refuses_the_credential_fails_the_listing",
    "test_the_check_names_the_credential",
]
pytestmark = PEER
