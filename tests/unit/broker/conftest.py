"""A fresh small federation for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.world import World, make_world


@pytest.fixture
def world(sessions: sessionmaker[Session]) -> Iterator[World]:
    """One quick cloud, connected and listed; project `climate` with 100 EUR."""
    with make_world(sessions) as made:
        yield made
