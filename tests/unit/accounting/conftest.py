"""A world to account for, in a transaction that is rolled back."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from tests.unit.accounting.world import World


@pytest.fixture
def world(session: Session) -> World:
    """One project, one priced site."""
    return World(session)
