"""Apache Libcloud, which nobody here wrote, takes the sandbox for an OpenStack."""

from typing import Any

import pytest
from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import InvalidCredsError
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

from adapters.sandbox import SandboxCloud
from adapters.sandbox.profiles import DEMO_PASSWORD


def _driver(cloud: SandboxCloud, user: str, secret: str, **options: Any) -> Any:
    return get_driver(Provider.OPENSTACK)(
        user,
        secret,
        ex_force_auth_url=cloud.auth_url.removesuffix("/v3"),
        ex_force_service_region="aurora-1",
        api_version="2.2",
        **options,
    )


def _by_password(cloud: SandboxCloud, secret: str = DEMO_PASSWORD, **options: Any) -> Any:
    return _driver(cloud, "alice", secret, ex_force_auth_version="3.x_password", ex_tenant_name="leeway", **options)


def _by_app_credential(cloud: SandboxCloud, client: Any) -> Any:
    path = f"/v3/users/{client.user_id}/application_credentials"
    made = client("POST", path, {"application_credential": {"name": "leeway"}}).json()["application_credential"]
    return _driver(cloud, made["id"], made["secret"], ex_force_auth_version="3.x_appcred")


@pytest.mark.parametrize("credential", ["password", "application credential"])
def test_a_node_is_created_listed_and_destroyed(client: Any, cloud: Any, clock: Any, *, credential: str) -> None:
    driver = _by_password(cloud) if credential == "password" else _by_app_credential(cloud, client)
    size = next(size for size in driver.list_sizes() if size.name == "a1.small")
    assert (size.ram, size.disk, size.vcpus) == (4096, 20, 2)
    image = next(image for image in driver.list_images() if image.name == "Debian 12")
    network = next(network for network in driver.ex_list_networks() if network.name == "leeway-net")
    driver.import_key_pair_from_string("leeway", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 x")

    made = driver.create_node(
        name="node",
        size=size,
        image=image,
        networks=[network],
        ex_keyname="leeway",
        ex_userdata="#cloud-config\n",
        ex_metadata={"leeway": "1"},
    )
    assert made.state == NodeState.PENDING
    clock.pass_by(10)
    (node,) = driver.list_nodes()
    assert (node.id, node.state, node.extra["metadata"]) == (made.id, NodeState.RUNNING, {"leeway": "1"})
    assert node.private_ips == ["10.64.0.2"]
    assert (node.extra["vm_state"], node.extra["key_name"]) == ("active", "leeway")
    assert driver.ex_stop_node(node)
    clock.pass_by(3)
    assert driver.ex_get_node_details(node.id).state == NodeState.STOPPED
    assert driver.destroy_node(node)
    clock.pass_by(5)
    assert driver.list_nodes() == []
    assert driver.ex_get_node_details(node.id) is None
    assert cloud.log.alive("server") == cloud.log.alive("port") == set()


def test_nodes_on_ports_with_floating_ips(cloud: Any, clock: Any) -> None:
    driver = _by_password(cloud)
    network = next(network for network in driver.ex_list_networks() if network.name == "leeway-net")
    port = driver.ex_create_port(network, name="fence")
    body = {
        "name": "node",
        "flavorRef": driver.list_sizes()[0].id,
        "imageRef": driver.list_images()[0].id,
        "networks": [{"port": port.id}],
    }
    made = driver.connection.request("/servers", method="POST", data={"server": body}).object["server"]
    clock.pass_by(10)
    assert driver.ex_get_port(port.id).extra["device_id"] == made["id"]
    node = driver.ex_get_node_details(made["id"])
    floating = driver.ex_create_floating_ip("public")
    assert driver.ex_attach_floating_ip_to_node(node, floating.ip_address)
    assert driver.ex_get_node_details(node.id).public_ips == [floating.ip_address]
    driver.destroy_node(node)
    clock.pass_by(5)
    assert [item.ip_address for item in driver.ex_list_floating_ips()] == [floating.ip_address]  # it stays
    assert driver.ex_delete_floating_ip(floating)
    assert driver.ex_delete_port(port)
    assert cloud.log.alive("floating_ip") == cloud.log.alive("port") == set()


def test_long_lists_and_quotas(client: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(7)
    driver = _by_password(cloud)
    assert len(driver.list_nodes()) == 7
    assert driver.ex_get_quota_set(client.project_id).instances.in_use == 7
    assert driver.ex_get_network_quotas(client.project_id).floatingip.limit == 2
    names = {group.name for group in driver.ex_list_security_groups()}
    assert names == {"default"}


def test_refusals_are_libcloud_s_own_exceptions(client: Any, cloud: Any) -> None:
    with pytest.raises(InvalidCredsError):
        _by_password(cloud, "wrong").list_nodes()
    driver = _by_password(cloud)
    client("PUT", "/_control/quotas/leeway", {"instances": 0})
    network = next(network for network in driver.ex_list_networks() if network.name == "leeway-net")
    with pytest.raises(BaseHTTPError, match="Quota exceeded for instances") as refused:
        driver.create_node(name="n", size=driver.list_sizes()[0], image=driver.list_images()[0], networks=[network])
    assert refused.value.code == 403
