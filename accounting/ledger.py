"""The books: entries whose postings sum to zero per commodity, and the balances kept beside them.

A posting and its balance change in one transaction, so that `balances` always equals the sums; `verify` proves it.
Balances are locked before anything is written, in the order of their ids (pools, grant balances, order, lease): two
transactions that post to the same accounts queue, and never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Select, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from accounting.models.grants import MoneyHold
from accounting.models.ledger import Account, AccountKind, Balance, Entry, Posting
from broker.errors import GrantExhausted
from broker.values import Amount, Commodity, exact, new_id, utc

# An account and a commodity: what a balance is kept for.
Pair = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One posting to be. `hold_id` names the hold that had set the amount aside, which falls by as much."""

    account_id: UUID
    amount: Amount
    hold_id: UUID | None = None

    @property
    def pair(self) -> Pair:
        """The balance that it changes."""
        return self.account_id, self.amount.commodity.code


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the books do not agree with themselves: what was compared, of whom, and the two figures."""

    what: str
    key: str
    commodity: str
    kept: Decimal
    summed: Decimal


def account(session: Session, kind: AccountKind, *, key: str, title: str) -> UUID:
    """The id of the account with this key, opened if it is not there yet."""
    wanted = select(Account.id).where(Account.key == key)
    found = session.scalar(wanted)
    if found is not None:
        return found
    row = {"id": new_id(), "kind": kind, "key": key, "title": title}
    session.execute(insert(Account).values(row).on_conflict_do_nothing(index_elements=[Account.key]))
    return session.scalars(wanted).one()


def lock_balances(session: Session, pairs: Collection[Pair]) -> dict[Pair, Balance]:
    """The balances, locked in the order of their ids; those that are not there yet are opened without a ceiling.

    One call per transaction, with all that it will post to: a second call could lock a lower id late.
    """
    found = _locked(session, pairs)
    missing = sorted(set(pairs) - set(found))
    if not missing:
        return found
    rows = [{"id": new_id(), "account_id": account_id, "commodity": commodity} for account_id, commodity in missing]
    session.execute(
        insert(Balance).values(rows).on_conflict_do_nothing(index_elements=[Balance.account_id, Balance.commodity])
    )
    return _locked(session, pairs)


def _locked(session: Session, pairs: Collection[Pair]) -> dict[Pair, Balance]:
    rows = session.scalars(
        select(Balance)
        .where(tuple_(Balance.account_id, Balance.commodity).in_(sorted(pairs)))
        .order_by(Balance.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {(row.account_id, row.commodity): row for row in rows}


def post(session: Session, *, key: str, kind: str, text: str, lines: Sequence[Line], now: datetime) -> UUID:
    """Post an entry, move its balances and use up its holds; the id of the entry.

    A key that was posted before posts nothing, and gives the first entry's id.

    Raises:
        ValueError: where the lines do not sum to zero per commodity, have more than nine decimals, or use up more of a
            hold than is left; nothing is posted then.
        GrantExhausted: where a line without a hold would pass an account's ceiling; nothing is posted then.
    """
    _check(lines)
    balances = lock_balances(session, {line.pair for line in lines})
    posted = select(Entry.id).where(Entry.key == key)
    found = session.scalar(posted)
    if found is not None:
        return found
    holds = _holds(session, lines)
    with exact():
        changes = _changes(lines, balances, holds)
        _check_ceilings(balances, changes)
        row = {"id": new_id(), "key": key, "kind": kind, "text": text, "posted_at": utc(now, field="now")}
        entry_id: UUID | None = session.scalar(
            insert(Entry).values(row).on_conflict_do_nothing(index_elements=[Entry.key]).returning(Entry.id)
        )
        if entry_id is None:  # posted meanwhile, and to other accounts: no lock of ours was in its way
            return session.scalars(posted).one()
        _apply(session, lines, balances, holds=holds, changes=changes)
    session.add_all(
        Posting(
            entry_id=entry_id,
            account_id=line.account_id,
            commodity=line.amount.commodity.code,
            amount=line.amount.value,
        )
        for line in lines
    )
    session.flush()
    return entry_id


def _check(lines: Sequence[Line]) -> None:
    sums: dict[Commodity, Amount] = {}
    for line in lines:
        if line.amount.stored() != line.amount:
            raise ValueError(f"{line.amount.value} {line.amount.commodity} has more than nine decimals")
        commodity = line.amount.commodity
        sums[commodity] = sums.get(commodity, Amount.zero(commodity)) + line.amount
    for commodity, total in sums.items():
        if total.value:
            raise ValueError(f"the lines in {commodity} sum to {total.value}, not to zero")


def _holds(session: Session, lines: Sequence[Line]) -> dict[UUID, MoneyHold]:
    """The holds that the lines use up; the lock on their balance is theirs too."""
    wanted = {line.hold_id for line in lines if line.hold_id is not None}
    if not wanted:
        return {}
    found = select(MoneyHold).where(MoneyHold.id.in_(wanted)).execution_options(populate_existing=True)
    return {row.id: row for row in session.scalars(found)}


@dataclass(slots=True)
class _Change:
    """What an entry adds to one balance."""

    posted: Decimal = Decimal(0)
    held: Decimal = Decimal(0)


def _changes(
    lines: Sequence[Line], balances: Mapping[Pair, Balance], holds: Mapping[UUID, MoneyHold]
) -> dict[Pair, _Change]:
    changes: dict[Pair, _Change] = {}
    left = {hold.id: hold.remaining for hold in holds.values()}
    for line in lines:
        change = changes.setdefault(line.pair, _Change())
        change.posted += line.amount.value
        if line.hold_id is None:
            continue
        hold = holds.get(line.hold_id)
        if hold is None or hold.released_at is not None or hold.balance_id != balances[line.pair].id:
            raise ValueError(f"hold {line.hold_id} is not open on the account that the line is posted to")
        if not 0 <= line.amount.value <= left[hold.id]:
            raise ValueError(f"{line.amount.value} cannot be taken from a hold of which {left[hold.id]} is left")
        left[hold.id] -= line.amount.value
        change.held -= line.amount.value
    return changes


def _check_ceilings(balances: Mapping[Pair, Balance], changes: Mapping[Pair, _Change]) -> None:
    """The constraint's rule, told in words before the database tells it in codes."""
    for pair, change in changes.items():
        balance = balances[pair]
        if balance.ceiling is None:
            continue
        free = balance.ceiling - balance.posted - balance.held - change.posted - change.held
        if free < 0:
            over = Amount.of(-free, balance.commodity)
            raise GrantExhausted(
                f"Posting this would pass the grant's ceiling by {over}.",
                hint="Hold the money first, or raise the grant.",
                over=str(over.value),
            )


def _apply(
    session: Session,
    lines: Sequence[Line],
    balances: Mapping[Pair, Balance],
    *,
    holds: Mapping[UUID, MoneyHold],
    changes: Mapping[Pair, _Change],
) -> None:
    for pair, change in changes.items():
        # One UPDATE per balance: between two, `ceiling - posted - held` would be wrong for a moment.
        balances[pair].posted += change.posted
        balances[pair].held += change.held
    for line in lines:
        if line.hold_id is not None:
            holds[line.hold_id].remaining -= line.amount.value
    session.flush()


def verify(session: Session) -> list[Difference]:
    """Every difference between what is kept and what its rows sum to; empty where the books agree.

    Each comparison is one statement, hence one snapshot: it may run while others post.
    """
    return [
        *_compare(session, "balance and its postings", _posted()),
        *_compare(session, "held and its open holds", _held()),
        *_compare(session, "entry and zero", _entries()),
    ]


Compared = Select[str, str, Decimal, Decimal]


def _compare(session: Session, what: str, statement: Compared) -> list[Difference]:
    return [
        Difference(what, key, commodity, kept, summed) for key, commodity, kept, summed in session.execute(statement)
    ]


def _posted() -> Compared:
    sums = (
        select(Posting.account_id, Posting.commodity, func.sum(Posting.amount).label("summed"))
        .group_by(Posting.account_id, Posting.commodity)
        .subquery()
    )
    same = (sums.c.account_id == Balance.account_id) & (sums.c.commodity == Balance.commodity)
    kept = func.coalesce(Balance.posted, 0)
    summed = func.coalesce(sums.c.summed, 0)
    # A full join: postings that have no balance are a difference too.
    return (
        select(Account.key, func.coalesce(Balance.commodity, sums.c.commodity), kept, summed)
        .select_from(Balance)
        .join(sums, same, full=True)
        .join(Account, Account.id == func.coalesce(Balance.account_id, sums.c.account_id))
        .where(kept != summed)
        .order_by(Account.key)
    )


def _held() -> Compared:
    sums = (
        select(MoneyHold.balance_id, func.sum(MoneyHold.remaining).label("summed"))
        .where(MoneyHold.released_at.is_(None))
        .group_by(MoneyHold.balance_id)
        .subquery()
    )
    summed = func.coalesce(sums.c.summed, 0)
    return (
        select(Account.key, Balance.commodity, Balance.held, summed)
        .select_from(Balance)
        .join(Account, Account.id == Balance.account_id)
        .outerjoin(sums, sums.c.balance_id == Balance.id)
        .where(Balance.held != summed)
        .order_by(Account.key)
    )


def _entries() -> Compared:
    summed = func.sum(Posting.amount)
    return (
        select(Entry.key, Posting.commodity, literal(Decimal(0)), summed)
        .join(Entry, Entry.id == Posting.entry_id)
        .group_by(Entry.key, Posting.commodity)
        .having(summed != 0)
        .order_by(Entry.key)
    )
