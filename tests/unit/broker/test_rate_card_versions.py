"""Versions of prices: what was in force never changes, gaps may be filled."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from broker import ratecards
from broker.catalogue import import_rate_card, rate_card, rate_card_versions
from broker.errors import Conflict, NotFound, PriceUnknown
from broker.models.federation import Provider

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def card(valid_from: str, prices: dict[str, str], *, bills: str = "openstack") -> ratecards.RateCardDocument:
    rows = "".join(f"  {sku}: {{unit: hour, unit_price: '{price}'}}\n" for sku, price in prices.items())
    return ratecards.parse(
        f"kind: rate-card\nname: home\nprovider: home\ncurrency: EUR\nvalid_from: {valid_from}\n"
        f"bills: {bills}\nprices:\n{rows}"
    )


@pytest.fixture
def provider(session: Session) -> Provider:
    row = Provider(name="home", title="Home")
    session.add(row)
    session.flush()
    return row


def spans(session: Session, provider: Provider) -> list[tuple[int, str, str | None]]:
    return [
        (
            version.number,
            version.valid_from.date().isoformat(),
            version.valid_to and version.valid_to.date().isoformat(),
        )
        for version in sorted(rate_card_versions(session, provider.id), key=lambda version: version.valid_from)
    ]


def test_a_later_card_ends_the_former_and_the_same_again_changes_nothing(session: Session, provider: Provider) -> None:
    first = import_rate_card(session, card("2026-01-01", {"a": "1"}), now=NOW)
    second = import_rate_card(session, card("2026-03-01", {"a": "2"}), now=NOW)
    assert import_rate_card(session, card("2026-03-01", {"a": "2"}), now=NOW).id == second.id
    assert import_rate_card(session, card("2026-01-01", {"a": "1"}), now=NOW).id == first.id
    assert spans(session, provider) == [(1, "2026-01-01", "2026-03-01"), (2, "2026-03-01", None)]


@pytest.mark.parametrize("when", ["2026-01-01", "2026-02-01"])
def test_a_price_that_was_in_force_cannot_change(session: Session, provider: Provider, when: str) -> None:
    import_rate_card(session, card("2026-01-01", {"a": "1"}), now=NOW)
    import_rate_card(session, card("2026-03-01", {"a": "2"}), now=NOW)
    with pytest.raises(Conflict, match="in force"):
        import_rate_card(session, card(when, {"a": "3"}), now=NOW)
    with pytest.raises(Conflict, match="in force"):
        import_rate_card(session, card("2026-03-01", {"a": "3"}), now=NOW)
    with pytest.raises(Conflict, match="in force"):
        import_rate_card(session, card("2026-03-01", {"b": "3"}), now=NOW)
    assert spans(session, provider) == [(1, "2026-01-01", "2026-03-01"), (2, "2026-03-01", None)]


@pytest.mark.usefixtures("provider")
def test_missing_skus_and_states_may_be_added(session: Session) -> None:
    version = import_rate_card(session, card("2026-01-01", {"a": "1"}, bills="{running: 1}"), now=NOW)
    with pytest.raises(PriceUnknown):
        rate_card(session, version.id, {"a", "b"}).price("b")
    added = import_rate_card(
        session, card("2026-01-01", {"a": "1", "b": "2"}, bills="{running: 1, stopped: 1}"), now=NOW
    )
    assert added.id == version.id
    session.expire_all()
    found = rate_card(session, version.id, {"a", "b"})
    assert str(found.price("b").tiers[0].unit_price.normalize()) == "2"
    assert found.share("stopped") == 1


def test_prices_from_before_the_first_card_count_until_it(session: Session, provider: Provider) -> None:
    import_rate_card(session, card("2026-03-01", {"a": "2"}), now=NOW)
    import_rate_card(session, card("2026-01-01", {"a": "1"}), now=NOW)
    assert spans(session, provider) == [(2, "2026-01-01", "2026-03-01"), (1, "2026-03-01", None)]


def test_an_unknown_provider_is_said_so(session: Session) -> None:
    with pytest.raises(NotFound, match="home"):
        import_rate_card(session, card("2026-01-01", {"a": "1"}), now=NOW)
    assert session.scalars(select(Provider)).all() == []
