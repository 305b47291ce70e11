"""Small deliberate breakages of the product, made in the workers alone: each must make the run print a number.

A run that cannot fail proves nothing: `python -m tests.faults --sabotage NAME` must count what `SABOTAGE` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from accounting import holds, settle
from accounting.histories import History
from accounting.metering import Use
from adapters.openstack import fenced, launching
from broker import inventory, orders, reconcile, removing, snapshots
from broker.models.leases import LeaseState
from broker.pricing import RateCard
from broker.remote import PartKind, RemoteSnapshot, SnapshotState
from broker.tools import Timing


def _replace(owner: object, name: str, by: Callable[..., Any]) -> Callable[..., Any]:
    """Put `by` in the place of a function; returns the former one."""
    former: Callable[..., Any] = getattr(owner, name)
    setattr(owner, name, by)
    return former


def _look_nowhere() -> None:
    """What was made is not searched for, and no time is given to it to show."""
    _replace(fenced.FencedOpenStack, "find", lambda *_, **__: ())
    _replace(Timing, "settle_of", lambda *_: timedelta(0))


def _forget_strays() -> None:
    """Nobody looks for what no row knows of."""
    _replace(inventory, "record_strays", lambda *_, **__: set())
    _look_nowhere()


def _new_names() -> None:
    """No fence: every request has a name and a token of its own."""
    numbers = itertools.count()

    def name(wanted: str, tags: Any) -> str:
        return f"{next(numbers)}x-{former(wanted, tags)}"

    former = _replace(launching, "server_name", name)

    def token(_lease: UUID) -> UUID:
        return uuid4()

    _replace(fenced, "client_token", token)
    _look_nowhere()


def _leave_parts() -> None:
    """Parts beside the machine are taken for gone without being deleted."""

    def delete(run: Any, kind: PartKind, remote_id: str, **more: Any) -> Any:
        return kind is not PartKind.SERVER or former(run, kind, remote_id, **more)

    former = _replace(removing, "_delete", delete)
    _replace(inventory, "record_strays", lambda *_, **__: set())


def _hurry() -> None:
    """A machine is deleted when a snapshot of it is asked for, whole or not."""

    def check(run: Any, server: Any, snapshot: Any, *, asked_at: datetime) -> None:
        found = run.adapter.look(snapshot.kind, snapshot.remote_id, deadline=run.deadline())
        if isinstance(found, RemoteSnapshot) and found.state is SnapshotState.SAVING:
            snapshots._whole(run, server, snapshot, found, asked_at=asked_at)
        else:
            former(run, server, snapshot, asked_at=asked_at)

    former = _replace(snapshots, "check", check)
    _replace(snapshots, "still_whole", lambda *_: True)


def _leave_snapshots() -> None:
    """A snapshot that is not wanted any more is taken for gone without being deleted."""

    def delete(run: Any, kind: PartKind, remote_id: str, **more: Any) -> Any:
        return kind is PartKind.SNAPSHOT or former(run, kind, remote_id, **more)

    former = _replace(removing, "_delete", delete)
    _replace(inventory, "record_strays", lambda *_, **__: set())


def _keep_for_free() -> None:
    """What is left of a lease is over for accounting when its machine is."""
    _replace(History, "uses", _without_snapshots(History.uses))


def _without_snapshots(former: Callable[..., list[Use]]) -> Callable[..., list[Use]]:
    def uses(self: History, **more: Any) -> list[Use]:
        return [use for use in former(self, **more) if use.state is not LeaseState.SNAPSHOT]

    return uses


def _post_more() -> None:
    """Every state costs the full price."""
    _replace(RateCard, "share", lambda *_: Decimal(1))


def _post_less() -> None:
    """Every third lease is not charged."""

    def post(prices: Any, history: Any, *rest: Any, **more: Any) -> Any:
        return history.lease.id.int % 3 == 0 or former(prices, history, *rest, **more)

    former = _replace(settle, "post_charge", post)


def _keep_holds() -> None:
    """What is left of a hold is not given back."""
    _replace(holds.GrantLedger, "release", lambda *_, **__: None)


def _never_finish() -> None:
    """Every second lease never ends."""

    def finish(tools: Any, mine: Any) -> None:
        if mine.lease_id.int % 2:
            orders.finish_lease(tools, mine)

    _replace(reconcile, "finish_lease", finish)


@dataclass(frozen=True, slots=True)
class Breakage:
    """What it breaks, and in what number the run must say so.

    `sites`: where alone is ordered (none: everywhere); `lost`: the share of launches whose answer is lost there;
    `has_keepers`: every workload keeps a snapshot.
    """

    count: str
    apply: Callable[[], None]
    sites: tuple[str, ...] = ()
    lost: float = 0.0
    has_keepers: bool = False


SABOTAGE: dict[str, Breakage] = {
    "forget-strays": Breakage("extra", _forget_strays, ("bare", "named"), lost=0.3),
    "leave-parts": Breakage("unowned", _leave_parts),
    "leave-snapshots": Breakage("unowned", _leave_snapshots, has_keepers=True),
    "hurry": Breakage("unsaved", _hurry, has_keepers=True),
    "keep-for-free": Breakage("missing_charges", _keep_for_free, has_keepers=True),
    "new-names": Breakage("two_active", _new_names, ("named", "token"), lost=0.3),
    "post-more": Breakage("double_charges", _post_more),
    "post-less": Breakage("missing_charges", _post_less),
    "keep-holds": Breakage("stuck_holds", _keep_holds),
    "never-finish": Breakage("stuck_orders", _never_finish),
}


def sabotage(names: Sequence[str]) -> None:
    """Break the product in this process, for good."""
    for name in names:
        SABOTAGE[name].apply()
