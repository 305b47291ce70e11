"""What the cloud contains, as data: who may do what where, and what can be started."""

from dataclasses import dataclass, field

from rig.layout import (
    CINDER_PORT,
    GLANCE_PORT,
    KEYSTONE_INTERNAL,
    KEYSTONE_PUBLIC,
    NEUTRON_PORT,
    NOVA_PORT,
    PLACEMENT_PORT,
)

# type: (name, address by interface)
ENDPOINTS = {
    "identity": ("keystone", {"public": KEYSTONE_PUBLIC, "internal": KEYSTONE_INTERNAL, "admin": KEYSTONE_INTERNAL}),
    **{
        kind: (name, dict.fromkeys(("public", "internal", "admin"), url))
        for kind, name, url in (
            ("compute", "nova", f"http://127.0.0.1:{NOVA_PORT}/v2.1"),
            ("image", "glance", f"http://127.0.0.1:{GLANCE_PORT}"),
            ("network", "neutron", f"http://127.0.0.1:{NEUTRON_PORT}"),
            ("placement", "placement", f"http://127.0.0.1:{PLACEMENT_PORT}"),
            ("volumev3", "cinderv3", f"http://127.0.0.1:{CINDER_PORT}/v3/%(project_id)s"),
        )
    },
}


@dataclass(frozen=True)
class Quota:
    """Limits of one project; -1 is unlimited, a limit not named keeps the service's default."""

    compute: dict[str, int]
    network: dict[str, int] = field(default_factory=dict)
    volume: dict[str, int] = field(default_factory=dict)


PROJECTS = {
    "climate": Quota(
        {"instances": 50, "cores": 100, "ram": 409_600},
        {"floatingip": 5, "port": 200},
        {"volumes": 20, "gigabytes": 500},
    ),
    "genomes": Quota(
        {"instances": 10, "cores": 20, "ram": 131_072},
        {"floatingip": 2},
        {"volumes": 5, "gigabytes": 100},
    ),
    # For refusals: the second server, the second address, the second volume.
    "tiny": Quota(
        {"instances": 1, "cores": 2, "ram": 4_096},
        {"floatingip": 1, "port": 5},
        {"volumes": 1, "gigabytes": 10},
    ),
    # For thousands of servers.
    "bulk": Quota(
        {"instances": -1, "cores": -1, "ram": -1, "key_pairs": 1000},
        {"port": -1, "security_group_rule": -1},
        {"volumes": -1, "gigabytes": -1},
    ),
}
# user: project: roles; the first project is the one of the user's clouds.yaml entry.
USERS = {
    "alice": {"climate": ("member",), "genomes": ("member",)},
    "bob": {"genomes": ("member",)},
    "rita": {"climate": ("reader",)},
    "tim": {"tiny": ("member",)},
    "lena": {"bulk": ("member",)},
}
SERVICE_USER = {"services": {"services": ("admin", "service")}}
# An application credential may choose its own secret, so clouds.yaml can be written at any time.
CREDENTIAL_OWNER = "alice"
CREDENTIAL_NAME = "leeway"


@dataclass(frozen=True)
class Flavor:
    """A size; `only_for` makes it private to one project."""

    vcpus: int
    ram_mib: int
    disk_gib: int
    extra_specs: dict[str, str] = field(default_factory=dict)
    only_for: str = ""


FLAVORS = {
    "m1.tiny": Flavor(1, 512, 1),
    "m1.small": Flavor(1, 2_048, 20),
    "m1.medium": Flavor(2, 4_096, 40),
    "m1.large": Flavor(4, 8_192, 80),
    "m1.xlarge": Flavor(8, 16_384, 160),
    "c1.shares": Flavor(4, 8_192, 20, {"hw:cpu_policy": "shared", "quota:cpu_shares": "2048"}),
    "g1.a100": Flavor(
        8,
        65_536,
        100,
        {
            "resources:CUSTOM_GPU_A100": "1",
            "trait:CUSTOM_GPU_NVIDIA_A100": "required",
            # As EGI's sites describe their accelerators.
            "Accelerator:Type": "GPU",
            "Accelerator:Number": "1",
            "Accelerator:Vendor": "NVIDIA",
            "Accelerator:Model": "A100",
        },
    ),
    "g1.genomes": Flavor(4, 8_192, 10, only_for="genomes"),
    # Accepted with 202, then ERROR: no node offers this class.
    "x1.nowhere": Flavor(1, 512, 1, {"resources:CUSTOM_NOWHERE": "1"}),
}
IMAGES: dict[str, dict[str, str | int]] = {
    "cirros": {"os_distro": "cirros", "os_version": "0.6", "os_type": "linux"},
    "ubuntu-22.04": {
        "os_distro": "ubuntu",
        "os_version": "22.04",
        "os_type": "linux",
        "min_disk": 5,
        "eu.egi.cloud.appdb_id": "egi.ubuntu.22.04",
    },
}
IMAGE_BYTES = bytes(65_536)

PUBLIC_NETWORK = ("public", "203.0.113.0/24")
# Each of these projects has NAME-net with one subnet, and a router to the public network.
TENANT_SUBNETS = {"climate": "10.10.0.0/24", "genomes": "10.20.0.0/24", "tiny": "10.30.0.0/24", "bulk": "10.64.0.0/18"}
