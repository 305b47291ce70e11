"""What all of Neutron's collections have in common: filters, fields, sorting, pages, tags and refusals."""

from collections.abc import Callable, Sequence
from typing import Any

from adapters.sandbox.paging import page
from adapters.sandbox.wire import ApiError, Call, Reply, Service

Document = dict[str, Any]
_NOT_FILTERS = frozenset({"fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"})
_TYPES = {400: "HTTPBadRequest", 403: "PolicyNotAuthorized", 404: "HTTPNotFound", 409: "Conflict"}


def _refuse(error: ApiError) -> Reply:
    if error.status == 401:  # the middleware in front of Neutron answers this one
        return Reply(401, {"error": {"code": 401, "message": error.message, "title": "Unauthorized"}})
    kind = error.kind or _TYPES.get(error.status, "HTTPInternalServerError")
    return Reply(error.status, {"NeutronError": {"type": kind, "message": error.message, "detail": ""}})


SERVICE = Service("network", _refuse)


def not_found(kind: str, noun: str, identifier: str) -> ApiError:
    return ApiError(404, f"{noun} {identifier} could not be found.", kind)


def over_quota(resource: str) -> ApiError:
    return ApiError(409, f"Quota exceeded for resources: ['{resource}'].", "OverQuota")


def check_quota(resource: str, limit: int, used: int) -> None:
    """Refuse one more.

    Raises:
        ApiError: 409 OverQuota.
    """
    if 0 <= limit <= used:
        raise over_quota(resource)


def collection(call: Call, name: str, documents: Sequence[Document]) -> Reply:
    """The list the query asks for: filters, order, page, fields."""
    chosen = _sorted(call, [document for document in documents if _matches(call, document)])
    found, following = page(call, chosen, lambda document: str(document["id"]))
    fields = set(call.query.getlist("fields"))
    shown = [{key: value for key, value in document.items() if not fields or key in fields} for document in found]
    body: Document = {name: shown}
    if following is not None:
        body[f"{name}_links"] = [{"rel": "next", "href": following}]
    return Reply(200, body)


def _matches(call: Call, document: Document) -> bool:
    """Values of one key are alternatives; keys are all needed. Unknown keys are ignored, as by Neutron."""
    for key in call.query.keys() - _NOT_FILTERS:
        wanted = call.query.getlist(key)
        if key in _TAG_FILTERS:
            fits = _TAG_FILTERS[key]({tag for text in wanted for tag in text.split(",")}, set(document.get("tags", ())))
        elif key == "fixed_ips":
            fits = all(_has_fixed_ip(document, text) for text in wanted)
        elif key in document:
            fits = any(_plain(document[key]) == _plain(text) for text in wanted)
        else:
            fits = True
        if not fits:
            return False
    return True


_TAG_FILTERS: dict[str, Callable[[set[str], set[str]], bool]] = {
    "tags": lambda wanted, has: wanted <= has,
    "tags-any": lambda wanted, has: bool(wanted & has),
    "not-tags": lambda wanted, has: not wanted <= has,
    "not-tags-any": lambda wanted, has: not wanted & has,
}


def _has_fixed_ip(document: Document, text: str) -> bool:
    key, _, value = text.partition("=")
    return any(str(entry.get(key)) == value for entry in document.get("fixed_ips", ()))


def _plain(value: Any) -> str:
    """A value as a query writes it: booleans in any case, None as nothing."""
    return "" if value is None else str(value).lower()


def _sorted(call: Call, documents: list[Document]) -> list[Document]:
    keys, directions = call.query.getlist("sort_key"), call.query.getlist("sort_dir")
    for index, key in reversed(list(enumerate(keys))):
        descending = index < len(directions) and directions[index] == "desc"
        documents = sorted(documents, key=lambda document: str(document.get(key)), reverse=descending)
    return documents


def checked_tags(given: Any) -> list[str]:
    """Neutron's rule: texts of 1-60 characters.

    Raises:
        ApiError: 400.
    """
    if not isinstance(given, list) or not all(isinstance(tag, str) and 1 <= len(tag) <= 60 for tag in given):
        raise ApiError(400, f"Invalid input for tags. Reason: {given} is not a list of texts of 1 to 60.")
    return sorted(set(given))
