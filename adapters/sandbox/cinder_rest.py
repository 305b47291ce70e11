"""What Cinder's collections have in common: refusals, microversions, owners, lists in pages."""

import ast
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from starlette.datastructures import Headers

from adapters.sandbox.paging import page
from adapters.sandbox.state import is_visible, visible
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot
from adapters.sandbox.wire import ApiError, Call, Reply, Service

Document = dict[str, Any]
ThingT = TypeVar("ThingT", Volume, VolumeSnapshot)

MIN_VERSION = (3, 0)
MAX_VERSION = (3, 70)
BASE = "/volume/v3/{project}"
_FAULT_NAMES = {
    400: "badRequest",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    429: "overLimit",
    503: "serviceUnavailable",
}
_NAME_CHARACTERS = 255


def _refuse(error: ApiError) -> Reply:
    if error.status == 401:  # the middleware in front of Cinder answers this one
        return Reply(401, {"error": {"code": 401, "message": error.message, "title": "Unauthorized"}})
    name = _FAULT_NAMES.get(error.status, "computeFault")  # Cinder was a part of Nova once
    document: Document = {"code": error.status, "message": error.message}
    if error.status == 413:
        return Reply(413, {name: document | {"retryAfter": "0"}}, {"Retry-After": "0"})
    return Reply(error.status, {name: document})


def _negotiate(headers: Headers) -> tuple[int, int]:
    """The microversion asked for; 3.0 when none is.

    Raises:
        ApiError: 400 for no version at all, 406 for one outside the range.
    """
    text = None
    for part in headers.get("openstack-api-version", "").split(","):
        service, _, version = part.strip().partition(" ")
        if service.lower() == "volume":
            text = version.strip()
    if text is None:
        return MIN_VERSION
    if text == "latest":
        return MAX_VERSION
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    if match is None:
        raise ApiError(400, f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum.")
    asked = (int(match[1]), int(match[2]))
    if not MIN_VERSION <= asked <= MAX_VERSION:
        refused = f"Version {text} is not supported by the API. Minimum is 3.0 and maximum is 3.70."
        raise ApiError(406, refused, headers=_version_headers(text))
    return asked


def _finish(call: Call, reply: Reply) -> None:
    if reply.status == 401:  # answered before Cinder looks at versions
        return
    reply.headers |= _version_headers(f"{call.version[0]}.{call.version[1]}")


def _version_headers(version: str) -> dict[str, str]:
    return {"OpenStack-API-Version": f"volume {version}", "Vary": "OpenStack-API-Version"}


SERVICE = Service("volume", _refuse, negotiate=_negotiate, finish=_finish)


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
