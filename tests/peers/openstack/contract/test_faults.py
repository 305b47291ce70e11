"""`tests/contract/test_faults.py` on the rig: what each fault ends as, at a machine that stands for all of them.

Left out: what needs a machine or more of its own per case (parts deleted in every order, made twice, deleted by eight
at once, lost when the cloud had done it) and what `test_launch.py` here has in another form (refused at once or late).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.remote import PartKind
from tests.contract.sites import Trouble, new_tags, soon
from tests.contract.test_faults import (
    Scene,
    test_a_fault_ends_as_its_error_with_site_operation_cause_and_what_to_do,
    test_a_wrong_credential_says_all_four_the_second_time_too,
    test_after_the_fault_everything_works_as_before,
    test_many_answers_that_drip_hold_nobody_else_up_for_longer_than_their_deadline,
    test_what_never_left_us_says_all_four_too,
)
from tests.peers.openstack.contract.rig import Rig, StandingSite
from tests.peers.openstack.federation import PEER

__all__ = [
    "test_a_fault_ends_as_its_error_with_site_operation_cause_and_what_to_do",
    "test_a_wrong_credential_says_all_four_the_second_time_too",
    "test_after_the_fault_everything_works_as_before",
    "test_many_answers_that_drip_hold_nobody_else_up_for_longer_than_their_deadline",
    "test_what_never_left_us_says_all_four_too",
]
pytestmark = PEER
# The cloud does what was asked: the first is in `test_launch.py`, where the part is found too.
DONE = {("make", Trouble.LOST), ("make", Trouble.DRIP), ("delete", Trouble.LOST), ("delete", Trouble.DRIP)}
DENIED = {Trouble.UNAUTHORIZED, Trouble.FORBIDDEN}


@pytest.fixture(scope="module")
def standing_scene(rig: Rig) -> Scene:
    """A machine, and a second one whose parts are made."""
    site, tags = rig.site(StandingSite), new_tags()
    return Scene(site, site.launch(), tags, site.launch(until=PartKind.SERVER, tags=tags))


@pytest.fixture
def scene(request: pytest.FixtureRequest, rig: Rig, standing_scene: Scene) -> Iterator[Scene]:
    case = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if (case.get("operation"), case.get("trouble")) in DONE:
        pytest.skip("would need a new machine for the next test")
    standing_scene.adapter.networks(deadline=soon())  # with a token: trouble is not for the login
    yield standing_scene
    rig.calm()
    if case.get("trouble") in DENIED:
        standing_scene.site.adapter = rig.open()  # it does not log in again with what was refused
