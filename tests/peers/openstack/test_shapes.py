"""The recorded shapes are those of the real OpenStack. `record_shapes` records them anew."""

from __future__ import annotations

import pytest

from tests.contract.shapes.comparing import differences, recorded, shapes_at
from tests.peers.openstack.federation import CLOUDS
from tests.peers.openstack.record_shapes import real_place

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not CLOUDS.exists(),
        reason=f"NO REAL OPENSTACK: {CLOUDS} does not exist; start it as root with tests/peers/openstack/up",
    ),
]


def test_the_real_one_still_answers_as_recorded() -> None:
    assert sorted(differences(recorded(), shapes_at(real_place()))) == []
