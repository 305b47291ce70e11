"""What Nova itself counted of a project's servers (os-simple-tenant-usage), those that are gone included.

Three things to know before it is compared with anything. Nova counts from when a server was last made to run, so that
one that was resized or rebuilt begins anew. It knows no end after now. And below microversion 2.40 it stops at the
site's `max_limit` servers without a word: such an answer is not asked for.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

from adapters.cloud import every_page, foreign, utc
from adapters.openstack.session import Call, Document, Service, Session, list_of, next_marker
from broker.errors import SiteRefused, SiteUnknown
from broker.remote import Deadline, RemoteUsage
from broker.values import Period

_WHOLE = "2.40"  # Ocata
_PAGE = 1_000  # asked for; a site that allows less sends less


def read_usage(session: Session, period: Period, deadline: Deadline) -> list[RemoteUsage]:
    """Every server that ran in the period, all pages, by our own marker until a page is empty.

    Raises:
        SiteRefused: the site is too old to count more than a page of servers.
        SiteUnknown: an answer is not a page of this list, or the list changed under the reading.
    """
    if period.is_empty:
        return []
    doing = "reading the usage"
    path = f"/os-simple-tenant-usage/{session.token(deadline).project_id}"
    query = {"start": _moment(period.start), "end": _moment(period.end), "limit": str(_PAGE)}

    def fetch(marker: str | None) -> tuple[list[RemoteUsage], str | None]:
        asked = query | ({"marker": marker} if marker else {})
        call = Call(Service.COMPUTE, "GET", path, doing, query=asked, microversion=_WHOLE)
        return _page(_ask(session, call, deadline), doing)

    found = {usage.remote_id: usage for page in every_page(fetch, doing=doing) for usage in page}
    # A period that begins after the site's now: Nova lists what runs, with less than no hours.
    return [usage for usage in found.values() if usage.hours >= 0]


def _moment(moment: datetime) -> str:
    """As Nova reads it: UTC, and not a word about it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}"


def _ask(session: Session, call: Call, deadline: Deadline) -> Document:
    try:
        return session.read(call, deadline)
    except SiteRefused as error:
        if error.http_status == 406:
            text = f"{call.doing}: the site's Nova is older than microversion {_WHOLE}, and would leave servers out"
            hint = "There is no way to ask it for more than a page: compare with the site's own bill instead."
            raise SiteRefused(text, hint=hint, http_status=406) from error
        if "marker" in call.query and error.http_status == 400:
            raise SiteUnknown(f"{call.doing}: the list changed under the reading", http_status=400) from error
        raise


def _page(document: Document, doing: str) -> tuple[list[RemoteUsage], str | None]:
    """The rows of a page and its last server, after which the next page begins; an empty page is an empty object."""
    content = document.get("tenant_usage")
    if content == {}:
        return [], None
    if not isinstance(content, dict):
        raise foreign(doing, "no object 'tenant_usage'")
    rows = list_of(content, "server_usages", doing, identify="instance_id")
    if not rows:
        return [], None
    last: str = rows[-1]["instance_id"]
    said = next_marker(document, "tenant_usage")
    if said not in (None, last):
        raise foreign(doing, f"a page ends at {last}, its link goes on from {said}: something is missing")
    return [_read(row, doing) for row in rows], last


def _read(row: Document, doing: str) -> RemoteUsage:
    """One server's row.

    Raises:
        SiteUnknown: a field is missing or of another form than Nova's.
    """
    started, ended = utc(row.get("started_at")), utc(row.get("ended_at"))
    hours = row.get("hours")
    if started is None or (ended is None and row.get("ended_at") is not None) or isinstance(hours, bool):
        raise foreign(doing, f"server {row['instance_id']} has no times")
    if not isinstance(hours, (int, float)) or not math.isfinite(hours):
        raise foreign(doing, f"server {row['instance_id']} has {hours!r} hours")
    return RemoteUsage(
        remote_id=row["instance_id"],
        name=str(row.get("name") or ""),
        instance_type=str(row.get("flavor") or ""),
        raw_status=str(row.get("state") or ""),
        cores=_whole(row.get("vcpus"), row, doing),
        memory_mib=_whole(row.get("memory_mb"), row, doing),
        disk_gib=_whole(row.get("local_gb"), row, doing),
        hours=Decimal(str(hours)),
        started_at=started,
        ended_at=ended,
    )


def _whole(value: Any, row: Document, doing: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise foreign(doing, f"server {row['instance_id']} has a size of {value!r}")
    return value
