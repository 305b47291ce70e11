"""One page of a list, by marker and limit, as all of OpenStack does it."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from adapters.sandbox.faults import FaultKind
from adapters.sandbox.wire import ApiError, Call

T = TypeVar("T")


def page(
    call: Call, items: Sequence[T], identify: Callable[[T], str], *, default_limit: int | None = None
) -> tuple[Sequence[T], str | None]:
    """The items of the page that the query asks for, and the address of the next page.

    A page that is exactly full has a next link even when nothing follows, as in Nova: the last page may be empty.
    `default_limit` caps what the caller asks for; None leaves lists without `limit` whole.

    Raises:
        ApiError: 400, the marker names nothing or the limit is no number.
    """
    limit = _limit(call, default_limit)
    start = 0
    marker = call.query.get("marker")
    if marker is not None:
        start = next((index for index, item in enumerate(items, 1) if identify(item) == marker), 0)
        if not start:
            raise ApiError(400, f"marker [{marker}] not found")
    chosen = items[start:] if limit is None else items[start : start + limit]
    following = next_link(call, identify(chosen[-1])) if chosen and len(chosen) == limit else None
    if call.effect(FaultKind.SHORT_PAGE):
        chosen = chosen[: len(chosen) // 2]
    if call.effect(FaultKind.LOST_LINK):
        following = None
    return chosen, following


def next_link(call: Call, marker: str) -> str:
    """The address of this list, from behind `marker` on."""
    query = [(key, value) for key, value in call.query.multi_items() if key != "marker"]
    return f"{call.base_url}{call.path}?{urlencode([*query, ('marker', marker)])}"


def _limit(call: Call, default_limit: int | None) -> int | None:
    text = call.query.get("limit")
    if text is None:
        return default_limit
    if not text.isdigit():
        raise ApiError(400, f"Invalid input for query parameters limit. Value: {text}. limit must be an integer")
    limit = int(text)
    if limit == 0 or (default_limit is not None and limit > default_limit):
        return default_limit
    return limit
