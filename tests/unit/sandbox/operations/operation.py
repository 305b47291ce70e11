"""Every operation that the sandbox claims, as two clients that nobody here wrote ask for it.

Commands name things as people do; `{disk}` is the id of what `stage` made under that name. An operation is proved by
the route that is asked for, and by what the client shows (`shows`) or by what is so in the cloud afterwards (`so`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openstack.connection import Connection

from adapters.sandbox.nova_views import status
from adapters.sandbox.state import Cloud
from tests.unit.sandbox.wire_client import PUBLIC_KEY

Ids = Mapping[str, str]
So = Callable[[Cloud, Ids], bool]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to ask for.

    `route` is a method, a path of the sandbox and, of a server's action, its name. `sdk` is None where the SDK has no
    call for it, `command` empty where the command line has none. `first` are commands that bring about the state.
    """

    route: str
    command: str
    sdk: Callable[[Connection, Ids], Any] | None
    shows: str = ""
    so: So | None = None
    first: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For the test's name."""
        return self.command or self.route

    @property
    def method(self) -> str:
        """GET, POST, ..."""
        return self.route.split(" ")[0]

    @property
    def path(self) -> str:
        """The path of the sandbox's table."""
        return self.route.split(" ")[1]


def stage(connection: Connection) -> dict[str, str]:
    """A server `box` with a key, a port, a group and the volume `used`, and things that nothing has; their ids."""
    compute, network, storage = connection.compute, connection.network, connection.block_storage
    inner = network.find_network("climate-net", ignore_missing=False)
    outer = network.find_network("public", ignore_missing=False)
    compute.create_keypair(name="key", public_key=PUBLIC_KEY)
    group = network.create_security_group(name="web")
    rule = network.create_security_group_rule(security_group_id=group.id, direction="ingress", protocol="udp")
    port = network.create_port(name="plug", network_id=inner.id, security_group_ids=[group.id])
    flavor = compute.find_flavor("m1.tiny", ignore_missing=False)
    image = connection.image.find_image("cirros", ignore_missing=False)
    wanted = {"name": "box", "flavor_id": flavor.id, "image_id": image.id, "metadata": {"a": "b"}}
    box = compute.create_server(**wanted, key_name="key", networks=[{"port": port.id}])
    ids = {
        "box": box.id,
        "flavor": flavor.id,
        "image": image.id,
        "larger": compute.find_flavor("m1.small", ignore_missing=False).id,
        "network": inner.id,
        "outside": outer.id,
        "subnet": next(iter(network.subnets(network_id=inner.id))).id,
        "port": port.id,
        "group": group.id,
        "rule": rule.id,
        "apart": compute.create_server_group(name="apart", policy="soft-anti-affinity").id,
        "disk": storage.create_volume(name="disk", size=2, metadata={"a": "b"}).id,
        "used": storage.create_volume(name="used", size=1).id,
        "project": connection.current_project_id,
        "user": connection.current_user_id,
        "type": next(iter(storage.types())).id,
    }
    compute.create_volume_attachment(box.id, ids["used"])
    ids["copy"] = storage.create_snapshot(volume_id=ids["disk"], name="copy").id
    spare = network.create_ip(floating_network_id=outer.id)
    ids |= {"address": spare.id, "address_text": spare.floating_ip_address}
    robot = connection.identity.create_application_credential(user=ids["user"], name="robot")
    ids["robot"] = robot.id
    return ids


def status_is(wanted: str) -> So:
    return lambda cloud, ids: status(cloud.servers[ids["box"]]) == wanted


def gone(kind: str, name: str) -> So:
    return lambda cloud, ids: ids[name] not in getattr(cloud, kind)


def there(kind: str, name: str = "fresh") -> So:
    return lambda cloud, _: any(thing.name == name for thing in getattr(cloud, kind).values())
