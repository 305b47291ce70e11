"""Records the shapes of the real OpenStack's answers: `python -m tests.peers.openstack.record_shapes`."""

from __future__ import annotations

import yaml

from tests.contract.shapes.asking import Place
from tests.contract.shapes.comparing import record, shapes_at
from tests.peers.openstack.federation import CLOUDS

_WAIT_SECONDS = 120.0  # for one change of a machine, on a busy computer
_PAUSE_SECONDS = 0.5


def real_place() -> Place:
    """The OpenStack of `up`; alice's and tim's passwords are one."""
    auth = yaml.safe_load(CLOUDS.read_text(encoding="utf-8"))["clouds"]["leeway-alice"]["auth"]
    return Place(
        auth_url=auth["auth_url"],
        password=auth["password"],
        wait_seconds=_WAIT_SECONDS,
        pause_seconds=_PAUSE_SECONDS,
    )


if __name__ == "__main__":
    record(shapes_at(real_place()))
