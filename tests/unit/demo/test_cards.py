"""The demo's prices."""

from __future__ import annotations

from pathlib import Path

import pytest

import web.demo
from broker import ratecards
from broker.worth import FLAT_SKUS


@pytest.mark.parametrize("name", ["aurora", "borealis"])
def test_everything_that_lies_at_a_site_has_a_price(name: str) -> None:
    text = (Path(web.demo.__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    assert set(FLAT_SKUS) <= set(ratecards.parse(text).prices)
