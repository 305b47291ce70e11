"""Making and taking away the parts of a machine.

The fence is the port: it is made first, and Nova refuses a second server on it, at once (409) or by an ERROR while it
builds. A second port is harmless: nothing runs on it and nothing is paid for it. A second empty volume is harmless too:
it is no machine, and nobody would keep it; but it costs until the next sweep discards it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from adapters.cloud import foreign, part_name, tags_as_metadata, tags_as_text
from adapters.openstack import disks
from adapters.openstack.actions import act
from adapters.openstack.faults import says_gone
from adapters.openstack.groups import GroupChoice
from adapters.openstack.inventory import COLLECTIONS, part_document, part_path
from adapters.openstack.networks import NetworkChoice
from adapters.openstack.session import Call, Document, Session, json_object
from adapters.openstack.snapshots import snapshot_properties
from adapters.wire import Answer
from broker.errors import SiteBusy, SiteConflict, SiteDenied, SiteRefused, SiteUnknown
from broker.remote import Deadline, Fence, MachineSpec, PartKind, PartSpec, Tags

_MADE = frozenset({200, 201, 202})
_HOST_NAME = 63  # RFC 1123; cloud-init makes the server's name the host's
_TAKEN_AWAY = frozenset({202, 204, 404})


def plan(machine: MachineSpec, fence: Fence = Fence.PART) -> tuple[PartSpec, ...]:
    """The parts in order: with fence PART a port before the server, else none. A key pair's name is its user's own.

    A root disk that is a volume is no part: Nova makes it with the server, and takes it away with it.
    """
    key_pair = (PartSpec(PartKind.KEY_PAIR, Fence.NAME, is_harmless=True),) if machine.ssh_key else ()
    port = (PartSpec(PartKind.PORT, Fence.NONE, is_harmless=True),) if fence is Fence.PART else ()
    volume = (PartSpec(PartKind.VOLUME, Fence.NONE, is_harmless=True),) if machine.volume_gib else ()
    address = (PartSpec(PartKind.ADDRESS, Fence.NONE, is_harmless=True),) if machine.public_address else ()
    return (*key_pair, *port, *volume, PartSpec(PartKind.SERVER, fence, is_harmless=False), *address)


class Launcher:
    """Sends the one request that makes a part."""

    def __init__(self, session: Session, networks: NetworkChoice) -> None:
        """Send nothing yet."""
        self._session = session
        self._networks = networks
        self._groups = GroupChoice(session)

    def make(
        self, kind: PartKind, machine: MachineSpec, *, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline
    ) -> str:
        """Make one part; its remote id."""
        if kind is PartKind.KEY_PAIR:
            return self._make_key_pair(machine, tags, deadline)
        if kind is PartKind.PORT:
            return self._make_port(tags, deadline)
        if kind is PartKind.VOLUME:
            return self._make_volume(machine, tags, deadline)
        if kind is PartKind.ADDRESS:
            return self._make_address(tags, id_of(made, PartKind.PORT), deadline)
        if kind is PartKind.SNAPSHOT:
            return self._make_snapshot(machine, tags, id_of(made, PartKind.SERVER), deadline)
        return self._make_server(machine, tags, made, deadline)

    def _make_key_pair(self, machine: MachineSpec, tags: Tags, deadline: Deadline) -> str:
        name = part_name(tags.lease)
        public_key = (machine.ssh_key or "").strip()
        body = {"name": name, "public_key": f"{public_key} {tags_as_text(tags)}"}
        try:
            made = self._create(PartKind.KEY_PAIR, body, deadline)
        except SiteConflict:
            # Of an earlier attempt, if it holds the same key. Anybody else's key must not open our machine.
            there = part_document(self._session, PartKind.KEY_PAIR, name, deadline)
            if there is None or _key_itself(there.get("public_key")) != _key_itself(public_key):
                raise
            made = there
        if made.get("name") != name:
            raise foreign("making the key pair", f"it is called {made.get('name')!r}")
        return name

    def _make_port(self, tags: Tags, deadline: Deadline) -> str:
        port: Document = {
            "name": part_name(tags.lease),
            "description": tags_as_text(tags),
            "network_id": self._networks.inner(deadline),
            "admin_state_up": True,
        }
        groups = self._groups.security(deadline)
        if groups:
            port["security_groups"] = groups
        try:
            return self._create_with_id(PartKind.PORT, port, deadline)
        except SiteRefused:
            self._networks.forget()
            raise

    def _make_volume(self, machine: MachineSpec, tags: Tags, deadline: Deadline) -> str:
        disks.require_cinder(self._session, "making the volume", deadline)
        wanted = disks.volume(machine, tags, self._session.site.settings.get(disks.VOLUME_TYPE))
        return self._create_with_id(PartKind.VOLUME, wanted, deadline)

    def _make_address(self, tags: Tags, port_id: str, deadline: Deadline) -> str:
        address: Document = {
            "floating_network_id": self._networks.outer(deadline),
            "port_id": port_id,
            "description": tags_as_text(tags),
        }
        try:
            return self._create_with_id(PartKind.ADDRESS, address, deadline)
        except SiteRefused as error:
            self._networks.forget()
            if error.http_status == 404:
                error.hint = "The machine's network needs a router to the external network."
            raise

    def _make_server(self, machine: MachineSpec, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline) -> str:
        server = self._server(machine, tags, made) | {"networks": [{"port": id_of(made, PartKind.PORT)}]}
        return self._send_server(server, machine, made, deadline)

    def _send_server(
        self,
        server: Document,
        machine: MachineSpec,
        made: Mapping[PartKind, str],
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Have Nova make the server. Why it refuses one with a second disk is asked of the disk."""
        volume = disks.made_volume(machine, made)
        if machine.boot_volume_gib:
            disks.require_cinder(self._session, "making the server", deadline)
        group = self._groups.server(deadline)
        hints = {"os:scheduler_hints": {"group": group}} if group else {}
        try:
            return self._create_with_id(PartKind.SERVER, server, deadline, headers=headers, beside=hints)
        except SiteRefused as error:
            if volume is None or error.http_status != 400:
                raise
            raise disks.why_refused(self._session, volume, error, deadline) from error

    def _server(self, machine: MachineSpec, tags: Tags, made: Mapping[PartKind, str]) -> Document:
        """The server as it is asked for, save its networks."""
        settings = self._session.site.settings
        server: Document = {
            "name": server_name(machine.name, tags),
            "flavorRef": machine.instance_type,
            "metadata": tags_as_metadata(tags),
            **disks.boots_from(machine, disks.made_volume(machine, made)),
        }
        if PartKind.KEY_PAIR in made:
            server["key_name"] = made[PartKind.KEY_PAIR]
        if machine.user_data is not None:
            server["user_data"] = base64.b64encode(machine.user_data.encode()).decode("ascii")
        if settings.get("availability_zone"):
            server["availability_zone"] = settings["availability_zone"]
        return server

    def _make_snapshot(self, machine: MachineSpec, tags: Tags, server_id: str, deadline: Deadline) -> str:
        """Have Nova make an image of the server's disk. It is called as the server is, so that people know it by name.

        Raises:
            SiteBusy: the server does something else, or is in a state of which Nova makes no images. A refused making
                of any other part may mean that it is there already; of images there may be any number.
            SiteRefused: the machine boots from a volume. Nova would make snapshots in Cinder, without our tags, which
                no deletion of the image takes away, and which keep the volume from going with the machine.
        """
        if machine.boot_volume_gib:
            hint = "Save what is on it to another place; only disks of the instance type's own are kept as images."
            raise SiteRefused("making the snapshot: the machine's disk is a volume", hint=hint)
        image = {"name": server_name(machine.name, tags), "metadata": snapshot_properties(tags, server_id)}
        try:
            return _image_id(act(self._session, server_id, "createImage", deadline, argument=image))
        except SiteConflict as error:
            raise SiteBusy(error.detail, http_status=error.http_status) from error

    def _create_with_id(
        self,
        kind: PartKind,
        body: Document,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        beside: Document | None = None,
    ) -> str:
        """Only the id leaves this function: the answer for a server holds adminPass."""
        remote_id = self._create(kind, body, deadline, headers=headers, beside=beside).get("id")
        if not isinstance(remote_id, str) or not remote_id:
            raise foreign(f"making the {kind}", "no id")
        return remote_id

    def _create(
        self,
        kind: PartKind,
        body: Document,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        beside: Document | None = None,
    ) -> Document:
        """`beside` is what the document holds beside the thing itself."""
        service, path, key = COLLECTIONS[kind]
        doing = f"making the {kind}"
        document = {key: body, **(beside or {})}
        call = Call(service, "POST", path, doing, body=document, expect=_MADE, headers=headers or {})
        made = json_object(self._session.send(call, deadline).body, call.doing).get(key)
        if not isinstance(made, dict):
            raise foreign(call.doing, f"no object {key!r}")
        return made

    def delete(self, kind: PartKind, remote_id: str, deadline: Deadline) -> None:
        """Ask for deletion; gone already is fine."""
        service, path, _ = part_path(kind, remote_id)
        doing = f"deleting {kind} {remote_id}"
        call = Call(service, "DELETE", path, doing, expect=_TAKEN_AWAY)
        try:
            answer = self._session.send(call, deadline)
        except SiteDenied as error:
            if kind is not PartKind.SNAPSHOT or "protected" not in error.detail:
                raise
            hint = f"Somebody protected it: `openstack image set --unprotected {remote_id}`, or keep it."
            raise SiteRefused(error.detail, hint=hint, http_status=error.http_status) from error
        except SiteConflict:
            if kind is not PartKind.SERVER or not self._delete_for_good(remote_id, deadline):
                raise
            return
        except SiteRefused as error:
            if kind not in (PartKind.VOLUME, PartKind.VOLUME_SNAPSHOT) or error.http_status != 400:
                raise
            reason = disks.why_it_stays(kind, part_document(self._session, kind, remote_id, deadline), error)
            if reason is not None:
                raise reason from error
            return
        if answer.status == 404 and not says_gone(answer.body, remote_id):
            raise SiteUnknown(f"{doing}: a 404 that does not speak of it; it may still exist", http_status=404)

    def _delete_for_good(self, server_id: str, deadline: Deadline) -> bool:
        """Where a site keeps deleted servers for a while, a second DELETE is a conflict; they count until reclaimed."""
        server = part_document(self._session, PartKind.SERVER, server_id, deadline)
        if server is None:
            return True
        if server.get("OS-EXT-STS:task_state") in ("deleting", "soft-deleting"):
            return True
        if server.get("status") != "SOFT_DELETED":
            return False
        act(self._session, server_id, "forceDelete", deadline)
        return True


def id_of(made: Mapping[PartKind, str], kind: PartKind) -> str:
    """The id of a part that another one is made on.

    Raises:
        SiteRefused: it was not made.
    """
    if kind not in made:
        raise SiteRefused(f"making a part on the {kind}: there is no {kind} yet; make the parts in the plan's order")
    return made[kind]


def _key_itself(text: object) -> list[str]:
    """Type and body of a public key; the comment is not part of it."""
    return text.split()[:2] if isinstance(text, str) else []


def server_name(name: str, tags: Tags) -> str:
    """The person's name for it, as far as a host name allows, and the lease's."""
    ending = part_name(tags.lease)
    readable = re.sub(r"[^a-z0-9-]+", "-", name.lower())[: _HOST_NAME - len(ending) - 1].strip("-")
    return f"{readable}-{ending}" if readable else ending


def _image_id(answer: Answer) -> str:
    """The image that `createImage` began: in the body from microversion 2.45 on, before at the end of the Location."""
    doing = "making the snapshot"
    if answer.body.strip():
        remote_id = json_object(answer.body, doing).get("image_id")
    else:
        remote_id = urlsplit(answer.headers.get("location", "")).path.rpartition("/")[2]
    if not isinstance(remote_id, str) or not remote_id:
        raise foreign(doing, "no id of an image")
    return remote_id
