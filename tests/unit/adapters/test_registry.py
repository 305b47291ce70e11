"""From a kind and a credential to an adapter, and never to somebody else's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from adapters.openstack.adapter import OpenStack
from adapters.registry import Registry
from broker.errors import InvalidInput
from broker.remote import Secret, SiteAddress

SITE = SiteAddress(uuid.uuid4(), "aurora", "openstack", "https://k.example.org/v3", "R", uuid.uuid4(), {})
ALICE = Secret({"username": "alice", "password": "a", "project_name": "p"})
BOB = Secret({"username": "bob", "password": "b", "project_name": "p"})


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry(most_open=3)
    yield made
    made.close()


def test_the_same_site_and_credential_give_the_same_adapter(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = set(pool.map(lambda _: registry.open(SITE, Secret(ALICE.reveal())), range(40)))
    assert len(opened) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(SITE, site_id=uuid.uuid4()),
        replace(SITE, endpoint="https://k2.example.org/v3"),
        replace(SITE, region="S"),
        replace(SITE, settings={"network": "n"}),
        replace(SITE, observe_only=True),
    ],
)
def test_another_site_gives_another_adapter(registry: Registry, other: SiteAddress) -> None:
    assert registry.open(other, ALICE) is not registry.open(SITE, ALICE)


def test_another_credential_never_shares_a_session(registry: Registry) -> None:
    alice = registry.open(SITE, ALICE)
    assert registry.open(SITE, BOB) is not alice
    assert registry.open(SITE, Secret({**ALICE.reveal(), "password": "wrong"})) is not alice
    tricky = Secret({"username": "alice", "password": "a", "project_name": "p", "user_domain_name": ""})
    assert registry.open(SITE, tricky) is not alice


def test_what_was_not_used_for_longest_is_dropped(registry: Registry) -> None:
    first = registry.open(SITE, ALICE)
    for number in range(2):
        registry.open(replace(SITE, region=f"R{number}"), ALICE)
    assert registry.open(SITE, ALICE) is first
    registry.open(replace(SITE, region="R2"), ALICE)
    assert registry.open(SITE, ALICE) is first, "it was used just now"
    for number in range(3):
        registry.open(replace(SITE, region=f"S{number}"), ALICE)
    assert registry.open(SITE, ALICE) is not first


def test_an_unknown_kind_names_the_known_ones(registry: Registry) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.open(replace(SITE, adapter="openstak"), ALICE)
    assert caught.value.field == "adapter"
    assert "Did you mean 'openstack'?" in (caught.value.hint or "")
    assert "sandbox" in (caught.value.hint or "")


def test_a_sandbox_is_an_openstack(registry: Registry) -> None:
    assert isinstance(registry.open(replace(SITE, adapter="sandbox"), ALICE), OpenStack)


def test_a_credential_that_lacks_a_field_is_not_kept(registry: Registry) -> None:
    with pytest.raises(InvalidInput):
        registry.open(SITE, Secret({"username": "alice"}))
    registry.open(SITE, ALICE)


def test_kinds_may_come_from_elsewhere() -> None:
    opened = []

    def factory(site: SiteAddress, secret: Secret, bulkhead: object) -> object:
        opened.append((site, secret, bulkhead))
        return object()

    registry = Registry({"other": factory})  # type: ignore[dict-item] # what it makes is no matter here
    other = replace(SITE, adapter="other")
    registry.open(other, ALICE)
    registry.open(other, BOB)
    assert opened[0][2] is opened[1][2], "the places for requests are the site's"
    registry.close()
