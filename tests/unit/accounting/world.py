"""The rows that accounting stands on, made by the core's own models: a project, a priced site, orders, leases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.grants import create_grant
from accounting.holds import GrantLedger
from accounting.models.charges import Charge, Segment
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Account, Balance, Entry
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.models.audit import Finding
from broker.models.catalogue import CatalogueVersion, Offer, RateCardPrice, RateCardVersion
from broker.models.federation import Installation, Institution, Provider, Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, Quote, QuoteOffer, WorkloadRow
from broker.placement import NO_VOLUMES, Volumes
from broker.remote import Fence, PartKind
from broker.restored import first_imprint
from broker.values import Amount, Period, new_id

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
YEAR = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
BILLS = {"building": "0", "running": "1", "stopped": "0.5", "shelved": "0", "error": "0", "deleting": "1"}
LEDGER = GrantLedger()


def eur(value: str | int | Decimal) -> Amount:
    """Euros."""
    return Amount.of(value, "EUR")


class World:
    """One institution, project, provider and site, with an offer `m1.small`; the rest is asked for."""

    def __init__(self, session: Session) -> None:
        """Names are new each time, so that many worlds fit in one database."""
        self.session = session
        self.tag = new_id().hex[-12:]
        if session.get(Installation, True) is None:  # without it nothing may be changed
            session.add(Installation(only_one=True, installation_id=new_id(), made_at=T0))
            session.flush()
            first_imprint(session)
        institution = Institution(name=f"uni-{self.tag}", title="A university")
        self.provider = Provider(name=f"cloud-{self.tag}", title="A cloud")
        session.add_all((institution, self.provider))
        session.flush()
        self.project = Project(name=f"climate-{self.tag}", title="Climate", institution_id=institution.id)
        self.site = Site(
            name=f"site-{self.tag}",
            provider_id=self.provider.id,
            adapter="sandbox",
            endpoint="http://127.0.0.1:1",
            region="north",
            next_listing_at=T0,
        )
        session.add_all((self.project, self.site))
        session.flush()
        self.catalogue = CatalogueVersion(site_id=self.site.id, digest="d", made_at=T0)
        session.add(self.catalogue)
        session.flush()
        self.offer = self.sell("f-1", "m1.small")
        self.cards = 0

    def sell(self, remote_id: str, name: str) -> Offer:
        """Another instance type."""
        offer = Offer(
            catalogue_version_id=self.catalogue.id,
            site_id=self.site.id,
            remote_id=remote_id,
            name=name,
            cores=2,
            memory_mib=4096,
            disk_gib=20,
            gpus=0,
        )
        self.session.add(offer)
        self.session.flush()
        return offer

    def card(
        self,
        prices: Mapping[str, str] | None = None,
        *,
        bills: Mapping[str, str] = BILLS,
        since: datetime = T0 - timedelta(days=300),
        currency: str = "EUR",
    ) -> RateCardVersion:
        """A new rate card version, in force from `since` on; SKU -> price per hour, or per GiB and hour."""
        last = self.session.scalar(
            select(RateCardVersion).where(
                RateCardVersion.provider_id == self.provider.id, RateCardVersion.valid_to.is_(None)
            )
        )
        if last is not None:
            last.valid_to = since
            self.session.flush()
        self.cards += 1
        version = RateCardVersion(
            provider_id=self.provider.id,
            number=self.cards,
            name="list",
            currency=currency,
            valid_from=since,
            bills=dict(bills),
            digest="d",
            made_at=since,
        )
        self.session.add(version)
        self.session.flush()
        for sku, price in (prices or {"m1.small": "0.06"}).items():
            self.price(version, sku, price, unit="GiB-hour" if sku in (SNAPSHOT_SKU, VOLUME_SKU) else "hour")
        return version

    def price(
        self, version: RateCardVersion, sku: str, price: str, *, above: str = "0", unit: str = "hour", minimum: int = 0
    ) -> None:
        """One tier of one SKU."""
        self.session.add(
            RateCardPrice(
                version_id=version.id,
                sku=sku,
                above=Decimal(above),
                unit=unit,
                unit_price=Decimal(price),
                minimum_seconds=minimum,
            )
        )
        self.session.flush()

    def grant(self, amount: str | Amount, *, name: str | None = None, period: Period = YEAR) -> Grant:
        """A grant of the project, at the last position."""
        number = self.session.scalar(select(func.count()).where(Grant.project_id == self.project.id)) or 0
        money = amount if isinstance(amount, Amount) else eur(amount)
        return create_grant(
            self.session, self.project.id, name=name or f"grant-{number + 1}", amount=money, period=period
        )

    def order(self, hold: str | None = None, *, until: datetime = T0 + 48 * HOUR, now: datetime = T0) -> Order:
        """An order without leases, with `hold` EUR set aside."""
        session = self.session
        workload = WorkloadRow(project_id=self.project.id, name="era5", document={}, digest="d", made_at=now)
        session.add(workload)
        session.flush()
        quote = Quote(
            workload_id=workload.id,
            made_at=now,
            expires_at=now + HOUR,
            catalogue_digest="d",
            facts_digest="d",
            assumptions={},
            verdicts=[],
            eliminated={},
            relaxations=[],
        )
        session.add(quote)
        session.flush()
        version = session.scalars(select(RateCardVersion).filter_by(provider_id=self.provider.id)).first()
        picked = QuoteOffer(
            quote_id=quote.id,
            rank=1,
            site_id=self.site.id,
            offer_id=self.offer.id,
            rate_card_version_id=(version or self.card()).id,
            image_remote_id="i-1",
            commodity="EUR",
            total=Decimal(1),
            hold=Decimal(2),
            hourly=Decimal(1),
            lines=[],
        )
        session.add(picked)
        session.flush()
        order = Order(
            workload_id=workload.id,
            quote_id=quote.id,
            quote_offer_id=picked.id,
            project_id=self.project.id,
            state=OrderState.PLACED,
            members=1,
            duration=until - now,
            placed_at=now,
        )
        session.add(order)
        session.flush()
        if hold is not None:
            LEDGER.hold(session, order.id, [eur(hold)], until, now=now)
        return order

    def lease(self, order: Order, *, member: int = 1, made_at: datetime = T0, volumes: Volumes = NO_VOLUMES) -> Lease:
        """A lease of the order, with a server that was made."""
        disks = {"boot_volume_gib": volumes.boot_gib, "volume_gib": volumes.second_gib} if volumes.number else {}
        lease = Lease(
            order_id=order.id,
            member=member,
            site_id=self.site.id,
            quote_offer_id=order.quote_offer_id,
            project=self.project.name,
            spec={"name": f"era5-{member}", "instance_type": "f-1", "image": "i-1"} | disks,
            desired=Desired.RUNNING,
            state=LeaseState.PENDING,
            made_at=made_at,
            ends_at=made_at + order.duration,
        )
        self.session.add(lease)
        self.session.flush()
        self.part(lease, PartKind.SERVER, made_at=made_at)
        return lease

    def part(self, lease: Lease, kind: PartKind, *, made_at: datetime | None, gone_at: datetime | None = None) -> Part:
        """A part; one that was never made has no remote id."""
        part = Part(
            lease_id=lease.id,
            kind=kind,
            position=0,
            fence=Fence.PART,
            is_harmless=False,
            remote_id=None if made_at is None else f"r-{lease.id}",
            made_at=made_at,
            gone_at=gone_at,
        )
        self.session.add(part)
        self.session.flush()
        return part

    def attempt(self, lease: Lease, outcome: Outcome, *, number: int = 1, fence: Fence = Fence.PART) -> LaunchAttempt:
        """A try at making the server."""
        part = self.session.scalars(select(Part).filter_by(lease_id=lease.id, kind=PartKind.SERVER)).one()
        attempt = LaunchAttempt(
            lease_id=lease.id,
            part_id=part.id,
            number=number,
            fence=fence,
            started_at=T0,
            give_up_at=T0 + HOUR,
            outcome=outcome,
        )
        self.session.add(attempt)
        self.session.flush()
        return attempt

    def see(
        self,
        lease: Lease,
        seen_at: datetime,
        state: LeaseState,
        *,
        since: datetime | None = None,
        kind: str | None = "f-1",
        is_estimated: bool = False,
    ) -> None:
        """What a listing saw; GONE also ends the lease."""
        self.session.add(
            Observation(
                lease_id=lease.id,
                seen_at=seen_at,
                state=state,
                raw_status=state.value,
                instance_type=kind,
                since=since,
                is_estimated=is_estimated,
            )
        )
        self.still(lease, seen_at)
        lease.state = state
        if state is LeaseState.GONE:
            lease.gone_at, lease.desired = seen_at, Desired.GONE
        self.session.flush()

    def still(self, lease: Lease, seen_at: datetime) -> None:
        """A listing that saw no change."""
        lease.seen_at = seen_at if lease.seen_at is None else max(lease.seen_at, seen_at)
        self.session.flush()

    def quota(self, lease: Lease) -> QuotaHold:
        """A quota hold of the lease."""
        pool = QuotaPool(site_id=self.site.id, resource=f"cores-{lease.id}", used=Decimal(0), as_of=T0)
        self.session.add(pool)
        self.session.flush()
        hold = QuotaHold(pool_id=pool.id, lease_id=lease.id, amount=Decimal(2))
        self.session.add(hold)
        self.session.flush()
        return hold

    # --- what came of it ---

    def balance(self, key: str, commodity: str = "EUR") -> Balance | None:
        """The balance of an account by its key, read afresh."""
        return self.session.scalar(
            select(Balance)
            .join(Account, Account.id == Balance.account_id)
            .where(Account.key == key, Balance.commodity == commodity)
            .execution_options(populate_existing=True)
        )

    def of_grant(self, grant: Grant) -> tuple[Decimal, Decimal]:
        """Posted and held of a grant."""
        balance = self.balance(f"grant:{grant.id}", grant.commodity)
        assert balance is not None
        return balance.posted, balance.held

    def posted(self, key: str, commodity: str = "EUR") -> Decimal:
        """What is posted to an account; nothing where it does not exist."""
        balance = self.balance(key, commodity)
        return Decimal(0) if balance is None else balance.posted

    @property
    def overdraft(self) -> Decimal:
        """What the project was charged beyond its holds."""
        return self.posted(f"overdraft:{self.project.id}")

    @property
    def owed(self) -> Decimal:
        """What the provider is owed."""
        return -self.posted(f"provider:{self.provider.id}")

    def holds(self, order: Order) -> list[MoneyHold]:
        """The order's holds, read afresh."""
        found = select(MoneyHold).filter_by(order_id=order.id).order_by(MoneyHold.made_at, MoneyHold.id)
        return list(self.session.scalars(found.execution_options(populate_existing=True)))

    def segments(self, lease: Lease) -> list[Segment]:
        """The lease's segments in order."""
        found = select(Segment).filter_by(lease_id=lease.id).order_by(Segment.starts_at)
        return list(self.session.scalars(found.execution_options(populate_existing=True)))

    def charges(self, lease: Lease) -> list[Charge]:
        """The lease's charges in order."""
        found = select(Charge).filter_by(lease_id=lease.id)
        return list(self.session.scalars(found.order_by(Charge.charge_period_start, Charge.sku_price_id)))

    def findings(self, kind: str, key: UUID) -> list[Finding]:
        """The findings of a kind about something, read afresh."""
        found = select(Finding).filter_by(kind=kind, key=str(key)).execution_options(populate_existing=True)
        return list(self.session.scalars(found))

    def entries(self) -> int:
        """How many entries there are, of anyone."""
        return self.session.scalar(select(func.count()).select_from(Entry)) or 0
