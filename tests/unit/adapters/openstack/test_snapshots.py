"""What Glance and Nova may say of an image, and what it means; what a snapshot promises is in `tests/contract`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from adapters.cloud import Bulkhead, part_name
from adapters.openstack.adapter import OpenStack
from adapters.openstack.reading import read_image
from adapters.openstack.snapshots import read_snapshot, snapshot_properties
from broker.errors import SiteRefused, SiteUnknown
from broker.remote import Deadline, MachineSpec, PartKind, Secret, SiteAddress, SnapshotState, Tags
from tests.unit.adapters.openstack.test_session import Cloud
from tests.unit.adapters.scripted import Reply, reply

TAGS = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "climate", datetime.now(UTC) + timedelta(days=1))
NAME = f"disk-{part_name(TAGS.lease)}"
IMAGE_ID = "6f9d3c1c-2f0b-4d0e-8d7e-0e5a3c1b2a49"
SERVER_ID = "5dcc2406-d164-437b-a871-6d3559f8fdc5"
MACHINE = MachineSpec("disk", "flavor", "image")


def image(**fields: Any) -> dict[str, Any]:
    known = {"id": IMAGE_ID, "name": NAME, "status": "active", "owner": "pid", "visibility": "private"}
    return {**known, "instance_uuid": SERVER_ID, **snapshot_properties(TAGS, SERVER_ID), **fields}


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with made.server:
        yield made


@pytest.fixture
def adapter(cloud: Cloud) -> Iterator[OpenStack]:
    address = SiteAddress(uuid.uuid4(), "x", "openstack", f"{cloud.server.url}/v3", "R", uuid.uuid4())
    secret = Secret({"username": "u", "password": "geheim", "project_name": "p"})
    opened = OpenStack(address, secret, Bulkhead("x"))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((word, SnapshotState.SAVING) for word in ("queued", "saving", "importing", "uploading", "of-next-year")),
        ("active", SnapshotState.READY),
        *((word, SnapshotState.FAILED) for word in ("killed", "deactivated", "error")),
    ],
)
def test_the_state_of_an_image(status: str, state: SnapshotState) -> None:
    seen = read_snapshot(image(status=status))
    assert seen is not None
    assert (seen.state, seen.raw_status, seen.tags) == (state, status, TAGS)


@pytest.mark.parametrize("status", ["deleted", "pending_delete"])
def test_what_is_thrown_away_is_gone(status: str) -> None:
    assert read_snapshot(image(status=status)) is None


@pytest.mark.parametrize("wrong", [{"status": None}, {"name": 4}])
def test_what_glance_never_writes_is_unknown(wrong: dict[str, Any]) -> None:
    with pytest.raises(SiteUnknown):
        read_snapshot(image(**wrong))


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"size": 1536 * 1024**2, "virtual_size": 10 * 1024**3, "min_disk": 20}, Decimal("1.5")),
        ({"size": 1, "min_disk": 20}, Decimal("0.001")),
        ({"size": 0, "virtual_size": 3 * 1024**3, "min_disk": 20}, Decimal(3)),
        ({"size": 0, "virtual_size": None, "min_disk": 20}, Decimal(20)),
        ({"size": None, "min_disk": 0}, None),
        ({"size": 1536 * 1024**2, "status": "saving"}, None),
    ],
)
def test_the_size_is_what_it_takes(fields: dict[str, Any], size: Decimal | None) -> None:
    seen = read_snapshot(image(**fields))
    assert seen is not None
    assert seen.size_gib == size


@pytest.mark.parametrize(
    ("fields", "is_ours"),
    [
        ({}, True),
        ({"name": "renamed"}, True),
        ({"instance_uuid": "of a machine with volumes"}, True),
        ({"name": "renamed", "instance_uuid": None}, True),
        ({"name": "by hand", "instance_uuid": "of a child"}, False),
        ({"name": f"{NAME}-shelved", "instance_uuid": "of a child"}, False),
        ({"leeway:lease": None}, False),
    ],
)
def test_tags_are_its_own_unless_they_were_inherited(fields: dict[str, Any], *, is_ours: bool) -> None:
    seen = read_snapshot(image(**fields))
    assert seen is not None
    assert (seen.tags == TAGS) == is_ours


@pytest.mark.parametrize(
    ("fields", "logical"),
    [
        ({}, "ubuntu-24.04"),
        ({"image_type": "snapshot"}, None),
        ({"image_type": "snapshot", "visibility": "public"}, "ubuntu-24.04"),
    ],
)
def test_a_snapshot_is_no_release_of_a_system_unless_published(fields: dict[str, Any], logical: str | None) -> None:
    seen = read_image(image(os_distro="ubuntu", os_version="24.04", **fields))
    assert seen is not None
    assert seen.logical == logical


@pytest.mark.parametrize(
    "answer",
    [
        Reply(202, b"", {"Location": f"http://glance.example/images/{IMAGE_ID}"}),
        reply({"image_id": IMAGE_ID}, 202),  # from microversion 2.45 on
    ],
    ids=["location", "body"],
)
def test_the_id_is_read_from_address_or_body(cloud: Cloud, adapter: OpenStack, answer: Reply) -> None:
    cloud.rest = lambda _: answer
    made = {PartKind.SERVER: SERVER_ID}
    assert adapter.make(PartKind.SNAPSHOT, MACHINE, tags=TAGS, made=made, deadline=soon()) == IMAGE_ID
    (sent,) = [request.document for request in cloud.server.requests if request.path.endswith("/action")]
    assert sent == {"createImage": {"name": NAME, "metadata": snapshot_properties(TAGS, SERVER_ID)}}


@pytest.mark.parametrize(
    "answer", [Reply(202), reply({}, 202), reply({"image_id": None}, 202), Reply(202, b"", {"Location": "/images/"})]
)
def test_a_making_without_an_id_is_unknown(cloud: Cloud, adapter: OpenStack, answer: Reply) -> None:
    cloud.rest = lambda _: answer
    with pytest.raises(SiteUnknown):
        adapter.make(PartKind.SNAPSHOT, MACHINE, tags=TAGS, made={PartKind.SERVER: SERVER_ID}, deadline=soon())


def glance(status: str, message: str) -> Reply:
    body = {"message": f"{message}<br /><br />\n\n\n", "code": status, "title": status.partition(" ")[2]}
    return reply(body, int(status[:3]))


def test_only_glance_itself_says_gone(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: glance("404 Not Found", f"No image found with ID {IMAGE_ID}")
    assert adapter.look(PartKind.SNAPSHOT, IMAGE_ID, deadline=soon()) is None
    cloud.rest = lambda _: glance("404 Not Found", f"Failed to find image {IMAGE_ID} to delete")
    adapter.delete(PartKind.SNAPSHOT, IMAGE_ID, deadline=soon())
    for foreign in (
        glance("404 Not Found", "The resource could not be found."),
        Reply(404, f"<h1>404</h1>The requested URL /v2/images/{IMAGE_ID} was not found.".encode()),
        reply({"message": f"no route for /v2/images/{IMAGE_ID}"}, 404),
    ):
        cloud.rest = lambda _, foreign=foreign: foreign  # type: ignore[misc] # mypy cannot infer a lambda's default
        with pytest.raises(SiteUnknown):
            adapter.look(PartKind.SNAPSHOT, IMAGE_ID, deadline=soon())
        with pytest.raises(SiteUnknown):
            adapter.delete(PartKind.SNAPSHOT, IMAGE_ID, deadline=soon())


def test_a_protected_image_is_no_fault_of_the_credential(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: glance("403 Forbidden", f"Image {IMAGE_ID} is protected and cannot be deleted.")
    with pytest.raises(SiteRefused) as caught:
        adapter.delete(PartKind.SNAPSHOT, IMAGE_ID, deadline=soon())
    assert f"--unprotected {IMAGE_ID}" in (caught.value.hint or "")


def test_a_search_asks_for_the_projects_own_images_and_believes_no_others(cloud: Cloud, adapter: OpenStack) -> None:
    theirs = [image(id="theirs", owner="other"), image(id="none", status="pending_delete")]
    bare = {"id": "bare", "name": NAME, "status": "active", "owner": "pid"}
    pages = iter([[*theirs, bare, image()], []])
    cloud.rest = lambda _: reply({"images": next(pages)})
    found = adapter.find(PartKind.SNAPSHOT, lease=TAGS.lease, made={}, deadline=soon())
    assert {part.remote_id: part.tags for part in found} == {"bare": None, IMAGE_ID: TAGS}
    assert "owner=pid" in cloud.server.requests[-1].path
