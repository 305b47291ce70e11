"""Sites: connected with their credential, checked by a worker."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field, PlainSerializer

from broker.errors import InvalidInput
from broker.remote import Secret
from broker.site_views import list_sites, site_view
from broker.sites import NewSite, add_site, request_check, site_named
from broker.values import plain
from web.api.schemas import Items, PageQuery, Shown, Strict
from web.endpoint import ACTOR, ServicesOf, Transaction

router = APIRouter(prefix="/sites", tags=["sites"])

Number = Annotated[Decimal, PlainSerializer(plain, return_type=str)]


class SiteWanted(Strict):
    """A site to connect. The adapter says which fields its credential needs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "aurora",
                    "provider": "aurora",
                    "adapter": "openstack",
                    "endpoint": "https://keystone.example.org/v3",
                    "region": "aurora-1",
                    "jurisdiction": "EE",
                    "credential": {"application_credential_id": "...", "application_credential_secret": "..."},
                }
            ]
        }
    )

    name: str
    provider: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")
    adapter: str
    endpoint: str = Field(max_length=2000)
    region: str | None = Field(None, max_length=200)
    jurisdiction: str | None = Field(None, pattern="^[A-Z]{2}$", description="Country code (ISO 3166).")
    observe_only: bool | None = Field(
        None,
        description="True: Leeway only looks. Null: as the site was; a new one is only looked at, save a sandbox.",
    )
    settings: dict[str, str] = Field(default_factory=dict)
    credential: dict[str, str] = Field(repr=False)


class Quota(Shown):
    """`free` is what is left after what orders have set aside; null is unlimited. Numbers are text."""

    resource: str
    limit: Number | None
    used: Number
    free: Number | None


class Diagnosis(Shown):
    step: str
    ok: bool
    detail: str
    hint: str | None = None


class Site(Shown):
    """A site. While `check_pending`, `diagnosis` is not the answer to the last check that was asked for.

    `listed_at` is when the last complete listing began, `changes_at` the last one since of what changed only. While a
    listing is under way, `listing_since` is when it began, and `listing_read` how many things it has read.
    """

    id: UUID
    name: str
    provider: str
    adapter: str
    endpoint: str
    region: str | None
    jurisdiction: str | None
    observe_only: bool
    enabled: bool
    listed_at: datetime | None
    changes_at: datetime | None
    listing_since: datetime | None
    listing_read: int | None
    trouble: str | None
    offers: int
    images: list[str]
    quota: list[Quota]
    checked_at: datetime | None
    check_wanted_at: datetime | None
    check_pending: bool
    diagnosis: list[Diagnosis]


@router.get("", operation_id="list_sites")
def get_sites(session: Transaction, query: Annotated[PageQuery, Query()]) -> Items[Site]:
    """The sites that are connected."""
    found = list_sites(session, query.page())
    return Items[Site].of([Site.model_validate(site) for site in found.items], found.next)


@router.post("", status_code=201, operation_id="add_site")
def post_site(wanted: SiteWanted, session: Transaction, services: ServicesOf) -> Site:
    """Connect a site. The credential is encrypted before it is kept; a worker then checks it and lists the site."""
    new = NewSite(
        name=wanted.name,
        provider=wanted.provider,
        adapter=wanted.adapter,
        endpoint=wanted.endpoint,
        secret=Secret(wanted.credential),
        region=wanted.region,
        jurisdiction=wanted.jurisdiction,
        observe_only=wanted.observe_only,
        settings=wanted.settings,
    )
    try:
        site = add_site(session, new, services.doors, jobs=services.jobs, actor=ACTOR)
    except InvalidInput as error:
        if not error.field.startswith("secret"):
            raise
        # Adapters call it a secret; whoever wrote the request called it the credential.
        field = error.field.replace("secret", "credential", 1)
        raise InvalidInput(field, error.reason, hint=error.hint) from None
    return Site.model_validate(site_view(session, site))


@router.get("/{name}", operation_id="show_site")
def get_site(name: str, session: Transaction) -> Site:
    """One site."""
    return Site.model_validate(site_view(session, site_named(session, name)))


@router.post("/{name}/checks", status_code=202, operation_id="check_site")
def post_check(name: str, session: Transaction, services: ServicesOf) -> Site:
    """Have a worker try the credential; ask for the site until `check_pending` is false."""
    site = site_named(session, name)
    request_check(session, site, jobs=services.jobs)
    return Site.model_validate(site_view(session, site))
