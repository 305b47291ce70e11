"""What the API answers, as far as the commands read it. Amounts are exact: plain digits as text."""

from __future__ import annotations

from typing import Any, TypedDict


class Money(TypedDict):
    """`commodity` is a currency (ISO 4217) or an allocation unit."""

    value: str
    commodity: str


class Health(TypedDict):
    status: str
    version: str
    database: str
    worker: bool
    clock: bool
    due: int
    observing: bool


class Readiness(TypedDict):
    site: str
    ready: bool
    why: str | None


class Installation(TypedDict):
    id: str
    observing_since: str | None
    reason: str | None
    sites: list[Readiness]


class Resumed(TypedDict):
    leases: int


class Quota(TypedDict):
    resource: str
    limit: str | None
    used: str
    free: str | None


class Diagnosis(TypedDict):
    step: str
    ok: bool
    detail: str
    hint: str | None


class Site(TypedDict):
    id: str
    name: str
    provider: str
    adapter: str
    endpoint: str
    region: str | None
    jurisdiction: str | None
    observe_only: bool
    enabled: bool
    listed_at: str | None
    changes_at: str | None
    listing_since: str | None
    listing_read: int | None
    trouble: str | None
    offers: int
    images: list[str]
    quota: list[Quota]
    checked_at: str | None
    check_wanted_at: str | None
    check_pending: bool
    diagnosis: list[Diagnosis]


class KindHealth(TypedDict):
    kind: str
    state: str
    share: float
    contacts: int
    failures: int
    last_at: str
    ok_at: str | None
    error: str | None


class HourOfContacts(TypedDict):
    at: str
    kind: str
    contacts: int
    failures: int
    latency_mean_ms: int
    latency_max_ms: int


class BootTest(TypedDict):
    """`outcome`: under way, ok, failed or stopped."""

    order_id: str
    began_at: str
    ended_at: str | None
    outcome: str
    seconds: float | None
    error: str | None


class BootPlan(TypedDict):
    project: str
    image: str | None
    every_seconds: int
    next_at: str
    trouble: str | None


class SiteHealth(TypedDict):
    """`state`: unknown, healthy, shaky or failing."""

    state: str
    reason: str | None
    kinds: list[KindHealth]
    hours: list[HourOfContacts]
    boot_tests: list[BootTest]
    boot_plan: BootPlan | None


class RateCard(TypedDict):
    id: str
    provider: str
    number: int
    name: str
    currency: str
    valid_from: str
    valid_to: str | None
    skus: int


class Institution(TypedDict):
    name: str
    title: str
    jurisdiction: str | None


class Project(TypedDict):
    id: str
    name: str
    title: str
    institution: Institution
    contacts: list[str]


class Grant(TypedDict):
    id: str
    project: str
    name: str
    position: int
    amount: Money
    starts_at: str
    ends_at: str
    spent: Money
    held: Money
    free: Money


class Offer(TypedDict):
    """`total`, `hold` and `hourly` are for the whole workload."""

    rank: int
    site: str
    offer: str
    cores: int
    memory_mib: int
    disk_gib: int
    gpus: int
    total: Money
    hold: Money
    hourly: Money
    lines: list[dict[str, str]]


class Reason(TypedDict):
    clause: str
    wanted: str
    offered: str
    hint: str


class Verdict(TypedDict):
    site: str
    rank: int | None
    summary: str
    offers: int
    reasons: list[Reason]


class Quote(TypedDict):
    """A preview has no ids and no times."""

    id: str | None
    workload_id: str | None
    name: str
    project: str
    workload: dict[str, Any]
    made_at: str | None
    expires_at: str | None
    offers: list[Offer]
    verdicts: list[Verdict]
    eliminated: dict[str, int]
    relaxations: list[str]
    assumptions: dict[str, Any]


class Order(TypedDict):
    id: str
    state: str
    placed_at: str
    ended_at: str | None
    reason: str | None
    members: int
    duration_seconds: int
    held_until: str | None


class Picked(TypedDict):
    site: str
    name: str
    total: Money
    hourly: Money


class Machine(TypedDict):
    lease_id: str
    member: int
    name: str
    site: str
    state: str
    desired: str
    addresses: list[str]
    started_at: str | None
    ends_at: str
    paid_until: str
    deleted_at: str
    kept_until: str | None
    adopted_at: str | None
    gone_at: str | None
    trouble: str | None


class Spent(TypedDict):
    """`accrued` null: a price is not known."""

    held: Money
    spent: Money
    accrued: Money | None
    other: list[Money]


class Event(TypedDict):
    at: str
    kind: str
    text: str
    actor: str
    lease_id: str | None


class WorkloadItem(TypedDict):
    """A workload as lists show it."""

    id: str
    name: str
    project: str
    order: Order
    offer: Picked
    quote_id: str
    machines: list[Machine]
    money: Spent


class Workload(WorkloadItem):
    """A workload in detail. `events_left_out`: how many older ones are not in `events`."""

    document: dict[str, Any]
    events: list[Event]
    events_left_out: int


class Explanation(TypedDict):
    id: str
    name: str
    order_state: str
    offer: Picked
    quote: Quote
    refusals: list[Event]


class GrantSpend(TypedDict):
    name: str
    starts_at: str
    ends_at: str
    ceiling: Money
    spent: Money
    held: Money
    accrued: Money | None
    free: Money


class WorkloadSpend(TypedDict):
    workload: str
    machine: str
    lease_id: str
    site: str
    state: str
    charged: list[Money]
    accrued: list[Money] | None


class Spend(TypedDict):
    project: str
    at: str
    grants: list[GrantSpend]
    workloads: list[WorkloadSpend]
    overdraft: list[Money]


class Overdue(TypedDict):
    kind: str
    thing: str
    since: str | None
    why: str
    hint: str


class Finding(TypedDict):
    id: str
    kind: str
    text: str
    hint: str
    site: str | None
    lease_id: str | None
    per_day: Money | None
    first_seen_at: str
    last_seen_at: str


class FindingSum(TypedDict):
    kind: str
    site: str | None
    count: int
    per_day: list[Money]
    unknown: int


class FindingSums(TypedDict):
    """`unknown`: how many have no known price."""

    count: int
    per_day: list[Money]
    unknown: int
    sums: list[FindingSum]
    first: list[Finding]


class Sum(TypedDict):
    """`per_hour` null: no price is known; `unknown`: of how many."""

    count: int
    idle: int
    size_gib: str
    per_hour: Money | None
    unknown: int


class OfKind(Sum):
    kind: str


class OfOwner(Sum):
    owner: str | None


class OfProject(Sum):
    project: str | None


class Inventory(TypedDict):
    site: str
    listed_at: str | None
    total: Sum
    kinds: list[OfKind]
    owners: list[OfOwner]
    projects: list[OfProject]


class Thing(TypedDict):
    id: str
    site: str
    kind: str
    remote_id: str
    name: str
    owner: str | None
    project: str | None
    size_gib: str | None
    instance_type: str | None
    state: str | None
    status: str
    attached_to: str | None
    created_at: str | None
    first_seen_at: str
    changed_at: str | None
    seen_at: str | None
    lease_id: str | None
    installation: str | None
    until: str | None
    per_hour: Money | None
