"""Places for work at sites: pure counting, with a clock of the test's own."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest

from web.bulkheads import Bulkheads, Kind

SLOW_SECONDS = 10


class Places:
    """Work that was begun and not ended, and the time."""

    def __init__(self, workers: int) -> None:
        """At second 0."""
        self.seconds = 0.0
        self.heads = Bulkheads(workers, slow_seconds=SLOW_SECONDS, clock=lambda: self.seconds)
        self.open: list[ExitStack] = []

    def begin(self, site: UUID, kind: Kind = Kind.PASS, *, asks: bool = True) -> bool:
        """Whether it found a place; it keeps it until `end`."""
        stack = ExitStack()
        work = stack.enter_context(self.heads.place(site, kind))
        if work is None:
            return False
        work.has_asked = asks
        self.open.append(stack)
        return True

    def end(self, index: int = 0) -> None:
        """One of those that are open."""
        self.open.pop(index).close()

    def end_all(self) -> None:
        """All of them."""
        while self.open:
            self.end()


@pytest.fixture
def places() -> Places:
    """Of a worker with eight threads."""
    return Places(8)


def make_slow(places: Places, site: UUID) -> None:
    assert places.begin(site)
    places.seconds += SLOW_SECONDS
    places.end()


def test_a_quick_site_has_every_thread(places: Places) -> None:
    site = uuid4()
    assert all(places.begin(site) for _ in range(8))


def test_a_slow_site_has_a_quarter_until_it_was_quick_for_some_times(places: Places) -> None:
    site = uuid4()
    make_slow(places, site)
    assert [places.begin(site) for _ in range(4)] == [True, True, False, False]
    assert places.heads.sent_away(site) == 2
    places.end_all()
    assert [places.begin(site) for _ in range(3)] == [True, True, False]
    assert places.heads.sent_away(site) == 1
    places.end_all()
    assert [places.begin(site) for _ in range(3)] == [True, True, True]
    assert places.heads.sent_away(site) == 0


def test_slow_sites_take_turns_so_that_one_that_answers_late_is_not_starved(places: Places) -> None:
    silent, late = [uuid4() for _ in range(20)], uuid4()
    for site in (*silent, late):
        make_slow(places, site)
    served = 0
    for _ in range(20):
        for site in (*silent, late):
            served += places.begin(site) and site == late
        places.seconds += 5
        places.end_all()
    assert served >= 2


def test_a_pass_that_asked_nothing_does_not_make_a_site_quick(places: Places) -> None:
    site = uuid4()
    make_slow(places, site)
    for _ in range(20):
        assert places.begin(site, asks=False)
        places.end()
    assert [places.begin(site) for _ in range(3)] == [True, True, False]


def test_a_site_is_slow_as_soon_as_work_there_takes_too_long(places: Places) -> None:
    site = uuid4()
    assert places.begin(site)
    assert places.begin(site)
    places.seconds += SLOW_SECONDS
    assert not places.begin(site)


def test_twenty_silent_sites_leave_threads_to_a_good_one(places: Places) -> None:
    silent, good = [uuid4() for _ in range(20)], uuid4()
    for site in silent:
        make_slow(places, site)
    for _ in range(50):
        for site in silent:
            for kind in Kind:
                places.begin(site, kind)
        places.seconds += 1
    assert len(places.open) == 4
    assert places.begin(good, Kind.LISTING)
    assert places.begin(good, Kind.CHECK)
    assert places.begin(good)
    assert places.begin(good)


def test_visits_that_turn_out_to_be_slow_never_take_every_thread(places: Places) -> None:
    """Nothing is known of the sites: each round of visits is slow only after a while, and makes room for the next."""
    for _ in range(20):
        for kind in (Kind.LISTING, Kind.CHECK):
            for _ in range(20):
                places.begin(uuid4(), kind)
        places.seconds += SLOW_SECONDS
    assert len(places.open) == 4


@pytest.mark.parametrize("workers", range(2, 17))
def test_one_thread_is_always_left_to_quick_sites(workers: int) -> None:
    places = Places(workers)
    silent = [uuid4() for _ in range(20)]
    for site in silent:
        make_slow(places, site)
    for _ in range(10):
        for kind in Kind:
            for site in (*silent, *(uuid4() for _ in range(20) if kind is not Kind.PASS)):
                places.begin(site, kind)
        places.seconds += SLOW_SECONDS
    assert 1 <= len(places.open) < workers


def test_one_site_has_one_listing_and_one_check_at_a_time(places: Places) -> None:
    site = uuid4()
    assert places.begin(site, Kind.LISTING)
    assert places.begin(site, Kind.CHECK)
    assert not places.begin(site, Kind.LISTING)
    assert places.begin(site, Kind.PASS)
    assert [kind for kind, _, _ in places.heads.running()] == [Kind.LISTING, Kind.CHECK, Kind.PASS]


def test_a_worker_of_one_thread_works(places: Places) -> None:
    places = Places(1)
    site = uuid4()
    for kind in Kind:
        assert places.begin(site, kind)
        places.end()
    make_slow(places, site)
    for kind in Kind:
        assert places.begin(site, kind)
        places.end()
