"""Trying a credential step by step, so that its owner learns which of them fails, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from adapters.openstack import reading
from adapters.openstack.networks import choose
from adapters.openstack.session import Service, Session
from adapters.wire import Answer
from broker.errors import SiteDenied, SiteError
from broker.remote import Deadline, Diagnosis

_MOST_SKEW_SECONDS = 60.0
# Roles that Keystone makes by itself; with one of the last two alone, machines can be seen but not started.
_READING_ROLES = frozenset({"reader", "load-balancer_observer"})


def check(session: Session, deadline: Deadline) -> list[Diagnosis]:
    """Every step, up to the first that makes the others pointless."""
    return [*_steps(session, deadline)]


def _steps(session: Session, deadline: Deadline) -> Iterator[Diagnosis]:
    endpoint, answer = _try_endpoint(session, deadline)
    yield endpoint
    if answer is None:
        return
    yield from _clock(answer)
    session.forget()
    try:
        token = session.token(deadline)
    except SiteError as error:
        yield _why_no_login(session, error, deadline)
        return
    yield Diagnosis("credential", ok=True, detail=f"{session.credential.user} is logged in")
    roles = ", ".join(token.roles) or "none"
    if not token.project_id:
        hint = "Use an application credential made in a project, or name the project."
        yield Diagnosis("project", ok=False, detail="the login is for no project", hint=hint)
        return
    can_write = bool(set(token.roles) - _READING_ROLES)
    yield Diagnosis(
        "project",
        ok=can_write,
        detail=f"{token.project} ({token.project_id}), roles: {roles}",
        hint=None if can_write else "These roles may only read; ask for the role member in this project.",
    )
    missing = [*_region_and_services(session, deadline)]
    yield from missing
    if all(step.ok for step in missing):
        yield from _readings(session, deadline)


# --- the endpoint ------------------------------------------------------------------------------------------------


def _try_endpoint(session: Session, deadline: Deadline) -> tuple[Diagnosis, Answer | None]:
    step, url = "endpoint", f"{session.identity_url}/v3"
    try:
        answer = session.ask_identity("GET", "/v3", deadline)
    except SiteError as error:
        hint = error.hint or "Is the address right, and may this machine reach it (firewall, proxy)?"
        return Diagnosis(step, ok=False, detail=error.detail, hint=hint), None
    if 300 <= answer.status < 400:
        hint = f"It sends us on to {answer.headers.get('location', 'another address')}: use that one, if you trust it."
        return Diagnosis(step, ok=False, detail=f"{url} has moved", hint=hint), None
    version = _keystone_version(answer.body)
    if answer.status != 200 or version is None:
        detail = f"{url} answers with {answer.status}, but it is not a Keystone v3"
        hint = "Use the address that `openstack catalog show identity` prints, or auth_url of your clouds.yaml."
        return Diagnosis(step, ok=False, detail=detail, hint=hint), None
    parts = urlsplit(url)
    is_open = parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost")
    detail = f"{url} is a Keystone {version}"
    warning = "The connection is not encrypted: everybody on the way can read the credential." if is_open else None
    return Diagnosis(step, ok=True, detail=detail, hint=warning), answer


def _keystone_version(body: bytes) -> str | None:
    try:
        version: Any = json.loads(body)["version"]["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) and version.startswith("v3") else None


def _clock(answer: Answer) -> Iterator[Diagnosis]:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError, TypeError):
        return
    ours = datetime.now(UTC)  # the one place where the question is what our clock says
    skew = (ours - theirs.astimezone(UTC)).total_seconds()
    ok = abs(skew) <= _MOST_SKEW_SECONDS
    yield Diagnosis(
        "clock",
        ok=ok,
        detail=f"this machine's clock and the site's differ by {abs(skew):.0f} s",
        hint=None if ok else "Times of machines, and so their cost, would be wrong: set the clock (NTP) that is off.",
    )


# --- the login ---------------------------------------------------------------------------------------------------


def _why_no_login(session: Session, error: SiteError, deadline: Deadline) -> Diagnosis:
    """Keystone says the same 401 for user, password, domain and project; logging in to no project tells more."""
    credential = session.credential
    step = "credential"
    if not isinstance(error, SiteDenied):
        return Diagnosis(step, ok=False, detail=error.detail, hint=error.hint or "Try again later.")
    if credential.is_application:
        hint = (
            "It was deleted or its id is wrong: make a new one in the site's dashboard."
            if error.http_status == 404
            else "Its secret is wrong, it has expired, or its owner lost the role: make a new one in the dashboard."
        )
        return Diagnosis(step, ok=False, detail="the application credential is refused", hint=hint)
    try:
        answer = session.ask_identity("POST", "/v3/auth/tokens", deadline, body=credential.body(scoped=False))
    except SiteError as second:
        return Diagnosis(step, ok=False, detail=second.detail, hint=second.hint)
    if answer.status != 201:
        hint = (
            "Keystone does not say which of them is wrong: user name, password, or the user's domain "
            f"(user_domain_name, here {credential.user_domain!r}). Who logs in through an institution needs an "
            "application credential."
        )
        return Diagnosis(step, ok=False, detail=f"user {credential.user!r} is refused", hint=hint)
    names = _projects(session, answer.headers.get("x-subject-token"), deadline)
    return Diagnosis(
        "project",
        ok=False,
        detail=f"user {credential.user!r} and password are right, but not for project {credential.project!r}",
        hint=f"Projects of this user: {', '.join(names)}."
        if names
        else "This user has a role in no project: ask the site for one.",
    )


def _projects(session: Session, token: str | None, deadline: Deadline) -> list[str]:
    """The projects that a login may be for, with their domains; none where Keystone does not tell."""
    try:
        answer = session.ask_identity("GET", "/v3/auth/projects", deadline, token=token)
        projects = json.loads(answer.body)["projects"]
        return sorted(f"{project['name']} (domain {project['domain_id']})" for project in projects)
    except (SiteError, ValueError, KeyError, TypeError):
        return []


# --- the catalogue -----------------------------------------------------------------------------------------------


def _region_and_services(session: Session, deadline: Deadline) -> Iterator[Diagnosis]:
    token = session.token(deadline)
    regions = token.regions()
    region = session.site.region
    if region is None and len(regions) != 1:
        hint = f"Name one: {', '.join(regions)}." if regions else "The catalogue holds no compute service."
        yield Diagnosis("region", ok=False, detail=f"no region is named, the site has {len(regions)}", hint=hint)
        return
    if region is not None and region not in regions:
        hint = f"Regions with machines: {', '.join(regions)}." if regions else "The catalogue holds no compute service."
        yield Diagnosis("region", ok=False, detail=f"there is no region {region!r}", hint=hint)
        return
    yield Diagnosis("region", ok=True, detail=region or regions[0])
    missing = [
        str(service)
        for service in (Service.COMPUTE, Service.IMAGE, Service.NETWORK)
        if token.endpoint(service, region) is None
    ]
    yield Diagnosis(
        "services",
        ok=not missing,
        detail=f"the catalogue lacks, or has more than one of: {', '.join(missing)}" if missing else "all there",
        hint="Leeway needs Nova, Glance and Neutron, each with one public address." if missing else None,
    )


# --- what may be read --------------------------------------------------------------------------------------------


def _readings(session: Session, deadline: Deadline) -> Iterator[Diagnosis]:
    yield _reading("flavors", lambda: _count(reading.read_offers(session, deadline), "instance types"))
    yield _reading("images", lambda: _count(reading.read_images(session, deadline), "images"))
    yield _reading("quotas", lambda: _quotas(session, deadline))
    yield _reading("networks", lambda: _network(session, deadline))


def _reading(step: str, read: Callable[[], Diagnosis | str]) -> Diagnosis:
    try:
        found = read()
    except SiteDenied as error:
        return Diagnosis(step, ok=False, detail=error.detail, hint="Ask the site for the role member in this project.")
    except SiteError as error:
        return Diagnosis(step, ok=False, detail=error.detail, hint=error.hint)
    return found if isinstance(found, Diagnosis) else Diagnosis(step, ok=True, detail=found)


def _count(found: list[Any], noun: str) -> Diagnosis | str:
    if found:
        return f"{len(found)} {noun}"
    step = "flavors" if noun == "instance types" else noun
    return Diagnosis(step, ok=False, detail=f"there are no {noun}", hint="Ask the site to share some with the project.")


def _quotas(session: Session, deadline: Deadline) -> str:
    quotas = reading.read_quotas(session, deadline)
    return ", ".join(
        f"{quota.resource} {quota.used} of {'any number' if quota.limit is None else quota.limit}" for quota in quotas
    )


def _network(session: Session, deadline: Deadline) -> str:
    networks = reading.read_networks(session, deadline)
    inner = choose(networks, session.site.settings.get("network"), is_external=False)
    if not any(network.is_external for network in networks):
        return f"machines on {inner.name}; there is no network for public addresses"
    outer = choose(networks, session.site.settings.get("external_network"), is_external=True)
    return f"machines on {inner.name}, public addresses from {outer.name}"
