"""`tests/contract/test_launch.py` on the rig, save parts that show late: Nova shows a server before it answers."""

from __future__ import annotations

from tests.contract.test_launch import (
    test_a_key_pair_made_twice_is_the_same_and_never_somebody_elses,
    test_a_launch_through_the_plan_ends_in_a_running_machine,
    test_a_machine_that_fails_later_is_still_there_and_says_why,
    test_a_quota_refusal_says_so_and_makes_nothing,
    test_a_search_does_not_find_the_parts_of_another_lease,
    test_after_a_lost_answer_the_part_is_found,
    test_all_but_the_server_is_harmless,
    test_an_unknown_id_is_not_there,
    test_deletion_is_what_a_look_says_and_twice_is_fine,
    test_every_part_carries_its_lease_in_look_find_and_listing,
    test_nothing_is_sent_after_the_deadline,
    test_the_plan_has_one_server_and_a_key_and_an_address_only_if_asked_for,
    test_what_the_site_does_not_know_is_refused_and_makes_nothing,
)
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_a_key_pair_made_twice_is_the_same_and_never_somebody_elses",
    "test_a_launch_through_the_plan_ends_in_a_running_machine",
    "test_a_machine_that_fails_later_is_still_there_and_says_why",
    "test_a_quota_refusal_says_so_and_makes_nothing",
    "test_a_search_does_not_find_the_parts_of_another_lease",
    "test_after_a_lost_answer_the_part_is_found",
    "test_all_but_the_server_is_harmless",
    "test_an_unknown_id_is_not_there",
    "test_deletion_is_what_a_look_says_and_twice_is_fine",
    "test_every_part_carries_its_lease_in_look_find_and_listing",
    "test_nothing_is_sent_after_the_deadline",
    "test_the_plan_has_one_server_and_a_key_and_an_address_only_if_asked_for",
    "test_what_the_site_does_not_know_is_refused_and_makes_nothing",
]
pytestmark = PEER
