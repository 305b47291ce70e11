"""What Cinder's collections have in common: refusals, microversions, owners, lists in pages."""

import ast
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from adapters.sandbox.microversions import FAULT_NAMES, OTHER_FAULT, Microversions, unauthorized, written
from adapters.sandbox.paging import page
from adapters.sandbox.state import is_visible, visible
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot
from adapters.sandbox.wire import ApiError, Call, Reply, Service

Document = dict[str, Any]
ThingT = TypeVar("ThingT", Volume, VolumeSnapshot)

VERSIONS = Microversions("volume", (3, 0), (3, 70))
BASE = "/volume/v3/{project}"
_NAME_CHARACTERS = 255


def _refuse(error: ApiError) -> Reply:
    if error.status == 401:
        return unauthorized(error)
    name = FAULT_NAMES.get(error.status, OTHER_FAULT)
    document: Document = {"code": error.status, "message": error.message}
    if error.status == 413:
        return Reply(413, {name: document | {"retryAfter": "0"}}, {"Retry-After": "0"})
    return Reply(error.status, {name: document})


def _finish(call: Call, reply: Reply) -> None:
    if reply.status != 401:  # that is answered before Cinder looks at versions
        reply.headers |= VERSIONS.headers(written(call.version))


SERVICE = Service("volume", _refuse, negotiate=VERSIONS.negotiate, finish=_finish)


def own_project(call: Call) -> str:
    """The id of the caller's project, which the path must name.

    Raises:
        ApiError: 400, it names another one.
    """
    if call.params["project"] != call.project.id:
        raise ApiError(400, "Malformed request url")
    return call.project.id


def not_found(noun: str, identifier: str) -> ApiError:
    return ApiError(404, f"{noun} {identifier} could not be found.")


def moment(at: datetime | None) -> str | None:
    """As Cinder writes a time: UTC, but it does not say so."""
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}" if at else None


def links(call: Call, kind: str, identifier: str) -> list[Document]:
    return [
        {"rel": "self", "href": f"{call.base_url}/volume/v3/{call.project.id}/{kind}/{identifier}"},
        {"rel": "bookmark", "href": f"{call.base_url}/volume/{call.project.id}/{kind}/{identifier}"},
    ]


def collection(call: Call, noun: str, things: Iterable[ThingT], show: Callable[[ThingT], Document]) -> Reply:
    """The list that the query asks for, newest first; what it asks beyond name, status and metadata is ignored."""
    project_id, kind = own_project(call), f"{noun.lower()}s"
    chosen = sorted(visible(things, project_id, call.now), key=lambda thing: thing.serial, reverse=True)
    for field in ("name", "status"):
        if field in call.query:
            chosen = [thing for thing in chosen if getattr(thing, field) == call.query[field]]
    if "metadata" in call.query:
        wanted = _wanted_metadata(call.query["metadata"])
        chosen = [thing for thing in chosen if wanted is not None and wanted.items() <= thing.metadata.items()]
    marker = call.query.get("marker")
    if marker is not None and all(thing.id != marker for thing in chosen):
        raise not_found(noun, marker)
    if call.query.get("limit") == "0":  # Cinder takes that at its word
        return Reply(200, {kind: []})
    found, following = page(call, chosen, lambda thing: thing.id, default_limit=call.cloud.config.page_limit)
    body: Document = {kind: [show(thing) for thing in found]}
    if following is not None:
        body[f"{kind}_links"] = [{"rel": "next", "href": following}]
    return Reply(200, body)


def _wanted_metadata(text: str) -> dict[str, str] | None:
    """A filter as Cinder reads it: as Python writes a dict. None for anything else, which nothing has."""
    try:
        wanted = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return {str(key): str(value) for key, value in wanted.items()} if isinstance(wanted, dict) else None


def find(call: Call, noun: str, things: dict[str, ThingT], identifier: str, *, hidden_too: bool = False) -> ThingT:
    """The project's thing of this id.

    Raises:
        ApiError: 404.
    """
    project_id, thing = own_project(call), things.get(identifier)
    if thing is None or thing.project_id != project_id or not (hidden_too or is_visible(thing, project_id, call.now)):
        raise not_found(noun, identifier)
    return thing


def update(call: Call, thing: ThingT, wanted: Document) -> None:
    """Change name, description or metadata: the rest of a volume is not its owner's to write."""
    if "name" in wanted:
        thing.name = checked_name(wanted["name"])
    if "description" in wanted:
        thing.description = checked_description(wanted["description"])
    if "metadata" in wanted:
        thing.metadata = checked_metadata(wanted["metadata"])
    thing.updated = call.now


def checked_name(name: Any) -> str:
    """A name, or none.

    Raises:
        ApiError: 400.
    """
    return checked_description(name) or ""


def checked_description(text: Any) -> str | None:
    """A text of at most 255 characters, or None.

    Raises:
        ApiError: 400.
    """
    if text is not None and not (isinstance(text, str) and len(text) <= _NAME_CHARACTERS):
        raise ApiError(400, f"Invalid input for field/attribute. Value: {text}. It must be at most 255 characters.")
    return text


def checked_metadata(given: Any) -> dict[str, str]:
    """Texts of 1-255 characters to texts of at most 255.

    Raises:
        ApiError: 400.
    """
    if not isinstance(given, dict) or not all(
        1 <= len(key) <= _NAME_CHARACTERS and isinstance(value, str) and len(value) <= _NAME_CHARACTERS
        for key, value in given.items()
    ):
        raise ApiError(400, "Invalid input for field/attribute metadata. Keys and values are texts of up to 255.")
    return dict(given)
