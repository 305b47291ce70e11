"""A sandbox cloud with what `asking` says that every place has, as the real OpenStack of tests/peers has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.sandbox import CloudConfig, running
from adapters.sandbox.config import (
    Capacity,
    FlavorConfig,
    ImageConfig,
    NetworkConfig,
    ProjectConfig,
    QuotaConfig,
    Timing,
    UserConfig,
)
from tests.contract.shapes.asking import READERS, USERS, Place

PASSWORD = "sandbox"

CONFIG = CloudConfig(
    name="shapes",
    projects=(
        ProjectConfig(name="climate"),
        ProjectConfig(name="genomes"),
        ProjectConfig(
            name="tiny", quota=QuotaConfig(instances=1, cores=2, ram_mib=4096, floating_ips=1, volumes=1, volume_gib=10)
        ),
    ),
    users=tuple(
        UserConfig(name=name, password=PASSWORD, **{"reader_of" if name in READERS else "projects": (project,)})
        for name, project in USERS.items()
    ),
    flavors=(
        FlavorConfig(name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1),
        FlavorConfig(name="m1.small", vcpus=1, ram_mib=2048),
        FlavorConfig(name="m1.xlarge", vcpus=8, ram_mib=16384),
        FlavorConfig(
            name="c1.shares", vcpus=4, ram_mib=8192, extra_specs={"hw:cpu_policy": "shared", "quota:cpu_shares": "2048"}
        ),
        FlavorConfig(
            name="x1.nowhere", vcpus=1, ram_mib=32768, disk_gib=1, extra_specs={"resources:CUSTOM_NOWHERE": "1"}
        ),
    ),
    images=(
        ImageConfig(name="cirros", os_distro="cirros", os_version="0.6", properties={"os_type": "linux"}),
        ImageConfig(name="ubuntu-22.04", os_distro="ubuntu", os_version="22.04", properties={"os_type": "linux"}),
    ),
    networks=(
        NetworkConfig(name="public", cidr="203.0.113.0/24", external=True),
        NetworkConfig(name="climate-net", cidr="10.10.0.0/24", project="climate"),
    ),
    # The real one's machines are fake, and a picture of one is never ready.
    timing=Timing(snapshot_seconds=3600, volume_seconds=0.05, rebuild_seconds=0.05),
    capacity=Capacity(cores=100, ram_mib=20_000),
)


@contextmanager
def sandbox_place() -> Iterator[Place]:
    """A sandbox that runs."""
    with running(CONFIG) as cloud:
        yield Place(auth_url=cloud.auth_url, password=PASSWORD, wait_seconds=2, pause_seconds=0.01)
