"""Two ready clouds for the demo, for training and for tests: `aurora` and `borealis`.

They differ in what a broker has to tell apart: quotas, flavor names, speed, page size, and a GPU at only one of them.
The passwords are public: these clouds listen on loopback only and hold nothing.
"""

from adapters.sandbox.config import (
    Capacity,
    CloudConfig,
    FlavorConfig,
    ImageConfig,
    NetworkConfig,
    ProjectConfig,
    QuotaConfig,
    Timing,
    UserConfig,
)
from adapters.sandbox.errors import ConfigError

DEMO_PASSWORD = "sandbox"  # noqa: S105 - public on purpose: the clouds behind it are on loopback and empty

_IMAGES = (
    ImageConfig(
        name="Ubuntu 24.04",
        os_distro="ubuntu",
        os_version="24.04",
        size_bytes=614_400_000,
        min_disk_gib=8,
        min_ram_mib=512,
        properties={"architecture": "x86_64", "os_admin_user": "ubuntu"},
    ),
    ImageConfig(
        name="Debian 12",
        os_distro="debian",
        os_version="12",
        size_bytes=440_401_920,
        min_disk_gib=4,
        min_ram_mib=256,
        properties={"architecture": "x86_64", "os_admin_user": "debian"},
    ),
)
_TIMING = Timing(
    build_seconds=3.0,
    bind_seconds=0.5,
    stop_seconds=1.5,
    start_seconds=1.0,
    reboot_seconds=1.5,
    shelve_seconds=2.0,
    unshelve_seconds=2.0,
    snapshot_seconds=3.0,
    suspend_seconds=2.0,
    resize_seconds=3.0,
    rebuild_seconds=3.0,
    delete_seconds=1.0,
    volume_seconds=1.0,
    attach_seconds=1.0,
)


def aurora() -> CloudConfig:
    """A roomy cloud of plain machines."""
    return CloudConfig(
        name="aurora",
        region="aurora-1",
        projects=(
            ProjectConfig(
                name="leeway",
                quota=QuotaConfig(
                    instances=40,
                    cores=160,
                    ram_mib=640 * 1024,
                    ports=200,
                    floating_ips=20,
                    volumes=60,
                    volume_gib=12_000,
                ),
            ),
            ProjectConfig(name="physics", quota=QuotaConfig(instances=10, cores=20, ram_mib=50 * 1024)),
        ),
        users=(
            UserConfig(name="leeway", password=DEMO_PASSWORD, projects=("leeway",)),
            UserConfig(name="alice", password=DEMO_PASSWORD, projects=("leeway", "physics")),
        ),
        flavors=(
            FlavorConfig(name="a1.small", vcpus=2, ram_mib=4096, disk_gib=20),
            FlavorConfig(name="a1.medium", vcpus=4, ram_mib=8192, disk_gib=40),
            FlavorConfig(name="a1.large", vcpus=8, ram_mib=32768, disk_gib=80),
            FlavorConfig(
                name="a1.pinned",
                vcpus=16,
                ram_mib=65536,
                disk_gib=80,
                extra_specs={"hw:cpu_policy": "dedicated"},
            ),
        ),
        images=_IMAGES,
        networks=(
            NetworkConfig(name="public", cidr="203.0.113.0/24", external=True),
            NetworkConfig(name="leeway-net", cidr="10.64.0.0/16", project="leeway"),
            NetworkConfig(name="physics-net", cidr="10.65.0.0/24", project="physics"),
        ),
        timing=_TIMING,
        foreign_servers=2,
        foreign_volumes=3,
        foreign_volume_snapshots=1,
        foreign_addresses=3,
        foreign_images=1,
    )


def borealis() -> CloudConfig:
    """A smaller, slower cloud with one kind of GPU machine and little room for it."""
    gpu = {
        "resources:CUSTOM_GPU_A100": "1",
        "trait:CUSTOM_GPU_NVIDIA_A100": "required",
        "Accelerator:Type": "GPU",
        "Accelerator:Vendor": "NVIDIA",
        "Accelerator:Model": "A100",
        "Accelerator:Number": "1",
    }
    return CloudConfig(
        name="borealis",
        region="north",
        projects=(
            ProjectConfig(
                name="climate", quota=QuotaConfig(instances=12, cores=48, ram_mib=256 * 1024, ports=60, floating_ips=4)
            ),
        ),
        users=(UserConfig(name="leeway", password=DEMO_PASSWORD, projects=("climate",)),),
        flavors=(
            FlavorConfig(name="std.2c4g", vcpus=2, ram_mib=4096, disk_gib=20),
            FlavorConfig(name="std.4c8g", vcpus=4, ram_mib=8192, disk_gib=40),
            FlavorConfig(name="mem.8c32g", vcpus=8, ram_mib=32768, disk_gib=80),
            FlavorConfig(name="gpu.8c64g", vcpus=8, ram_mib=65536, disk_gib=120, extra_specs=gpu),
        ),
        images=_IMAGES,
        networks=(
            NetworkConfig(name="internet", cidr="198.51.100.0/24", external=True),
            NetworkConfig(name="climate-net", cidr="10.80.0.0/16", project="climate"),
        ),
        timing=Timing(
            build_seconds=5.0,
            bind_seconds=1.0,
            stop_seconds=2.0,
            start_seconds=1.5,
            reboot_seconds=2.0,
            shelve_seconds=3.0,
            unshelve_seconds=3.0,
            snapshot_seconds=5.0,
            suspend_seconds=3.0,
            resize_seconds=5.0,
            rebuild_seconds=5.0,
            delete_seconds=2.0,
            volume_seconds=2.0,
            attach_seconds=1.5,
        ),
        capacity=Capacity(cores=64, ram_mib=320 * 1024),
        page_limit=100,
        foreign_servers=3,
        foreign_volumes=4,
        foreign_volume_snapshots=2,
        foreign_addresses=1,
        foreign_images=2,
    )


PROFILES = {"aurora": aurora, "borealis": borealis}


def profile(name: str) -> CloudConfig:
    """The ready configuration of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError(f"profile: no {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]()
