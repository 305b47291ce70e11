"""Sites: added with their credential, opened through the vault, checked step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from broker.errors import Conflict, InvalidInput, LeewayError, NotFound
from broker.models.audit import Event
from broker.models.federation import Provider, Site
from broker.ports import Adapters, CloudAdapter, Jobs, Vault
from broker.remote import Deadline, Diagnosis, Secret, SiteAddress
from broker.tools import Tools

# Tasks that wake a worker for one site.
OBSERVE = "observe"
CHECK = "check"

_BROKE_OFF = "the check broke off by an error of Leeway's own"
# Kinds of adapter at whose sites nothing of anybody's can be harmed: they are brokered unless somebody says observe.
_HARMLESS = frozenset({"sandbox"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class NewSite:
    """What is needed to connect a site. `settings` are the adapter's own (`network`, `ca_bundle`, ...).

    `observe_only` None: as the site was, and a new one is observed, unless it is a sandbox.
    """

    name: str
    provider: str
    adapter: str
    endpoint: str
    secret: Secret
    region: str | None = None
    jurisdiction: str | None = None
    observe_only: bool | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Doors:
    """The way to every site: adapters, the vault with their credentials, and whose tags to use."""

    sessions: sessionmaker[Session]
    adapters: Adapters
    vault: Vault
    installation: UUID

    def open(self, site_id: UUID) -> CloudAdapter:
        """The adapter of a site, with the site's own credential; raises `NotFound` where either is missing."""
        with self.sessions() as session:
            site = session.get(Site, site_id)
            if site is None:
                raise NotFound(f"there is no site {site_id}")
            secret = self.vault.secret(session, site_id)
            address = _address(site, self.installation)
        return self.adapters.open(address, secret)


def add_site(session: Session, new: NewSite, doors: Doors, *, jobs: Jobs, actor: str) -> Site:
    """Connect a site: its row, its credential (encrypted), its provider if new; a worker is woken to check and list it.

    The same site again replaces its credential and settings; one that was never listed is replaced whole, as nothing
    can be there yet. Machines are started at a new site only where that is said outright, or where it is a sandbox.

    Raises:
        InvalidInput: the name, the adapter kind or the credential's fields are not right.
        Conflict: another site has this name.
    """
    if not _NAME.fullmatch(new.name):
        raise InvalidInput("name", f"{new.name!r} is no site name", hint="Use a-z, 0-9 and dashes, at most 60.")
    if not new.endpoint.startswith(("http://", "https://")):
        raise InvalidInput("endpoint", f"{new.endpoint!r} is no address", hint="It begins with https://.")
    # Two who add the same site at once take turns.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"site:{new.name}"))))
    provider = session.scalars(select(Provider).where(Provider.name == new.provider)).one_or_none()
    if provider is None:
        provider = Provider(name=new.provider, title=new.provider)
        session.add(provider)
        session.flush()
    former = session.scalars(select(Site).where(Site.name == new.name)).one_or_none()
    if former is not None and former.listed_at is not None and not _is_same(former, provider, new):
        raise Conflict(
            f"there is a site {new.name!r} already, at {former.endpoint}",
            hint="Choose another name; to replace its credential, give its own provider, endpoint and region.",
        )
    was_observed = None if former is None else former.observe_only
    is_observed = _is_observed(new, former)
    site = former or Site(name=new.name)
    site.provider_id, site.adapter, site.endpoint = provider.id, new.adapter, new.endpoint
    site.region, site.jurisdiction, site.settings = new.region, new.jurisdiction, dict(new.settings)
    site.observe_only, site.next_listing_at = is_observed, func.clock_timestamp()
    site.full_listing_wanted_at = func.clock_timestamp()  # whatever was known, was known with the former credential
    session.add(site)
    session.flush()
    session.refresh(site)
    # Refuses what it cannot use, before anything is kept.
    doors.adapters.open(_address(site, doors.installation), new.secret)
    doors.vault.store(session, site.id, new.secret)
    text = f"site {site.name} connected" if former is None else f"site {site.name} has a new credential"
    if is_observed is not was_observed:
        text += "; Leeway only observes it" if is_observed else "; machines may be started there"
    session.add(Event(at=func.clock_timestamp(), kind="site", text=text, actor=actor, site_id=site.id))
    request_check(session, site, jobs=jobs)
    jobs.defer(session, OBSERVE, str(site.id))
    return site


def _is_observed(new: NewSite, former: Site | None) -> bool:
    if new.observe_only is not None:
        return new.observe_only
    if former is not None and former.adapter == new.adapter:
        return former.observe_only
    return new.adapter not in _HARMLESS


def _is_same(site: Site, provider: Provider, new: NewSite) -> bool:
    """Whether it is the same place, so that what runs there is still ours to look after."""
    return (site.provider_id, site.adapter, site.endpoint, site.region) == (
        provider.id,
        new.adapter,
        new.endpoint,
        new.region,
    )


def site_named(session: Session, name: str) -> Site:
    """A site by name; raises `NotFound` with the names there are."""
    site = session.scalars(select(Site).where(Site.name == name)).one_or_none()
    if site is None:
        names = ", ".join(session.scalars(select(Site.name).order_by(Site.name))) or "none yet"
        raise NotFound(f"there is no site {name!r}", hint=f"Known sites: {names}.")
    return site


def _address(site: Site, installation: UUID) -> SiteAddress:
    return SiteAddress(
        site_id=site.id,
        name=site.name,
        adapter=site.adapter,
        endpoint=site.endpoint,
        region=site.region,
        installation=installation,
        settings={name: str(value) for name, value in site.settings.items()},
        observe_only=site.observe_only,
    )


# --- checks ------------------------------------------------------------------------------------------------------


def request_check(session: Session, site: Site, *, jobs: Jobs) -> None:
    """Have a worker try the site's credential; `site.diagnosis` is the answer once `checked_at >= check_wanted_at`."""
    site.check_wanted_at = func.clock_timestamp()
    session.flush()
    jobs.defer(session, CHECK, str(site.id))


def check_site(tools: Tools, site_id: UUID) -> None:
    """Try the credential step by step, and keep what was found, unless a check that began later has answered."""
    with tools.sessions() as session:
        asked_at = session.scalars(select(func.clock_timestamp())).one()
    # Stands where an error of our own ends the check, which would otherwise be wanted, and tried again, for ever.
    found: Sequence[Diagnosis] = [Diagnosis("contact", ok=False, detail=_BROKE_OFF, hint="Leeway's log says why.")]
    try:
        found = tools.open_site(site_id).check(deadline=Deadline.after(tools.timing.call.total_seconds()))
    except LeewayError as error:  # also where our own key does not open the credential: that is what a check is for
        found = [Diagnosis(step="contact", ok=False, detail=error.detail, hint=error.hint)]
    finally:
        _keep(tools, site_id, found, asked_at=asked_at)


def _keep(tools: Tools, site_id: UUID, found: Sequence[Diagnosis], *, asked_at: datetime) -> None:
    with tools.sessions.begin() as session:
        session.execute(
            update(Site)
            .where(Site.id == site_id, or_(Site.checked_at.is_(None), Site.checked_at < asked_at))
            .values(checked_at=asked_at, diagnosis=[asdict(diagnosis) for diagnosis in found])
        )


def listing_is_due() -> ColumnElement[bool]:
    """For WHERE clauses: the site is to be listed now, and nobody is at it."""
    now = func.clock_timestamp()
    free = or_(Site.listing_claim_until.is_(None), Site.listing_claim_until < now)
    return and_(Site.is_enabled, Site.next_listing_at <= now, free)


def wants_check() -> ColumnElement[bool]:
    """A check was asked for, and none that began since has answered."""
    return and_(
        Site.check_wanted_at.is_not(None), or_(Site.checked_at.is_(None), Site.checked_at < Site.check_wanted_at)
    )
