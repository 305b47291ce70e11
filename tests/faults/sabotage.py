"""Small deliberate breakages of the product, made in the workers alone: each must make the run print a number.

A run that cannot fail proves nothing: `python -m tests.faults --sabotage NAME` must count what `SABOTAGE` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from accounting import holds, settle
from adapters.openstack import fenced, launching
from broker import inventory, orders, reconcile, removing
from broker.pricing import RateCard
from broker.remote import PartKind
from broker.tools import Timing


def _forget_strays() -> None:
    """Nobody looks for what no row knows of, and nobody waits until it shows."""
    inventory.record_strays = lambda *_, **__: set()  # type: ignore[assignment] # a breakage
    _look_nowhere()


def _look_nowhere() -> None:
    """What was made is not searched for, and no time is given to it to show."""
    fenced.FencedOpenStack.find = lambda *_, **__: ()  # type: ignore[method-assign] # a breakage
    Timing.settle_of = lambda *_: timedelta(0)  # type: ignore[method-assign] # a breakage


def _new_names() -> None:
    """No fence: every request has a name and a token of its own."""
    numbers = itertools.count()
    name = launching.server_name

    def other_name(wanted: str, tags: Any) -> str:
        return f"{next(numbers)}x-{name(wanted, tags)}"

    launching.server_name = other_name
    fenced.client_token = lambda _lease: uuid4()
    _look_nowhere()


def _leave_parts() -> None:
    """Parts beside the machine are taken for gone without being deleted."""
    delete = removing._delete

    def lazy(run: Any, kind: PartKind, remote_id: str, **more: Any) -> bool:
        return kind is not PartKind.SERVER or delete(run, kind, remote_id, **more)

    removing._delete = lazy
    inventory.record_strays = lambda *_, **__: set()  # type: ignore[assignment] # a breakage


def _post_more() -> None:
    """Every state costs the full price."""
    RateCard.share = lambda *_: Decimal(1)  # type: ignore[method-assign] # a breakage


def _post_less() -> None:
    """Every third segment is not charged."""
    post, numbers = settle.post_charge, itertools.count()
    settle.post_charge = lambda *a, **k: True if next(numbers) % 3 == 0 else post(*a, **k)  # type: ignore[assignment] # a breakage


def _keep_holds() -> None:
    """What is left of a hold is not given back."""
    holds.GrantLedger.release = lambda *_, **__: None  # type: ignore[method-assign] # a breakage


def _never_finish() -> None:
    """Every second lease never ends."""
    finish: Callable[..., None] = orders.finish_lease
    reconcile.finish_lease = lambda tools, mine: finish(tools, mine) if mine.lease_id.int % 2 else None


@dataclass(frozen=True, slots=True)
class Breakage:
    """What it breaks, in what number the run must say so, and at which sites alone it orders (none: at all)."""

    count: str
    apply: Callable[[], None]
    sites: tuple[str, ...] = ()


SABOTAGE: dict[str, Breakage] = {
    "forget-strays": Breakage("extra", _forget_strays, ("bare", "named", "token")),
    "leave-parts": Breakage("unowned", _leave_parts),
    "new-names": Breakage("two_active", _new_names, ("named", "token")),
    "post-more": Breakage("double_charges", _post_more),
    "post-less": Breakage("missing_charges", _post_less),
    "keep-holds": Breakage("stuck_holds", _keep_holds),
    "never-finish": Breakage("stuck_orders", _never_finish),
}


def sabotage(names: Sequence[str]) -> None:
    """Break the product in this process, for good."""
    for name in names:
        SABOTAGE[name].apply()
