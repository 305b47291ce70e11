"""The steps that `broker.reconcile` takes: each is what one pass over a lease may do next. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.models.leases import Desired, LaunchAttempt, Part


@dataclass(frozen=True, slots=True)
class Plan:
    """Write down the parts that the machine needs."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete what an attempt made and the part does not want; look until it is gone."""

    attempt: LaunchAttempt
    part: Part


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find out what an open attempt made; or, before the lease ends, what one made that seemed to have made nothing."""

    attempt: LaunchAttempt
    part: Part


@dataclass(frozen=True, slots=True)
class Find:
    """The rows come out of a backup: find what else was made for a part, before anything is done."""

    part: Part


@dataclass(frozen=True, slots=True)
class Found:
    """All parts were searched for: from here on the lease is like any other."""


@dataclass(frozen=True, slots=True)
class Make:
    """Open an attempt and send its request."""

    part: Part


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The site cannot give this machine: end the lease, so that the next offer can be tried."""

    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a part; look until it is gone."""

    part: Part


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing of the lease exists any more."""


@dataclass(frozen=True, slots=True)
class Fund:
    """Its money is used up: it is over only if more was refused. Where Leeway was away, nobody has asked for more."""


@dataclass(frozen=True, slots=True)
class End:
    """Its time is over, and so is the grace after it: the machine goes."""


@dataclass(frozen=True, slots=True)
class Check:
    """Look at the snapshot of a machine that ends: the machine goes when it is whole."""

    server: Part
    snapshot: Part


@dataclass(frozen=True, slots=True)
class Renew:
    """The snapshot is older than the machine's end: discard it, if the machine is there to take a new one of."""

    server: Part
    snapshot: Part


@dataclass(frozen=True, slots=True)
class EndKeeping:
    """The snapshot goes too, or there is none and none can be had."""

    reason: str


@dataclass(frozen=True, slots=True)
class Activate:
    """The first machine of the order runs: the order is active."""


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the machine, and bring its power state to `power`."""

    server: Part
    power: Desired


@dataclass(frozen=True, slots=True)
class Ask:
    """Two listings missed what is never changed here: ask the site for it by its id."""

    part: Part


@dataclass(frozen=True, slots=True)
class Release:
    """What was adopted is charged no longer; it stays where it is."""

    part: Part


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more in this pass. Look again after `time`; None: when the pass asked for that, or the clock will."""

    time: timedelta | None


Making = Find | Found | Plan | Discard | Resolve | Make | GiveUp | Activate | Look
Ending = Fund | End | Check | Renew | EndKeeping | Remove | Ask | Release | Finish
Step = Making | Ending | Wait
# Steps that need no site: they are taken also while it is away.
WITHOUT_SITE = (Found, GiveUp, Fund, End, EndKeeping, Activate, Release, Finish)
