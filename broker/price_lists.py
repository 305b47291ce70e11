"""The price list of one site, as it is at a moment."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from broker.catalogue import rate_card
from broker.models.catalogue import CatalogueVersion, Offer, RateCardVersion
from broker.models.federation import Site
from broker.worth import FLAT_SKUS, PriceList


def price_list(session: Session, site: Site, *, now: datetime) -> PriceList:
    """The card in force of the site's provider, with the prices of what the site sells and of what lies there."""
    names = dict(
        session.execute(
            select(Offer.remote_id, Offer.name)
            .join(CatalogueVersion, CatalogueVersion.id == Offer.catalogue_version_id)
            .where(CatalogueVersion.site_id == site.id, CatalogueVersion.superseded_at.is_(None))
        ).all()
    )
    version_id = session.scalars(
        select(RateCardVersion.id).where(
            RateCardVersion.provider_id == site.provider_id,
            RateCardVersion.valid_from <= now,
            or_(RateCardVersion.valid_to.is_(None), RateCardVersion.valid_to > now),
        )
    ).one_or_none()
    card = None if version_id is None else rate_card(session, version_id, [*names.values(), *FLAT_SKUS])
    return PriceList(card, names)
