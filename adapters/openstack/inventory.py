"""What exists: one part by id, the parts of one lease, everything of the project.

Key pairs have no metadata, and belong to the user; their tags ride in the comment of the public key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

from adapters.cloud import ReadSoFar, foreign, lease_in, part_name, tags_in_metadata, tags_in_text, utc
from adapters.openstack import disks, things
from adapters.openstack.faults import says_gone
from adapters.openstack.session import Call, Document, Service, Session, get, json_object, list_of
from adapters.openstack.snapshots import read_owned_image, read_snapshot, snapshots
from adapters.openstack.states import machine_state
from broker.errors import SiteError, SiteUnknown
from broker.ports import Changes
from broker.remote import Deadline, Listing, PartKind, RemoteMachine, RemotePart, RemoteThing, ThingKind
from broker.threads import DaemonThreads

# Service, path and JSON key of one; Glance puts an image under no key.
COLLECTIONS = {
    PartKind.KEY_PAIR: (Service.COMPUTE, "/os-keypairs", "keypair"),
    PartKind.PORT: (Service.NETWORK, "/v2.0/ports", "port"),
    PartKind.SERVER: (Service.COMPUTE, "/servers", "server"),
    PartKind.ADDRESS: (Service.NETWORK, "/v2.0/floatingips", "floatingip"),
    PartKind.SNAPSHOT: (Service.IMAGE, "/v2/images", ""),
    PartKind.VOLUME: (Service.VOLUME, "/volumes", "volume"),
    PartKind.VOLUME_SNAPSHOT: (Service.VOLUME, "/snapshots", "snapshot"),
}


def part_path(kind: PartKind, remote_id: str) -> tuple[Service, str, str]:
    """Service, path and JSON key of one part."""
    service, path, key = COLLECTIONS[kind]
    return service, f"{path}/{quote(remote_id, safe='')}", key


# --- from JSON ---------------------------------------------------------------------------------------------------


def read_server(server: Document) -> RemoteMachine:
    """One server, as the list in detail and the GET by id show it.

    Raises:
        SiteUnknown: a field is of another form than Nova's.
    """
    try:
        fault = server.get("fault")
        return RemoteMachine(
            PartKind.SERVER,
            server["id"],
            server.get("name") or "",
            tags_in_metadata(server.get("metadata")),
            machine_state(server),
            server["status"],
            server["flavor"].get("id"),
            utc(server.get("created")),
            utc(server.get("OS-SRV-USG:launched_at")),
            _addresses(server.get("addresses")),
            fault.get("message") if fault else None,
            server.get("user_id"),
            server.get("tenant_id"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise foreign("reading a server", f"{server.get('id')} is not as Nova writes it") from error


def _addresses(networks: Any) -> tuple[str, ...]:
    """Floating addresses first: they are the ones that a person can reach."""
    if not networks:
        return ()
    entries = [entry for entries in networks.values() for entry in entries]
    if len(entries) == 1:
        return (entries[0]["addr"],)
    entries.sort(key=lambda entry: entry.get("OS-EXT-IPS:type") != "floating")
    return tuple([entry["addr"] for entry in entries])


def _read_port(port: Document) -> RemotePart:
    return RemotePart(PartKind.PORT, port["id"], port.get("name") or "", tags_in_text(port.get("description")))


def _read_address(address: Document) -> RemotePart:
    # Floating IPs have no name; the tags are all there is.
    tags = tags_in_text(address.get("description"))
    return RemotePart(PartKind.ADDRESS, address["id"], part_name(tags.lease) if tags else "", tags)


def _read_key_pair(pair: Document) -> RemotePart:
    return RemotePart(PartKind.KEY_PAIR, pair["name"], pair["name"], tags_in_text(pair.get("public_key")))


_READERS: dict[PartKind, Callable[[Document], RemotePart | None]] = {
    PartKind.KEY_PAIR: _read_key_pair,
    PartKind.PORT: _read_port,
    PartKind.SERVER: read_server,
    PartKind.ADDRESS: _read_address,
    PartKind.SNAPSHOT: read_snapshot,
    PartKind.VOLUME: disks.read_volume,
    PartKind.VOLUME_SNAPSHOT: disks.read_volume_snapshot,
}


def _is_ours(*texts: Any) -> bool:
    """Whether name or description may be of Leeway: quick, because most are not."""
    return any(isinstance(text, str) and "leeway" in text for text in texts)


def _if_ours(part: RemotePart) -> RemotePart | None:
    return part if part.tags or lease_in(part.name) else None


def _our_port(port: Document) -> RemotePart | None:
    return _if_ours(_read_port(port)) if _is_ours(port.get("name"), port.get("description")) else None


def _our_address(address: Document) -> RemotePart | None:
    return _if_ours(_read_address(address)) if _is_ours(address.get("description")) else None


# --- one part ----------------------------------------------------------------------------------------------------


def look(session: Session, kind: PartKind, remote_id: str, deadline: Deadline) -> RemotePart | None:
    """One part; None only where the API itself says that this id does not exist."""
    document = part_document(session, kind, remote_id, deadline)
    return None if document is None else _READERS[kind](document)


def part_document(session: Session, kind: PartKind, remote_id: str, deadline: Deadline) -> Document | None:
    """The JSON of one part, or None as in `look`."""
    service, path, key = part_path(kind, remote_id)
    doing = f"looking at {kind} {remote_id}"
    answer = session.send(Call(service, "GET", path, doing, expect=frozenset({200, 404})), deadline)
    if answer.status == 404:
        if says_gone(answer.body, remote_id):
            return None
        raise SiteUnknown(f"{doing}: a 404 that does not speak of it; it may still exist", http_status=404)
    answered = json_object(answer.body, doing)
    document = answered.get(key) if key else answered
    if not isinstance(document, dict) or document.get("name" if kind is PartKind.KEY_PAIR else "id") != remote_id:
        raise foreign(doing, f"no {kind} {remote_id}")
    return document


# --- what changed ------------------------------------------------------------------------------------------------

# The site's clock may differ from ours; a site check complains from one minute on.
_CLOCKS_DIFFER = timedelta(minutes=5)


def _changed_since(since: datetime, doing: str) -> Call:
    """The request for the servers that changed. Only here Nova shows deleted ones to a project's own users."""
    earlier = f"{(since - _CLOCKS_DIFFER).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return get(Service.COMPUTE, "/servers/detail", doing, **{"changes-since": earlier})


def ended_at(session: Session, server_id: str, *, since: datetime, deadline: Deadline) -> datetime | None:
    """When a deleted server ended; None where Nova does not say: never deleted, purged, or lost without a deletion."""
    call = _changed_since(since, f"asking when server {server_id} ended")

    def ending(server: Document) -> datetime | None:
        is_it = server["id"] == server_id and server.get("status") == "DELETED"
        return utc(server.get("OS-SRV-USG:terminated_at")) if is_it else None

    return next(iter(session.all(call, "servers", ending, deadline)), None)


def changes(session: Session, *, since: datetime, deadline: Deadline) -> Changes:
    """The servers that changed, and the ends of those that were deleted."""
    ended: dict[str, datetime | None] = {}

    def living(server: Document) -> RemoteMachine | None:
        if server.get("status") != "DELETED":
            return read_server(server)
        ended[server["id"]] = utc(server.get("OS-SRV-USG:terminated_at"))
        return None

    call = _changed_since(since, "listing what changed")
    machines = session.all(call, "servers", living, deadline)
    return Changes(scope=scope(session, deadline), machines=tuple(machines), ended=ended)


# --- the parts of a lease ----------------------------------------------------------------------------------------


def find(
    session: Session, kind: PartKind, *, lease: UUID, made: Mapping[PartKind, str], deadline: Deadline
) -> list[RemotePart]:
    """Every part of the kind that carries the lease's name or tags."""
    if kind is PartKind.KEY_PAIR:
        pair = look(session, kind, part_name(lease), deadline)
        return [] if pair is None else [pair]
    if kind is PartKind.SERVER:
        return [*_find_servers(session, lease, made.get(PartKind.PORT), deadline)]
    if kind is PartKind.PORT:
        call = get(Service.NETWORK, "/v2.0/ports", f"searching the port of {lease}", name=part_name(lease))
        ports = session.all(call, "ports", _read_port, deadline)
        return [port for port in ports if _is_of(port, lease)]
    if kind is PartKind.SNAPSHOT:
        return [*snapshots(session, deadline, doing=f"searching the snapshot of {lease}", lease=lease)]
    if kind in (PartKind.VOLUME, PartKind.VOLUME_SNAPSHOT):
        return disks.find_volumes(session, kind, lease=lease, deadline=deadline)
    # All of the project: a description cannot be searched for, and an address may have been moved to another port.
    call = get(Service.NETWORK, "/v2.0/floatingips", f"searching the address of {lease}")
    return [part for part in session.all(call, "floatingips", _read_address, deadline) if _is_of(part, lease)]


def _is_of(part: RemotePart, lease: UUID) -> bool:
    return lease_in(part.name) == lease or (part.tags is not None and part.tags.lease == lease)


def _find_servers(session: Session, lease: UUID, port_id: str | None, deadline: Deadline) -> list[RemoteMachine]:
    """By name, and through the port: who has it is the lease's server, whatever became of its name."""
    doing = f"searching the server of {lease}"
    call = get(Service.COMPUTE, "/servers/detail", doing, name=part_name(lease))
    found = {
        server.remote_id: server
        for server in session.all(call, "servers", read_server, deadline)
        if _is_of(server, lease)
    }
    port = part_document(session, PartKind.PORT, port_id, deadline) if port_id else None
    device = port.get("device_id") if port else None
    if isinstance(device, str) and device and device not in found:
        server = look(session, PartKind.SERVER, device, deadline)
        if isinstance(server, RemoteMachine):
            found[device] = server
    return list(found.values())


# --- everything --------------------------------------------------------------------------------------------------


def scope(session: Session, deadline: Deadline) -> str:
    """Region and project: what the credential can see at all."""
    return f"{session.site.region or ''}/{session.token(deadline).project_id}"


def listing(session: Session, deadline: Deadline, read: ReadSoFar) -> Listing:
    """Everything of the project; of ports and key pairs only what carries a name or tags of Leeway's.

    The lists are read at the same time: four services answer them, and each takes seconds for thousands. `read` counts
    what was read, ours or not.
    """
    token = session.token(deadline)
    servers = get(Service.COMPUTE, "/servers/detail", "listing the servers")
    # `project_id`: an administrator's credential would list everybody's. `fields`: the whole is ten times as long.
    fields = ("id", "name", "description")
    ports = get(Service.NETWORK, "/v2.0/ports", "listing the ports", project_id=token.project_id, fields=fields)
    addresses = get(
        Service.NETWORK,
        "/v2.0/floatingips",
        "listing the addresses",
        project_id=token.project_id,
        fields=things.ADDRESS_FIELDS,
    )
    images = get(Service.IMAGE, "/v2/images", "listing the images", owner=token.project_id)
    every = partial(session.all, read=read)
    with DaemonThreads("listing") as pool:
        parts = (
            pool.submit(_key_pairs, session, deadline),
            pool.submit(every, ports, "ports", _our_port, deadline),
        )
        both = (
            pool.submit(every, addresses, "floatingips", _see_address, deadline),
            pool.submit(every, images, "images", partial(_see_image, token.project_id), deadline),
        )
        others = pool.submit(things.cinder_things, session, deadline, read)
        machines = session.all(servers, "servers", read_server, deadline, read=read)
    seen = [pair for found in both for pair in found.result()]
    volumes, unread = _volumes(others)
    return Listing(
        projects=frozenset({token.project_id}),
        scope=scope(session, deadline),
        machines=tuple(machines),
        parts=(
            *(part for found in parts for part in found.result()),
            *(part for part, _ in seen if part is not None),
            # No snapshot of a volume is made by Leeway: one with our tags got them from somebody who saves ours.
            *filter(
                None,
                (_if_ours(disks.as_part(volume)) for volume in volumes if volume.kind is ThingKind.VOLUME),
            ),
        ),
        things=(
            *(thing for _, thing in seen if thing is not None),
            *volumes,
        ),
        unread=unread,
    )


def _volumes(others: Future[list[RemoteThing]]) -> tuple[list[RemoteThing], dict[ThingKind, str]]:
    """What Cinder has; where it fails or refuses us, that is said, and the machines are not kept waiting for it."""
    try:
        return others.result(), {}
    except SiteError as error:
        return [], dict.fromkeys((ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT), str(error))


def _see_address(address: Document) -> tuple[RemotePart | None, RemoteThing | None]:
    return _our_address(address), things.read_address(address)


def _see_image(owner: str, image: Document) -> tuple[RemotePart | None, RemoteThing | None]:
    seen = read_owned_image(image, owner)
    return (None, None) if seen is None else (_if_ours(seen), things.read_image(image, seen))


def _key_pairs(session: Session, deadline: Deadline) -> list[RemotePart]:
    """Ours among the user's key pairs. At microversion 2.1 their list is not paged."""
    call = get(Service.COMPUTE, "/os-keypairs", "listing the key pairs")
    pairs = list_of(session.read(call, deadline), "keypairs", call.doing, identify=None)
    found = []
    for pair in pairs:
        content = pair.get("keypair")
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise foreign(call.doing, "an item of 'keypairs' has no name")
        part = _if_ours(_read_key_pair(content))
        if part is not None:
            found.append(part)
    return found
