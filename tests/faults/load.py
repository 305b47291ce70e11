"""What people do meanwhile: orders are placed, stopped, cancelled, powered off and on; some run to their end.

Everything goes through the API of a server that may be killed or frozen over it: where no answer comes, the same
request is sent again to another one, with an idempotency key where there is one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from broker.errors import LeewayError, SetupError
from broker.inventory import OURS_UNKNOWN
from broker.launching import STUCK_FINDING, UNKNOWN_FINDING
from broker.models.leases import Desired, Lease
from broker.models.workloads import Order, OrderState
from broker.remote import Deadline, PartKind
from broker.removing import NETWORK_FINDING
from tests.faults.client import Away, Client, Refused
from tests.faults.federation import Federation, Price
from tests.faults.rows import FindingRow

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1aWx0LWZvci10ZXN0cy1vbmx5LW5vdC1hLWtleQ== tests"
# What the hints of these findings come to.
_STOP_AND_ORDER_AGAIN = frozenset({UNKNOWN_FINDING, STUCK_FINDING, NETWORK_FINDING})
ENDED = (OrderState.OVER, OrderState.RETURNED)
# How many seconds those that keep a snapshot last, and the others.
_SHORT, _LONG = (2, 4, 8), (4, 8, 15, 30, 60)

Act = Callable[["Load", UUID], None]


@dataclass(slots=True)
class Due:
    """Something that is to be done with an order, from a moment of the monotonic clock on."""

    at: float
    order_id: UUID
    act: Act


@dataclass
class Load:
    """The people. `step` does what is due, and is called often from one thread.

    `keepers`: the share of workloads that keep a snapshot.
    """

    federation: Federation
    client: Client
    random: random.Random
    alive: int = 12
    keepers: float = 0.3
    sites: Sequence[str] = ()
    is_placing: bool = True
    is_ending: bool = False
    placed: list[UUID] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    heeded: dict[UUID, float] = field(default_factory=dict)
    stops: dict[UUID, datetime] = field(default_factory=dict)  # when a person first asked for an order's end
    _due: list[Due] = field(default_factory=list)
    _unplaced: tuple[str, str, bool] | None = None
    _open: set[UUID] = field(default_factory=set)
    _looked_at: float = 0.0

    def step(self) -> None:
        """Do what is due. A database that is away is tried again later; a refusal is counted."""
        try:
            self._look()
            if self.is_placing and len(self._open) < self.alive:
                self._place()
            now = time.monotonic()
            for due in [due for due in self._due if due.at <= now]:
                due.act(self, due.order_id)
                self._due.remove(due)
        except (DBAPIError, SetupError, Away) as away:
            self.done[f"away: {type(away).__name__}"] += 1

    def _look(self) -> None:
        """Which orders are still going on; what was returned to its person is let go."""
        if time.monotonic() - self._looked_at < 0.5:
            return
        concerned: sa.ColumnElement[bool] = Order.id.in_(self._open)
        if self.is_ending:  # also those that Leeway took back from machines whose orders a restore had forgotten
            concerned |= Order.state.not_in((*ENDED, OrderState.STOPPING))
        with self.federation.services.sessions() as session:
            states = dict(session.execute(sa.select(Order.id, Order.state).where(concerned)).all())
        self._looked_at = time.monotonic()
        for order_id in self._open - states.keys():  # a restored database has forgotten it
            self._forget(order_id)
        for order_id in states.keys() - self._open:
            self._open.add(order_id)
            self._later(order_id, 0, Load.stop)
        for order_id, state in states.items():
            if state is OrderState.RETURNED:
                self.stop(order_id)
            if state in ENDED:
                self._forget(order_id)

    def _forget(self, order_id: UUID) -> None:
        self._open.discard(order_id)
        self._due = [due for due in self._due if due.order_id != order_id]

    # --- ordering -------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        if self._unplaced is None:
            key, document = f"key-{self.random.getrandbits(64):016x}", self._document()
            quote = self.client.ask("POST", "/quotes", {"document": document})
            self._unplaced = (key, quote["id"], "keep_snapshot" in document)
        key, quote_id, keeps = self._unplaced
        try:
            placed = self.client.ask("POST", "/orders", {"quote_id": quote_id}, key=key)
        except Refused as refused:
            self.done[f"order: {refused.code}"] += 1
            self._unplaced = None
            return
        self._unplaced = None
        order_id = UUID(placed["order"]["id"])
        self.placed.append(order_id)
        self._open.add(order_id)
        self.done["order"] += 1
        self._plan(order_id, keeps=keeps)

    def _document(self) -> dict[str, Any]:
        """A machine or two at one site; some may go to another one when the first refuses, some keep a snapshot."""
        chance = self.random.random
        first = self.random.choice(self.sites)
        sites = [first] if chance() < 0.7 else sorted({first, self.random.choice(self.sites)})
        keeps = chance() < self.keepers
        document = {
            "kind": "machine",
            "name": f"crash-{len(self.placed)}",
            "project": "climate",
            "resources": {"cores": 2, "memory": "4 GiB"},
            "image": "ubuntu-24.04",
            "duration": f"{self.random.choice(_SHORT if keeps else _LONG)} seconds",
            "ssh_key": SSH_KEY,
            "count": 2 if chance() < 0.2 else 1,
            "public_address": chance() < 0.3,
            "requirements": {"sites": sites},
            "max_price": "1000 EUR",
        }
        return document | ({"keep_snapshot": f"{self.random.randint(4, 10)} seconds"} if keeps else {})

    def _plan(self, order_id: UUID, *, keeps: bool) -> None:
        """Its person's plans: most stop it at some time, many before it is even there; others let it end.

        Of those that keep a snapshot most live to their end, and half of these are stopped after it: powered off, while
        the disk is saved, or while the snapshot is kept.
        """
        fate = self.random.random()
        if keeps and fate < 0.8:
            if fate < 0.4:
                self._later(order_id, self.random.uniform(6, 20), Load.stop)
            return
        if fate < 0.15:
            self._later(order_id, self.random.uniform(0, 1), Load.stop)
        elif fate < 0.65:
            self._later(order_id, self.random.uniform(1, 12), Load.stop)
        elif fate < 0.8:
            for seconds, desired in ((3, Desired.STOPPED), (5, Desired.RUNNING), (7, Desired.SHELVED)):
                self._later(order_id, seconds, _power(desired))
            self._later(order_id, 10, Load.stop)
        if self.random.random() < 0.25:
            self._later(order_id, self.random.uniform(1, 8), Load.extend)

    def _later(self, order_id: UUID, seconds: float, act: Act) -> None:
        self._due.append(Due(time.monotonic() + seconds, order_id, act))

    # --- afterwards -----------------------------------------------------------------------------------------------

    def stop(self, order_id: UUID) -> None:
        """End an order. Whether a request was carried out that had no answer, nobody knows."""
        self.stops.setdefault(order_id, datetime.now(UTC))
        self._try("stop", "POST", f"/workloads/{order_id}/stop", {"how": "end", "reason": "enough"})

    def power(self, order_id: UUID, desired: Desired) -> None:
        """Stop, start or shelve its machines."""
        if desired is Desired.RUNNING:
            self._try("start", "POST", f"/workloads/{order_id}/start")
        else:
            how = {Desired.STOPPED: "stop", Desired.SHELVED: "shelve"}[desired]
            self._try(how, "POST", f"/workloads/{order_id}/stop", {"how": how})

    def extend(self, order_id: UUID) -> None:
        """Give it ten seconds more."""
        with self.federation.services.sessions() as session:
            ends_at = session.scalars(sa.select(sa.func.max(Lease.ends_at)).where(Lease.order_id == order_id)).one()
        if ends_at is not None:
            until = max(ends_at, datetime.now(UTC)) + timedelta(seconds=10)
            self._try("extend", "POST", f"/orders/{order_id}/extend", {"until": until.isoformat()})

    def heed(self, findings: Iterable[FindingRow]) -> None:
        """Do what findings ask a person to do."""
        for finding in findings:
            try:
                if finding.kind in _STOP_AND_ORDER_AGAIN and finding.lease_id is not None:
                    with self.federation.services.sessions() as session:
                        order_id = session.get_one(Lease, finding.lease_id).order_id
                    self.stop(order_id)
                    self.heeded.setdefault(finding.lease_id, time.monotonic())
                elif finding.kind == OURS_UNKNOWN and finding.site is not None:
                    self._delete_at_site(finding)
            except (DBAPIError, LeewayError) as error:
                self.done[f"heed {finding.kind}: {type(error).__name__}"] += 1

    def _delete_at_site(self, finding: FindingRow) -> None:
        """As its person would, at the site itself."""
        site_id, _, remote_id = finding.key.partition(":")
        adapter = self.federation.services.tools.open_site(UUID(site_id))
        kind = next(kind for kind in PartKind if finding.text.startswith(f"{kind} "))
        adapter.delete(kind, remote_id, deadline=Deadline.after(5))
        self.done[f"deleted {kind} at the site"] += 1

    def _try(self, what: str, method: str, path: str, body: Any = None) -> None:
        try:
            self.client.ask(method, path, body)
            self.done[what] += 1
        except Refused as refused:
            self.done[f"{what}: {refused.code}"] += 1

    def change_price(self, now: datetime) -> Price:
        """A site's prices from now on."""
        site = self.random.choice(self.sites)
        last = next(price for price in reversed(self.federation.prices) if price.site == site)
        factor = self.random.choice((2, 3, 5))
        price = Price(site, now, last.machine + factor, last.address + factor, last.storage + factor)
        self.federation.set_price(price)
        self.done["price"] += 1
        return price

    def end(self) -> None:
        """Order nothing more, and stop what is still going on."""
        self.is_placing, self.is_ending = False, True
        for order_id in sorted(self._open):
            self._later(order_id, 0, Load.stop)

    @property
    def is_over(self) -> bool:
        """Whether nothing is going on, as far as was seen."""
        return not self._open


def _power(desired: Desired) -> Act:
    return lambda load, order_id: load.power(order_id, desired)
