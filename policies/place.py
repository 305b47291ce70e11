"""One workload, online: every offer judged, the fitting ones ranked by price, the others explained."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from broker.placement import Assumptions, Candidate, Catalogue, CatalogueOffer, PlacementFacts, Ranking, Workload
from policies.explain import verdict
from policies.relaxations import relaxations
from policies.requirements import Case, Clause, Judgement, judge


@dataclass(frozen=True, slots=True)
class CheapestPlacer:
    """The cheapest offer that meets every hard requirement comes first. Implements `broker.ports.Placer`.

    Candidates in different currencies cannot be compared without an exchange rate: they follow each other by currency,
    cheapest first inside each. Equal totals are ordered by site and offer name, so that equal questions get equal
    answers.
    """

    def rank(
        self,
        workload: Workload,
        catalogue: Catalogue,
        facts: PlacementFacts,
        assumptions: Assumptions,
        *,
        now: datetime,
    ) -> Ranking:
        """Price every offer that fits, and say why the others do not.

        Each offer that does not fit counts under the first clause it fails, so that candidates and eliminated ones
        together are all offers.

        Raises:
            ValueError: an offer belongs to no site of the catalogue.
        """
        judged = _judge_all(workload, catalogue, facts, assumptions, now=now)
        everything = [one for judgements in judged.values() for one in judgements]
        candidates = sorted((one.priced for one in everything if one.fits and one.priced), key=_order)
        ranks = {candidate.offer.offer_id: rank for rank, candidate in enumerate(candidates, start=1)}
        best = candidates[0] if candidates else None
        verdicts = [verdict(site, judged[site.site_id], ranks, best) for site in catalogue.sites]
        verdicts.sort(key=lambda one: (one.rank is None, one.rank or 0, one.site))
        nearest = () if candidates else relaxations(everything, assumptions, now=now)
        return Ranking(
            candidates=tuple(candidates),
            verdicts=tuple(verdicts),
            eliminated=_eliminated(everything),
            relaxations=tuple(one.words for one in nearest),
        )


def _judge_all(
    workload: Workload, catalogue: Catalogue, facts: PlacementFacts, assumptions: Assumptions, *, now: datetime
) -> dict[UUID, list[Judgement]]:
    """Every offer's judgement, by site."""
    offers: dict[UUID, list[CatalogueOffer]] = defaultdict(list)
    for offer in catalogue.offers:
        offers[offer.site_id].append(offer)
    lost = offers.keys() - {site.site_id for site in catalogue.sites}
    if lost:
        raise ValueError(f"offers of sites that are not in the catalogue: {', '.join(sorted(map(str, lost)))}")
    payable = frozenset(facts.free)
    return {
        site.site_id: [
            judge(Case(workload, site, offer, payable), assumptions, now=now) for offer in offers[site.site_id]
        ]
        for site in catalogue.sites
    }


def _order(candidate: Candidate) -> tuple[str, Decimal, str, str, str]:
    total, offer = candidate.total, candidate.offer
    return total.commodity.code, total.value, candidate.site.name, offer.name, offer.remote_id


def _eliminated(judgements: list[Judgement]) -> dict[str, int]:
    """Clause -> offers that failed it first, in the funnel's order."""
    counts = Counter(next(iter(one.misses)) for one in judgements if not one.fits)
    return {clause.value: counts[clause] for clause in Clause if counts[clause]}
