"""A credential that is wrong, over or taken back, from the beginning or in mid-run: never "nothing there"."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.errors import SiteDenied
from broker.ports import CloudAdapter
from broker.remote import Deadline, PartKind
from tests.contract.sites import ContractSite, Occasion, OwnCredential, Trouble, soon

Ask = Callable[[CloudAdapter, Deadline], object]
READINGS: dict[str, Ask] = {
    "offers": lambda adapter, deadline: adapter.offers(deadline=deadline),
    "images": lambda adapter, deadline: adapter.images(deadline=deadline),
    "networks": lambda adapter, deadline: adapter.networks(deadline=deadline),
    "quotas": lambda adapter, deadline: adapter.quotas(deadline=deadline),
    "listing": lambda adapter, deadline: adapter.listing(deadline=deadline),
}


@pytest.fixture
def credential(site: ContractSite) -> OwnCredential:
    made = site.own_credential()
    site.adapter = made.adapter
    return made


def refuses_everything(site: ContractSite, adapter: CloudAdapter, made: dict[PartKind, str]) -> None:
    """Every question and every request is refused, and none is answered as if nothing were there."""
    before = {kind: site.existing(kind, site.tags.lease) for kind in made}
    for ask in READINGS.values():
        with pytest.raises(SiteDenied):
            ask(adapter, soon())
    for kind, remote_id in made.items():
        with pytest.raises(SiteDenied):
            adapter.look(kind, remote_id, deadline=soon())
        with pytest.raises(SiteDenied):
            adapter.find(kind, lease=site.tags.lease, made=made, deadline=soon())
        with pytest.raises(SiteDenied):
            adapter.delete(kind, remote_id, deadline=soon())
    with pytest.raises(SiteDenied):
        adapter.make(PartKind.SERVER, site.machine, tags=site.tags, made=made, deadline=soon())
    assert {kind: site.existing(kind, site.tags.lease) for kind in made} == before


def test_a_wrong_credential_is_denied_and_says_nothing_of_what_exists(site: ContractSite) -> None:
    refuses_everything(site, site.wrong(), site.launch())


def test_a_wrong_credential_never_borrows_the_session_of_a_right_one(site: ContractSite) -> None:
    site.adapter.listing(deadline=soon())
    wrong = site.wrong()
    with pytest.raises(SiteDenied):
        wrong.listing(deadline=soon())
    site.adapter.listing(deadline=soon())


def test_a_session_that_ends_is_begun_anew_without_anybody_noticing(
    site: ContractSite, credential: OwnCredential
) -> None:
    made = site.launch(until=PartKind.SERVER)
    credential.end_sessions()
    made[PartKind.SERVER] = site.make(PartKind.SERVER, made)
    credential.end_sessions()
    assert made[PartKind.SERVER] in {machine.remote_id for machine in site.adapter.listing(deadline=soon()).machines}
    credential.end_sessions()
    site.adapter.delete(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    assert site.existing(PartKind.SERVER, site.tags.lease) == 0


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_a_credential_that_ends_in_mid_run_says_nothing_of_what_exists(
    site: ContractSite, credential: OwnCredential, end: str
) -> None:
    made = site.launch()
    getattr(credential, end)()
    refuses_everything(site, credential.adapter, made)


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_a_credential_that_ends_before_it_is_used_is_denied_with_what_to_do(
    site: ContractSite, credential: OwnCredential, end: str
) -> None:
    getattr(credential, end)()
    told: list[tuple[str, int | None]] = []
    for _ in range(2):  # the second is not sent: a site may lock who fails too often
        with pytest.raises(SiteDenied) as caught:
            site.adapter.listing(deadline=soon())
        assert "credential" in (caught.value.hint or "")
        told.append((str(caught.value), caught.value.http_status))
    assert told[0] == told[1]


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_the_check_names_the_credential(site: ContractSite, credential: OwnCredential, end: str) -> None:
    getattr(credential, end)()
    failed = [step for step in site.adapter.check(deadline=soon()) if not step.ok]
    assert [step.step for step in failed] == ["credential"]
    assert "new one" in (failed[0].hint or "")


def test_a_denied_making_is_tried_again_with_a_new_credential(site: ContractSite, credential: OwnCredential) -> None:
    made = site.launch(until=PartKind.SERVER)
    credential.revoke()
    with pytest.raises(SiteDenied):
        site.make(PartKind.SERVER, made)
    site.adapter = site.own_credential().adapter
    made.pop(PartKind.KEY_PAIR, None)  # of the other login, at some sites
    assert site.make(PartKind.SERVER, made)
    assert site.existing(PartKind.SERVER, site.tags.lease) == 1


LISTED = (PartKind.KEY_PAIR, PartKind.PORT, PartKind.SERVER, PartKind.ADDRESS, PartKind.SNAPSHOT)


@pytest.mark.parametrize("listed", LISTED)
@pytest.mark.parametrize("trouble", [Trouble.UNAUTHORIZED, Trouble.FORBIDDEN], ids=lambda trouble: trouble.name)
def test_one_list_that_refuses_the_credential_fails_the_listing(
    site: ContractSite, listed: PartKind, trouble: Trouble
) -> None:
    """What the other lists say is not the whole."""
    whole = site.adapter.listing(deadline=soon())
    site.trouble(Occasion.LIST, listed, trouble, None)
    with pytest.raises(SiteDenied):
        site.adapter.listing(deadline=soon())
    site.calm()
    assert site.adapter.listing(deadline=soon()) == whole
