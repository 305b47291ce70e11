"""The recorded shapes are those of the real OpenStack. `record_shapes` records them anew."""

from __future__ import annotations

from tests.contract.shapes.comparing import differences, recorded, shapes_at
from tests.peers.openstack.federation import PEER
from tests.peers.openstack.record_shapes import real_place

pytestmark = PEER


def test_the_real_one_still_answers_as_recorded() -> None:
    assert sorted(differences(recorded(), shapes_at(real_place()))) == []
