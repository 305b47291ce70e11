"""What can be done to a server that is there: power, memory, size, disk.

Nova takes an action (202) and does it later. Asking for what is so already, or is being done, is a conflict to Nova and
fine here: so an action whose answer was lost is simply asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.cloud import foreign
from adapters.openstack.inventory import part_document, part_path
from adapters.openstack.session import Call, Document, Service, Session, get, list_of
from adapters.wire import Answer
from broker.errors import SiteConflict, SiteRefused
from broker.remote import Deadline, PartKind


def act(
    session: Session, server_id: str, action: str, deadline: Deadline, *, argument: Document | None = None
) -> Answer:
    """One action of Nova on a server; its answer."""
    path = f"{part_path(PartKind.SERVER, server_id)[1]}/action"
    call = Call(
        Service.COMPUTE,
        "POST",
        path,
        f"{action} of server {server_id}",
        body={action: argument},
        expect=frozenset({202, 204}),
    )
    return session.send(call, deadline)


def _server(session: Session, server_id: str, doing: str, deadline: Deadline) -> Document:
    server = part_document(session, PartKind.SERVER, server_id, deadline)
    if server is None:
        raise SiteRefused(f"{doing}: there is no server {server_id}", http_status=404)
    return server


# --- power and memory --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Goal:
    """Nova's `status` once an action worked, and its `task_state` meanwhile."""

    there: frozenset[str]
    under_way: frozenset[str]


_RUNS = frozenset({"ACTIVE"})
_GOALS = {
    "os-stop": _Goal(frozenset({"SHUTOFF"}), frozenset({"powering-off"})),
    "os-start": _Goal(_RUNS, frozenset({"powering-on"})),
    "suspend": _Goal(frozenset({"SUSPENDED"}), frozenset({"suspending"})),
    "resume": _Goal(_RUNS, frozenset({"resuming"})),
    "shelve": _Goal(
        frozenset({"SHELVED", "SHELVED_OFFLOADED"}),
        frozenset({"shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading"}),
    ),
    "unshelve": _Goal(_RUNS, frozenset({"unshelving", "spawning"})),
    "unpause": _Goal(_RUNS, frozenset({"unpausing"})),
}
# What Leeway calls stopped, and os-start does not start (see `states`).
_OUT_OF = {"SUSPENDED": "resume", "PAUSED": "unpause", "SHELVED": "unshelve"}
# Tasks that end in another status than the one shown. Others, as saving an image, leave a server what it is.
_MOVING = frozenset({"pausing", "deleting", "soft-deleting"}).union(*(goal.under_way for goal in _GOALS.values()))


def change_power(session: Session, server_id: str, action: str, deadline: Deadline) -> None:
    """One of the actions above; done already, or under way, is fine.

    Raises:
        SiteConflict: the server's state does not allow it, or it is on its way to another one.
    """
    try:
        act(session, server_id, action, deadline)
    except SiteConflict:
        server = part_document(session, PartKind.SERVER, server_id, deadline) or {}
        goal, task, status = _GOALS[action], server.get("OS-EXT-STS:task_state"), server.get("status")
        if task not in goal.under_way and (status not in goal.there or task in _MOVING):
            raise


def start(session: Session, server_id: str, deadline: Deadline) -> None:
    """Have the server run, whichever way it was made to rest; running, or about to, is fine.

    Raises:
        SiteConflict: the server's state does not allow it.
    """
    try:
        change_power(session, server_id, "os-start", deadline)
    except SiteConflict:
        server = part_document(session, PartKind.SERVER, server_id, deadline) or {}
        other = _OUT_OF.get(server.get("status", ""))
        if other is None or server.get("OS-EXT-STS:task_state") is not None:
            raise
        change_power(session, server_id, other, deadline)


# --- size --------------------------------------------------------------------------------------------------------

_WAITS = "VERIFY_RESIZE"
_RESIZING = frozenset({"RESIZE", "MIGRATING"})


def resize(session: Session, server_id: str, flavor: str, deadline: Deadline) -> None:
    """Begin to give the server another flavor; its being so already, or being resized, is fine.

    To which flavor a server is being resized Nova tells nobody before it is done: look at it then.

    Raises:
        SiteConflict: the server's state does not allow it, or it waits with another flavor.
    """
    try:
        act(session, server_id, "resize", deadline, argument={"flavorRef": flavor})
    except SiteRefused as error:
        if error.http_status not in (400, 409):  # 400: "instances must change flavor", in words that may change
            raise
        server = part_document(session, PartKind.SERVER, server_id, deadline) or {}
        has_it = (server.get("flavor") or {}).get("id") == flavor
        if server.get("status") not in _RESIZING and (not has_it or server.get("status") == "REVERT_RESIZE"):
            raise


def confirm_resize(session: Session, server_id: str, deadline: Deadline) -> bool:
    """Confirm a resize that waits for it; True where nothing is left to do, False where the server still moves.

    A resize for which there is no room is accepted (202), and then the server is as before, without a word in it: only
    its list of actions tells. So this raises after a failed resize until another one is begun.

    Raises:
        SiteRefused: the resize failed; the server kept its former flavor, or is in ERROR.
    """
    doing = f"confirming the resize of server {server_id}"
    server = _server(session, server_id, doing, deadline)
    status = server.get("status")
    if status == "ERROR":
        reason = (server.get("fault") or {}).get("message") or "the site does not say why"
        raise SiteRefused(f"{doing}: the server is in ERROR ({reason})", hint="Its operator can mend it, or delete it.")
    if status in _RESIZING or status == "REVERT_RESIZE":
        return False
    if status == _WAITS:
        _confirm(session, server_id, deadline)
        return False
    last = _last_resizing(session, server_id, deadline)
    if last is None or last.name != "resize":
        return True
    if last.failed:
        hint = "Nova does not tell its users why; mostly no host has room for it. It runs on as it was."
        raise SiteRefused(f"{doing}: it failed, and the server keeps its former type", hint=hint)
    return last.is_over


def _confirm(session: Session, server_id: str, deadline: Deadline) -> None:
    """Confirm; being confirmed meanwhile is fine, which Nova refuses with a 400 while the server still waits."""
    try:
        act(session, server_id, "confirmResize", deadline)
    except SiteRefused as error:
        last = _last_resizing(session, server_id, deadline) if error.http_status in (400, 409) else None
        if last is None or last.name == "resize" or last.failed:
            raise


def revert_resize(session: Session, server_id: str, deadline: Deadline) -> None:
    """Back to the former flavor; done already, or under way, is fine, and so is a resize that failed by itself.

    Raises:
        SiteConflict: the resize is confirmed, or not yet so far that it could be reverted.
    """
    try:
        act(session, server_id, "revertResize", deadline)
    except SiteRefused as error:
        if error.http_status not in (400, 409):
            raise
        last = _last_resizing(session, server_id, deadline)
        if last is None or (last.name, last.failed) not in (("revertResize", False), ("resize", True)):
            raise SiteConflict(error.detail, http_status=error.http_status) from error


@dataclass(frozen=True, slots=True)
class _Action:
    """What the site notes of an action: `is_over` where nothing of it is still being done."""

    name: str
    failed: bool
    is_over: bool


_WITH_EVENTS = "2.51"  # Pike: shown to the project's own people
_RESIZE_ACTIONS = frozenset({"resize", "migrate", "confirmResize", "revertResize"})


def _last_resizing(session: Session, server_id: str, deadline: Deadline) -> _Action | None:
    """The newest action that had to do with the server's size; None where there was none."""
    doing = f"reading the actions of server {server_id}"
    path = f"{part_path(PartKind.SERVER, server_id)[1]}/os-instance-actions"
    listed = list_of(
        session.read(get(Service.COMPUTE, path, doing), deadline), "instanceActions", doing, identify="request_id"
    )
    newest = next((action for action in listed if action.get("action") in _RESIZE_ACTIONS), None)
    if newest is None:
        return None
    one = Call(Service.COMPUTE, "GET", f"{path}/{newest['request_id']}", doing, microversion=_WITH_EVENTS)
    action = session.one(one, "instanceAction", deadline)
    events = action.get("events")
    if action.get("action") != newest["action"] or not isinstance(events, list):
        raise foreign(doing, "an action without its events")
    return _Action(
        name=newest["action"],
        failed=action.get("message") is not None,
        is_over=all(isinstance(event, dict) and event.get("finish_time") is not None for event in events),
    )


# --- disk --------------------------------------------------------------------------------------------------------


def rebuild(session: Session, server_id: str, image: str, deadline: Deadline) -> None:
    """A new disk from an image; being rebuilt from it already is fine. A second time, it is rebuilt a second time.

    The answer holds a new adminPass, and is read by nobody.

    Raises:
        SiteConflict: the server's state does not allow it.
    """
    try:
        act(session, server_id, "rebuild", deadline, argument={"imageRef": image})
    except SiteConflict:
        server = part_document(session, PartKind.SERVER, server_id, deadline) or {}
        if server.get("status") != "REBUILD" or (server.get("image") or {}).get("id") != image:
            raise
