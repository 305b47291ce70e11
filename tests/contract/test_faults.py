"""Every fault ends as the right error, and its text says which site, what was asked, what came of it, what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from broker.errors import SiteBusy, SiteConflict, SiteDenied, SiteError, SiteQuota, SiteRefused, SiteUnknown
from broker.ports import CloudAdapter
from broker.remote import Deadline, Fence, PartKind, Tags
from tests.contract.sites import ADAPTERS, ALIKE, UNCLEAR, ContractSite, Fresh, Occasion, Trouble, new_tags, soon

SHORT = 0.5  # seconds; a slow answer takes 2, one that drips takes minutes

# Of these nobody knows whether anything was done.
LOUD: dict[Trouble, type[SiteError]] = {
    **dict.fromkeys(UNCLEAR, SiteUnknown),
    Trouble.DRIP: SiteUnknown,
    Trouble.LOST: SiteUnknown,
    Trouble.UNAUTHORIZED: SiteDenied,
    Trouble.FORBIDDEN: SiteDenied,
    Trouble.BUSY: SiteBusy,
}


@dataclass
class Scene:
    """A machine that is there, and the parts of another one that is still to be made."""

    site: ContractSite
    made: dict[PartKind, str]
    tags: Tags
    prepared: dict[PartKind, str]

    @property
    def adapter(self) -> CloudAdapter:
        return self.site.adapter


@pytest.fixture(scope="module", params=sorted(ADAPTERS.keys() - ALIKE))
def fresh_site(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with ADAPTERS[request.param]() as fresh:
        yield fresh


@pytest.fixture
def scene(site: ContractSite) -> Scene:
    tags = new_tags()
    return Scene(site, site.launch(), tags, site.launch(until=PartKind.SERVER, tags=tags))


Ask = Callable[[Scene, Deadline], object]
# The adapter's method, and the request of it that meets trouble.
OPERATIONS: dict[str, tuple[Occasion, Ask]] = {
    "make": (
        Occasion.MAKE,
        lambda scene, deadline: scene.adapter.make(
            PartKind.SERVER, scene.site.machine, tags=scene.tags, made=scene.prepared, deadline=deadline
        ),
    ),
    "look": (
        Occasion.LOOK,
        lambda scene, deadline: scene.adapter.look(PartKind.SERVER, scene.made[PartKind.SERVER], deadline=deadline),
    ),
    "find": (
        Occasion.LIST,
        lambda scene, deadline: scene.adapter.find(
            PartKind.SERVER, lease=scene.site.tags.lease, made=scene.made, deadline=deadline
        ),
    ),
    "delete": (
        Occasion.ANY,
        lambda scene, deadline: scene.adapter.delete(PartKind.SERVER, scene.made[PartKind.SERVER], deadline=deadline),
    ),
    "listing": (Occasion.LIST, lambda scene, deadline: scene.adapter.listing(deadline=deadline)),
    "offers": (Occasion.ANY, lambda scene, deadline: scene.adapter.offers(deadline=deadline)),
    "quotas": (Occasion.ANY, lambda scene, deadline: scene.adapter.quotas(deadline=deadline)),
}


def says_all_four(error: SiteError, operation: str) -> None:
    """Site, operation, cause and way out, in the text that a person reads and, the first two, for programs."""
    assert (error.context["site"], error.context["operation"]) == ("aurora", operation)
    told = re.fullmatch(r"aurora: (?P<doing>[a-z' ]+ing\b[^:]*): (?P<cause>.+)", error.detail, re.DOTALL)
    assert told, error.detail
    assert "aurora" not in told["cause"], "once is enough"
    assert error.hint
    assert str(error).endswith(error.hint)
    assert "sandbox" not in str(error), "the password"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("trouble", LOUD, ids=lambda trouble: trouble.name)
def test_a_fault_ends_as_its_error_with_site_operation_cause_and_what_to_do(
    scene: Scene, operation: str, trouble: Trouble
) -> None:
    if (operation, trouble) == ("delete", Trouble.DRIP):
        pytest.skip("an answer without a body has nothing that could drip")
    occasion, ask = OPERATIONS[operation]
    scene.site.trouble(occasion, PartKind.SERVER, trouble, None)
    begun = time.monotonic()
    with pytest.raises(SiteError) as caught:
        ask(scene, soon(SHORT))
    assert type(caught.value) is LOUD[trouble]
    assert time.monotonic() - begun < SHORT + 0.5
    says_all_four(caught.value, operation)


REFUSALS: dict[Trouble, type[SiteRefused]] = {Trouble.QUOTA: SiteQuota, Trouble.CONFLICT: SiteConflict}


@pytest.mark.parametrize("trouble", REFUSALS, ids=lambda trouble: trouble.name)
def test_a_refusal_of_a_making_says_all_four_too(scene: Scene, trouble: Trouble) -> None:
    occasion, ask = OPERATIONS["make"]
    scene.site.trouble(occasion, PartKind.SERVER, trouble, None)
    with pytest.raises(SiteRefused) as caught:
        ask(scene, soon())
    assert type(caught.value) is REFUSALS[trouble]
    says_all_four(caught.value, "make")
    assert scene.site.existing(PartKind.SERVER, scene.tags.lease) == 0


def test_what_never_left_us_says_all_four_too(scene: Scene) -> None:
    for operation, (_, ask) in OPERATIONS.items():
        with pytest.raises(SiteUnknown) as caught:
            ask(scene, Deadline.after(-1))
        says_all_four(caught.value, operation)
    assert scene.site.existing(PartKind.SERVER, scene.tags.lease) == 0
    assert scene.site.existing(PartKind.SERVER, scene.site.tags.lease) == 1


def test_a_wrong_credential_says_all_four_the_second_time_too(scene: Scene) -> None:
    adapter = scene.site.wrong()
    for _ in range(2):
        with pytest.raises(SiteDenied) as caught:
            adapter.listing(deadline=soon())
        says_all_four(caught.value, "listing")
        assert "somebody else" not in str(caught.value), "the password"


@pytest.mark.parametrize("trouble", LOUD, ids=lambda trouble: trouble.name)
def test_after_the_fault_everything_works_as_before(scene: Scene, trouble: Trouble) -> None:
    """No connection, token or place is left over from it that would spoil the next request."""
    whole = scene.adapter.listing(deadline=soon())
    scene.site.trouble(Occasion.LIST, PartKind.SERVER, trouble, 1 if trouble is not Trouble.UNAUTHORIZED else 2)
    with pytest.raises(SiteError):
        scene.adapter.listing(deadline=soon(SHORT))
    scene.site.calm()
    for _ in range(2):
        assert scene.adapter.listing(deadline=soon()) == whole


def test_many_answers_that_drip_hold_nobody_else_up_for_longer_than_their_deadline(scene: Scene) -> None:
    """More of them than a site has places: who comes after the deadline finds a place."""
    scene.site.trouble(Occasion.LOOK, PartKind.SERVER, Trouble.DRIP, None)
    _, look = OPERATIONS["look"]

    def failed(_: int) -> bool:
        try:
            look(scene, soon(SHORT))
        except (SiteUnknown, SiteBusy):
            return True
        return False

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(failed, range(16)))
    begun = time.monotonic()
    assert scene.adapter.listing(deadline=soon()).machines
    assert time.monotonic() - begun < 5


# --- refused late, made twice, taken away in parts ---------------------------------------------------------------


def test_what_is_refused_late_is_there_until_it_is_deleted(site: ContractSite) -> None:
    made = site.launch(until=PartKind.SERVER)
    site.trouble(Occasion.MAKE, PartKind.SERVER, Trouble.NO_CAPACITY, 1)
    failed = site.make(PartKind.SERVER, made)
    found = site.adapter.find(PartKind.SERVER, lease=site.tags.lease, made=made, deadline=soon())
    assert [part.remote_id for part in found] == [failed]
    assert failed in {machine.remote_id for machine in site.adapter.listing(deadline=soon()).machines}
    site.adapter.delete(PartKind.SERVER, failed, deadline=soon())
    assert site.adapter.look(PartKind.SERVER, failed, deadline=soon()) is None
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def orders(parts: list[PartKind]) -> Iterator[list[PartKind]]:
    """Backwards, as Leeway does it, and with each part first once, as a person may."""
    yield parts[::-1]
    for first in parts:
        yield [first, *(part for part in parts[::-1] if part is not first)]


def test_parts_go_one_by_one_in_any_order_and_the_others_stay(site: ContractSite) -> None:
    parts = [part.kind for part in site.adapter.plan(site.machine)]
    for order in orders(parts):
        site.tags = new_tags()
        made = site.launch()
        gone: set[PartKind] = set()
        for kind in order:
            try:
                site.adapter.delete(kind, made[kind], deadline=soon())
            except (SiteRefused, SiteBusy):  # in use by a part that is still there
                assert site.adapter.look(kind, made[kind], deadline=soon()) is not None
                continue
            gone.add(kind)
            for other in set(parts) - gone:
                assert site.adapter.look(other, made[other], deadline=soon()) is not None, (order, kind, other)
            if kind is PartKind.SERVER:
                listing = site.adapter.listing(deadline=soon())
                assert {part.kind for part in listing.parts} == set(parts) - gone, "what it leaves behind is shown"
        for kind in parts[::-1]:
            site.adapter.delete(kind, made[kind], deadline=soon())
            assert site.adapter.look(kind, made[kind], deadline=soon()) is None
        assert not site.adapter.listing(deadline=soon()).parts


def test_a_deletion_whose_answer_was_lost_is_done_once_more_without_harm(site: ContractSite) -> None:
    made = site.launch()
    site.trouble(Occasion.ANY, PartKind.SERVER, Trouble.LOST, 1)
    with pytest.raises(SiteUnknown):
        site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert site.adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon()) is None


def test_deletions_at_the_same_time_are_all_fine(site: ContractSite) -> None:
    made = site.launch()

    def delete(_: int) -> None:
        site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(delete, range(8)))
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


def test_a_part_that_is_made_twice_is_there_twice_and_found_twice_or_refused(site: ContractSite) -> None:
    for part in site.adapter.plan(site.machine):
        if part.fence is not Fence.NONE:
            continue  # see test_fences.py
        site.tags = new_tags()
        made = site.launch(until=part.kind)
        both = {site.make(part.kind, made)}
        try:
            both.add(site.make(part.kind, made))
            assert len(both) == 2
        except SiteConflict:
            assert len(both) == 1
        found = site.adapter.find(part.kind, lease=site.tags.lease, made=made, deadline=soon())
        assert {one.remote_id for one in found} == both, "so that the extra one can be discarded"
        for one in both:
            site.adapter.delete(part.kind, one, deadline=soon())
        for kind in reversed(made):
            site.adapter.delete(kind, made[kind], deadline=soon())
