"""Grants: what may be made, and what placement is told of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from accounting.grants import GrantFacts, create_grant
from broker.errors import Conflict, InvalidInput, NotFound
from broker.values import Amount, Commodity, Period, new_id
from tests.unit.accounting.world import HOUR, T0, YEAR, World, eur

pytestmark = pytest.mark.postgres


def test_a_grant_has_an_account_and_its_amount_as_the_ceiling(world: World) -> None:
    grant = world.grant("10", name="ERC")
    balance = world.balance(f"grant:{grant.id}")
    assert balance is not None
    assert (balance.posted, balance.held, balance.ceiling) == (0, 0, 10)
    assert (grant.position, grant.commodity, grant.starts_at, grant.ends_at) == (1, "EUR", YEAR.start, YEAR.end)


def test_positions_follow_each_other_or_are_chosen(world: World) -> None:
    first, second = world.grant("1"), world.grant("1")
    chosen = create_grant(world.session, world.project.id, name="x", amount=eur(1), period=YEAR, position=7)
    last = world.grant("1")
    assert [grant.position for grant in (first, second, chosen, last)] == [1, 2, 7, 8]
    with pytest.raises(Conflict, match="position 7") as refused:
        create_grant(world.session, world.project.id, name="y", amount=eur(1), period=YEAR, position=7)
    assert "9" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("name", ""),
        ("name", "x" * 201),
        ("amount", eur(0)),
        ("amount", eur(-1)),
        ("amount", eur(10**19)),
        ("amount", eur("0.0000000001")),
        ("period", Period(T0, T0)),
    ],
)
def test_a_field_that_is_wrong_is_named(world: World, field: str, wrong: Any) -> None:
    fields: dict[str, Any] = {"name": "ERC", "amount": eur(1), "period": YEAR} | {field: wrong}
    with pytest.raises(InvalidInput) as refused:
        create_grant(world.session, world.project.id, **fields)
    assert refused.value.field == field


def test_names_are_the_projects_own(world: World) -> None:
    world.grant("1", name="ERC")
    with pytest.raises(Conflict, match="has a grant ERC already"):
        world.grant("1", name="ERC")
    World(world.session).grant("1", name="ERC")
    with pytest.raises(NotFound):
        create_grant(world.session, new_id(), name="ERC", amount=eur(1), period=YEAR)


def test_facts_are_what_is_free_on_grants_open_now(world: World) -> None:
    facts = GrantFacts()
    assert facts.for_project(world.session, world.project.id, now=T0).free == {}
    world.grant("10")
    world.grant("5")
    world.grant(Amount.of(100, "SU@vsc"))
    world.grant("1000", period=Period(T0 + HOUR, YEAR.end))
    world.grant("1000", period=Period(YEAR.start, T0))
    world.order("12")
    found = facts.for_project(world.session, world.project.id, now=T0)
    assert found.project == world.project.name
    assert found.free == {Commodity("EUR"): eur(3), Commodity("SU@vsc"): Amount.of(100, "SU@vsc")}
    with pytest.raises(NotFound):
        facts.for_project(world.session, new_id(), now=T0)


def test_equal_facts_have_equal_digests(world: World) -> None:
    facts = GrantFacts()
    world.grant("10")
    before = facts.for_project(world.session, world.project.id, now=T0).digest
    assert facts.for_project(world.session, world.project.id, now=T0 + timedelta(days=1)).digest == before
    world.order("1")
    assert facts.for_project(world.session, world.project.id, now=T0).digest != before
