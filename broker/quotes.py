"""Quotes: a workload document, ranked and explained; a preview is not stored, a quote is.

A quote keeps the digests of the catalogue and the facts it rests on; their versions stay in their rows, so that it can
be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from broker.catalogue import Catalogues
from broker.errors import NotFound
from broker.models.people import Project
from broker.models.workloads import Quote, QuoteOffer, WorkloadRow
from broker.placement import Assumptions, Candidate, CostLine, Ranking, SiteVerdict, Workload
from broker.ports import Facts, Placer
from broker.values import plain
from broker.workloads import document as canonical
from broker.workloads import parse, workload_digest

# Stored per quote: the best of all, and the best of every site.
BEST = 20


@dataclass(frozen=True, slots=True)
class Quoting:
    """What a quote is made with. `lifetime`: how long its prices are promised."""

    catalogues: Catalogues
    placer: Placer
    facts: Facts
    assumptions: Assumptions
    lifetime: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Preview:
    """A ranking and what it was made from."""

    workload: Workload
    project_id: UUID
    ranking: Ranking
    catalogue_digest: str
    facts_digest: str


def preview(session: Session, document: str | Mapping[str, Any], quoting: Quoting, *, now: datetime) -> Preview:
    """Rank a workload document on every site; nothing is stored.

    Raises:
        InvalidInput: the document is not right; names the field.
        NotFound: its project does not exist.
    """
    workload = parse(document)
    project = session.scalars(select(Project).where(Project.name == workload.project)).one_or_none()
    if project is None:
        raise NotFound(
            f"there is no project {workload.project!r}", hint="See `leeway project list` for those there are."
        )
    catalogue = quoting.catalogues.snapshot(session, now=now)
    facts = quoting.facts.for_project(session, project.id, now=now)
    ranking = quoting.placer.rank(workload, catalogue, facts, quoting.assumptions, now=now)
    return Preview(workload, project.id, ranking, catalogue.digest, facts.digest)


def make_quote(session: Session, document: str | Mapping[str, Any], quoting: Quoting, *, now: datetime) -> Quote:
    """Rank a workload document, and store the request and the answer. Raises as `preview` does."""
    made = preview(session, document, quoting, now=now)
    text = canonical(made.workload)
    workload = WorkloadRow(
        project_id=made.project_id,
        name=made.workload.name,
        document=text,
        digest=workload_digest(made.workload),
        made_at=now,
    )
    session.add(workload)
    session.flush()
    ranking = made.ranking
    quote = Quote(
        workload_id=workload.id,
        made_at=now,
        expires_at=now + quoting.lifetime,
        catalogue_digest=made.catalogue_digest,
        facts_digest=made.facts_digest,
        assumptions=assumptions_document(quoting.assumptions),
        verdicts=[verdict_document(verdict) for verdict in ranking.verdicts],
        eliminated=dict(ranking.eliminated),
        relaxations=list(ranking.relaxations),
        offers=[_offer(made.workload, candidate, rank=rank) for rank, candidate in best_candidates(ranking)],
    )
    session.add(quote)
    session.flush()
    return quote


def get_quote(session: Session, quote_id: UUID) -> Quote:
    """A stored quote with its offers; raises `NotFound`."""
    quote = session.scalars(select(Quote).where(Quote.id == quote_id).options(selectinload(Quote.offers))).one_or_none()
    if quote is None:
        raise NotFound(f"there is no quote {quote_id}", hint="Ask for a new quote.")
    return quote


def assumptions_document(assumptions: Assumptions) -> dict[str, Any]:
    """What a quote rests on, as it is stored and shown: times in seconds."""
    return {
        name: value.total_seconds() if isinstance(value, timedelta) else value
        for name, value in asdict(assumptions).items()
    }


def assumptions_of(quote: Quote) -> Assumptions:
    """What a stored quote rests on. One that knows no window holds the whole duration."""
    kept = {
        field.name: quote.assumptions[field.name] for field in fields(Assumptions) if field.name in quote.assumptions
    }
    times = {name: timedelta(seconds=seconds) for name, seconds in kept.items()}
    return Assumptions(**{"hold_window": timedelta.max, **times})


def best_candidates(ranking: Ranking) -> list[tuple[int, Candidate]]:
    """The best of all and the best of every site, with their ranks."""
    best = {verdict.rank for verdict in ranking.verdicts}
    return [
        (rank, candidate) for rank, candidate in enumerate(ranking.candidates, start=1) if rank <= BEST or rank in best
    ]


def verdict_document(verdict: SiteVerdict) -> dict[str, Any]:
    """A verdict as it is stored and shown."""
    return {
        "site_id": str(verdict.site_id),
        "site": verdict.site,
        "rank": verdict.rank,
        "summary": verdict.summary,
        "offers": verdict.offers,
        "reasons": [asdict(reason) for reason in verdict.reasons],
    }


def _offer(workload: Workload, candidate: Candidate, *, rank: int) -> QuoteOffer:
    card = candidate.site.card
    if card is None:
        raise ValueError(f"offer {candidate.offer.name} was ranked without a rate card")
    return QuoteOffer(
        rank=rank,
        site_id=candidate.site.site_id,
        offer_id=candidate.offer.offer_id,
        rate_card_version_id=card.version_id,
        image_remote_id=candidate.site.images[workload.image][0],
        boot_volume_gib=candidate.boot_volume_gib,
        commodity=candidate.total.commodity.code,
        total=candidate.total.stored().value,
        hold=candidate.hold.stored().value,
        hourly=candidate.hourly.stored().value,
        lines=[line_document(line) for line in candidate.lines],
    )


def line_document(line: CostLine) -> dict[str, str]:
    """A cost line as it is stored and shown."""
    return {
        "component": line.component,
        "quantity": plain(line.quantity.value),
        "unit": line.quantity.unit.value,
        "unit_price": plain(line.unit_price),
        "amount": plain(line.amount.value),
        "commodity": line.amount.commodity.code,
    }
