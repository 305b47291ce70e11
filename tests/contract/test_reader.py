"""Who may only read sees everything and changes nothing: the site refuses it, and not only Leeway's own care."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from broker.errors import SiteDenied
from broker.ports import CloudAdapter, Powers, Rebuilds, Resizes, Shelves, Suspends, Volumes
from broker.remote import PartKind, ThingKind
from tests.contract.sites import ContractSite, new_tags, soon

# A key pair opens nothing by itself, and is its user's own at some clouds.
MAY_BE_MADE = {PartKind.KEY_PAIR}


@pytest.fixture
def made(site: ContractSite) -> dict[PartKind, str]:
    """One part of each kind that the site knows, by somebody who may make them."""
    made = site.launch()
    return made | {PartKind.SNAPSHOT: site.make(PartKind.SNAPSHOT, made)}


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_reader_sees_what_everybody_sees(site: ContractSite, made: dict[PartKind, str]) -> None:
    reader = site.reader(True)
    seen, whole = reader.listing(deadline=soon()), site.adapter.listing(deadline=soon())
    assert (seen.machines, set(seen.things)) == (whole.machines, set(whole.things))
    assert not seen.unread
    assert {thing.kind for thing in seen.things} == {*ThingKind} - {ThingKind.SERVER}
    assert {part for part in whole.parts if part.kind not in MAY_BE_MADE} == set(seen.parts)
    assert reader.quotas(deadline=soon()) == site.adapter.quotas(deadline=soon())
    assert reader.offers(deadline=soon()) == site.adapter.offers(deadline=soon())
    assert reader.images(deadline=soon()) == site.adapter.images(deadline=soon())
    assert reader.scope(deadline=soon()) == site.adapter.scope(deadline=soon())
    for kind, remote_id in made.items():
        if kind not in MAY_BE_MADE:
            assert reader.look(kind, remote_id, deadline=soon()) == site.adapter.look(kind, remote_id, deadline=soon())


def test_a_reader_is_enough_to_observe_and_too_little_to_broker(site: ContractSite) -> None:
    assert all(step.ok for step in site.reader(True).check(deadline=soon()))
    assert [step.step for step in site.reader(False).check(deadline=soon()) if not step.ok] == ["project"]


# --- changing ----------------------------------------------------------------------------------------------------


def test_a_reader_makes_nothing(site: ContractSite, made: dict[PartKind, str]) -> None:
    reader, tags = site.reader(False), new_tags()
    ready = site.launch(until=PartKind.SERVER, tags=new_tags()) | {PartKind.SERVER: made[PartKind.SERVER]}
    for kind in (*[part.kind for part in reader.plan(site.machine)], PartKind.SNAPSHOT):
        if kind not in MAY_BE_MADE:
            with pytest.raises(SiteDenied):
                reader.make(kind, site.machine, tags=tags, made=ready, deadline=soon())
            assert site.existing(kind, tags.lease) == 0


def test_a_reader_deletes_nothing(site: ContractSite, made: dict[PartKind, str]) -> None:
    reader = site.reader(False)
    for kind, remote_id in made.items():
        if kind not in MAY_BE_MADE:
            with pytest.raises(SiteDenied):
                reader.delete(kind, remote_id, deadline=soon())
            assert site.adapter.look(kind, remote_id, deadline=soon()) is not None


def test_a_reader_moves_no_machine(site: ContractSite, made: dict[PartKind, str]) -> None:
    machine, reader = made[PartKind.SERVER], site.reader(False)
    for action in actions(reader, site, machine):
        with pytest.raises(SiteDenied):
            action()
    seen = site.adapter.look(PartKind.SERVER, machine, deadline=soon())
    assert seen == next(one for one in site.adapter.listing(deadline=soon()).machines if one.remote_id == machine)


def actions(adapter: CloudAdapter, site: ContractSite, machine: str) -> list[Callable[[], object]]:
    """Everything that the adapter says it can do with a machine."""
    found: list[Callable[..., object]] = []
    if isinstance(adapter, Powers):
        found += [partial(adapter.stop, machine), partial(adapter.start, machine)]
    if isinstance(adapter, Shelves):
        found += [partial(adapter.shelve, machine), partial(adapter.unshelve, machine)]
    if isinstance(adapter, Suspends):
        found += [partial(adapter.suspend, machine), partial(adapter.resume, machine)]
    if isinstance(adapter, Resizes):
        found += [partial(adapter.resize, machine, site.other_type)]
    if isinstance(adapter, Rebuilds):
        found += [partial(adapter.rebuild, machine, site.other_image)]
    if isinstance(adapter, Volumes):
        loose = [
            thing.remote_id
            for thing in site.adapter.listing(deadline=soon()).things
            if thing.kind is ThingKind.VOLUME and thing.attached_to is None
        ]
        found += [partial(adapter.attach, machine, loose[0])]
    return [partial(action, deadline=soon()) for action in found]


def test_what_is_not_there_is_gone_for_a_reader_too(site: ContractSite, made: dict[PartKind, str]) -> None:
    reader = site.reader(False)
    site.adapter.delete(PartKind.ADDRESS, made.get(PartKind.ADDRESS, ""), deadline=soon())
    assert reader.look(PartKind.ADDRESS, made[PartKind.ADDRESS], deadline=soon()) is None
    reader.delete(PartKind.ADDRESS, made[PartKind.ADDRESS], deadline=soon())


def test_an_observed_site_is_not_even_asked(site: ContractSite, made: dict[PartKind, str]) -> None:
    reader = site.reader(True)
    with pytest.raises(SiteDenied, match="only observes"):
        reader.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    with pytest.raises(SiteDenied, match="only observes"):
        reader.make(PartKind.SNAPSHOT, site.machine, tags=new_tags(), made=made, deadline=soon())
