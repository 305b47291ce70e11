"""The installation: whether Leeway acts or only observes after a restore, and how it acts again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from broker.restored import Standing
from broker.resuming import SiteReadiness, readiness, resume
from web.api.schemas import Shown, Strict
from web.endpoint import ACTOR, ServicesOf

router = APIRouter(prefix="/installation", tags=["installation"])


class Readiness(Shown):
    """A site that `resume` waits for; `why` it must still wait, null where it need not."""

    site: str
    ready: bool
    why: str | None


class Installation(Shown):
    """`observing_since` and `reason` are null where Leeway acts; `sites` is empty then."""

    id: UUID
    observing_since: datetime | None
    reason: str | None
    sites: list[Readiness]


class Resumption(Strict):
    """What the operator decides."""

    leave: list[str] = Field(
        default_factory=list, max_length=200, description="Sites that are only observed from now on, not waited for."
    )


class Resumed(Shown):
    """`leases`: how many go on. None do where Leeway acted already."""

    leases: int


@router.get("", operation_id="show_installation")
def get_installation(services: ServicesOf) -> Installation:
    """Whether Leeway acts, and if not, why not and what is missing."""
    standing, sites = readiness(services.tools)
    return _shown(services.tools.installation, standing, sites)


@router.post("/resume", operation_id="resume")
def post_resume(wanted: Resumption, services: ServicesOf) -> Resumed:
    """Act again after a restore; 409 while a site was not listed late enough."""
    done = resume(services.tools, leave=wanted.leave, actor=ACTOR)
    services.marks.take_id(services.tools.installation)
    return Resumed(leases=done.leases)


def _shown(known: UUID, standing: Standing | None, sites: Sequence[SiteReadiness]) -> Installation:
    found = [Readiness(site=site.site, ready=site.why is None, why=site.why) for site in sites]
    if standing is None:  # the row is away while a restore is under way
        return Installation(id=known, observing_since=None, reason="the database is being restored", sites=found)
    return Installation(
        id=standing.installation, observing_since=standing.observing_since, reason=standing.reason, sites=found
    )
