"""Quotes as people are shown them: offers by name, verdicts with their reasons; stored or only previewed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.workloads import Quote, QuoteOffer, WorkloadRow
from broker.placement import Assumptions, Candidate
from broker.quotes import Preview, assumptions_document, best_candidates, line_document, verdict_document
from broker.values import Amount
from broker.workloads import document as canonical


@dataclass(frozen=True, slots=True)
class OfferView:
    """A ranked offer, priced for the whole workload.

    `offer` is the instance type's name; `disk_gib` the root disk that a machine gets, a volume where the type's own is
    too small.
    """

    rank: int
    site: str
    offer: str
    cores: int
    memory_mib: int
    disk_gib: int
    gpus: int
    total: Amount
    hold: Amount
    hourly: Amount
    lines: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class QuoteView:
    """A quote; a preview has no id, was not stored and promises nothing, so it has no times."""

    id: UUID | None
    workload_id: UUID | None
    name: str
    project: str
    workload: Mapping[str, Any]
    made_at: datetime | None
    expires_at: datetime | None
    offers: Sequence[OfferView]
    verdicts: Sequence[Mapping[str, Any]]
    eliminated: Mapping[str, int]
    relaxations: Sequence[str]
    assumptions: Mapping[str, Any]
    catalogue_digest: str
    facts_digest: str


def quote_view(session: Session, quote: Quote) -> QuoteView:
    """A stored quote, whose catalogue versions are kept as long as it is."""
    row = session.get_one(WorkloadRow, quote.workload_id)
    offers = session.execute(
        select(QuoteOffer, Offer, Site.name)
        .join(Offer, Offer.id == QuoteOffer.offer_id)
        .join(Site, Site.id == QuoteOffer.site_id)
        .where(QuoteOffer.quote_id == quote.id)
        .order_by(QuoteOffer.rank)
    )
    return QuoteView(
        id=quote.id,
        workload_id=row.id,
        name=row.name,
        project=str(row.document["project"]),
        workload=row.document,
        made_at=quote.made_at,
        expires_at=quote.expires_at,
        offers=[_stored(picked, offer, site) for picked, offer, site in offers],
        verdicts=quote.verdicts,
        eliminated=quote.eliminated,
        relaxations=quote.relaxations,
        assumptions=quote.assumptions,
        catalogue_digest=quote.catalogue_digest,
        facts_digest=quote.facts_digest,
    )


def preview_view(made: Preview, assumptions: Assumptions) -> QuoteView:
    """What was ranked and not stored."""
    ranking = made.ranking
    return QuoteView(
        id=None,
        workload_id=None,
        name=made.workload.name,
        project=made.workload.project,
        workload=canonical(made.workload),
        made_at=None,
        expires_at=None,
        offers=[_ranked(candidate, rank) for rank, candidate in best_candidates(ranking)],
        verdicts=[verdict_document(verdict) for verdict in ranking.verdicts],
        eliminated=dict(ranking.eliminated),
        relaxations=list(ranking.relaxations),
        assumptions=assumptions_document(assumptions),
        catalogue_digest=made.catalogue_digest,
        facts_digest=made.facts_digest,
    )


def _stored(picked: QuoteOffer, offer: Offer, site: str) -> OfferView:
    return OfferView(
        rank=picked.rank,
        site=site,
        offer=offer.name,
        cores=offer.cores,
        memory_mib=offer.memory_mib,
        disk_gib=picked.boot_volume_gib or offer.disk_gib,
        gpus=offer.gpus,
        total=Amount.of(picked.total, picked.commodity),
        hold=Amount.of(picked.hold, picked.commodity),
        hourly=Amount.of(picked.hourly, picked.commodity),
        lines=picked.lines,
    )


def _ranked(candidate: Candidate, rank: int) -> OfferView:
    offer = candidate.offer
    return OfferView(
        rank=rank,
        site=candidate.site.name,
        offer=offer.name,
        cores=offer.cores,
        memory_mib=offer.memory_mib,
        disk_gib=candidate.boot_volume_gib or offer.disk_gib,
        gpus=offer.gpus,
        total=candidate.total.stored(),
        hold=candidate.hold.stored(),
        hourly=candidate.hourly.stored(),
        lines=[line_document(line) for line in candidate.lines],
    )
