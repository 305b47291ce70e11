"""What the services may say of things, and sites without a Cinder; what a listing promises is in `tests/contract`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from adapters.cloud import Bulkhead, tags_as_metadata, tags_as_text
from adapters.openstack.adapter import OpenStack
from adapters.openstack.roots import service_root
from adapters.openstack.snapshots import read_snapshot
from adapters.openstack.things import read_address, read_image, read_volume, read_volume_snapshot
from broker.errors import SiteUnknown
from broker.remote import Deadline, Listing, MachineState, RemoteThing, Secret, SiteAddress, Tags, ThingKind
from tests.unit.adapters.openstack.test_session import Cloud, server
from tests.unit.adapters.scripted import Reply, Request, reply

TAGS = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "climate", datetime.now(UTC) + timedelta(days=1))
CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)
VOLUME = {"id": "v", "name": "data", "status": "available", "size": 20, "created_at": "2026-03-01T12:00:00.000000"}
IMAGE = {"id": "i", "name": "disk", "status": "active", "owner": "pid", "visibility": "private", "size": 1024**3}


# --- one thing ---------------------------------------------------------------------------------------------------


def test_a_volume() -> None:
    document = VOLUME | {"user_id": "u", "attachments": [{"server_id": "s"}], "metadata": tags_as_metadata(TAGS)}
    assert read_volume(document) == RemoteThing(
        ThingKind.VOLUME,
        "v",
        "data",
        "available",
        owner="u",
        attached_to="s",
        size_gib=Decimal(20),
        created_at=CREATED,
        tags=TAGS,
    )


@pytest.mark.parametrize(
    ("attachments", "holder"),
    [
        ([], None),
        (None, None),
        ([{"server_id": "b"}, {"server_id": "a"}], "a"),
        ([{"server_id": None, "host_name": "h", "attachment_id": "x"}], "h"),
        ([{"server_id": "", "host_name": None, "attachment_id": "x"}], "x"),
    ],
)
def test_who_has_a_volume(attachments: Any, holder: str | None) -> None:
    assert read_volume(VOLUME | {"attachments": attachments}).attached_to == holder


def test_what_is_not_said_is_not_known() -> None:
    bare = {"id": "v", "name": None, "status": "managing", "size": 0}
    for read, kind in ((read_volume, ThingKind.VOLUME), (read_volume_snapshot, ThingKind.VOLUME_SNAPSHOT)):
        assert read(bare) == RemoteThing(kind, "v", "", "managing")


@pytest.mark.parametrize(
    "wrong", [{"status": None}, {"size": "20"}, {"size": None}, {"attachments": "s"}, {"attachments": [4]}]
)
def test_what_cinder_never_writes_is_unknown(wrong: dict[str, Any]) -> None:
    with pytest.raises(SiteUnknown):
        read_volume(VOLUME | wrong)
    if "attachments" not in wrong:
        with pytest.raises(SiteUnknown):
            read_volume_snapshot(VOLUME | wrong)


@pytest.mark.parametrize(
    ("fields", "holder"),
    [
        ({"port_id": None, "port_details": None}, None),
        ({"port_id": "p"}, "p"),
        ({"port_id": "p", "port_details": {"device_id": ""}}, "p"),
        ({"port_id": "p", "port_details": {"device_id": "s"}}, "s"),
    ],
)
def test_an_address_is_at_its_machine_else_at_its_port(fields: dict[str, Any], holder: str | None) -> None:
    document = {"id": "a", "floating_ip_address": "203.0.113.9", "status": "DOWN", "description": tags_as_text(TAGS)}
    assert read_address(document | fields) == RemoteThing(
        ThingKind.ADDRESS, "a", "203.0.113.9", "DOWN", attached_to=holder, tags=TAGS
    )


@pytest.mark.parametrize(
    ("fields", "size"),
    [({}, Decimal(1)), ({"block_device_mapping": "[{}]", "min_disk": 20}, None), ({"status": "queued"}, None)],
)
def test_an_image_of_the_project(fields: dict[str, Any], size: Decimal | None) -> None:
    document = IMAGE | {"user_id": "u"} | fields
    seen = read_snapshot(document)
    assert seen is not None
    thing = read_image(document, seen)
    assert thing is not None
    assert (thing.kind, thing.owner, thing.size_gib) == (ThingKind.SNAPSHOT, "u", size)


@pytest.mark.parametrize(
    ("service", "url", "root"),
    [
        ("volumev3", "https://c/v3/pid", "https://c/v3/pid"),
        ("volumev3", "https://c/volume/v3/pid/", "https://c/volume/v3/pid"),
        ("volumev3", "https://c/volume/v3", "https://c/volume/v3/pid"),
        ("volumev3", "https://c:8776/", "https://c:8776/v3/pid"),
        ("network", "https://n/v2.0/", "https://n"),
        ("image", "https://i/v2", "https://i"),
        ("compute", "https://n/compute", "https://n/compute/v2.1"),
        ("compute", "https://n/v2.1/pid", "https://n/v2.1/pid"),
    ],
)
def test_where_the_paths_of_a_service_begin(service: str, url: str, root: str) -> None:
    assert service_root(service, url, "pid") == root


# --- the listing -------------------------------------------------------------------------------------------------


class Site(Cloud):
    """One of each; `cinder` is what the catalogue says of it."""

    def __init__(self) -> None:
        super().__init__()
        self.cinder: list[dict[str, Any]] = []
        self.newest_cinder = True
        self.rest = self.answer

    def token(self, value: str) -> Reply:
        made = super().token(value)
        assert isinstance(made.body, bytes)
        document = json.loads(made.body)
        document["token"]["catalog"] += self.cinder
        return reply(document, 201, **{"X-Subject-Token": value})

    def name_cinder(self, kind: str, path: str = "/volume/v3/pid", *, region: str = "R", times: int = 1) -> None:
        ends = [
            {"region": region, "url": f"{self.server.url}{path}{'/' * number}", "interface": "public"}
            for number in range(times)
        ]
        self.cinder.append({"type": kind, "name": "cinder", "endpoints": ends})

    def answer(self, request: Request) -> Reply:
        path, _, query = request.path.partition("?")
        if path == "/volume/v3/pid/snapshots/detail" and not self.newest_cinder:
            version = request.headers.get("openstack-api-version")
            if version is not None:
                message = "Version 3.41 is not supported by the API."
                return reply({"computeFault": {"code": 406, "message": message}}, 406)
        pages: dict[str, tuple[str, list[dict[str, Any]]]] = {
            "/compute/v2.1/servers/detail": ("servers", [server(user_id="u")]),
            "/compute/v2.1/os-keypairs": ("keypairs", []),
            "/network/v2.0/ports": ("ports", []),
            "/network/v2.0/floatingips": ("floatingips", [{"id": "a"}]),
            "/image/v2/images": (
                "images",
                [IMAGE, IMAGE | {"id": "j", "visibility": "public"}, IMAGE | {"id": "k", "owner": "somebody"}],
            ),
            "/volume/v3/pid/volumes/detail": ("volumes", [VOLUME]),
            "/volume/v3/pid/snapshots/detail": ("snapshots", [VOLUME | {"id": "b", "user_id": "u"}]),
        }
        if path not in pages:
            return reply({"itemNotFound": {"code": 404, "message": f"nothing at {path}"}}, 404)
        key, items = pages[path]
        return reply({key: [] if "marker=" in query else items})


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with made.server:
        yield made


@pytest.fixture
def adapter(site: Site) -> Iterator[OpenStack]:
    address = SiteAddress(uuid.uuid4(), "x", "openstack", f"{site.server.url}/v3", "R", uuid.uuid4())
    opened = OpenStack(address, Secret({"username": "u", "password": "geheim", "project_name": "p"}), Bulkhead("x"))
    yield opened
    opened.close()


def kinds(listing: Listing) -> dict[str, str]:
    return {thing.remote_id: str(thing.kind) for thing in listing.things}


BESIDE_CINDER = {"a": "address", "i": "snapshot"}
WITH_CINDER = BESIDE_CINDER | {"v": "volume", "b": "volume_snapshot"}
DISKS = {ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT}


def list_it(adapter: OpenStack) -> Listing:
    return adapter.listing(deadline=Deadline.after(10))


@pytest.mark.parametrize("kind", ["volumev3", "block-storage", "block-store"])
def test_cinder_is_found_under_each_of_its_types(site: Site, adapter: OpenStack, kind: str) -> None:
    site.name_cinder(kind)
    listing = list_it(adapter)
    assert kinds(listing) == WITH_CINDER
    assert [machine.owner for machine in listing.machines] == ["u"]


def test_a_site_without_cinder_has_no_volumes(site: Site, adapter: OpenStack) -> None:
    site.name_cinder("volumev3", region="elsewhere")
    site.name_cinder("volumev2")
    assert kinds(list_it(adapter)) == BESIDE_CINDER


def test_a_cinder_of_which_it_is_unclear_where_it_is_is_no_empty_list(site: Site, adapter: OpenStack) -> None:
    site.name_cinder("volumev3", times=2)
    assert set(list_it(adapter).unread) == DISKS


def test_a_cinder_that_is_not_there_is_no_empty_list(site: Site, adapter: OpenStack) -> None:
    site.name_cinder("volumev3", "/elsewhere/v3")
    listing = list_it(adapter)
    assert set(listing.unread) == DISKS
    assert all("volumes" in why for why in listing.unread.values())


def test_an_older_cinder_does_not_say_whose_a_snapshot_is_but_is_read(site: Site, adapter: OpenStack) -> None:
    site.name_cinder("volumev3")
    assert next(thing.owner for thing in list_it(adapter).things if thing.remote_id == "b") == "u"
    site.newest_cinder = False
    assert kinds(list_it(adapter)) == WITH_CINDER
    versions = [
        request.headers.get("openstack-api-version")
        for request in site.server.requests
        if "/snapshots/detail" in request.path
    ]
    assert versions == ["volume 3.41", "volume 3.41", "volume 3.41", None, None]


def test_of_addresses_only_what_is_shown_is_asked_for(site: Site, adapter: OpenStack) -> None:
    list_it(adapter)
    (first, _) = [request.path for request in site.server.requests if "/floatingips" in request.path]
    assert "fields=port_details" in first
    assert "project_id=pid" in first
    assert "fields=tags" not in first


# --- what changed ------------------------------------------------------------------------------------------------


def test_changes_are_asked_for_from_a_little_earlier_and_tell_deleted_machines_apart(
    site: Site, adapter: OpenStack
) -> None:
    listed = [
        server(id="living", status="SOFT_DELETED"),
        server(id="gone", status="DELETED", **{"OS-SRV-USG:terminated_at": "2026-03-01T12:00:00.000000"}),
        server(id="lost", status="DELETED"),
    ]
    site.rest = lambda request: reply({"servers": [] if "marker=" in request.path else listed})
    seen = adapter.changes(since=CREATED, deadline=Deadline.after(10))
    assert [(machine.remote_id, machine.state) for machine in seen.machines] == [("living", MachineState.DELETING)]
    assert seen.ended == {"gone": CREATED, "lost": None}
    assert seen.scope == "R/pid"
    assert "changes-since=2026-03-01T11%3A55%3A00Z" in site.server.requests[-1].path
