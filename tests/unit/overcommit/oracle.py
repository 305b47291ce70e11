"""What Leeway should say, by plain arithmetic: dictionaries of what there is, what is taken, and what was used.

Time goes in ticks of half an hour, and prices are per hour; what a machine used within a tick is beneath `Books.slack`.
Nothing here reads a row of Leeway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

TICK = timedelta(minutes=30)
HALF = Decimal("0.5")
# What a hold covers beyond the end: 15 minutes in which the machine is off, and 2 to settle.
MARGIN = Decimal(17) / 60
# A quote is good for an hour.
LIFETIME = 2
NINE = Decimal("1e-9")

Sizes = dict[str, int]
ZERO = Decimal(0)


@dataclass(frozen=True)
class Kind:
    """An instance type at a site, and what one machine of it takes from the site's quota."""

    site: str
    name: str
    cores: int
    memory_mib: int

    @property
    def needs(self) -> Sizes:
        """Per resource."""
        return {"instances": 1, "cores": self.cores, "memory_mib": self.memory_mib}


KINDS = (
    Kind("aurora", "a1.small", 2, 4096),
    Kind("aurora", "a1.medium", 4, 8192),
    Kind("borealis", "std.2c4g", 2, 4096),
    Kind("borealis", "std.4c8g", 4, 8192),
)


@dataclass
class Site:
    """A site's limits; what its last listing said is used; and what is really there, by name."""

    limits: Sizes
    used: Sizes = field(default_factory=dict)
    there: dict[object, Sizes] = field(default_factory=dict)

    def takes(self, needs: Sizes) -> bool:
        """Whether the site itself would start a machine."""
        return all(self._sum(name) + need <= self.limits[name] for name, need in needs.items())

    def listed(self) -> None:
        """A listing sees all that is there."""
        self.used = {name: self._sum(name) for name in self.limits}

    def _sum(self, name: str) -> int:
        return sum(sizes[name] for sizes in self.there.values())


@dataclass(frozen=True)
class Bid:
    """One offer of a quote, for all members: what it costs, and what an order sets aside."""

    kind: Kind
    total: Decimal
    hold: Decimal


@dataclass(frozen=True)
class Asked:
    """A quote: its offers by rank, when it was made, and the price that was approved beforehand, if any."""

    id: UUID
    made: int
    count: int
    ticks: int
    limit: Decimal | None
    bids: tuple[Bid, ...]


@dataclass
class Machine:
    """A lease. `cost`: what it used so far; `seen_cost`: up to when it was last seen; `charged`: what was posted."""

    id: UUID
    member: int
    kind: Kind
    rank: int
    seen: int
    end: int
    state: str = "pending"
    is_wanted: bool = True
    is_counted: bool = False
    is_settled: bool = False
    cost: Decimal = ZERO
    seen_cost: Decimal = ZERO
    charged: Decimal = ZERO

    @property
    def is_there(self) -> bool:
        """Whether the site has it."""
        return self.state in ("running", "shelved")

    def look(self, now: int) -> None:
        """It was seen."""
        self.seen, self.seen_cost = now, self.cost


@dataclass
class Ordered:
    """An order. Of `hold`, `used` was charged to it; the rest is set aside while the hold is open."""

    id: UUID
    asked: Asked
    rank: int
    ticks: int
    hold: Decimal
    used: Decimal = ZERO
    state: str = "going on"
    is_released: bool = False
    machines: list[Machine] = field(default_factory=list)

    @property
    def held(self) -> Decimal:
        """What is set aside."""
        return ZERO if self.is_released else self.hold - self.used

    @property
    def live(self) -> list[Machine]:
        """The machines that are not gone."""
        return [machine for machine in self.machines if machine.state != "gone"]

    @property
    def kept(self) -> list[Machine]:
        """The machines that nobody wants gone."""
        return [machine for machine in self.live if machine.is_wanted]

    @property
    def approved(self) -> Decimal:
        """The price up to which another offer may be taken."""
        return self.asked.limit if self.asked.limit is not None else self.asked.bids[self.rank - 1].total


@dataclass
class Books:
    """All of it. `slack`: how much the wall clock may have added to one machine's use since the start, in EUR."""

    sites: dict[str, Site]
    prices: dict[Kind, Decimal]
    ceiling: Decimal = ZERO
    overdraft: Decimal = ZERO
    now: int = 0
    orders: dict[UUID, Ordered] = field(default_factory=dict)
    slack: Decimal = ZERO

    # --- what is free ---

    @property
    def held(self) -> Decimal:
        """What all orders have set aside."""
        return sum((order.held for order in self.orders.values()), ZERO)

    @property
    def posted(self) -> Decimal:
        """What grants were charged."""
        return sum((order.used for order in self.orders.values()), ZERO)

    @property
    def free_money(self) -> Decimal:
        """What can be set aside."""
        return self.ceiling - self.posted - self.held

    def machines(self, site: str | None = None) -> Iterator[Machine]:
        """All, or those of one site."""
        for order in self.orders.values():
            yield from (machine for machine in order.machines if site in (None, machine.kind.site))

    def free_quota(self, site: str, *, without: Machine | None = None) -> Sizes:
        """What is left at a site: the limit, less what it says is used, less what it cannot know of yet."""
        free = {name: limit - self.sites[site].used.get(name, 0) for name, limit in self.sites[site].limits.items()}
        for machine in self.machines(site):
            if machine.state != "gone" and not machine.is_counted and machine is not without:
                free = {name: left - machine.kind.needs[name] for name, left in free.items()}
        return free

    def has_room(self, kind: Kind, count: int, *, instead_of: Machine | None = None) -> bool:
        """Whether so many more machines fit into the site's quota."""
        free = self.free_quota(kind.site, without=instead_of)
        return all(need * count <= free[name] for name, need in kind.needs.items())

    # --- quotes and holds ---

    def bids(self, *, cores: int, count: int, ticks: int, limit: Decimal | None) -> tuple[Bid, ...]:
        """The offers of a quote that is asked for now, by rank."""
        found = []
        for kind in KINDS:
            hourly = self.prices[kind] * count
            bid = Bid(kind, hourly * ticks * HALF, up(hourly * (ticks * HALF + MARGIN)))
            if kind.cores >= cores and self.has_room(kind, count) and (limit is None or bid.total <= limit):
                found.append(bid)
        return tuple(sorted(found, key=lambda bid: (bid.total, bid.kind.site, bid.kind.name)))

    def refusal(self, asked: Asked, rank: int) -> str | None:
        """What an order of a quote's offer is refused with now; None: it must win."""
        bid = asked.bids[rank - 1]
        if self.now - asked.made >= LIFETIME:
            return "QuoteExpired"
        if not self.has_room(bid.kind, asked.count):
            return "QuotaExhausted"
        return None if bid.hold <= self.free_money else "GrantExhausted"

    def whole_hold(self, order: Ordered, runs: Iterable[tuple[Kind, Decimal]]) -> Decimal:
        """The order's hold in all: what it used so far, and these hours of these kinds of machine."""
        unposted = sum((one.seen_cost - one.charged for one in order.machines if not one.is_settled), ZERO)
        return order.used + unposted + sum((self.prices[kind] * hours for kind, hours in runs), ZERO)

    def runs(self, machines: Iterable[Machine], *, end: int | None = None) -> list[tuple[Kind, Decimal]]:
        """The hours that machines may still use: until `end` or their own, and in the margin."""
        found = []
        for one in machines:
            until = (end if end is not None else one.end) if one.is_wanted else self.now
            found.append((one.kind, max((until - one.seen) * HALF + MARGIN, ZERO)))
        return found

    def fits(self, order: Ordered, total: Decimal) -> bool | None:
        """Whether the order's hold can become `total`; None: too near to tell, as the wall clock counts too."""
        left = self.free_money + order.held - max(total - order.used, ZERO)
        return None if abs(left) <= self.slack_of(order) else left > 0

    def slack_of(self, order: Ordered) -> Decimal:
        """How far an order's hold, reckoned anew, may be from ours."""
        return self.slack * (len(order.machines) + 1)

    # --- what happens ---

    def pass_time(self, ticks: int) -> None:
        """What runs goes on running."""
        self.now += ticks
        for machine in self.machines():
            if machine.state == "running":
                machine.cost += self.prices[machine.kind] * ticks * HALF

    def charge(self, order: Ordered, machine: Machine, charged: Decimal) -> None:
        """In all so much was charged for a machine by now: as much as its order holds, the rest to the overdraft."""
        fresh = charged - machine.charged
        assert fresh >= 0
        least = machine.cost if machine.state == "gone" else ZERO
        assert least - self.slack <= charged <= machine.cost + self.slack, (least, charged, machine.cost)
        machine.charged = charged
        part = min(fresh, order.held)
        order.used += part
        self.overdraft += fresh - part

    def settle(self, order: Ordered) -> None:
        """Each machine that is gone is settled; the last one gives back what is left."""
        for machine in order.machines:
            machine.is_settled = machine.is_settled or machine.state == "gone"
        if all(machine.is_settled for machine in order.machines):
            order.is_released = True
            if order.state != "returned":
                order.state = "over"


def up(amount: Decimal) -> Decimal:
    """As money is stored."""
    return amount.quantize(NINE)
