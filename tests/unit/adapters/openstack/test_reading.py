"""What flavors, images, networks, states and error documents say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.cloud import Fault, error_for
from adapters.openstack.faults import read_fault, says_gone
from adapters.openstack.networks import choose
from adapters.openstack.reading import (
    logical_name,
    read_architecture,
    read_gpus,
    read_image,
    read_network,
    read_offer,
)
from adapters.openstack.states import machine_state
from broker.errors import SiteCapacity, SiteConflict, SiteDenied, SiteQuota, SiteRefused, SiteUnknown
from broker.remote import MachineState, RemoteNetwork

FLAVOR = {"id": "f1", "name": "gpu.8c", "vcpus": 8, "ram": 65536, "disk": 120}


@pytest.mark.parametrize(
    ("specs", "gpus", "model"),
    [
        ({}, 0, None),
        ({"hw:cpu_policy": "dedicated"}, 0, None),
        ({"resources:CUSTOM_GPU_A100": "2"}, 2, "A100"),
        ({"resources:CUSTOM_PGPU_NVIDIA_H100": "1"}, 1, "H100"),
        ({"resources1:VGPU": "1", "trait:CUSTOM_GPU_NVIDIA_T4": "required"}, 1, "T4"),
        ({"resources1:VGPU": "1", "trait1:CUSTOM_GPU_NVIDIA_T4": "required"}, 1, "T4"),
        ({"resources:VGPU": "1"}, 1, None),
        ({"resources:CUSTOM_BAREMETAL": "1"}, 0, None),
        ({"pci_passthrough:alias": "a100:2"}, 2, "A100"),
        ({"pci_passthrough:alias": "nvidia_tesla_v100"}, 1, "V100"),
        ({"pci_passthrough:alias": "t4:1, mlx5:2"}, 1, "T4"),
        ({"pci_passthrough:alias": "mlx5:2"}, 0, None),
        ({"pci_passthrough:alias": "nvme:1"}, 0, None),
        ({"Accelerator:Type": "GPU", "Accelerator:Number": "4", "Accelerator:Model": "A40"}, 4, "A40"),
        ({"Accelerator:Type": "FPGA", "Accelerator:Number": "4"}, 0, None),
        (
            {
                "resources:CUSTOM_GPU_A100": "1",
                "trait:CUSTOM_GPU_NVIDIA_A100": "required",
                "Accelerator:Type": "GPU",
                "Accelerator:Model": "A100",
                "Accelerator:Number": "1",
            },
            1,
            "A100",
        ),
        ({"trait:CUSTOM_GPU_NVIDIA_A100": "required"}, 0, None),
        ({"resources:CUSTOM_GPU_A100": "many"}, 0, None),
    ],
)
def test_gpus_are_read_from_each_dialect_and_counted_once(specs: dict[str, str], gpus: int, model: str | None) -> None:
    assert read_gpus(specs) == (gpus, model)


@pytest.mark.parametrize(
    ("specs", "arch"),
    [
        ({}, None),
        ({"hw:architecture": "arm64"}, "aarch64"),
        ({"capabilities:cpu_info:arch": "s== x86_64"}, "x86_64"),
        ({"trait:COMPUTE_ARCH_AARCH64": "required"}, "aarch64"),
        ({"trait:COMPUTE_ARCH_AARCH64": "forbidden"}, None),
    ],
)
def test_the_architecture_is_none_unless_the_flavor_says_it(specs: dict[str, str], arch: str | None) -> None:
    assert read_architecture(specs) == arch


def test_an_offer_has_its_sizes_and_required_traits() -> None:
    specs = {
        "trait:HW_CPU_X86_AVX512F": "required",
        "trait1:CUSTOM_GPU_NVIDIA_T4": "required",
        "trait:COMPUTE_STATUS": "forbidden",
    }
    offer = read_offer(FLAVOR, specs, "reading")
    assert (offer.cores, offer.memory_mib, offer.disk_gib, offer.gpus) == (8, 65536, 120, 0)
    assert offer.traits == ("CUSTOM_GPU_NVIDIA_T4", "HW_CPU_X86_AVX512F")


@pytest.mark.parametrize("wrong", [None, "8", -1, True, 1.5])
def test_a_size_that_is_no_number_is_unknown_and_never_zero(wrong: Any) -> None:
    with pytest.raises(SiteUnknown, match="vcpus"):
        read_offer({**FLAVOR, "vcpus": wrong}, {}, "reading")


@pytest.mark.parametrize(
    ("distro", "version", "name"),
    [
        ("ubuntu", "24.04", "ubuntu-24.04"),
        ("Ubuntu", "24.04 LTS", "ubuntu-24.04"),
        ("debian", "12", "debian-12"),
        ("debian", None, None),
        (None, "12", None),
        ("", "", None),
        ("rocky linux", "9.4", "rocky-9.4"),
        ("../etc", "1", None),
    ],
)
def test_the_logical_name_comes_from_both_properties(distro: Any, version: Any, name: str | None) -> None:
    assert logical_name(distro, version) == name


def test_only_images_that_can_start_count() -> None:
    image = {"id": "i", "name": "x", "status": "active", "container_format": "bare", "min_disk": 8, "min_ram": 512}
    read = read_image(image)
    assert read is not None
    assert (read.min_disk_gib, read.min_memory_mib) == (8, 512)
    assert read_image({**image, "status": "queued"}) is None
    assert read_image({**image, "container_format": "aki"}) is None


NETWORK = {
    "id": "n",
    "name": "net",
    "project_id": "me",
    "shared": False,
    "router:external": False,
    "status": "ACTIVE",
    "admin_state_up": True,
    "subnets": ["s"],
}
OURS = RemoteNetwork("n", "net", is_external=False)
OUTER = RemoteNetwork("n", "net", is_external=True)


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, OURS),
        ({"project_id": "them"}, None),
        ({"project_id": "them", "shared": True}, OURS),
        ({"project_id": "them", "router:external": True, "subnets": []}, OUTER),
        ({"project_id": "them", "router:external": None}, OUTER),
        ({"router:external": None}, OURS),
        ({"project_id": "them", "shared": True, "router:external": None}, OURS),
        ({"subnets": []}, None),
        ({"status": "DOWN"}, None),
        ({"admin_state_up": False}, None),
    ],
)
def test_networks_that_can_be_used(changes: dict[str, Any], read: RemoteNetwork | None) -> None:
    assert read_network({**NETWORK, **changes}, "me") == read


A, B = RemoteNetwork("1", "a", is_external=False), RemoteNetwork("2", "b", is_external=False)
TWIN, WAN = RemoteNetwork("3", "a", is_external=False), RemoteNetwork("4", "wan", is_external=True)


def test_the_only_network_is_taken_and_a_named_one_before_it() -> None:
    assert choose([A, WAN], None, is_external=False) == A
    assert choose([A, B, WAN], "b", is_external=False) == B
    assert choose([A, TWIN], "3", is_external=False) == TWIN
    assert choose([A, WAN], None, is_external=True) == WAN
    assert choose([A, WAN], "wan", is_external=False) == WAN, "some sites put machines on it"


@pytest.mark.parametrize(
    ("networks", "wanted", "words"),
    [
        ([A, B], None, ["a (1)", "b (2)", "setting network"]),
        ([A, TWIN], "a", ["2 networks are called", "a (1)", "a (3)"]),
        ([A, B], "c", ["there is no network 'c'", "a (1)"]),
        ([WAN], None, ["there is no network for machines"]),
    ],
)
def test_an_unclear_network_is_refused_with_the_names_to_choose_from(
    networks: list[RemoteNetwork], wanted: str | None, words: list[str]
) -> None:
    with pytest.raises(SiteRefused) as caught:
        choose(networks, wanted, is_external=False)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("server", "state"),
    [
        ({"status": "ACTIVE"}, MachineState.RUNNING),
        ({"status": "ACTIVE", "OS-EXT-STS:task_state": "deleting"}, MachineState.DELETING),
        ({"status": "ACTIVE", "OS-EXT-STS:task_state": "powering-off"}, MachineState.RUNNING),
        ({"status": "BUILD"}, MachineState.BUILDING),
        ({"status": "REBUILD"}, MachineState.BUILDING),
        ({"status": "SHUTOFF"}, MachineState.STOPPED),
        ({"status": "PAUSED"}, MachineState.STOPPED),
        ({"status": "SUSPENDED"}, MachineState.STOPPED),
        ({"status": "SHELVED"}, MachineState.STOPPED),
        ({"status": "SHELVED_OFFLOADED"}, MachineState.SHELVED),
        ({"status": "SOFT_DELETED"}, MachineState.DELETING),
        ({"status": "DELETED"}, MachineState.DELETING),
        ({"status": "ERROR"}, MachineState.ERROR),
        ({"status": "RESIZE"}, MachineState.RUNNING),
        ({"status": "VERIFY_RESIZE"}, MachineState.RUNNING),
        ({"status": "MIGRATING"}, MachineState.RUNNING),
        ({"status": "RESCUE"}, MachineState.RUNNING),
        ({"status": "UNKNOWN", "OS-EXT-STS:vm_state": "paused"}, MachineState.STOPPED),
        ({"status": "UNKNOWN", "OS-EXT-STS:vm_state": None}, MachineState.UNKNOWN),
        ({"status": "HIBERNATING"}, MachineState.UNKNOWN),
        ({}, MachineState.UNKNOWN),
    ],
)
def test_states_are_told_and_an_unknown_one_is_unknown(server: dict[str, Any], state: MachineState) -> None:
    assert machine_state(server) is state


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"badRequest": {"code": 400, "message": " no "}}, Fault("badRequest", "no")),
        (
            {"forbidden": {"code": 403, "message": "Quota exceeded for cores: Requested 8, but already used 2 of 8"}},
            Fault("forbidden", "Quota exceeded for cores: Requested 8, but already used 2 of 8", SiteQuota),
        ),
        (
            {"forbidden": {"code": 403, "message": "Maximum number of ports exceeded"}},
            Fault("forbidden", "Maximum number of ports exceeded", SiteQuota),
        ),
        (
            {"conflictingRequest": {"code": 409, "message": "Port p is still in use."}},
            Fault("conflictingRequest", "Port p is still in use.", SiteConflict),
        ),
        (
            {"NeutronError": {"type": "OverQuota", "message": "Too many ['port'].", "detail": ""}},
            Fault("OverQuota", "Too many ['port'].", SiteQuota),
        ),
        (
            {"NeutronError": {"type": "IpAddressGenerationFailure", "message": "None left.", "detail": ""}},
            Fault("IpAddressGenerationFailure", "None left.", SiteCapacity),
        ),
        (
            {
                "overLimit": {
                    "code": 413,
                    "message": "Maximum number of volumes allowed (1) exceeded for quota 'volumes'.",
                }
            },
            Fault("overLimit", "Maximum number of volumes allowed (1) exceeded for quota 'volumes'.", SiteQuota),
        ),
        (
            {"overLimit": {"code": 413, "message": "This request was rate-limited.", "retryAfter": "3"}},
            Fault("overLimit", "This request was rate-limited."),
        ),
        ({"NeutronError": "old"}, Fault("NeutronError", "old")),
        ({"error": {"code": 404, "message": "no", "title": "Not Found"}}, Fault("error", "no")),
        (
            {"message": "No image found with ID 4-2<br /><br />\n\n\n", "code": "404 Not Found", "title": "Not Found"},
            Fault("Not Found", "No image found with ID 4-2"),
        ),
        ({"message": 1, "code": "404 Not Found", "title": "Not Found"}, None),
        ({"message": "proxy says no"}, None),
        ({"a": {"message": "x"}, "b": 1}, None),
        ({"a": {"message": 1}}, None),
        ({}, None),
        ([], None),
        ("x", None),
    ],
)
def test_error_documents_are_told_from_foreign_ones(document: Any, fault: Fault | None) -> None:
    assert read_fault(json.dumps(document).encode()) == fault


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("Instance quota-test-leeway-1 already exists.", SiteConflict),
        ("Key pair 'quota' already exists.", SiteConflict),
        ("Port 1 is still in use.", SiteConflict),
        ("The client token was used before, for a request with other parameters.", SiteConflict),
        ("Conflict: somebody else is at it.", SiteConflict),
        ("Multiple possible networks found, use a Network ID to be more specific.", SiteRefused),
        ("More than one possible network found. Specify network ID(s) to select which one(s) to use.", SiteRefused),
        ("Multiple security_group matches found for name 'x', use an ID to be more specific.", SiteRefused),
        ("No Unique Match Found.", SiteRefused),
        ("Quota exceeded, too many servers in group", SiteQuota),
        ("No more IP addresses available on network 1.", SiteCapacity),
    ],
)
def test_a_409_is_a_conflict_unless_its_words_say_that_nothing_can_be_there(message: str, meaning: type) -> None:
    body = json.dumps({"conflictingRequest": {"code": 409, "message": message}}).encode()
    assert type(error_for(409, {}, read_fault(body), doing="making")) is meaning


@pytest.mark.parametrize(
    ("kind", "meaning"),
    [
        ("OverQuota", SiteQuota),
        ("IpAddressInUse", SiteRefused),
        ("MacAddressInUse", SiteRefused),
        ("IpAddressGenerationFailure", SiteCapacity),
        ("PortInUse", SiteConflict),
        ("FloatingIPPortAlreadyAssociated", SiteConflict),
        ("SomethingNew", SiteConflict),
    ],
)
def test_a_409_of_neutron_is_told_by_its_type(kind: str, meaning: type) -> None:
    body = json.dumps({"NeutronError": {"type": kind, "message": "No.", "detail": ""}}).encode()
    assert type(error_for(409, {}, read_fault(body), doing="making")) is meaning


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff\xfe", b"[" * 1_000_000, b'{"a":' * 1_000_000])
def test_what_is_no_json_is_no_fault(body: bytes) -> None:
    assert read_fault(body) is None


@pytest.mark.parametrize(
    "document",
    [
        {"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:os-quota-sets:show."}},
        {"forbidden": {"code": 403, "message": "Policy doesn't allow volume_extension:quotas:show to be performed."}},
        {"NeutronError": {"type": "PolicyNotAuthorized", "message": "rule:get_quota is disallowed by policy"}},
    ],
)
def test_a_rule_about_quotas_is_no_quota_that_is_used_up(document: dict[str, Any]) -> None:
    fault = read_fault(json.dumps(document).encode())
    assert type(error_for(403, {}, fault, doing="reading the quota")) is SiteDenied


def test_absence_needs_the_id() -> None:
    gone = json.dumps({"itemNotFound": {"code": 404, "message": "Instance 4-2 could not be found."}}).encode()
    assert says_gone(gone, "4-2")
    assert not says_gone(gone, "4-3")
    assert not says_gone(b"<html>4-2</html>", "4-2")
