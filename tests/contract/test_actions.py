"""What is done to a machine that is there: asked twice, asked amiss, asked without an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.errors import SiteBusy, SiteConflict, SiteDenied, SiteError, SiteQuota, SiteRefused, SiteUnknown
from broker.ports import Powers, Rebuilds, Resizes, Shelves, Suspends
from broker.remote import Deadline, MachineState, PartKind, RemoteMachine
from tests.contract.sites import UNCLEAR, ContractSite, Occasion, Trouble, new_tags, soon

LONG = 60.0  # seconds; what takes so long is under way until the end of the test
SHORT = 0.4  # seconds; trouble that is slow takes 2


@pytest.fixture
def machine(site: ContractSite) -> str:
    """The id of a machine that runs."""
    return site.launch(until=PartKind.ADDRESS)[PartKind.SERVER]


def look(site: ContractSite, machine: str) -> RemoteMachine:
    seen = site.adapter.look(PartKind.SERVER, machine, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    return seen


def trouble(site: ContractSite, what: Trouble, times: int | None = 1) -> None:
    site.trouble(Occasion.ACT, PartKind.SERVER, what, times)


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.fixture
def suspends(site: ContractSite) -> Suspends:
    if not isinstance(site.adapter, Suspends):
        pytest.skip("not claimed")
    return site.adapter


def test_suspend_and_resume_work_twice(site: ContractSite, suspends: Suspends, machine: str) -> None:
    for _ in range(2):
        suspends.suspend(machine, deadline=soon())
        assert look(site, machine).state is MachineState.STOPPED
    for _ in range(2):
        suspends.resume(machine, deadline=soon())
        assert look(site, machine).state is MachineState.RUNNING


def test_while_it_is_being_suspended_only_the_same_is_fine(
    site: ContractSite, suspends: Suspends, machine: str
) -> None:
    site.dawdle(LONG)
    for _ in range(2):
        suspends.suspend(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        suspends.resume(machine, deadline=soon())


def test_what_is_stopped_is_neither_suspended_nor_resumed(site: ContractSite, suspends: Suspends, machine: str) -> None:
    if not isinstance(site.adapter, Powers):
        pytest.skip("cannot be stopped")
    site.adapter.stop(machine, deadline=soon())
    for change in (suspends.suspend, suspends.resume):
        with pytest.raises(SiteConflict):
            change(machine, deadline=soon())
    assert look(site, machine).state is MachineState.STOPPED


def test_whatever_way_it_came_to_rest_it_is_started(site: ContractSite, suspends: Suspends, machine: str) -> None:
    if not isinstance(site.adapter, Powers):
        pytest.skip("cannot be started")
    suspends.suspend(machine, deadline=soon())
    site.adapter.start(machine, deadline=soon())
    assert look(site, machine).state is MachineState.RUNNING


def test_what_is_being_stopped_is_not_started_already(site: ContractSite, machine: str) -> None:
    if not isinstance(site.adapter, Powers):
        pytest.skip("cannot be stopped")
    site.dawdle(LONG)
    site.adapter.stop(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        site.adapter.start(machine, deadline=soon())


# --- size --------------------------------------------------------------------------------------------------------


@pytest.fixture
def resizes(site: ContractSite) -> Resizes:
    if not isinstance(site.adapter, Resizes):
        pytest.skip("not claimed")
    return site.adapter


def confirm(resizes: Resizes, machine: str) -> None:
    """Ask until nothing is left to do."""
    deadline = soon()
    while not resizes.confirm_resize(machine, deadline=deadline):
        deadline.check("confirming")


def test_a_machine_is_resized_and_keeps_the_size_when_it_is_confirmed(
    site: ContractSite, resizes: Resizes, machine: str
) -> None:
    before = look(site, machine)
    for _ in range(2):
        resizes.resize(machine, site.other_type, deadline=soon())
    for _ in range(2):
        confirm(resizes, machine)
        after = look(site, machine)
        assert (after.instance_type, after.state) == (site.other_type, MachineState.RUNNING)
        assert (after.addresses, after.tags, after.created_at) == (before.addresses, before.tags, before.created_at)
    resizes.resize(machine, site.other_type, deadline=soon())
    confirm(resizes, machine)
    with pytest.raises(SiteConflict):
        resizes.revert_resize(machine, deadline=soon())
    assert look(site, machine).instance_type == site.other_type


def test_a_resize_is_reverted_while_it_is_not_confirmed(site: ContractSite, resizes: Resizes, machine: str) -> None:
    resizes.resize(machine, site.other_type, deadline=soon())
    for _ in range(2):
        resizes.revert_resize(machine, deadline=soon())
        assert look(site, machine).instance_type == site.machine.instance_type
    confirm(resizes, machine)
    assert look(site, machine).instance_type == site.machine.instance_type


def test_a_machine_that_was_never_resized_has_nothing_to_confirm_or_revert(
    site: ContractSite, resizes: Resizes, machine: str
) -> None:
    assert resizes.confirm_resize(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        resizes.revert_resize(machine, deadline=soon())
    resizes.resize(machine, site.machine.instance_type, deadline=soon())
    assert resizes.confirm_resize(machine, deadline=soon())


def test_while_it_is_being_resized_it_is_looked_at(site: ContractSite, resizes: Resizes, machine: str) -> None:
    site.dawdle(LONG)
    for _ in range(2):
        resizes.resize(machine, site.other_type, deadline=soon())
        assert not resizes.confirm_resize(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        resizes.revert_resize(machine, deadline=soon())
    if isinstance(site.adapter, Suspends):
        with pytest.raises(SiteConflict):
            site.adapter.suspend(machine, deadline=soon())


def test_what_waits_to_be_confirmed_takes_no_other_size(site: ContractSite, resizes: Resizes, machine: str) -> None:
    resizes.resize(machine, site.other_type, deadline=soon())
    if look(site, machine).raw_status != "VERIFY_RESIZE":
        pytest.skip("the site confirms by itself")
    with pytest.raises(SiteConflict):
        resizes.resize(machine, site.machine.instance_type, deadline=soon())


def test_while_it_is_being_confirmed_nothing_is_reverted(site: ContractSite, resizes: Resizes, machine: str) -> None:
    resizes.resize(machine, site.other_type, deadline=soon())
    if look(site, machine).raw_status != "VERIFY_RESIZE":
        pytest.skip("the site confirms by itself")
    site.dawdle(LONG)
    for _ in range(3):
        assert not resizes.confirm_resize(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        resizes.revert_resize(machine, deadline=soon())


def test_while_it_is_being_reverted_nothing_is_confirmed(site: ContractSite, resizes: Resizes, machine: str) -> None:
    resizes.resize(machine, site.other_type, deadline=soon())
    if look(site, machine).raw_status != "VERIFY_RESIZE":
        pytest.skip("the site confirms by itself")
    site.dawdle(LONG)
    for _ in range(2):
        resizes.revert_resize(machine, deadline=soon())
        assert not resizes.confirm_resize(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        resizes.resize(machine, site.other_type, deadline=soon())


def test_a_resize_that_fails_later_is_told_by_its_confirmation(
    site: ContractSite, resizes: Resizes, machine: str
) -> None:
    """Accepted, and then there is no room: the machine is as before, and does not say so itself."""
    trouble(site, Trouble.NO_CAPACITY)
    resizes.resize(machine, site.other_type, deadline=soon())
    for _ in range(2):
        with pytest.raises(SiteRefused, match="failed"):
            confirm(resizes, machine)
    kept = look(site, machine)
    assert (kept.instance_type, kept.state) == (site.machine.instance_type, MachineState.RUNNING)
    resizes.revert_resize(machine, deadline=soon())
    resizes.resize(machine, site.other_type, deadline=soon())
    confirm(resizes, machine)
    assert look(site, machine).instance_type == site.other_type


def test_a_stopped_machine_is_resized_and_stays_so(site: ContractSite, resizes: Resizes, machine: str) -> None:
    if not isinstance(site.adapter, Powers):
        pytest.skip("cannot be stopped")
    site.adapter.stop(machine, deadline=soon())
    resizes.resize(machine, site.other_type, deadline=soon())
    confirm(resizes, machine)
    seen = look(site, machine)
    assert (seen.instance_type, seen.state) == (site.other_type, MachineState.STOPPED)


def test_a_shelved_machine_is_not_resized(site: ContractSite, resizes: Resizes, machine: str) -> None:
    if not isinstance(site.adapter, Shelves):
        pytest.skip("cannot be shelved")
    site.adapter.shelve(machine, deadline=soon())
    with pytest.raises(SiteConflict):
        resizes.resize(machine, site.other_type, deadline=soon())


def test_a_size_over_quota_or_unknown_is_refused_and_changes_nothing(
    site: ContractSite, resizes: Resizes, machine: str
) -> None:
    trouble(site, Trouble.QUOTA)
    with pytest.raises(SiteQuota):
        resizes.resize(machine, site.other_type, deadline=soon())
    with pytest.raises(SiteRefused):
        resizes.resize(machine, "none", deadline=soon())
    assert look(site, machine).instance_type == site.machine.instance_type
    assert resizes.confirm_resize(machine, deadline=soon())


def test_the_quota_counts_the_size_that_a_machine_has(site: ContractSite, resizes: Resizes, machine: str) -> None:
    def cores() -> int:
        return next(int(quota.used) for quota in site.adapter.quotas(deadline=soon()) if quota.resource == "cores")

    sizes = {offer.remote_id: offer.cores for offer in site.adapter.offers(deadline=soon())}
    before, more = cores(), sizes[site.other_type] - sizes[site.machine.instance_type]
    resizes.resize(machine, site.other_type, deadline=soon())
    assert cores() == before + more
    resizes.revert_resize(machine, deadline=soon())
    assert cores() == before


# --- disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def rebuilds(site: ContractSite) -> Rebuilds:
    if not isinstance(site.adapter, Rebuilds):
        pytest.skip("not claimed")
    return site.adapter


def test_a_machine_is_rebuilt_and_keeps_all_but_its_disk(site: ContractSite, rebuilds: Rebuilds, machine: str) -> None:
    before = look(site, machine)
    for image in (site.other_image, site.other_image, site.machine.image):
        rebuilds.rebuild(machine, image, deadline=soon())
        after = look(site, machine)
        assert after.launched_at is not None
        assert replace(after, launched_at=before.launched_at) == before


def test_while_it_is_being_rebuilt_only_the_same_is_fine(site: ContractSite, rebuilds: Rebuilds, machine: str) -> None:
    site.dawdle(LONG)
    for _ in range(2):
        rebuilds.rebuild(machine, site.other_image, deadline=soon())
        assert look(site, machine).state is MachineState.BUILDING
    with pytest.raises(SiteConflict):
        rebuilds.rebuild(machine, site.machine.image, deadline=soon())


def test_an_unknown_image_or_a_shelved_machine_is_refused(site: ContractSite, rebuilds: Rebuilds, machine: str) -> None:
    with pytest.raises(SiteRefused):
        rebuilds.rebuild(machine, str(new_tags().lease), deadline=soon())
    assert look(site, machine).state is MachineState.RUNNING
    if isinstance(site.adapter, Shelves):
        site.adapter.shelve(machine, deadline=soon())
        for image in (site.other_image, site.machine.image):
            with pytest.raises(SiteConflict):
                rebuilds.rebuild(machine, image, deadline=soon())


# --- all of them -------------------------------------------------------------------------------------------------

Change = Callable[[str, Deadline], object]


@pytest.fixture(params=["suspend", "resize", "rebuild"])
def change(request: pytest.FixtureRequest, site: ContractSite) -> Change:
    """One change of a machine that runs."""
    adapter = site.adapter
    if request.param == "suspend" and isinstance(adapter, Suspends):
        suspends = adapter
        return lambda machine, deadline: suspends.suspend(machine, deadline=deadline)
    if request.param == "resize" and isinstance(adapter, Resizes):
        resizes = adapter
        return lambda machine, deadline: resizes.resize(machine, site.other_type, deadline=deadline)
    if request.param == "rebuild" and isinstance(adapter, Rebuilds):
        rebuilds = adapter
        return lambda machine, deadline: rebuilds.rebuild(machine, site.other_image, deadline=deadline)
    pytest.skip("not claimed")


def test_a_machine_that_is_not_there_is_an_error(site: ContractSite, change: Change) -> None:
    adapter, unknown = site.adapter, str(new_tags().lease)
    with pytest.raises(SiteRefused, match=unknown):
        change(unknown, soon())
    if isinstance(adapter, Resizes):
        with pytest.raises(SiteRefused, match=unknown):
            adapter.confirm_resize(unknown, deadline=soon())
        with pytest.raises(SiteRefused, match=unknown):
            adapter.revert_resize(unknown, deadline=soon())


def test_after_a_lost_answer_it_is_asked_for_again(site: ContractSite, machine: str, change: Change) -> None:
    site.dawdle(LONG)
    trouble(site, Trouble.LOST)
    with pytest.raises(SiteUnknown):
        change(machine, soon())
    under_way = look(site, machine)
    change(machine, soon())
    assert look(site, machine) == under_way


def test_a_lost_answer_of_what_is_done_at_once(site: ContractSite, machine: str, change: Change) -> None:
    trouble(site, Trouble.LOST)
    with pytest.raises(SiteUnknown):
        change(machine, soon())
    change(machine, soon())
    if isinstance(site.adapter, Resizes):
        confirm(site.adapter, machine)
    assert look(site, machine).state in (MachineState.RUNNING, MachineState.STOPPED)


def test_a_refusal_says_what_it_is_and_changes_nothing(site: ContractSite, machine: str, change: Change) -> None:
    before = look(site, machine)
    for what, error in ((Trouble.BUSY, SiteBusy), (Trouble.FORBIDDEN, SiteDenied)):
        trouble(site, what)
        with pytest.raises(error):
            change(machine, soon())
    with pytest.raises(SiteUnknown):
        change(machine, Deadline.after(-1))
    assert look(site, machine) == before


# Most actions are answered without a word, and no word cannot come slowly.
@pytest.mark.parametrize("what", [what for what in UNCLEAR if what is not Trouble.DRIP], ids=lambda what: what.name)
def test_an_unclear_answer_is_unknown(site: ContractSite, machine: str, change: Change, what: Trouble) -> None:
    trouble(site, what)
    with pytest.raises(SiteUnknown):
        change(machine, soon(SHORT))


def test_where_the_look_after_a_conflict_fails_it_is_an_error(site: ContractSite, machine: str, change: Change) -> None:
    site.dawdle(LONG)
    change(machine, soon())
    site.trouble(Occasion.LOOK, PartKind.SERVER, Trouble.SERVER_ERROR, 1)
    with pytest.raises(SiteError):
        change(machine, soon())
