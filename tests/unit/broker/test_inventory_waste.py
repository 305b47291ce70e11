"""Findings about what costs and nobody uses: when they are raised, what they cost, and when they close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from broker import ratecards
from broker.catalogue import import_rate_card
from broker.models.audit import Finding
from broker.models.catalogue import CatalogueVersion, Offer
from broker.models.federation import Site
from broker.paging import Page
from broker.remote import Listing, MachineState, PartKind, RemoteMachine, RemoteThing, Tags, ThingKind
from broker.site_views import sum_findings
from broker.thing_views import Wanted, inventory, list_things
from broker.things import record_things
from broker.tools import Tolerance
from broker.values import Amount
from broker.waste import Look, tell_waste
from tests.world import World

DAY = timedelta(days=1)
START = datetime(2026, 10, 1, tzinfo=UTC)
LONG_AGO = START - 200 * DAY
PRICES = """
kind: rate-card
name: full
provider: aurora
currency: EUR
valid_from: 2020-01-01T00:00:00Z
bills: openstack
prices:
  a1.small: {unit: hour, unit_price: "0.04"}
  a1.medium: {unit: hour, unit_price: "0.08"}
  a1.large: {unit: hour, unit_price: "0.20"}
  a1.pinned: {unit: hour, unit_price: "0.70"}
  public-address: {unit: hour, unit_price: "0.004"}
  snapshot-storage: {unit: GiB-hour, unit_price: "0.0001"}
  volume-storage: {unit: GiB-hour, unit_price: "0.0002"}
"""


@dataclass
class Observed:
    """A site whose listings the test makes up."""

    world: World
    site_id: UUID
    small: str  # the site's id of a1.small

    def shows(self, *seen: RemoteMachine | RemoteThing, at: datetime) -> None:
        listing = Listing(
            "scope",
            tuple(one for one in seen if isinstance(one, RemoteMachine)),
            (),
            tuple(one for one in seen if isinstance(one, RemoteThing)),
        )
        writing = self.world.sessions.begin
        record_things(listing, site_id=self.site_id, started_at=at, writing=writing)
        tell_waste(self.site_id, Look(Tolerance(), at, self.world.tools.installation), writing=writing)

    def machine(
        self, remote_id: str = "m", state: MachineState = MachineState.STOPPED, **changes: Any
    ) -> RemoteMachine:
        made = RemoteMachine(
            PartKind.SERVER, remote_id, "web", None, state, state.upper(), self.small, LONG_AGO, LONG_AGO, owner="alice"
        )
        return replace(made, **changes)

    def open(self) -> Sequence[Finding]:
        with self.world.sessions() as session:
            return session.scalars(select(Finding).where(Finding.resolved_at.is_(None)).order_by(Finding.kind)).all()

    def kinds(self) -> list[str]:
        return [finding.kind for finding in self.open()]


def thing(kind: ThingKind, **changes: Any) -> RemoteThing:
    made = RemoteThing(kind, str(kind), f"a-{kind}", "available", size_gib=Decimal(100), created_at=LONG_AGO)
    return replace(made, **changes)


VOLUME = thing(ThingKind.VOLUME)
ADDRESS = thing(ThingKind.ADDRESS, size_gib=None)
SNAPSHOT = thing(ThingKind.SNAPSHOT)


@pytest.fixture
def observed(world: World) -> Observed:
    with world.sessions.begin() as session:
        import_rate_card(session, ratecards.parse(PRICES), now=START)
        site_id = session.scalars(select(Site.id)).one()
        small = session.scalars(select(Offer.remote_id).where(Offer.name == "a1.small")).one()
    return Observed(world, site_id, small)


def test_the_first_listing_tells_what_was_so_before(observed: Observed) -> None:
    backup = thing(ThingKind.VOLUME_SNAPSHOT, size_gib=None)
    observed.shows(observed.machine(), VOLUME, ADDRESS, SNAPSHOT, backup, at=START)
    found = {(finding.kind, finding.text): finding.per_day for finding in observed.open()}
    since = "since before 2026-10-01, made 2026-03-15"
    server = f"machine web of alice has been stopped {since}, and keeps its place (STOPPED)"
    assert found == {
        ("idle_machine", server): Decimal("0.96"),
        ("idle_address", f"address a-address has led to nothing {since}"): Decimal("0.096"),
        ("orphan_volume", f"volume a-volume of 100 GiB has been attached to nothing {since} (available)"): Decimal(
            "0.48"
        ),
        ("old_snapshot", "snapshot a-snapshot of 100 GiB was made 2026-03-15"): Decimal("0.24"),
        ("old_snapshot", "snapshot of a volume a-volume_snapshot was made 2026-03-15"): None,
    }
    assert {finding.commodity for finding in observed.open() if finding.per_day is not None} == {"EUR"}


def test_what_is_used_or_young_is_no_finding(observed: Observed) -> None:
    young = {"created_at": START - 3 * DAY}
    observed.shows(
        observed.machine("runs", MachineState.RUNNING),
        observed.machine("shelved", MachineState.SHELVED),
        observed.machine("young", **young),
        replace(VOLUME, attached_to="runs"),
        replace(VOLUME, remote_id="young", **young),
        replace(ADDRESS, attached_to="runs"),
        replace(SNAPSHOT, **young),
        at=START,
    )
    assert observed.kinds() == []


def test_days_are_counted_from_the_change_that_was_seen(observed: Observed) -> None:
    running, held = observed.machine(state=MachineState.RUNNING), replace(VOLUME, attached_to="m")
    observed.shows(running, held, at=START)
    observed.shows(observed.machine(), VOLUME, at=START + DAY)
    observed.shows(observed.machine(), VOLUME, at=START + 7 * DAY)
    assert observed.kinds() == []
    observed.shows(observed.machine(), VOLUME, at=START + 8 * DAY)
    assert observed.kinds() == ["idle_machine", "orphan_volume"]
    assert "has been stopped since 2026-10-02, and" in observed.open()[0].text
    observed.shows(running, held, at=START + 9 * DAY)
    assert observed.kinds() == []


def test_findings_close_when_the_thing_is_gone(observed: Observed) -> None:
    observed.shows(observed.machine(), VOLUME, ADDRESS, SNAPSHOT, at=START)
    observed.shows(ADDRESS, at=START + DAY)
    assert observed.kinds() == ["idle_address"]
    observed.shows(at=START + 2 * DAY)
    assert observed.kinds() == []
    with observed.world.sessions() as session:
        closed = {one.kind: (one.last_seen_at, one.resolved_at) for one in session.scalars(select(Finding))}
    assert closed["orphan_volume"] == (START, START + DAY)
    assert closed["idle_address"] == (START + DAY, START + 2 * DAY)


def test_an_open_finding_is_written_once_an_hour_or_when_it_changes(observed: Observed) -> None:
    observed.shows(VOLUME, at=START)
    (first,) = observed.open()
    observed.shows(VOLUME, at=START + timedelta(minutes=2))
    assert observed.open()[0].last_seen_at == START
    observed.shows(replace(VOLUME, size_gib=Decimal(200)), at=START + timedelta(minutes=4))
    (second,) = observed.open()
    assert (second.id, second.per_day, second.last_seen_at) == (
        first.id,
        Decimal("0.96"),
        START + timedelta(minutes=4),
    )
    observed.shows(replace(VOLUME, size_gib=Decimal(200)), at=START + timedelta(minutes=65))
    assert observed.open()[0].last_seen_at == START + timedelta(minutes=65)
    assert observed.open()[0].first_seen_at == START


def test_what_is_free_while_it_is_stopped_may_stay_so(observed: Observed) -> None:
    with observed.world.sessions.begin() as session:
        free = PRICES.replace("bills: openstack", "bills: {running: 1, stopped: 0}").replace("2020-01-01", "2026-09-01")
        import_rate_card(session, ratecards.parse(free), now=START)
    observed.shows(observed.machine(), observed.machine("odd", instance_type="no-longer-sold"), at=START)
    (finding,) = observed.open()
    assert (finding.kind, finding.per_day) == ("idle_machine", None)
    assert finding.key.endswith(":odd")


def test_what_a_leeway_made_is_told_of_only_when_another_one_forgot_it(observed: Observed) -> None:
    def of(installation: UUID, until: datetime) -> Tags:
        return Tags(installation, uuid4(), uuid4(), "climate", until)

    ours, theirs = observed.world.tools.installation, uuid4()
    observed.shows(
        observed.machine("ours", tags=of(ours, START - DAY)),
        observed.machine("theirs", tags=of(theirs, START + DAY)),
        replace(VOLUME, tags=of(theirs, START + DAY)),
        at=START,
    )
    assert observed.kinds() == []
    observed.shows(observed.machine("theirs", tags=of(theirs, START + DAY)), at=START + 2 * DAY)
    (finding,) = observed.open()
    assert (finding.kind, finding.per_day) == ("past_end", Decimal("0.96"))
    assert f"of installation {theirs} was to end 2026-10-02" in finding.text


def test_what_has_no_known_price_is_told_all_the_same(observed: Observed) -> None:
    with observed.world.sessions.begin() as session:
        session.execute(update(CatalogueVersion).values(superseded_at=START))
    observed.shows(observed.machine(), replace(VOLUME, size_gib=None), at=START)
    assert [finding.per_day for finding in observed.open()] == [None, None]


# --- as people see it ------------------------------------------------------------------------------------------------


def test_findings_are_summed_by_kind_and_site_and_the_dearest_come_first(observed: Observed) -> None:
    observed.shows(
        observed.machine(),
        VOLUME,
        replace(VOLUME, remote_id="unknown", size_gib=None),
        replace(VOLUME, remote_id="huge", size_gib=Decimal(10_000)),
        at=START,
    )
    with observed.world.sessions.begin() as session:
        session.add(
            Finding(kind="launch_unknown", key="k", text="t", hint="h", first_seen_at=START, last_seen_at=START)
        )
    with observed.world.sessions() as session:
        found = sum_findings(session, most=3)
    assert (found.count, found.per_day, found.unknown) == (5, [Amount.of(Decimal("49.44"), "EUR")], 2)
    assert [(one.kind, one.site, one.count, one.unknown) for one in found.sums] == [
        ("idle_machine", "aurora", 1, 0),
        ("launch_unknown", None, 1, 1),
        ("orphan_volume", "aurora", 3, 1),
    ]
    assert found.sums[2].per_day == [Amount.of(Decimal("48.48"), "EUR")]
    assert [finding.kind for finding in found.first] == ["launch_unknown", "orphan_volume", "idle_machine"]
    assert found.first[1].per_day == Amount.of(Decimal(48), "EUR")


def test_an_inventory_sums_by_kind_owner_and_project_and_counts_what_has_no_price(observed: Observed) -> None:
    seen = [observed.machine(str(number), MachineState.RUNNING) for number in range(3)]
    odd = observed.machine("odd", instance_type="no-longer-sold", owner="bob", project="p2")
    seen += [observed.machine("off", project="p2"), odd]
    observed.shows(*seen, VOLUME, replace(ADDRESS, attached_to="0"), at=START)
    with observed.world.sessions() as session:
        found = inventory(session, session.get_one(Site, observed.site_id), now=START)
    servers = found.kinds[ThingKind.SERVER]
    assert (servers.count, servers.idle, servers.unknown) == (5, 2, 1)
    assert servers.per_hour == Amount.of(Decimal("0.16"), "EUR")
    volumes = found.kinds[ThingKind.VOLUME]
    assert (volumes.count, volumes.idle, volumes.size_gib) == (1, 1, Decimal(100))
    assert found.owners["alice"].per_hour == Amount.of(Decimal("0.16"), "EUR")
    assert (found.owners["bob"].per_hour, found.owners["bob"].unknown) == (None, 1)
    assert found.owners[None].count == 2
    assert {project: sums.count for project, sums in found.projects.items()} == {None: 5, "p2": 2}
    assert (found.projects["p2"].per_hour, found.projects["p2"].unknown) == (Amount.of(Decimal("0.04"), "EUR"), 1)
    assert (found.total.count, found.total.per_hour) == (7, Amount.of(Decimal("0.184"), "EUR"))


def test_things_are_listed_by_page_and_filter(observed: Observed) -> None:
    seen = [observed.machine(str(number), MachineState.RUNNING) for number in range(3)]
    observed.shows(*seen, observed.machine("off", owner="bob", project="p2"), VOLUME, ADDRESS, at=START)
    with observed.world.sessions() as session:
        site = session.get_one(Site, observed.site_id)

        def ids(page: Page | None = None, **wanted: Any) -> list[str]:
            found = list_things(session, site, Wanted(**wanted), page or Page(), now=START)
            return sorted(one.remote_id for one in found.items)

        assert ids(kind=ThingKind.SERVER) == ["0", "1", "2", "off"]
        assert ids(owner="bob") == ids(project="p2") == ["off"]
        assert ids(project="elsewhere") == []
        assert ids(idle=True) == ["address", "off", "volume"]
        assert ids(kind=ThingKind.SERVER, idle=True, owner="alice") == []
        first = list_things(session, site, Wanted(), Page(4), now=START)
        assert first.next is not None
        rest = list_things(session, site, Wanted(), Page(4, first.next), now=START)
        assert (len(first.items), len(rest.items), rest.next) == (4, 2, None)
        (off,) = list_things(session, site, Wanted(owner="bob"), Page(), now=START).items
        assert off.project == "p2"
        assert (off.instance_type, off.per_hour) == ("a1.small", Amount.of(Decimal("0.04"), "EUR"))
