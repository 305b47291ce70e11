"""What a site has to offer: instance types, images, networks, quotas."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from adapters.cloud import foreign
from adapters.openstack.session import Call, Document, Service, Session, get
from broker.errors import SiteError, SiteRefused
from broker.remote import Deadline, RemoteImage, RemoteNetwork, RemoteOffer, RemoteQuota

# --- instance types ----------------------------------------------------------------------------------------------

_WITH_EXTRA_SPECS = "2.61"  # Rocky


def read_offers(session: Session, deadline: Deadline) -> list[RemoteOffer]:
    """Every flavor that is not disabled, with what its extra specs say of accelerators and architecture."""
    doing = "reading the flavors"
    call = get(Service.COMPUTE, "/flavors/detail", doing)
    try:
        newer = Call(call.service, call.method, call.path, doing, microversion=_WITH_EXTRA_SPECS)
        flavors = session.all(newer, "flavors", _if_enabled, deadline)
    except SiteRefused as error:
        if error.http_status != 406:
            raise
        flavors = session.all(call, "flavors", _if_enabled, deadline)
    offers = []
    for flavor in flavors:
        specs = flavor.get("extra_specs")
        if not isinstance(specs, dict):  # before 2.61, or hidden by policy in the list alone
            path = f"/flavors/{flavor['id']}/os-extra_specs"
            specs = session.one(get(Service.COMPUTE, path, doing), "extra_specs", deadline)
        offers.append(read_offer(flavor, {key: str(value) for key, value in specs.items()}, doing))
    return offers


# `trait:HW_CPU_X86_AVX512F`, or of one group of resources: `trait1:...`, `trait_GPU:...`.
_TRAIT = re.compile(r"trait\w*:(?P<name>\w+)\Z")


def _if_enabled(flavor: Document) -> Document | None:
    return None if flavor.get("OS-FLV-DISABLED:disabled") is True else flavor


def read_offer(flavor: Document, specs: dict[str, str], doing: str) -> RemoteOffer:
    """One flavor.

    Raises:
        SiteUnknown: a size is missing or no whole number.
    """
    gpus, model = read_gpus(specs)
    required = (_TRAIT.match(key) for key, value in specs.items() if value == "required")
    traits = tuple(sorted({found["name"] for found in required if found}))
    return RemoteOffer(
        remote_id=flavor["id"],
        name=str(flavor.get("name") or flavor["id"]),
        cores=_size(flavor, "vcpus", doing),
        memory_mib=_size(flavor, "ram", doing),
        disk_gib=_size(flavor, "disk", doing),
        gpus=gpus,
        gpu_model=model,
        arch=read_architecture(specs),
        traits=traits,
    )


def _size(flavor: Document, key: str, doing: str) -> int:
    size = flavor.get(key)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise foreign(doing, f"flavor {flavor['id']} has {key} {size!r}")
    return size


# Placement: resources:CUSTOM_GPU_A100=1, resources2:VGPU=1. PCI: pci_passthrough:alias=a100:2,nic:1.
_RESOURCE = re.compile(r"resources\w*:(?:VGPU|PGPU|CUSTOM_[PV]?GPU(?:_(?P<model>\w+))?)\Z")
_GPU_ALIAS = re.compile(r"gpu|nvidia|amd|instinct|tesla|rtx|(?:^|[^a-z])(?:[abhlptv]\d{1,3}|k80|mi\d+)", re.IGNORECASE)
_GPU_TRAIT = re.compile(r"trait\w*:CUSTOM_(?:\w+_)?GPU_(?P<model>\w+)\Z")


def read_gpus(specs: dict[str, str]) -> tuple[int, str | None]:
    """How many GPUs a flavor has, and their model where the site says it.

    The same cards are often said twice (for Placement and for people): the largest count stands, not the sum.
    """
    counts: dict[str, int] = {"placement": 0, "pci": 0, "egi": 0}
    models: list[str] = []
    for key, value in sorted(specs.items()):
        if resource := _RESOURCE.match(key):
            counts["placement"] += _count(value)
            models += [resource["model"]] if resource["model"] else []
        elif key == "pci_passthrough:alias":
            for alias, _, number in (part.strip().partition(":") for part in value.split(",")):
                if _GPU_ALIAS.search(alias):
                    counts["pci"] += _count(number or "1")
                    models.append(alias)
        elif key == "Accelerator:Type" and value.upper() == "GPU":
            counts["egi"] = _count(specs.get("Accelerator:Number", "1"))
            models += [specs["Accelerator:Model"]] if specs.get("Accelerator:Model") else []
        elif (trait := _GPU_TRAIT.match(key)) and value == "required":
            models.append(trait["model"])
    most = max(counts.values())
    return most, (_model(models[0]) if models and most else None)


def _count(text: str) -> int:
    number = text.strip()
    return int(number) if number.isdecimal() else 0


def _model(text: str) -> str | None:
    model = re.sub(r"[\s_]+", "-", text.strip()).upper()
    return re.sub(r"^(NVIDIA|AMD)-(TESLA-)?", "", model) or None


_ARCH_KEYS = (
    "hw:architecture",
    "hw_architecture",
    "capabilities:cpu_info:arch",
    "capabilities:cpu_arch",
    "architecture",
)
_ARCH_NAMES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}


def read_architecture(specs: dict[str, str]) -> str | None:
    """The processor architecture in `uname -m` words; None where the flavor does not say."""
    for key in _ARCH_KEYS:
        words = specs.get(key, "").lower().split()  # may begin with an operator, as in "s== aarch64"
        if words:
            return _ARCH_NAMES.get(words[-1], words[-1])
    for key, value in specs.items():
        if key.startswith("trait:COMPUTE_ARCH_") and value == "required":
            return key.removeprefix("trait:COMPUTE_ARCH_").lower()
    return None


# --- images ------------------------------------------------------------------------------------------------------

_NOT_BOOTABLE = frozenset({"aki", "ari", "docker"})
_LOGICAL = re.compile(r"[a-z0-9][a-z0-9.+]*\Z")


def read_images(session: Session, deadline: Deadline) -> list[RemoteImage]:
    """Every active image that a machine can start from."""
    call = get(Service.IMAGE, "/v2/images", "reading the images", status="active")
    return session.all(call, "images", read_image, deadline)


def read_image(image: Document) -> RemoteImage | None:
    """One image; None for one that cannot be started (not active, a bare kernel)."""
    if image.get("status") != "active" or image.get("container_format") in _NOT_BOOTABLE:
        return None
    return RemoteImage(
        remote_id=image["id"],
        name=str(image.get("name") or image["id"]),
        logical=None if _is_snapshot(image) else logical_name(image.get("os_distro"), image.get("os_version")),
        min_disk_gib=_whole(image.get("min_disk")),
        min_memory_mib=_whole(image.get("min_ram")),
    )


def _is_snapshot(image: Document) -> bool:
    """Of somebody's machine, whose image's os_distro it inherited. Published, it is as good as any."""
    return image.get("image_type") == "snapshot" and image.get("visibility") != "public"


def logical_name(distro: Any, version: Any) -> str | None:
    """`ubuntu-24.04` from Glance's os_distro and os_version; None unless both are there and plain words."""
    words = [str(text or "").strip().lower().split() for text in (distro, version)]
    if not all(words):
        return None
    name, number = words[0][0], words[1][0]  # "24.04 LTS" is 24.04
    return f"{name}-{number}" if _LOGICAL.match(name) and _LOGICAL.match(number) else None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


# --- networks ----------------------------------------------------------------------------------------------------


def read_networks(session: Session, deadline: Deadline) -> list[RemoteNetwork]:
    """Every network that is up and that this project may use: its own, the shared ones, the external ones."""
    project_id = session.token(deadline).project_id

    def convert(network: Document) -> RemoteNetwork | None:
        return read_network(network, project_id)

    return session.all(get(Service.NETWORK, "/v2.0/networks", "reading the networks"), "networks", convert, deadline)


def read_network(network: Document, project_id: str) -> RemoteNetwork | None:
    """One network; None for one that is down, without addresses, or somebody else's (an administrator sees those)."""
    is_ours = (network.get("project_id") or network.get("tenant_id")) == project_id
    is_shared = network.get("shared") is True
    is_external = network.get("router:external")
    if is_external is None:
        # Neutron's newer policies show this field to the owner alone; but why else would we see a stranger's network.
        is_external = not is_ours and not is_shared
    is_up = network.get("admin_state_up") is not False and network.get("status") in ("ACTIVE", None)
    # The subnets of an external network are its operator's, and not always shown.
    has_addresses = is_external or bool(network.get("subnets", True))
    if not (is_up and has_addresses and (is_ours or is_shared or is_external)):
        return None
    return RemoteNetwork(network["id"], str(network.get("name") or network["id"]), is_external is True)


# --- quotas ------------------------------------------------------------------------------------------------------

_NOVA = {"instances": "instances", "cores": "cores", "ram": "memory_mib"}
_NEUTRON = {"floatingip": "floating_ips", "port": "ports"}
_CINDER = {
    "gigabytes": "volume_gib",
    "volumes": "volumes",
    "snapshots": "snapshots",
}  # what it calls a gigabyte is a GiB


def read_quotas(session: Session, deadline: Deadline) -> list[RemoteQuota]:
    """Nova's quota of servers, Neutron's of addresses and ports, Cinder's of volumes where there is a Cinder.

    Nova's own quota of addresses is a relic, always -1.
    """
    project_id = session.token(deadline).project_id
    nova = get(Service.COMPUTE, f"/os-quota-sets/{project_id}/detail", "reading Nova's quota")
    neutron = get(Service.NETWORK, f"/v2.0/quotas/{project_id}/details.json", "reading Neutron's quota")
    quotas = [
        *_quotas(session.one(nova, "quota_set", deadline), _NOVA, "in_use", nova.doing),
        *_quotas(session.one(neutron, "quota", deadline), _NEUTRON, "used", neutron.doing),
    ]
    cinder = get(Service.VOLUME, f"/os-quota-sets/{project_id}", "reading Cinder's quota", usage="True")
    # Nothing is ordered from it yet: where it fails, what its limits were stays as it was, and the listing says why.
    with contextlib.suppress(SiteError):
        if session.has(Service.VOLUME, deadline):
            quotas += _quotas(session.one(cinder, "quota_set", deadline), _CINDER, "in_use", cinder.doing)
    return quotas


def _quotas(document: Document, names: dict[str, str], used_key: str, doing: str) -> list[RemoteQuota]:
    quotas = []
    for theirs, ours in names.items():
        entry = document.get(theirs)
        if not isinstance(entry, dict):
            raise foreign(doing, f"no {theirs!r}")
        number = _number_in(entry, doing)
        limit = number("limit")
        used = number(used_key) + number("reserved")
        quotas.append(RemoteQuota(ours, None if limit < 0 else Decimal(limit), Decimal(used)))
    return quotas


def _number_in(entry: Document, doing: str) -> Callable[[str], int]:
    def number(key: str) -> int:
        value = entry.get(key, 0 if key == "reserved" else None)
        if isinstance(value, str) and value.isdecimal():  # Neutron's `reserved` is a text in some releases
            return int(value)
        if not isinstance(value, int):
            raise foreign(doing, f"{key!r} is {value!r}")
        return value

    return number
