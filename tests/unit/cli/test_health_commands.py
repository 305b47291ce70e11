"""A site that lists well and starts nothing: `leeway doctor` says so, and a quote leaves it out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from broker.database import Database, database_now, sessions, single_use_engine
from broker.health import slot_of
from broker.models.federation import Site
from broker.models.health import ProbeKind, SiteProbe
from tests.unit.cli.conftest import WORKLOAD, Leeway


@pytest.fixture
def session(own_database: Database, leeway: Leeway) -> Iterator[Session]:
    """On the server's own database; what it noted of launches is deleted again."""
    assert leeway.json("site", "list")
    bind = single_use_engine(own_database.application_url, application_name="leeway tests")
    with sessions(bind)() as made:
        yield made
        made.execute(delete(SiteProbe).where(SiteProbe.kind == ProbeKind.LAUNCH))
        made.commit()


def fail_launches(session: Session, contacts: int) -> None:
    at = database_now(session) - timedelta(minutes=1)
    session.add(
        SiteProbe(
            site_id=session.scalars(select(Site.id)).one(),
            kind=ProbeKind.LAUNCH,
            slot=slot_of(at),
            contacts=contacts,
            failures=contacts,
            latency_sum_ms=1,
            latency_max_ms=1,
            last_failed_at=at,
            error_code="site_unknown",
        )
    )
    session.commit()


def test_doctor_and_quotes_tell_of_a_failing_site(leeway: Leeway, session: Session) -> None:
    assert "failing" not in leeway("quote", "-", stdin=WORKLOAD).output
    fail_launches(session, 5)
    done = leeway("doctor")
    assert done.exit_code == 1
    assert "5 of the last 5 contacts failed (launch: site_unknown)" in done.stdout
    assert "failing, not once well within the hour" in leeway("quote", "-", stdin=WORKLOAD).output


def test_doctor_leaves_a_shaky_site_in_peace(leeway: Leeway, session: Session) -> None:
    fail_launches(session, 1)
    assert "contacts failed" not in leeway("doctor").stdout
