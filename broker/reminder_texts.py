"""What a reminder says: as a colleague would write it, to somebody who has forgotten all about the workload. Pure."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.messages import one_line
from broker.units import counted
from broker.values import Amount

_WIDTH = 72
_MORE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Ending:
    """A workload that will end, as its contacts are told.

    Attributes:
        ref: what commands call it.
        machines: in words, like `1 machine (a1.medium) at aurora`.
        off_at: when it is powered off.
        deleted_at: when the last of it is deleted; never before `off_at`.
        keeps: a snapshot of its disk is kept so long after that; None: none is.
        per_day: what it costs while it runs, one amount per currency; empty where that is not known.
        spent: what it has cost so far, None where that is not known.
        has_contacts: False where the message goes to the operator.
    """

    workload: str
    ref: str
    project: str
    machines: str
    off_at: datetime
    deleted_at: datetime
    keeps: timedelta | None
    per_day: Sequence[Amount]
    spent: Amount | None
    has_contacts: bool


def reminder(ending: Ending, *, now: datetime) -> tuple[str, str]:
    """Subject and body: it ends soon."""
    what, left = _what(ending), left_until(ending.off_at, now=now)
    subject = f"{what} ends in {left}: {_short(ending.off_at)}"
    body = [
        f"{what} ends in {left}:",
        _indented(_long(ending.off_at)),
        _facts(ending),
        "If you are done with it by then, there is nothing to do.",
        "To keep it for longer:",
        _extend(ending),
        *_price_of_more(ending),
        "To end it now, and pay no longer:",
        _indented(f"leeway stop {_word(ending.ref)}"),
        "At the end:",
        _ladder(ending),
        "So please copy what you want to keep before that.",
    ]
    return subject, _letter(body, ending)


def refusal(ending: Ending, *, why: str, wanted_until: datetime) -> tuple[str, str]:
    """Subject and body: its money could not be set aside any further than `off_at`.

    `why`: the finding. `wanted_until`: the end that was ordered.
    """
    what = _what(ending)
    subject = f"{what} runs out of money: it stops on {_short(ending.off_at)}"
    body = [
        f"The money that is set aside for {what} lasts until",
        _indented(_long(ending.off_at)),
        f"and no more could be set aside. It was to run until {_short(wanted_until)}.",
        f"What was found: {one_line(why)}",
        _facts(ending),
        "If nothing changes:",
        _ladder(ending),
        _way_out(ending),
        _extend(ending),
        *_price_of_more(ending),
        "To end it now, and give back what is left:",
        _indented(f"leeway stop {_word(ending.ref)}"),
    ]
    return subject, _letter(body, ending)


def left_until(end: datetime, *, now: datetime) -> str:
    """`14 days`, `3 days`, `1 day`, `5 hours`: to the nearest day or hour, as one would say it."""
    hours = round((end - now) / timedelta(hours=1))
    if hours < 1:
        return "less than an hour"
    return counted(round(hours / 24), "day") if hours >= 23 else counted(hours, "hour")


def _what(ending: Ending) -> str:
    return f"{one_line(ending.workload)} (project {one_line(ending.project)})"


def _facts(ending: Ending) -> str:
    per_day = " and ".join(str(amount) for amount in ending.per_day)
    cost = f"about {per_day} per day while it runs" if per_day else "an amount per day that is not known now"
    spent = f" It has cost {ending.spent} so far." if ending.spent is not None else ""
    return f"It is {one_line(ending.machines)}, and costs {cost}.{spent}"


def _way_out(ending: Ending) -> str:
    return (
        "To let it go on, a grant of the project must have room again: a new grant, or another workload that ends. "
        f"`leeway spend {_word(ending.project)}` shows where the money is, and `leeway grant add` gives "
        "more. Leeway asks again by itself. To ask at once, and for a week more:"
    )


def _price_of_more(ending: Ending) -> list[str]:
    if not ending.per_day:
        return []
    more = " and ".join(str(amount.times(_MORE.days)) for amount in ending.per_day)
    return [f"That week costs about {more}. Any other time can be named, like `12 hours`."]


def _extend(ending: Ending) -> str:
    return _indented(f"leeway extend {_word(ending.ref)} {_MORE.days} days")


def _ladder(ending: Ending) -> str:
    gone = "deleted, with all that is on its disk; nobody can bring that back"
    if ending.keeps is not None:
        kept = left_until(ending.deleted_at + ending.keeps, now=ending.deleted_at)
        gone = f"deleted; a snapshot of its disk is kept for {kept} after that, and then deleted too"
    if ending.deleted_at <= ending.off_at:
        return _step(ending.off_at, gone)
    off = "powered off; its disk is kept, and `leeway extend` switches it on again"
    return "\n".join((_step(ending.off_at, off), _step(ending.deleted_at, gone)))


def _step(at: datetime, what: str) -> str:
    when = f"    {_short(at)}  "
    return _fill(what, initial_indent=when, subsequent_indent=" " * len(when))


def _letter(paragraphs: Sequence[str], ending: Ending) -> str:
    project = _word(ending.project)
    if ending.has_contacts:
        why = "You get this as a contact of the project. Who else does:"
        command = f"leeway project contact {project}"
    else:
        why = "The project has no contacts, so this comes to you. To give it one:"
        command = f"leeway project contact {project} --add ADDRESS"
    whole = ["Hello,", *paragraphs, f"All times are in UTC. {why}", _indented(command)]
    return "\n\n".join(text if text.startswith(" ") else _fill(text) for text in whole) + "\n"


def _fill(text: str, *, initial_indent: str = "", subsequent_indent: str = "") -> str:
    """Wrapped between words: a name or an address stays whole."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=initial_indent,
        subsequent_indent=subsequent_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indented(text: str) -> str:
    return f"    {text}"


def _word(text: str) -> str:
    """As a shell takes it."""
    return shlex.quote(one_line(text))


def _long(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%A, %d %B %Y, %H:%M} UTC"


def _short(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%a %d %b %Y %H:%M} UTC"
