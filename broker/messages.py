"""The outbox: messages to people, written in the transaction that gives rise to them and sent outside of any.

A message is sent at least once: whoever dies between the mail server's answer and the row leaves it to be sent again,
under the same Message-ID. Two senders never send the same one at once, as each takes it by pushing `next_try_at` ahead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from broker.errors import InvalidInput
from broker.models.messages import Message
from broker.models.people import Project
from broker.restored import acts
from broker.timeline import Concern, close_finding, raise_finding
from broker.units import counted

# From so many failures on a person is told.
PATIENCE = 8
# A trouble of the mail server's own words is cut here.
_LONGEST_TROUBLE = 400
# RFC 5321 allows more (quoted local parts, addresses in UTF-8), which hardly anybody has and not every server takes.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:localhost|{_LABEL}(?:\.{_LABEL})+)")
_LONGEST_ADDRESS = 254


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to write. `key`: what it is about and when, at most 200 characters; no `recipients`: the operator."""

    key: str
    kind: str
    subject: str
    body: str
    recipients: Sequence[str] = ()
    project_id: UUID | None = None
    order_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as a `Mailer` takes it."""

    id: UUID
    recipients: tuple[str, ...]
    subject: str
    body: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Unserved:
    """Who does not have a letter, and why.

    Attributes:
        recipients: of the letter's; whoever is not here has it.
        is_final: the same would be said again.
        is_away: it is not about this letter: the others wait with it.
    """

    recipients: tuple[str, ...]
    trouble: str
    is_final: bool = False
    is_away: bool = False


class Mailer(Protocol):
    """Hands letters to a mail server. Blocks for less than `Sending.claim`, and raises nothing that it can expect."""

    def send(self, letter: Letter) -> Unserved | None:
        """None where everybody has it. An answer that was lost counts as unserved: it is sent again."""
        ...


@dataclass(frozen=True, slots=True)
class Sending:
    """How long a sender may take for one letter, and how long a letter waits after a failure.

    The wait doubles from `first_wait` to `last_wait`; after a final refusal it is `final_wait`, as somebody may have
    corrected what was refused.
    """

    claim: timedelta = timedelta(minutes=5)
    first_wait: timedelta = timedelta(minutes=1)
    last_wait: timedelta = timedelta(minutes=30)
    final_wait: timedelta = timedelta(hours=6)

    def wait(self, failures: int, *, is_final: bool) -> timedelta:
        """Until the next try after `failures` in a row, 1 or more."""
        if is_final:
            return self.final_wait
        # The exponent is bounded, as a timedelta is.
        return min(self.last_wait, self.first_wait * (1 << min(failures - 1, 20)))


def one_line(text: str) -> str:
    """A person's words, fit for one line of a message: no breaks, no control characters, no turned-around writing."""
    return " ".join("".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text).split())


def email_address(text: str, *, field: str) -> str:
    """An address as it is kept; raises `InvalidInput` naming `field` for what is none, or could be more than one."""
    if len(text) > _LONGEST_ADDRESS or not _ADDRESS.fullmatch(text):
        raise InvalidInput(
            field,
            f"{one_line(text)[:70]!r} is no e-mail address",
            hint="Write it like pi@example.org; a name in other letters by its xn-- form.",
        )
    return text


# --- writing ---------------------------------------------------------------------------------------------------------


def post_message(session: Session, draft: Draft) -> bool:
    """Write a message in the caller's transaction; False where there is one of its key already."""
    now = func.clock_timestamp()
    row = (
        insert(Message)
        .values(
            key=draft.key,
            kind=draft.kind,
            project_id=draft.project_id,
            order_id=draft.order_id,
            recipients=list(draft.recipients),
            subject=one_line(draft.subject),
            body=draft.body,
            made_at=now,
            next_try_at=now,
        )
        .on_conflict_do_nothing(index_elements=["key"])
        .returning(Message.id)
    )
    return session.scalars(row).one_or_none() is not None


def readdress(session: Session, project_id: UUID, recipients: Sequence[str]) -> None:
    """Address what waits to those who are a project's contacts now, and try it at once.

    Who has a message already is no longer among its recipients, and does not get it again unless nobody else is left.
    """
    waiting = (
        select(Message)
        .where(Message.project_id == project_id, Message.sent_at.is_(None))
        .order_by(Message.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    for message in session.scalars(waiting):
        still = [address for address in message.recipients if address in recipients] or list(recipients)
        if still != message.recipients:
            message.recipients, message.failures, message.trouble = still, 0, None
            message.next_try_at = func.clock_timestamp()
    session.flush()
    _tell_undelivered(session, project_id)


# --- sending ---------------------------------------------------------------------------------------------------------


def is_mail_due(session: Session) -> bool:
    """True where `send_due` would find something."""
    return session.scalars(select(_due().exists())).one()


def send_due(
    sessions: sessionmaker[Session], mailer: Mailer, *, sending: Sending | None = None, most: int = 100
) -> int:
    """Send what is due, the oldest first, one by one; returns how many went to all of their recipients.

    Ends where nothing is due, after `most` letters, and where the mail server is away.
    """
    sending = sending or Sending()
    sent = 0
    for _ in range(most):
        taken = _take(sessions, sending)
        if taken is None:
            break
        unserved = mailer.send(taken.letter)
        if unserved is None:
            _note_sent(sessions, taken)
            sent += 1
            continue
        _note_failure(sessions, taken, unserved, sending)
        if unserved.is_away:
            break
    return sent


@dataclass(frozen=True, slots=True)
class _Taken:
    """A letter in the hands of one sender until `until`, which is also what its row says while nobody else took it."""

    letter: Letter
    project_id: UUID | None
    failures: int
    until: datetime


def _due() -> Select[UUID]:
    """Nothing is due while Leeway only observes: the rows may be a copy, whose original sends the same messages."""
    return select(Message.id).where(Message.sent_at.is_(None), Message.next_try_at <= func.clock_timestamp(), acts())


def _take(sessions: sessionmaker[Session], sending: Sending) -> _Taken | None:
    oldest = _due().order_by(Message.id).limit(1).with_for_update(skip_locked=True, of=Message)
    with sessions.begin() as session:
        row = session.scalars(
            update(Message)
            .where(Message.id == oldest.scalar_subquery())
            .values(next_try_at=func.clock_timestamp() + sending.claim)
            .returning(Message)
            .execution_options(populate_existing=True)
        ).one_or_none()
        if row is None:
            return None
        letter = Letter(row.id, tuple(row.recipients), row.subject, row.body, row.made_at)
        return _Taken(letter, row.project_id, row.failures, row.next_try_at)


def _note_sent(sessions: sessionmaker[Session], taken: _Taken) -> None:
    """Whoever else took it meanwhile: it was sent."""
    with sessions.begin() as session:
        session.execute(
            update(Message).where(Message.id == taken.letter.id).values(sent_at=func.clock_timestamp(), trouble=None)
        )
        if taken.failures >= PATIENCE:
            _tell_undelivered(session, taken.project_id)


def _note_failure(sessions: sessionmaker[Session], taken: _Taken, unserved: Unserved, sending: Sending) -> None:
    """Written only where nobody took the message since, or changed whom it is for."""
    failures = max(taken.failures + 1, PATIENCE if unserved.is_final else 0)
    left = [address for address in taken.letter.recipients if address in unserved.recipients]
    later = func.clock_timestamp() + sending.wait(failures, is_final=unserved.is_final and not unserved.is_away)
    trouble = one_line(unserved.trouble)[:_LONGEST_TROUBLE]
    mine = (Message.id == taken.letter.id, Message.next_try_at == taken.until, Message.sent_at.is_(None))
    with sessions.begin() as session:
        session.execute(
            update(Message).where(*mine).values(recipients=left, failures=failures, trouble=trouble, next_try_at=later)
        )
        if unserved.is_away:  # for the others, too, which are no worse for it
            others = _due().with_for_update(skip_locked=True, of=Message)
            session.execute(update(Message).where(Message.id.in_(others)).values(trouble=trouble, next_try_at=later))
        if failures >= PATIENCE:
            _tell_undelivered(session, taken.project_id)


def _tell_undelivered(session: Session, project_id: UUID | None) -> None:
    """Open, refresh or close the one finding about a project's messages, by what its rows say."""
    # Two senders at once: the second one counts what the first one wrote.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"undelivered:{project_id}"))))
    of_project = Message.project_id.is_(None) if project_id is None else Message.project_id == project_id
    waiting = session.scalars(
        select(Message)
        .where(of_project, Message.sent_at.is_(None), Message.failures >= PATIENCE)
        .order_by(Message.id)
        .execution_options(populate_existing=True)
    ).all()
    key = str(project_id or "operator")
    if not waiting:
        close_finding(session, "mail_undelivered", key)
        return
    name = session.scalars(select(Project.name).where(Project.id == project_id)).one_or_none()
    whose = f"of project {name} " if name else ""
    change = (
        f"Correct its contacts (`leeway project contact {name}`), or" if name else "See to LEEWAY_MAIL_OPERATOR, and"
    )
    raise_finding(
        session,
        Concern(
            kind="mail_undelivered",
            key=key,
            text=f"{counted(len(waiting), 'message')} {whose}cannot be delivered, the first since"
            f" {waiting[0].made_at:%Y-%m-%d %H:%M} UTC: {waiting[-1].trouble}",
            hint=f"{change} look at the mail server and LEEWAY_SMTP_URL. It is tried again, ever more rarely.",
        ),
        now=session.scalars(select(func.clock_timestamp())).one(),
    )
