"""Rate cards: exact prices, both formats alike, and errors that name the SKU and the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.documents import canonical
from broker.errors import InvalidInput, PriceUnknown
from broker.pricing import Price, Tier, amount
from broker.ratecards import BILLS_OPENSTACK, RateCardDocument, parse, parse_csv
from broker.remote import MachineState
from broker.values import Amount, Commodity, Period, Unit, new_id, plain

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
YAML = """\
name: internal-2026
provider: aurora
currency: EUR
valid_from: 2026-01-01
bills: openstack
prices:
  a1.small: {unit: hour, unit_price: 0.1}
  public-address: {unit: hour, unit_price: 4e-3}
  gpu.8c64g:
    unit: hour
    unit_price: "1.90"
    minimum: 1 minute
    increment: 1 s
  egress:
    unit: GiB
    tiers:
      - {above: 0, unit_price: 0}
      - {above: 100, unit_price: 0.08}
"""
CSV = """\
sku,unit,unit_price,above,minimum,increment
a1.small,hour,0.1
public-address,hour,0.004,,,
gpu.8c64g,hour,1.90,,1 minute,1 s

egress,GiB,0.08,100
egress,GiB,0,0
"""


def from_csv(text: str, **changes: Any) -> RateCardDocument:
    return parse_csv(
        text,
        **{
            "name": "internal-2026",
            "provider": "aurora",
            "currency": "EUR",
            "valid_from": NEW_YEAR,
            "bills": "openstack",
            **changes,
        },
    )


def refused(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    return caught.value


def refused_csv(text: str, **changes: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        from_csv(text, **changes)
    return caught.value


class TestReading:
    def test_yaml(self) -> None:
        card = parse(YAML)
        assert (card.name, card.provider, card.currency) == ("internal-2026", "aurora", Commodity("EUR"))
        assert card.valid_from == NEW_YEAR
        assert card.bills == BILLS_OPENSTACK
        assert card.prices == {
            "a1.small": Price("a1.small", Unit.HOUR, (Tier(Decimal(0), Decimal("0.1")),)),
            "public-address": Price("public-address", Unit.HOUR, (Tier(Decimal(0), Decimal("0.004")),)),
            "gpu.8c64g": Price(
                "gpu.8c64g",
                Unit.HOUR,
                (Tier(Decimal(0), Decimal("1.9")),),
                timedelta(minutes=1),
                timedelta(seconds=1),
            ),
            "egress": Price("egress", Unit.GIB, (Tier(Decimal(0), Decimal(0)), Tier(Decimal(100), Decimal("0.08")))),
        }

    def test_csv_says_the_same(self) -> None:
        assert from_csv(CSV) == parse(YAML)
        assert from_csv("\ufeff" + CSV.replace("\n", "\r\n")).digest() == parse(YAML).digest()

    def test_columns_may_stand_in_any_order(self) -> None:
        text = "unit_price, sku ,unit\n0.10,a1.small,hour\n"
        assert from_csv(text).prices["a1.small"].tiers == (Tier(Decimal(0), Decimal("0.1")),)

    def test_a_tenth_is_a_tenth(self) -> None:
        """0.1 as a float is 0.1000000000000000055; three of them for an hour cost 0.3 and not a digit more."""
        card = parse(YAML).card(new_id(), 1)
        found = amount(card, "a1.small", Decimal(3), Period(NEW_YEAR, NEW_YEAR + timedelta(hours=1)))
        assert found.total == Amount.of("0.3", "EUR")
        assert str(found.total.value.normalize()) == "0.3"

    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
            ("2026-03-01T00:00:00+02:00", datetime(2026, 2, 28, 22, tzinfo=UTC)),
            ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ],
    )
    def test_when_it_begins(self, text: str, moment: datetime) -> None:
        assert parse(YAML.replace("2026-01-01", text)).valid_from == moment

    def test_an_allocation_unit_is_a_currency_too(self) -> None:
        assert parse(YAML.replace("EUR", "SU@vsc")).currency == Commodity("SU@vsc")


class TestBills:
    def test_the_openstack_table_says_every_state_but_unknown(self) -> None:
        assert set(BILLS_OPENSTACK) == {state.value for state in MachineState} - {"unknown"}
        assert BILLS_OPENSTACK["running"] == 1
        assert BILLS_OPENSTACK["building"] == 0

    def test_nothing_is_taken_for_granted(self) -> None:
        assert refused(YAML.replace("bills: openstack\n", "")).field == "bills"
        card = parse(YAML.replace("bills: openstack", "bills: {running: 1, stopped: 0.25}")).card(new_id(), 1)
        assert card.share("stopped") == Decimal("0.25")
        with pytest.raises(PriceUnknown):
            card.share("shelved")

    @pytest.mark.parametrize(
        ("bills", "field"),
        [
            ("azure", "bills"),
            ("[running]", "bills"),
            ("{runing: 1}", "bills.runing"),
            ("{unknown: 1}", "bills.unknown"),
            ("{running: 1.5}", "bills.running"),
            ("{running: -1}", "bills.running"),
            ("{running: yes}", "bills.running"),
        ],
    )
    def test_refusals(self, bills: str, field: str) -> None:
        found = refused(YAML.replace("bills: openstack", f"bills: {bills}"))
        assert found.field == field
        assert found.context["line"] == 5
        assert found.hint
        if field == "bills.runing":
            assert found.hint == "Did you mean running?"


class TestYamlFaults:
    @pytest.mark.parametrize(
        ("old", "new", "field", "line"),
        [
            ("unit: hour, unit_price: 0.1", "unit: hours, unit_price: 0.1", "prices.a1.small.unit", 7),
            ("unit: hour, unit_price: 0.1", "unit_price: 0.1", "prices.a1.small.unit", 7),
            ("unit: hour, unit_price: 0.1", "unit: hour", "prices.a1.small.unit_price", 7),
            ("unit: hour, unit_price: 0.1", "unit: hour, unit_price: ~", "prices.a1.small.unit_price", 7),
            ("unit: hour, unit_price: 0.1", "unit: hour, price: 0.1", "prices.a1.small.price", 7),
            ("unit_price: 0.1}", "unit_price: -0.1}", "prices.a1.small.unit_price", 7),
            ("unit_price: 0.1}", "unit_price: 0,1}", "prices.a1.small.1", 7),
            ("unit_price: 0.1}", "unit_price: free}", "prices.a1.small.unit_price", 7),
            ("unit_price: 0.1}", "unit_price: 0.0000000001}", "prices.a1.small.unit_price", 7),
            ("unit_price: 0.1}", "unit_price: 10000000000}", "prices.a1.small.unit_price", 7),
            ("unit_price: 0.1}", "unit_price: 1e999}", "prices.a1.small.unit_price", 7),
            ("unit_price: 0.1}", "unit_price: true}", "prices.a1.small.unit_price", 7),
            ("{unit: hour, unit_price: 0.1}", "0.1", "prices.a1.small", 7),
            ("minimum: 1 minute", "minimum: 60", "prices.gpu.8c64g.minimum", 9),
            ("minimum: 1 minute", "minimum: 32 days", "prices.gpu.8c64g.minimum", 9),
            ("increment: 1 s", "increment: 0.5 s", "prices.gpu.8c64g.increment", 9),
            ("unit: GiB", "unit: GiB\n    minimum: 1 h", "prices.egress.tiers[0].minimum", 18),
            ("unit: GiB", "unit: GiB\n    unit_price: 1", "prices.egress.tiers", 17),
            ("- {above: 0,", "- {", "prices.egress.tiers[0].above", 17),
            ("above: 0,", "above: 1,", "prices.egress.tiers[0].above", 17),
            ("above: 100", "above: 0.0", "prices.egress.tiers[1]", 18),
            ("above: 100", "about: 100", "prices.egress.tiers[1].about", 18),
            ("currency: EUR", "currency: euro", "currency", 3),
            ("currency: EUR", "currency: 5", "currency", 3),
            ("valid_from: 2026-01-01", "valid_from: soon", "valid_from", 4),
            ("valid_from: 2026-01-01", "valid_from: 2026-01-01T00:00", "valid_from", 4),
            ("valid_from: 2026-01-01", "valid_from: 0001-01-01T00:00+14:00", "valid_from", 4),
            ("provider: aurora", "provider: the aurora", "provider", 2),
            ("name: internal-2026", "name: 2026", "name", 1),
            ("name: internal-2026", "title: internal-2026", "title", 1),
            ("name: internal-2026", "kind: machine", "kind", 1),
        ],
    )
    def test_each_names_the_field_and_the_line(self, old: str, new: str, field: str, line: int) -> None:
        assert old in YAML
        found = refused(YAML.replace(old, new, 1))
        assert found.field == field
        assert found.context["line"] == line
        assert found.hint

    def test_no_prices(self) -> None:
        head = YAML.partition("prices:")[0]
        for tail in ("", "prices: {}", "prices: []", "prices: free", "prices:"):
            assert refused(head + tail).field == "prices"

    def test_no_tiers(self) -> None:
        head = YAML.partition("    tiers:")[0]
        for tail in ("[]", "cheap", "{above: 0}"):
            assert refused(f"{head}    tiers: {tail}\n").field == "prices.egress.tiers"
        assert refused(f"{head}    tiers: [5]\n").field == "prices.egress.tiers[0]"

    def test_a_unit_that_was_nearly_right(self) -> None:
        assert refused(YAML.replace("unit: hour", "unit: Hours", 1)).hint == "Did you mean hour?"

    def test_a_sku_twice(self) -> None:
        assert "twice" in refused(YAML + "  a1.small: {unit: hour, unit_price: 0.2}\n").reason

    @pytest.mark.parametrize("text", ["", "- a", "!!python/object:x {}", "name: &a x\nprovider: *a", "[" * 9999])
    def test_hostile(self, text: str) -> None:
        assert refused(text).reason


class TestCsvFaults:
    @pytest.mark.parametrize(
        ("row", "field"),
        [
            ("a,hours,0.1", "prices.a.unit"),
            ("a,,0.1", "prices.a.unit"),
            ("a,hour,", "prices.a.unit_price"),
            ("a,hour", "prices.a.unit_price"),
            ("a,hour,-1", "prices.a.unit_price"),
            ("a,hour,1_000", "prices.a.unit_price"),
            ("a,hour,nan", "prices.a.unit_price"),
            (",hour,0.1", "sku"),
            ("a,hour,0.1,5", "prices.a.above"),
            ("a,hour,0.1,,60", "prices.a.minimum"),
            ("a,GiB,0.1,,,1 s", "prices.a.increment"),
            ("a,hour,0,1,,,,", "row"),
            ('a,hour,"0,1"', "prices.a.unit_price"),
            ('"a,hour,0.1', "row"),
            ("a\x07,hour,1", "prices.a\x07"),
        ],
    )
    def test_each_names_the_sku_and_the_line(self, row: str, field: str) -> None:
        found = refused_csv(f"sku,unit,unit_price,above,minimum,increment\nfirst,hour,1\n{row}\n")
        assert found.field == field
        assert found.context["line"] in (3, 4)
        assert "(line " in found.reason

    def test_tiers_of_one_sku_agree(self) -> None:
        head = "sku,unit,unit_price,above,minimum\na,hour,1,0,1 min\n"
        assert "another unit" in refused_csv(head + "a,second,1,5,1 min\n").reason
        assert "another unit" in refused_csv(head + "a,hour,1,5\n").reason
        assert "two prices" in refused_csv(head + "a,hour,2,0,1 min\n").reason

    @pytest.mark.parametrize(
        "header", ["sku;unit;unit_price", "sku,unit", "sku,unit,price", "sku,sku,unit,unit_price", "", "a1,hour,0.1"]
    )
    def test_the_header(self, header: str) -> None:
        found = refused_csv(f"{header}\na,hour,1\n")
        assert found.field == "header"
        assert found.hint

    def test_nothing_in_it(self) -> None:
        assert refused_csv("sku,unit,unit_price\n\n").field == "prices"

    def test_the_fields_beside_the_file(self) -> None:
        for field, wrong in (
            ("name", "a b"),
            ("provider", ""),
            ("currency", "euro"),
            ("bills", "azure"),
            ("valid_from", NEW_YEAR.replace(tzinfo=None)),
        ):
            assert refused_csv(CSV, **{field: wrong}).field == field


PRICES = st.decimals(min_value=0, max_value=Decimal("9999999999.999999999"), places=9)
SKUS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12)


@st.composite
def cards(draw: st.DrawFn) -> RateCardDocument:
    prices = {}
    for sku in draw(st.lists(SKUS, min_size=1, max_size=4, unique=True)):
        unit = draw(st.sampled_from(Unit))
        starts = sorted(draw(st.lists(st.decimals(1, 10**6, places=2), max_size=2, unique=True)))
        timed = unit in (Unit.HOUR, Unit.SECOND, Unit.GIB_HOUR, Unit.CORE_HOUR)
        step = st.integers(0, 3600).map(lambda seconds: timedelta(seconds=seconds)) if timed else st.just(timedelta(0))
        tiers = tuple(Tier(above, draw(PRICES)) for above in (Decimal(0), *starts))
        prices[sku] = Price(sku, unit, tiers, draw(step), draw(step))
    shares: Mapping[str, Decimal] = draw(
        st.dictionaries(st.sampled_from(["running", "stopped"]), st.decimals(0, 1, places=2))
    )
    moment = draw(st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - zoned by st
    return RateCardDocument("card", "aurora", Commodity("EUR"), moment, prices, shares)


class TestCanonicalForm:
    @given(cards())
    def test_it_reads_back_as_table_and_as_text(self, card: RateCardDocument) -> None:
        assert parse(card.document()) == card
        again = parse(canonical(card.document()).decode())
        assert again == card
        assert again.digest() == card.digest()

    @given(cards())
    def test_csv_reads_back_too(self, card: RateCardDocument) -> None:
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(["sku", "unit", "unit_price", "above", "minimum", "increment"])
        for sku, price in card.prices.items():
            for tier in price.tiers:
                steps = [f"{step // timedelta(seconds=1)} s" for step in (price.minimum, price.increment)]
                rows.writerow([sku, price.unit, plain(tier.unit_price), plain(tier.above), *steps])
        read = parse_csv(
            out.getvalue(), name="card", provider="aurora", currency="EUR", valid_from=card.valid_from, bills=card.bills
        )
        assert read == card

    def test_one_digit_makes_another_digest(self) -> None:
        one = parse(YAML)
        assert one.digest() == parse(YAML.replace("0.1}", "0.100}")).digest()
        assert one.digest() != parse(YAML.replace("0.1}", "0.100000001}")).digest()
        assert one.digest() != parse(YAML.replace("2026-01-01", "2026-01-02")).digest()
