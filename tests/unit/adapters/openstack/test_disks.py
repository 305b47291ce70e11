"""What Nova is told of a machine's disks, and what the answers mean; what disks promise is in `tests/contract`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.cloud import Bulkhead, part_name, tags_as_metadata
from adapters.openstack.adapter import OpenStack
from adapters.openstack.disks import read_volume
from broker.errors import SiteBusy, SiteConflict, SiteError, SiteRefused, SiteUnknown
from broker.remote import Deadline, MachineSpec, PartKind, Secret, SiteAddress, Tags
from broker.values import new_id
from tests.unit.adapters.openstack.test_session import Cloud
from tests.unit.adapters.scripted import Reply, Request, reply

TAGS = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "climate", datetime.now(UTC) + timedelta(days=1))
MACHINE = MachineSpec("disk", "flavor", "image", volume_gib=7)
VOLUME, SERVER = "6f9d3c1c-2f0b-4d0e-8d7e-0e5a3c1b2a49", "5dcc2406-d164-437b-a871-6d3559f8fdc5"
MADE = {PartKind.PORT: "port", PartKind.VOLUME: VOLUME}
INVALID = "Invalid volume: Invalid input received: Invalid volume: Volume status must be available"
SECOND = {
    "boot_index": -1,
    "uuid": VOLUME,
    "source_type": "volume",
    "destination_type": "volume",
    "delete_on_termination": False,
}
ROOT = {"boot_index": 0, "uuid": "image", "source_type": "image", "delete_on_termination": True}


class CloudWithVolumes(Cloud):
    """Its catalogue names a Cinder too."""

    def token(self, value: str) -> Reply:
        made = super().token(value)
        assert isinstance(made.body, bytes)
        document = json.loads(made.body)
        endpoint = {"region": "R", "url": f"{self.server.url}/volume/v3/pid", "interface": "public"}
        document["token"]["catalog"].append({"type": "volumev3", "name": "cinder", "endpoints": [endpoint]})
        return reply(document, 201, **{"X-Subject-Token": value})


def soon() -> Deadline:
    return Deadline.after(10)


def volume(status: str = "available", **fields: Any) -> Reply:
    return reply({"volume": {"id": VOLUME, "name": part_name(TAGS.lease), "status": status, "size": 7, **fields}})


def refusal(message: str, status: int = 400) -> Reply:
    return reply({"badRequest" if status == 400 else "fault": {"code": status, "message": message}}, status)


Open = Callable[..., OpenStack]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = CloudWithVolumes()
    with made.server:
        yield made


@pytest.fixture
def bare() -> Iterator[Cloud]:
    """One without a Cinder."""
    made = Cloud()
    with made.server:
        yield made


@pytest.fixture
def open_at() -> Iterator[Open]:
    opened: list[OpenStack] = []

    def open_one(cloud: Cloud, **settings: str) -> OpenStack:
        address = SiteAddress(uuid.uuid4(), "x", "openstack", f"{cloud.server.url}/v3", "R", uuid.uuid4(), settings)
        secret = Secret({"username": "u", "password": "geheim", "project_name": "p"})
        opened.append(OpenStack(address, secret, Bulkhead("x")))
        return opened[-1]

    yield open_one
    for adapter in opened:
        adapter.close()


@pytest.fixture
def adapter(cloud: Cloud, open_at: Open) -> OpenStack:
    return open_at(cloud)


# --- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boot", "second", "fields"),
    [
        (0, 0, {"imageRef": "image"}),
        (0, 7, {"imageRef": "image", "block_device_mapping_v2": [{**ROOT, "destination_type": "local"}, SECOND]}),
        (9, 0, {"block_device_mapping_v2": [{**ROOT, "destination_type": "volume", "volume_size": 9}]}),
        (9, 7, {"block_device_mapping_v2": [{**ROOT, "destination_type": "volume", "volume_size": 9}, SECOND]}),
    ],
)
def test_the_disks_of_a_server(
    cloud: Cloud, adapter: OpenStack, *, boot: int, second: int, fields: dict[str, Any]
) -> None:
    cloud.rest = lambda _: reply({"server": {"id": SERVER}}, 202)
    machine = MachineSpec("disk", "flavor", "image", boot_volume_gib=boot, volume_gib=second)
    adapter.make(PartKind.SERVER, machine, tags=TAGS, made=MADE, deadline=soon())
    sent = cloud.server.requests[-1].document["server"]
    assert {key: sent[key] for key in ("imageRef", "block_device_mapping_v2") if key in sent} == fields


@pytest.mark.parametrize("wanted", [None, "fast"])
def test_a_volume_has_name_size_tags_and_the_type_of_the_setting(
    cloud: Cloud, open_at: Open, wanted: str | None
) -> None:
    cloud.rest = lambda _: reply({"volume": {"id": VOLUME}}, 202)
    adapter = open_at(cloud, **({"volume_type": wanted} if wanted else {}))
    assert adapter.make(PartKind.VOLUME, MACHINE, tags=TAGS, made={}, deadline=soon()) == VOLUME
    request = cloud.server.requests[-1]
    assert (request.method, request.path) == ("POST", "/volume/v3/pid/volumes")
    expected = {"name": part_name(TAGS.lease), "size": 7, "metadata": tags_as_metadata(TAGS)}
    assert request.document == {"volume": expected | ({"volume_type": wanted} if wanted else {})}


def test_a_site_without_cinder_refuses_disks_with_a_hint_and_is_asked_nothing(bare: Cloud, open_at: Open) -> None:
    adapter = open_at(bare)
    booting = MachineSpec("disk", "flavor", "image", boot_volume_gib=9)
    for ask in (
        lambda: adapter.make(PartKind.VOLUME, MACHINE, tags=TAGS, made={}, deadline=soon()),
        lambda: adapter.make(PartKind.SERVER, booting, tags=TAGS, made=MADE, deadline=soon()),
        lambda: adapter.attach(SERVER, VOLUME, deadline=soon()),
        lambda: adapter.detach(SERVER, VOLUME, deadline=soon()),
    ):
        with pytest.raises(SiteRefused, match="no Cinder in the catalogue of region R") as refused:
            ask()
        assert refused.value.hint
    assert [request.path for request in bare.server.requests] == ["/v3/auth/tokens"]


def test_a_search_asks_by_name_and_by_tags_and_believes_neither(cloud: Cloud, adapter: OpenStack) -> None:
    ours = {"id": VOLUME, "name": "renamed", "status": "available", "size": 7, "metadata": tags_as_metadata(TAGS)}
    theirs = {"id": "theirs", "name": "other", "status": "available", "size": 7}
    named = {"id": "named", "name": part_name(TAGS.lease), "status": "available", "size": 7}

    def everything(request: Request) -> Reply:  # as from a Cinder that ignores filters
        return reply({"volumes": [] if "marker=" in request.path else [theirs, named, ours]})

    cloud.rest = everything
    found = adapter.find(PartKind.VOLUME, lease=TAGS.lease, made={}, deadline=soon())
    assert {part.remote_id: part.tags for part in found} == {"named": None, VOLUME: TAGS}
    first = [request.path for request in cloud.server.requests if "/volumes/detail" in request.path][::2]
    assert f"name={part_name(TAGS.lease)}" in first[0]
    assert f"metadata=%7B%27leeway%3Alease%27%3A+%27{TAGS.lease}%27%7D" in first[1]


@pytest.mark.parametrize(
    ("later", "fields", "is_ours"),
    [
        (timedelta(), {}, True),
        (timedelta(minutes=-10), {}, True),  # by a clock that is behind
        (timedelta(minutes=50), {}, True),
        (timedelta(minutes=70), {}, False),  # restored from a backup: Cinder writes the metadata onto it
        (timedelta(), {"snapshot_id": "saved"}, False),
        (timedelta(), {"source_volid": VOLUME}, False),
    ],
)
def test_a_volume_that_holds_what_somebody_saved_is_not_taken_for_ours(
    later: timedelta, fields: dict[str, Any], *, is_ours: bool
) -> None:
    tags = replace(TAGS, attempt=new_id())
    document = {"id": VOLUME, "name": part_name(TAGS.lease), "status": "available", "size": 7} | fields
    document |= {"created_at": f"{datetime.now(UTC) + later:%Y-%m-%dT%H:%M:%S.%f}", "metadata": tags_as_metadata(tags)}
    assert read_volume(document).tags == (tags if is_ours else None)
    assert read_volume(document | {"created_at": None}).tags == (tags if is_ours or not fields else None)


# --- what an answer means ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "disk", "meaning"),
    [
        (INVALID, volume("creating"), SiteBusy),
        (INVALID, volume("detaching"), SiteBusy),
        (INVALID, volume("available"), SiteBusy),  # it was not a moment ago
        (INVALID, volume("reserved"), SiteConflict),
        (INVALID, volume("in-use"), SiteConflict),
        (INVALID, volume("of-next-year"), SiteConflict),
        (INVALID, volume("error"), SiteRefused),
        (INVALID, volume("error_deleting"), SiteRefused),
        ("Flavor's memory is too small for requested image.", volume("available"), SiteRefused),
        (f"Volume {VOLUME} could not be found.", refusal(f"Volume {VOLUME} could not be found.", 404), SiteRefused),
        (INVALID, reply({"somebody": "else"}), SiteUnknown),
        (INVALID, Reply(200, b"<html>"), SiteUnknown),
        (INVALID, Reply(500, b"{}"), SiteUnknown),
    ],
)
def test_why_nova_refuses_a_server_with_a_volume(
    cloud: Cloud, adapter: OpenStack, *, message: str, disk: Reply, meaning: type[SiteError]
) -> None:
    cloud.rest = lambda request: refusal(message) if request.method == "POST" else disk
    with pytest.raises(SiteError) as caught:
        adapter.make(PartKind.SERVER, MACHINE, tags=TAGS, made=MADE, deadline=soon())
    assert type(caught.value) is meaning


@pytest.mark.parametrize(
    ("kind", "disk", "meaning"),
    [
        (PartKind.VOLUME, volume("in-use", attachments=[{"server_id": SERVER}]), SiteConflict),
        (PartKind.VOLUME, volume("reserved"), SiteConflict),
        (PartKind.VOLUME, volume("creating"), SiteBusy),
        (PartKind.VOLUME, volume("available"), SiteRefused),  # it has snapshots, or is being handed over
        (PartKind.VOLUME, volume("deleting"), None),
        (PartKind.VOLUME, refusal(f"Volume {VOLUME} could not be found.", 404), None),
        (PartKind.VOLUME, refusal("The resource could not be found.", 404), SiteUnknown),
        (PartKind.VOLUME, reply({"volume": {"id": VOLUME, "status": 1}}), SiteUnknown),
        (PartKind.VOLUME_SNAPSHOT, reply({"snapshot": {"id": VOLUME, "status": "creating"}}), SiteBusy),
        (PartKind.VOLUME_SNAPSHOT, reply({"snapshot": {"id": VOLUME, "status": "deleting"}}), None),
    ],
)
def test_why_cinder_does_not_delete(
    cloud: Cloud, adapter: OpenStack, *, kind: PartKind, disk: Reply, meaning: type[SiteError] | None
) -> None:
    cloud.rest = lambda request: refusal("Invalid volume: ...") if request.method == "DELETE" else disk
    if meaning is None:
        adapter.delete(kind, VOLUME, deadline=soon())
        return
    with pytest.raises(SiteError) as caught:
        adapter.delete(kind, VOLUME, deadline=soon())
    assert type(caught.value) is meaning


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (f"Instance {SERVER} is not attached to volume {VOLUME}", None),
        (f"Volume {VOLUME} could not be found.", None),
        (f"Instance {SERVER} could not be found.", SiteRefused),
        ("The resource could not be found.", SiteUnknown),
    ],
)
def test_a_404_to_a_detachment_is_told_by_what_it_speaks_of(
    cloud: Cloud, adapter: OpenStack, message: str, meaning: type[SiteError] | None
) -> None:
    cloud.rest = lambda _: refusal(message, 404)
    if meaning is None:
        adapter.detach(SERVER, VOLUME, deadline=soon())
        return
    with pytest.raises(SiteError) as caught:
        adapter.detach(SERVER, VOLUME, deadline=soon())
    assert type(caught.value) is meaning


@pytest.mark.parametrize(("status", "is_fine"), [("detaching", True), ("available", True), ("in-use", False)])
def test_a_refused_detachment_is_fine_where_the_volume_is_going_or_gone(
    cloud: Cloud, adapter: OpenStack, status: str, is_fine: bool
) -> None:
    """For a moment Cinder has the volume back, and Nova still counts it among the server's."""

    def answer(request: Request) -> Reply:
        if request.method == "DELETE":
            return refusal("Invalid volume: Volume status must be 'in-use' and attach_status must be 'attached'")
        attached = reply({"volumeAttachment": {"id": VOLUME, "volumeId": VOLUME, "serverId": SERVER}})
        return attached if "os-volume_attachments" in request.path else volume(status)

    cloud.rest = answer
    if is_fine:
        adapter.detach(SERVER, VOLUME, deadline=soon())
        return
    with pytest.raises(SiteRefused):
        adapter.detach(SERVER, VOLUME, deadline=soon())
