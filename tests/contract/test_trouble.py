"""What went wrong is never read as "no", as "gone" or as "nothing there"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from broker.errors import SiteBusy, SiteDenied, SiteError, SiteUnknown
from broker.ports import CloudAdapter
from broker.remote import Deadline, PartKind
from tests.contract.sites import ADAPTERS, ALIKE, UNCLEAR, ContractSite, Fresh, Occasion, Trouble, soon

SHORT = 0.4  # seconds; trouble that is slow takes 2

Ask = Callable[[CloudAdapter, Deadline], object]
READINGS: dict[str, Ask] = {
    "offers": lambda adapter, deadline: adapter.offers(deadline=deadline),
    "images": lambda adapter, deadline: adapter.images(deadline=deadline),
    "networks": lambda adapter, deadline: adapter.networks(deadline=deadline),
    "quotas": lambda adapter, deadline: adapter.quotas(deadline=deadline),
    "listing": lambda adapter, deadline: adapter.listing(deadline=deadline),
}


@pytest.fixture(scope="module", params=sorted(ADAPTERS.keys() - ALIKE))
def fresh_site(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with ADAPTERS[request.param]() as fresh:
        yield fresh


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


@pytest.fixture
def logged_in(site: ContractSite) -> ContractSite:
    """With a token, so that trouble meets the reading and not the login."""
    site.adapter.networks(deadline=soon())
    return site


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("trouble", UNCLEAR, ids=lambda trouble: trouble.name)
def test_an_unclear_answer_to_a_reading_is_unknown(logged_in: ContractSite, reading: str, trouble: Trouble) -> None:
    logged_in.trouble(Occasion.ANY, PartKind.SERVER, trouble, None)
    with within(SHORT + 0.5), pytest.raises(SiteUnknown):
        READINGS[reading](logged_in.adapter, soon(SHORT))


@pytest.mark.parametrize("trouble", [*UNCLEAR, Trouble.GENERAL_404], ids=lambda trouble: trouble.name)
def test_an_unclear_answer_to_a_look_is_never_absence(site: ContractSite, kind: PartKind, trouble: Trouble) -> None:
    made = site.launch()
    site.trouble(Occasion.LOOK, kind, trouble, None)
    with pytest.raises(SiteUnknown):
        site.adapter.look(kind, made[kind], deadline=soon(SHORT))
    site.calm()
    assert site.adapter.look(kind, made[kind], deadline=soon()) is not None


@pytest.mark.parametrize("trouble", UNCLEAR, ids=lambda trouble: trouble.name)
def test_an_unclear_answer_to_a_making_is_unknown(site: ContractSite, kind: PartKind, trouble: Trouble) -> None:
    made = site.launch(until=kind)
    site.trouble(Occasion.MAKE, kind, trouble, None)
    with within(SHORT + 0.5), pytest.raises(SiteUnknown):
        site.adapter.make(kind, site.machine, tags=site.tags, made=made, deadline=soon(SHORT))


@pytest.mark.parametrize("trouble", [*UNCLEAR, Trouble.GENERAL_404], ids=lambda trouble: trouble.name)
def test_an_unclear_answer_to_a_search_is_no_empty_result(site: ContractSite, kind: PartKind, trouble: Trouble) -> None:
    made = site.launch()
    site.trouble(Occasion.ANY, kind, trouble, None)
    with pytest.raises(SiteError):
        site.adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon(SHORT))


@pytest.mark.parametrize("trouble", [*UNCLEAR, Trouble.GENERAL_404], ids=lambda trouble: trouble.name)
def test_an_unclear_answer_to_a_deletion_raises(site: ContractSite, kind: PartKind, trouble: Trouble) -> None:
    made = site.launch()
    site.trouble(Occasion.ANY, kind, trouble, None)
    with pytest.raises(SiteUnknown):
        site.adapter.delete(kind, made[kind], deadline=soon(SHORT))


@pytest.mark.parametrize("trouble", [Trouble.UNAUTHORIZED, Trouble.FORBIDDEN], ids=lambda trouble: trouble.name)
def test_a_refused_credential_says_nothing_of_what_exists(site: ContractSite, trouble: Trouble) -> None:
    made = site.launch(until=PartKind.SERVER)
    adapter = site.adapter
    site.trouble(Occasion.ANY, PartKind.SERVER, trouble, None)
    for ask in READINGS.values():
        with pytest.raises(SiteDenied):
            ask(adapter, soon())
    for kind in made:
        with pytest.raises(SiteDenied):
            adapter.look(kind, made[kind], deadline=soon())
        with pytest.raises(SiteDenied):
            adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon())
        with pytest.raises(SiteDenied):
            adapter.delete(kind, made[kind], deadline=soon())
    with pytest.raises(SiteDenied):
        site.make(PartKind.SERVER, made)


def test_a_token_that_dies_is_renewed_without_anybody_noticing(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.UNAUTHORIZED, 1)
    assert site.make(PartKind.SERVER, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 1


def test_busy_says_when_to_come_back_and_makes_nothing(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.BUSY, 1)
    with pytest.raises(SiteBusy) as caught:
        site.make(PartKind.SERVER, made)
    assert caught.value.retry_after == 7
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0
