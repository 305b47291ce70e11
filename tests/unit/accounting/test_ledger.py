"""The books: what may be posted, that a replay posts nothing, and that an auditor finds what is wrong."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from accounting.ledger import Difference, Line, account, lock_balances, post, verify
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import AccountKind, Balance, Entry, Posting
from broker.errors import GrantExhausted
from broker.values import Amount, new_id
from tests.unit.accounting.world import T0, World, eur

pytestmark = pytest.mark.postgres


def provider(world: World) -> UUID:
    """The account of what the world's provider is owed."""
    return account(world.session, AccountKind.PROVIDER, key=f"provider:{world.provider.id}", title="A cloud")


def pay(world: World, grant: Grant, value: str, *, key: str | None = None, hold_id: UUID | None = None) -> UUID:
    """Post `value` from the grant to the provider."""
    lines = [Line(grant.account_id, eur(value), hold_id), Line(provider(world), -eur(value))]
    return post(world.session, key=key or str(new_id()), kind="usage", text="a test", lines=lines, now=T0)


def test_an_entry_moves_balances_and_holds_together(world: World) -> None:
    grant = world.grant("10")
    order = world.order("4")
    (hold,) = world.holds(order)
    pay(world, grant, "1.5", hold_id=hold.id)
    assert world.of_grant(grant) == (Decimal("1.5"), Decimal("2.5"))
    assert world.owed == Decimal("1.5")
    assert [(row.amount, row.remaining) for row in world.holds(order)] == [(4, Decimal("2.5"))]
    assert verify(world.session) == []


def test_a_key_is_posted_once(world: World) -> None:
    grant = world.grant("10")
    (hold,) = world.holds(world.order("4"))
    first = pay(world, grant, "4", key="segment:1", hold_id=hold.id)
    # Even where the hold, used up by the first, could not pay a second.
    assert pay(world, grant, "4", key="segment:1", hold_id=hold.id) == first
    assert world.of_grant(grant) == (4, 0)
    assert world.entries() == 1


def test_an_account_is_opened_once(world: World) -> None:
    assert provider(world) == provider(world)


def test_an_entry_without_lines_is_an_entry(world: World) -> None:
    entry_id = post(world.session, key="free", kind="usage", text="free of charge", lines=[], now=T0)
    assert world.session.get_one(Entry, entry_id).key == "free"


@pytest.mark.parametrize(
    ("given", "taken", "message"),
    [("1", "1.1", "sum to 0.1, not to zero"), ("1.0000000001", "1.0000000001", "more than nine decimals")],
)
def test_lines_sum_to_zero_in_nine_decimals(world: World, given: str, taken: str, message: str) -> None:
    lines = [Line(provider(world), -eur(given)), Line(provider(world), eur(taken))]
    with pytest.raises(ValueError, match=message):
        post(world.session, key="k", kind="usage", text="", lines=lines, now=T0)
    assert world.entries() == 0


def test_one_commodity_does_not_make_up_for_another(world: World) -> None:
    there = provider(world)
    lines = [Line(there, eur(1)), Line(there, Amount.of(-1, "USD"))]
    with pytest.raises(ValueError, match="the lines in EUR sum to 1"):
        post(world.session, key="k", kind="usage", text="", lines=lines, now=T0)


def test_the_ceiling_stands_and_nothing_is_posted_beyond_it(world: World) -> None:
    grant = world.grant("10")
    world.order("9")
    with pytest.raises(GrantExhausted, match=r"pass the grant's ceiling by 0\.50 EUR"):
        pay(world, grant, "1.5")
    assert world.entries() == 0
    assert world.of_grant(grant) == (0, 9)
    pay(world, grant, "1")


def test_a_hold_pays_only_what_is_left_of_it_and_only_on_its_own_account(world: World) -> None:
    grant, other = world.grant("10"), world.grant("10")
    (hold,) = world.holds(world.order("4"))
    for grant_to_pay, value, message in (
        (grant, "4.1", "of which 4.000000000 is left"),
        (grant, "-1", "-1 cannot be taken"),
        (other, "1", "not open on the account"),
    ):
        with pytest.raises(ValueError, match=message):
            pay(world, grant_to_pay, value, hold_id=hold.id)
    with pytest.raises(ValueError, match="not open on the account"):
        pay(world, grant, "1", hold_id=new_id())
    hold.released_at = T0
    with pytest.raises(ValueError, match="not open on the account"):
        pay(world, grant, "1", hold_id=hold.id)
    assert world.entries() == 0


def test_two_lines_cannot_use_up_more_of_a_hold_than_there_is(world: World) -> None:
    grant = world.grant("10")
    (hold,) = world.holds(world.order("4"))
    lines = [Line(grant.account_id, eur(3), hold.id), Line(grant.account_id, eur(3), hold.id)]
    with pytest.raises(ValueError, match=r"of which 1\.000000000 is left"):
        post(world.session, key="k", kind="x", text="", lines=[*lines, Line(provider(world), eur(-6))], now=T0)


def test_balances_are_locked_in_the_order_of_their_ids_and_opened_once(world: World) -> None:
    pairs = {(world.grant("1").account_id, "EUR"), (provider(world), "EUR"), (provider(world), "USD")}
    first = lock_balances(world.session, pairs)
    assert set(first) == pairs
    assert [row.id for row in lock_balances(world.session, pairs).values()] == sorted(row.id for row in first.values())


def test_an_auditor_finds_every_kind_of_difference(world: World) -> None:
    grant = world.grant("10")
    order = world.order("4")
    pay(world, grant, "1")
    session = world.session
    key, there = f"grant:{grant.id}", f"provider:{world.provider.id}"
    session.execute(sa.update(Balance).where(Balance.account_id == grant.account_id).values(posted=2, held=3))
    assert verify(session) == [
        Difference("balance and its postings", key, "EUR", Decimal(2), Decimal(1)),
        Difference("held and its open holds", key, "EUR", Decimal(3), Decimal(4)),
    ]
    session.execute(sa.update(Balance).where(Balance.account_id == grant.account_id).values(posted=1, held=4))
    assert verify(session) == []
    session.execute(sa.update(MoneyHold).where(MoneyHold.order_id == order.id).values(released_at=T0))
    assert verify(session) == [Difference("held and its open holds", key, "EUR", Decimal(4), Decimal(0))]
    session.execute(sa.update(MoneyHold).where(MoneyHold.order_id == order.id).values(released_at=None))
    session.execute(sa.delete(Balance).where(Balance.account_id == provider(world)))
    assert verify(session) == [Difference("balance and its postings", there, "EUR", Decimal(0), Decimal(-1))]
    entry = session.scalars(select(Entry)).one()
    # The database refuses this at the commit, which never comes here.
    session.add(Posting(entry_id=entry.id, account_id=grant.account_id, commodity="SU@vsc", amount=Decimal(5)))
    session.flush()
    assert Difference("entry and zero", entry.key, "SU@vsc", Decimal(0), Decimal(5)) in verify(session)


def test_the_database_refuses_what_the_code_would_never_do(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        world = World(session)
        grant = world.grant("10")
        pay(world, grant, "1")
    with pytest.raises(DBAPIError), sessions.begin() as session:
        session.execute(sa.update(Posting).values(amount=0))
    with pytest.raises(DBAPIError), sessions.begin() as session:
        session.execute(sa.delete(Entry))
    with sessions() as session:
        entry = session.scalars(select(Entry)).one()
    with pytest.raises(DBAPIError, match="sum to zero"), sessions.begin() as session:
        session.add(Posting(entry_id=entry.id, account_id=grant.account_id, commodity="EUR", amount=Decimal(5)))
    with pytest.raises(DBAPIError, match="never_over_committed"), sessions.begin() as session:
        session.execute(sa.update(Balance).where(Balance.account_id == grant.account_id).values(held=11))
    with sessions() as session:
        assert verify(session) == []
