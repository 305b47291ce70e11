"""A later end by the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.api.federation import Federation

API = "/api/v1"


def extend(federation: Federation, item: dict[str, Any], until: str) -> Any:
    """Ask for a later end."""
    return federation.client.post(f"{API}/orders/{item['order']['id']}/extend", json={"until": until})


def test_an_order_gets_a_later_end_and_the_money_for_it(federation: Federation) -> None:
    item = federation.order()
    old = datetime.fromisoformat(item["machines"][0]["ends_at"])
    until = (old + timedelta(days=1)).isoformat()
    done = extend(federation, item, until)
    assert done.status_code == 200
    after = done.json()
    assert datetime.fromisoformat(after["machines"][0]["ends_at"]) == old + timedelta(days=1)
    assert after["order"]["duration_seconds"] == item["order"]["duration_seconds"] + 86400
    assert after["order"]["held_until"] is None
    assert Decimal(after["money"]["held"]["value"]) > Decimal(item["money"]["held"]["value"])
    assert [event["actor"] for event in after["events"] if event["kind"] == "extended"] == ["operator"]
    assert extend(federation, item, until).json() == after, "twice is once"


def test_a_long_order_is_held_for_a_window(federation: Federation) -> None:
    item = federation.order(duration="30 days")
    held_until = datetime.fromisoformat(item["order"]["held_until"])
    assert timedelta(days=6) < held_until - datetime.now(UTC) < timedelta(days=8)
    # The page tells the order's end, and not the window's for it.
    page = federation.client.get(f"/workloads/{item['order']['id']}").text
    ends = datetime.fromisoformat(item["machines"][0]["ends_at"])
    assert re.search(rf"<dt>Ends</dt><dd><time[^>]*>{ends:%Y-%m-%d %H:%M}</time> UTC", page)
    assert re.search(rf"money is set aside until <time[^>]*>{held_until:%Y-%m-%d %H:%M}</time>", page)
    assert "deleted at" not in page


def test_what_cannot_be_is_told_with_field_reason_and_way_out(federation: Federation) -> None:
    item = federation.order()
    early = extend(federation, item, "2020-01-01T00:00:00Z")
    assert (early.status_code, early.json()["code"], early.json()["field"]) == (422, "invalid_input", "until")
    assert "is not after the present end" in early.json()["detail"]
    assert early.json()["hint"]
    naive = extend(federation, item, "2100-01-01T00:00:00")
    assert (naive.status_code, naive.json()["field"]) == (422, "until")
    odd = extend(federation, item, "0001-01-01T00:00:00+05:00")
    assert (odd.status_code, odd.json()["field"]) == (422, "until")
    unknown = federation.client.post(f"{API}/orders/{item['id']}/extend", json={"until": "2100-01-01T00:00:00Z"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    far = extend(federation, item, "2100-01-01T00:00:00Z")
    assert "at most 366 days in all" in far.json()["detail"]
    federation.client.post(f"{API}/workloads/{item['id']}/stop")
    assert "as soon as its machines are gone" in federation.client.get(f"/workloads/{item['order']['id']}").text
    late = extend(federation, item, (datetime.now(UTC) + timedelta(days=2)).isoformat())
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
