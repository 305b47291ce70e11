"""The rig does what the adapter's tests lean on; a failure here is the rig's, not the adapter's."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from keystoneauth1.exceptions import Unauthorized
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import ConflictException, ForbiddenException, NotFoundException

from tests.peers.openstack.federation import CLOUDS, PEER

UP = Path(__file__).parent / "up"
# A busy machine takes a minute for what takes three seconds on an idle one.
BUILD_SECONDS = 120

pytestmark = PEER
# entry of clouds.yaml: the project it works in and the roles it has there
EXPECTED = {
    "leeway-admin": ("admin", {"admin"}),
    "leeway-alice": ("climate", {"member"}),
    "leeway-alice-credential": ("climate", {"member"}),
    "leeway-bob": ("genomes", {"member"}),
    "leeway-rita": ("climate", {"reader"}),
    "leeway-tim": ("tiny", {"member"}),
    "leeway-lena": ("bulk", {"member"}),
}

Connect = Callable[[str], Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open a connection for an entry of clouds.yaml."""
    opened: list[Connection] = []

    def open_one(cloud: str) -> Connection:
        config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
        opened.append(Connection(config=config.get_one(cloud)))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def alice(connect: Connect) -> Iterator[Connection]:
    """A member of the project climate; what a test leaves behind under its own prefix is removed."""
    connection = connect("leeway-alice")
    yield connection
    for server in connection.compute.servers(name="rig-test-"):
        connection.compute.delete_server(server, ignore_missing=True)
        connection.compute.wait_for_delete(server, wait=BUILD_SECONDS)
    for port in connection.network.ports(project_id=connection.current_project_id):
        if port.name.startswith("rig-test-"):
            connection.network.delete_port(port, ignore_missing=True)


def new_name() -> str:
    return f"rig-test-{uuid.uuid4()}"


def order(connection: Connection, *, flavor: str, port_id: str | None = None) -> dict[str, object]:
    """The arguments of a server on the project's own network, or on a port."""
    network = connection.network.find_network(f"{connection.current_project.name}-net", ignore_missing=False)
    return {
        "name": new_name(),
        "flavor_id": connection.compute.find_flavor(flavor, ignore_missing=False).id,
        "image_id": connection.image.find_image("cirros", ignore_missing=False).id,
        "networks": [{"port": port_id} if port_id else {"uuid": network.id}],
    }


def test_clouds_file_has_every_user() -> None:
    assert set(yaml.safe_load(CLOUDS.read_text())["clouds"]) == set(EXPECTED)


@pytest.mark.parametrize("cloud", sorted(EXPECTED))
def test_each_user_gets_a_token(connect: Connect, cloud: str) -> None:
    connection = connect(cloud)
    project, roles = EXPECTED[cloud]
    auth = connection.session.auth
    assert isinstance(auth, BaseIdentityPlugin)
    access = auth.get_access(connection.session)
    assert access.project_name == project
    # Keystone adds the roles that a role implies: a member is a reader too.
    assert roles <= set(access.role_names or ())
    kinds = {service["type"] for service in access.service_catalog.catalog}
    assert {"identity", "compute", "image", "network", "placement", "volumev3"} <= kinds


def test_wrong_password_is_refused() -> None:
    login = yaml.safe_load(CLOUDS.read_text())["clouds"]["leeway-alice"]["auth"] | {"password": "wrong"}
    with pytest.raises(Unauthorized):
        Session(auth=Password(**login)).get_token()


def test_server_lives_on_a_port_made_first(alice: Connection) -> None:
    network = alice.network.find_network("climate-net", ignore_missing=False)
    port = alice.network.create_port(name=new_name(), network_id=network.id)
    asked = order(alice, flavor="m1.small", port_id=port.id)
    made = alice.compute.create_server(**asked)
    server = alice.compute.wait_for_server(made, wait=BUILD_SECONDS)
    assert server.status == "ACTIVE"
    assert server.launched_at is not None
    assert alice.network.get_port(port.id).device_id == server.id
    address = port.fixed_ips[0]["ip_address"]
    assert [entry["addr"] for entry in server.addresses["climate-net"]] == [address]

    with pytest.raises(ConflictException, match=f"Port {port.id} is still in use"):
        alice.compute.create_server(**order(alice, flavor="m1.small", port_id=port.id))

    alice.compute.delete_server(server)
    alice.compute.wait_for_delete(server, wait=BUILD_SECONDS)
    # The port was ours before the server was, so Nova leaves it.
    assert alice.network.get_port(port.id).device_id == ""
    with pytest.raises(NotFoundException):
        alice.compute.delete_server(server.id, ignore_missing=False)


def test_gpu_flavor_is_backed_by_placement(alice: Connection) -> None:
    flavor = alice.compute.find_flavor("g1.a100", get_extra_specs=True, ignore_missing=False)
    assert flavor.extra_specs["resources:CUSTOM_GPU_A100"] == "1"
    made = alice.compute.create_server(**order(alice, flavor="g1.a100"))
    assert alice.compute.wait_for_server(made, wait=BUILD_SECONDS).status == "ACTIVE"


def test_flavor_that_fits_nowhere_ends_in_error(alice: Connection) -> None:
    made = alice.compute.create_server(**order(alice, flavor="x1.nowhere"))
    server = alice.compute.wait_for_server(made, status="ERROR", failures=[], wait=BUILD_SECONDS)
    assert server.fault["message"].startswith("No valid host was found.")
    assert server.launched_at is None


def test_quota_refuses_by_name(connect: Connect) -> None:
    tim = connect("leeway-tim")
    with pytest.raises(ForbiddenException, match=r"Quota exceeded for cores, ram: Requested 4, 8192"):
        tim.compute.create_server(**order(tim, flavor="m1.large"))
    assert [server.name for server in tim.compute.servers() if server.name.startswith("rig-test-")] == []


def test_network_quota_refuses_by_name(connect: Connect) -> None:
    tim = connect("leeway-tim")
    public = tim.network.find_network("public", ignore_missing=False)
    first = tim.network.create_ip(floating_network_id=public.id)
    try:
        with pytest.raises(ConflictException, match=r"Quota exceeded for resources: \['floatingip'\]"):
            tim.network.create_ip(floating_network_id=public.id)
    finally:
        tim.network.delete_ip(first)


def test_reader_may_look_and_not_touch(connect: Connect) -> None:
    rita = connect("leeway-rita")
    assert rita.compute.find_flavor("m1.small") is not None
    assert isinstance(list(rita.compute.servers()), list)
    with pytest.raises(ForbiddenException, match="Policy doesn't allow os_compute_api:servers:create"):
        rita.compute.create_server(**order(rita, flavor="m1.small"))
    network = rita.network.find_network("climate-net", ignore_missing=False)
    with pytest.raises(ForbiddenException):
        rita.network.create_port(network_id=network.id, name=new_name())


def test_private_flavor_is_seen_by_its_project_only(connect: Connect) -> None:
    assert connect("leeway-bob").compute.find_flavor("g1.genomes") is not None
    assert connect("leeway-rita").compute.find_flavor("g1.genomes") is None


def test_volume_becomes_available(alice: Connection) -> None:
    volume = alice.create_volume(size=1, name=new_name(), timeout=BUILD_SECONDS)
    try:
        assert (volume.status, volume.volume_type) == ("available", "standard")
    finally:
        alice.delete_volume(volume.id, timeout=BUILD_SECONDS)


def test_address_comes_from_the_public_network(alice: Connection) -> None:
    public = alice.network.find_network("public", ignore_missing=False)
    address = alice.network.create_ip(floating_network_id=public.id)
    try:
        assert address.floating_ip_address.startswith("203.0.113.")
    finally:
        alice.network.delete_ip(address)


def run_up(home: Path) -> subprocess.CompletedProcess[str]:
    """Run `up` on another state folder; it can only refuse, because this rig holds the ports."""
    return subprocess.run(
        [str(UP), "--no-install"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LEEWAY_PEERS_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try to start a second rig")
def test_up_says_why_it_cannot(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        taken = run_up(home)
        assert taken.returncode == 1
        assert "port 5000 (keystone)" in taken.stderr
        assert "taken on 127.0.0.1: stop the program there" in taken.stderr
        assert not any((home / "openstack" / "run").iterdir())

    (tmp_path / "closed").mkdir(mode=0o700)
    closed = run_up(tmp_path / "closed")
    assert closed.returncode == 1
    assert "other users cannot enter" in closed.stderr
