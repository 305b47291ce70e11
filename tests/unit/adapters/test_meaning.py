"""What a status and a body mean; pages; bulkheads."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.cloud import Bulkhead, Fault, error_for, every_page, retry_after
from broker.errors import (
    SiteBusy,
    SiteCapacity,
    SiteConflict,
    SiteDenied,
    SiteError,
    SiteQuota,
    SiteRefused,
    SiteUnknown,
)
from broker.remote import Deadline

PLAIN = Fault("badRequest", "no")
DATED = {"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("status", "headers", "fault", "meaning"),
    [
        (400, {}, PLAIN, SiteRefused),
        (400, {}, None, SiteUnknown),
        (401, {}, None, SiteDenied),
        (401, {}, PLAIN, SiteDenied),
        (403, {}, None, SiteDenied),
        (403, {}, PLAIN, SiteDenied),
        (403, {}, Fault("forbidden", "Quota exceeded", SiteQuota), SiteQuota),
        (404, {}, PLAIN, SiteRefused),
        (404, {}, None, SiteUnknown),
        (408, {}, PLAIN, SiteUnknown),
        (409, {}, PLAIN, SiteConflict),
        (409, {}, Fault("OverQuota", "", SiteQuota), SiteQuota),
        (409, {}, Fault("IpAddressGenerationFailure", "", SiteCapacity), SiteCapacity),
        (409, {}, None, SiteUnknown),
        (413, {"retry-after": "3"}, PLAIN, SiteBusy),
        (413, {}, PLAIN, SiteRefused),
        (413, {"retry-after": "0"}, Fault("overLimit", "VolumeLimitExceeded: ...", SiteQuota), SiteQuota),
        (429, {"retry-after": "3"}, None, SiteBusy),
        (429, {}, PLAIN, SiteBusy),
        (500, {}, PLAIN, SiteUnknown),
        (500, {}, Fault("computeFault", "Quota exceeded", SiteQuota), SiteUnknown),
        (502, {}, None, SiteUnknown),
        (503, {}, None, SiteUnknown),
        (503, {}, PLAIN, SiteBusy),
        (503, {"retry-after": "3"}, None, SiteBusy),
        (504, {}, PLAIN, SiteUnknown),
        (200, {}, None, SiteUnknown),
        (302, {}, None, SiteUnknown),
    ],
)
def test_each_status_has_one_meaning(
    status: int, headers: Mapping[str, str], fault: Fault | None, meaning: type[SiteError]
) -> None:
    error = error_for(status, headers, fault, doing="making the server")
    assert type(error) is meaning
    assert error.http_status == status
    assert "making the server" in error.detail


@given(st.integers(min_value=100, max_value=599), st.booleans())
def test_only_known_refusals_promise_that_nothing_was_made(status: int, has_fault: bool) -> None:
    error = error_for(status, {}, PLAIN if has_fault else None, doing="x")
    if isinstance(error, SiteRefused):
        assert has_fault
        assert 400 <= status < 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        (DATED, 30.0),
        ({**DATED, "date": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": DATED["retry-after"]}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_seconds_or_nothing(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@given(st.lists(st.lists(st.integers(), max_size=4), min_size=1, max_size=9))
def test_every_page_is_read_in_order(pages: list[list[int]]) -> None:
    def fetch(following: str | None) -> tuple[Sequence[int], str | None]:
        index = int(following or 0)
        return pages[index], str(index + 1) if index + 1 < len(pages) else None

    assert list(every_page(fetch, doing="x")) == pages


@pytest.mark.parametrize("circle", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "b"]])
def test_a_circle_of_pages_ends_as_unknown(circle: list[str]) -> None:
    following = iter(circle * 3)
    with pytest.raises(SiteUnknown, match="circle"):
        list(every_page(lambda _: ([1], next(following)), doing="x"))


def test_a_list_without_end_ends_as_unknown() -> None:
    with pytest.raises(SiteUnknown):
        for _ in every_page(lambda following: ([], str(int(following or 0) + 1)), doing="x"):
            pass


def test_a_full_bulkhead_is_busy_within_the_deadline_and_frees_its_places() -> None:
    bulkhead = Bulkhead("aurora", places=1)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with bulkhead.place(Deadline.after(5), "holding"):
            inside.set()
            leave.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(5)
    with pytest.raises(SiteBusy, match="aurora"), bulkhead.place(Deadline.after(0.05), "waiting"):
        pytest.fail("there is one place only")
    with pytest.raises(SiteBusy), bulkhead.place(Deadline.after(-1), "late"):
        pytest.fail("there is one place only")
    leave.set()
    holder.join()
    for _ in range(3):
        with bulkhead.place(Deadline.after(0.05), "free again"):
            pass
