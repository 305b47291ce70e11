"""One sandbox cloud per test module, as just started for each test, and clients for it."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import CloudConfig, NetworkConfig, ProjectConfig, QuotaConfig, Timing
from tests.unit.sandbox.wire_client import Client, Clock

TIMING = Timing(
    build_seconds=10.0,
    bind_seconds=2.0,
    stop_seconds=3.0,
    start_seconds=3.0,
    reboot_seconds=3.0,
    shelve_seconds=4.0,
    unshelve_seconds=4.0,
    snapshot_seconds=6.0,
    suspend_seconds=2.0,
    resize_seconds=5.0,
    rebuild_seconds=6.0,
    delete_seconds=5.0,
    volume_seconds=2.0,
    attach_seconds=1.0,
)


@pytest.fixture(scope="session")
def config() -> CloudConfig:
    """Aurora without foreign servers, with small quotas and a tiny external network."""
    quota = QuotaConfig(instances=4, cores=10, ram_mib=40960, ports=6, floating_ips=2, key_pairs=2, security_groups=3)
    return dataclasses.replace(
        profile("aurora"),
        projects=(ProjectConfig(name="leeway", quota=quota), ProjectConfig(name="physics")),
        networks=(
            NetworkConfig(name="public", cidr="203.0.113.0/28", external=True),
            NetworkConfig(name="leeway-net", cidr="10.64.0.0/16", project="leeway"),
            NetworkConfig(name="physics-net", cidr="10.65.0.0/24", project="physics"),
        ),
        timing=TIMING,
        foreign_servers=0,
        page_limit=3,
    )


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running_cloud(config: CloudConfig, clock: Clock) -> Iterator[SandboxCloud]:
    with running(config, clock=clock) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: SandboxCloud, clock: Clock) -> SandboxCloud:
    """The module's cloud, as just started."""
    clock.rewind()
    running_cloud.reset()
    return running_cloud


@pytest.fixture
def new_client(cloud: SandboxCloud) -> Iterator[Callable[..., Client]]:
    """Makes clients, and closes their connections at the end."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(cloud, **options))
        return made[-1]

    yield make
    for client in made:
        client.session.close()


@pytest.fixture
def client(new_client: Callable[..., Client]) -> Client:
    return new_client()
