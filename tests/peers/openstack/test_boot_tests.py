"""A boot test on a real OpenStack, by the commands: a machine comes up, is told, and leaves nothing."""

from __future__ import annotations

import time

from openstack.connection import Connection

from tests.peers.openstack import test_tour
from tests.peers.openstack.test_tour import CLOUD, CLOUDS, Commands, pay

pytestmark = test_tour.pytestmark
leeway = test_tour.leeway
cloud = test_tour.cloud
settings = test_tour.settings


def test_a_machine_comes_up_and_goes(leeway: Commands, cloud: Connection) -> None:
    leeway("site", "add", "real", "--provider", "home", "--from-clouds-yaml", str(CLOUDS), "--cloud", CLOUD, "--broker")
    pay(leeway, cloud)
    test = leeway.json("site", "boot-test", "real", "--project", "climate")
    assert (test["outcome"], test["error"]) == ("ok", None)
    assert 0 < test["seconds"] < 180
    deadline = time.monotonic() + 180
    while (shown := leeway.json("show", test["order_id"]))["order"]["state"] != "over":
        assert time.monotonic() < deadline, shown
        time.sleep(1)
    (machine,) = shown["machines"]
    name = machine["lease_id"].replace("-", "")
    assert [server.name for server in cloud.compute.servers() if name in server.name] == []
    assert [port.name for port in cloud.network.ports() if name in port.name] == []
    assert float(shown["money"]["spent"]["value"]) > 0
    assert "a machine ran after" in leeway("site", "show", "real")
