"""What every cloud adapter shares: names and tags, the meaning of an answer, complete pages, bounded concurrency.

The rule behind all of it: only an answer that is known to mean "nothing was made" or "there is no such thing" is read
as such. Everything else is unknown.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

from broker.errors import (
    InvalidInput,
    SiteBusy,
    SiteConflict,
    SiteDenied,
    SiteError,
    SiteRefused,
    SiteUnknown,
)
from broker.remote import Deadline, Tags

Page = TypeVar("Page")

# --- names and tags ----------------------------------------------------------------------------------------------

_NAME = re.compile(r"leeway-([0-9a-f]{32})\Z")
_PREFIX = "leeway:"
_FIELDS = ("installation", "lease", "attempt", "project", "until")  # `until` last: its Z shows that nothing was cut
_MOST_PROJECT = 80  # encoded characters; with the other fields a text of tags stays below Neutron's 255


def part_name(lease: UUID) -> str:
    """The name, or the end of the name, of every part of a lease."""
    return f"leeway-{lease.hex}"


def lease_in(name: str) -> UUID | None:
    """The lease that a name of ours carries; None for any other name."""
    found = _NAME.search(name)
    return UUID(found.group(1)) if found else None


def tags_as_metadata(tags: Tags) -> dict[str, str]:
    """Tags as keys and values of printable ASCII, for clouds that keep metadata (keys and values up to 255)."""
    values = (
        str(tags.installation),
        str(tags.lease),
        str(tags.attempt),
        _project_as_ascii(tags.project),
        tags.until.astimezone(UTC).isoformat(),
    )
    return {_PREFIX + field: value for field, value in zip(_FIELDS, values, strict=True)}


def tags_in_metadata(metadata: Any) -> Tags | None:
    """What `tags_as_metadata` wrote; None for anything else."""
    if not isinstance(metadata, dict) or "leeway:lease" not in metadata:
        return None
    values = [metadata.get(_PREFIX + field) for field in _FIELDS]
    return _tags(tuple(values)) if all(isinstance(value, str) for value in values) else None


def tags_as_text(tags: Tags) -> str:
    """Tags as one word of printable ASCII of at most 255 characters, for descriptions and comments."""
    values = (
        tags.installation.hex,
        tags.lease.hex,
        tags.attempt.hex,
        _project_as_ascii(tags.project),
        f"{tags.until.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}",
    )
    return _PREFIX + "&".join(f"{field}={value}" for field, value in zip(_FIELDS, values, strict=True))


def tags_in_text(text: Any) -> Tags | None:
    """What `tags_as_text` wrote, alone or as the last word of a text; None for anything else."""
    if not isinstance(text, str) or _PREFIX not in text:
        return None
    pairs = [pair.partition("=") for pair in text.rpartition(_PREFIX)[2].split("&")]
    if tuple(name for name, _, _ in pairs) != _FIELDS:
        return None
    return _tags(tuple(value for _, _, value in pairs))


def _project_as_ascii(project: str) -> str:
    """Percent-encoded, because some clouds' databases refuse what is outside the basic plane; cut where too long."""
    encoded = quote(project, safe=" ._-@/", errors="replace")
    while len(encoded) > _MOST_PROJECT:
        project = project[:-1]
        encoded = quote(project, safe=" ._-@/", errors="replace")
    return encoded


@lru_cache(maxsize=20_000)  # a listing sees the same tags every few minutes, and they are most of the work
def _tags(values: tuple[str, ...]) -> Tags | None:
    installation, lease, attempt, project, until = values
    try:
        return Tags(
            installation=UUID(installation),
            lease=UUID(lease),
            attempt=UUID(attempt),
            project=unquote(project, errors="strict"),
            until=_aware(until),
        )
    except (ValueError, OverflowError):  # Overflow: the year 1 in another zone
        return None


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return moment.astimezone(UTC)


def utc(text: Any) -> datetime | None:
    """An ISO 8601 time as clouds write it; without an offset it is UTC. None where it is missing or unreadable."""
    return _utc(text) if isinstance(text, str) else None


@lru_cache(maxsize=20_000)  # as for the tags
def _utc(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- the meaning of an answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in the API's own form. `meaning` is what a refusal (400, 403, 409, ...) with these words is."""

    kind: str
    message: str
    meaning: type[SiteRefused] | None = None


# With a fault in the API's own form these mean that the request was looked at and refused before anything was made.
_REFUSALS = frozenset({400, 404, 405, 406, 410, 411, 413, 415, 422, 428, 431})


def error_for(status: int, headers: Mapping[str, str], fault: Fault | None, *, doing: str) -> SiteError:
    """The error that an answer means. `headers` has lower-case names; `fault` is None where the body is foreign.

    401, 403 and 429 need no body in the API's form: middleware and proxies in front of it refuse too, and whoever sends
    them has not passed the request on. 503 counts as busy only from the API itself or with Retry-After: some proxies
    send it when the service died while at work.
    """
    said = f"{doing}: the site says {status}" + (f" ({fault.message})" if fault and fault.message else "")
    # First: over quota Cinder says 413, and to come back in 0 seconds.
    if fault and fault.meaning and status in (400, 403, 409, 413):
        return fault.meaning(said, http_status=status)
    if status == 429 or (status in (413, 503) and "retry-after" in headers) or (status == 503 and fault):
        return SiteBusy(said, retry_after=retry_after(headers), http_status=status)
    if status in (401, 403):
        return SiteDenied(said, http_status=status)
    if fault and status == 409:
        return SiteConflict(said, http_status=status)
    if fault and status in _REFUSALS:
        return SiteRefused(said, http_status=status)
    return SiteUnknown(said if fault or status >= 500 else f"{said}, not in the API's form", http_status=status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the site asks to wait (RFC 9110 10.2.3: a number, or a date), None where it does not say."""
    wish = headers.get("retry-after", "").strip()
    if wish.isdigit():
        return float(wish)
    try:
        # Against the site's own clock: ours may differ.
        return max(0.0, (parsedate_to_datetime(wish) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError):  # TypeError: one of the two dates has no zone
        return None


def foreign(doing: str, reason: str) -> SiteUnknown:
    """The error for an answer that is not the API's: a portal's page, another service's JSON, half a document."""
    return SiteUnknown(
        f"{doing}: the answer is not the API's ({reason})",
        hint="A proxy, a portal or another service may be answering at this address.",
    )


# --- complete pages ----------------------------------------------------------------------------------------------

_MOST_PAGES = 10_000


def every_page(fetch: Callable[[str | None], tuple[Page, str | None]], *, doing: str) -> Iterator[Page]:
    """Every page, first to last. `fetch(None)` gets the first one, `fetch(next)` those after it, until next is None.

    Raises:
        SiteUnknown: the site sends us in a circle, or the list never ends.
    """
    seen: set[str] = set()
    following: str | None = None
    while True:
        page, following = fetch(following)
        yield page
        if following is None:
            return
        if following in seen or len(seen) >= _MOST_PAGES:
            raise foreign(doing, f"its pages go in a circle at {following!r}")
        seen.add(following)


class ReadSoFar:
    """Adds up what the threads of one listing have read, and tells the sum after every page."""

    def __init__(self, tell: Callable[[int], None] | None) -> None:
        """`tell` takes the sum; None: nobody wants to know."""
        self._tell = tell
        self._sum = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many more; raises what `tell` raises."""
        with self._lock:
            self._sum += count
            now = self._sum
        if self._tell is not None:
            self._tell(now)


# --- bounded concurrency -----------------------------------------------------------------------------------------


class Bulkhead:
    """At most so many requests at one site at a time, so that a slow site takes no more than its share of threads."""

    def __init__(self, site: str, places: int = 8) -> None:
        """`site` is the name for messages."""
        self._site = site
        self._places = places
        self._free = threading.BoundedSemaphore(places)

    @contextmanager
    def place(self, deadline: Deadline, doing: str) -> Iterator[None]:
        """Hold one of the places. The wait counts in the deadline.

        Raises:
            SiteBusy: no place became free in time; nothing was sent.
        """
        if not self._free.acquire(timeout=max(0.0, deadline.remaining)):
            raise SiteBusy(f"{doing}: all {self._places} places for requests to {self._site} stayed taken")
        try:
            yield
        finally:
            self._free.release()


# --- settings ----------------------------------------------------------------------------------------------------

_MOST_SECONDS = 3600.0


def seconds_in(settings: Mapping[str, str], name: str, *, default: float, least: float) -> float:
    """A site's setting that is a number of seconds, at most an hour.

    Raises:
        InvalidInput: it is not.
    """
    text = settings.get(name)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= _MOST_SECONDS:
        raise InvalidInput(
            f"settings.{name}",
            f"{text!r} is not a number of seconds",
            hint=f"Write a number from {least:g} to {_MOST_SECONDS:g}, or leave it out for {default:g}.",
        )
    return seconds
