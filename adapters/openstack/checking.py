"""Trying a credential step by step, so that its owner learns which of them fails, and what to do.

What is needed depends on the use: to look at a site the role `reader`, to start machines there the role `member`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from adapters.openstack import reading
from adapters.openstack.login import Token
from adapters.openstack.networks import choose
from adapters.openstack.refusal import why_no_login
from adapters.openstack.session import Call, Service, Session, get, list_of
from adapters.wire import Answer
from broker.errors import SiteDenied, SiteError
from broker.remote import Deadline, Diagnosis

_MOST_SKEW_SECONDS = 60.0
# Roles of Keystone and Octavia that let nobody change anything.
_READING_ROLES = frozenset({"reader", "load-balancer_observer", "load-balancer_global_observer"})
# Those that let machines be started at every site; `_member_` and `Member` are those of before 2018.
_WRITING_ROLES = frozenset({"member", "_member_", "manager", "admin"})
_BOTH_ROLES = "make the application credential with `--role member --role reader`"
_SERVICES = ("Nova", "Neutron", "Glance", "Cinder")
_SERVERS = get(Service.COMPUTE, "/servers/detail", "reading the servers", limit="1")
_PORTS = get(Service.NETWORK, "/v2.0/ports", "reading the ports", limit="1")
_ADDRESSES = get(Service.NETWORK, "/v2.0/floatingips", "reading the addresses", limit="1")
_VOLUMES = get(Service.VOLUME, "/volumes/detail", "reading the volumes", limit="1")
_SNAPSHOTS = get(Service.VOLUME, "/snapshots/detail", "reading the volumes' snapshots", limit="1")


def check(session: Session, deadline: Deadline) -> list[Diagnosis]:
    """Every step, up to the first that makes the others pointless."""
    return [*_steps(session, deadline)]


def _steps(session: Session, deadline: Deadline) -> Iterator[Diagnosis]:
    endpoint, answer = _try_endpoint(session, deadline)
    yield endpoint
    if answer is None:
        return
    skew = _skew(answer)
    session.forget()
    asked_at = _our_clock()
    try:
        token = session.token(deadline)
    except SiteError as error:
        if skew is not None:
            yield _clock(skew)
        yield why_no_login(session, error, deadline)
        return
    yield _clock(skew, _odd_times(token, asked_at))
    yield Diagnosis("credential", ok=True, detail=f"{session.credential.user or 'the token'} is logged in")
    project = _project(token, observe_only=session.site.observe_only)
    yield project
    if not token.project_id:
        return
    places = [*_region_and_services(session, deadline)]
    yield from places
    if all(step.ok for step in places):
        yield from _readings(session, token, deadline)


def _project(token: Token, *, observe_only: bool) -> Diagnosis:
    """The login's project and roles, against what the use of the site needs."""
    if not token.project_id:
        hint = "Use an application credential made in a project, or name the project."
        return Diagnosis("project", ok=False, detail="the login is for no project", hint=hint)
    roles = {role.lower() for role in token.roles}
    more = sorted(roles - _READING_ROLES)
    needed = _needed_role(observe_only=observe_only)
    ok, hint = True, ""
    if observe_only:
        ok = "reader" in roles or bool(more)
        if more:
            hint = (
                f"More than is needed: {', '.join(more)} may change things there, and looking takes no more than "
                "reader. An application credential made with `--role reader` is safer."
            )
        elif not ok:
            hint = "Ask the site for the role reader in this project."
    elif not more:
        ok = False
        hint = "These roles may only read; ask for the role member in this project, or connect the site to observe it."
    elif _may_not_read(token):
        hint = f"Where a site asks for the role reader to read, member alone is too little: {_BOTH_ROLES}."
    elif not roles & _WRITING_ROLES:
        hint = "Whether these roles may start machines is the site's own rule; where they may not, ask for member."
    granted = ", ".join(token.roles) or "none"
    detail = f"{token.project} ({token.project_id}), roles: {granted}; needed: {needed}"
    return Diagnosis("project", ok=ok, detail=detail, hint=hint or None)


def _may_not_read(token: Token) -> bool:
    """A user who is a member reads too, by Keystone's own rule, but not an application credential made with less.

    With the role defaults of 2023 such a one may start machines and not list them; and what Neutron and Cinder are
    asked for by id is not there for it.
    """
    return "member" in token.roles and "reader" not in token.roles


def _needed_role(*, observe_only: bool) -> str:
    return "reader" if observe_only else "member"


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
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, str) and version.startswith("v3") else None


# --- the clock ---------------------------------------------------------------------------------------------------


def _our_clock() -> datetime:
    return datetime.now(UTC)  # the one place where the question is what our clock says


def _skew(answer: Answer) -> float | None:
    """Seconds by which our clock is ahead of the web server's, None where it sends no time."""
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
        return (_our_clock() - theirs.astimezone(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _odd_times(token: Token, asked_at: datetime) -> str | None:
    """What cannot be, of a token that has just been made: only a clock explains it. `asked_at` is before its making.

    Keystone's clock need not be that of the web server or proxy before it.
    """
    now = _our_clock()
    ahead = (token.issued_at - now).total_seconds()
    behind = (asked_at - token.issued_at).total_seconds()
    if token.expires_at <= now:
        return f"its token had expired {(now - token.expires_at).total_seconds():.0f} s before it arrived"
    if ahead > _MOST_SKEW_SECONDS:
        return f"its token was issued {ahead:.0f} s in the future"
    if behind > _MOST_SKEW_SECONDS:
        return f"its token was issued {behind:.0f} s before it was asked for"
    return None


def _clock(skew: float | None, odd: str | None = None) -> Diagnosis:
    """The step, by the web server's clock where it tells its time, and by the times of a new token."""
    if skew is None:
        found = odd or "the times of a new token are right"
    else:
        found = f"this machine's clock and the site's differ by {abs(skew):.0f} s" + (f"; {odd}" if odd else "")
    if odd is None and abs(skew or 0.0) <= _MOST_SKEW_SECONDS:
        return Diagnosis("clock", ok=True, detail=found)
    return Diagnosis(
        "clock",
        ok=False,
        detail=found,
        hint=(
            "Times of machines, and so their cost, would be wrong, and tokens may be refused: set the clock (NTP) "
            "that is off, this machine's or Keystone's."
        ),
    )


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


def _readings(session: Session, token: Token, deadline: Deadline) -> Iterator[Diagnosis]:
    """Each list that Leeway reads there, or its first item."""
    is_needed = not session.site.observe_only  # nothing is started where Leeway only looks
    steps: tuple[tuple[str, str, Callable[[], Diagnosis | str]], ...] = (
        ("flavors", "Nova", lambda: _count("flavors", reading.read_offers(session, deadline), is_needed=is_needed)),
        ("images", "Glance", lambda: _count("images", reading.read_images(session, deadline), is_needed=is_needed)),
        ("quotas", "Nova", lambda: _quotas(session, deadline)),
        ("machines", "Nova", lambda: _first(session, _SERVERS, "servers", deadline)),
        ("ports", "Neutron", lambda: _first(session, _PORTS, "ports", deadline)),
        ("addresses", "Neutron", lambda: _first(session, _ADDRESSES, "floatingips", deadline)),
        ("volumes", "Cinder", lambda: _volumes(session, deadline)),
        ("networks", "Neutron", lambda: _networks(session, deadline)),
    )
    for step, service, read in steps:
        try:
            found = read()
        except SiteDenied as error:
            yield _denied(session, token, error, step=step, service=service)
        except SiteError as error:
            yield Diagnosis(step, ok=False, detail=error.detail, hint=error.hint)
        else:
            yield found if isinstance(found, Diagnosis) else Diagnosis(step, ok=True, detail=found)


def _denied(session: Session, token: Token, error: SiteDenied, *, step: str, service: str) -> Diagnosis:
    """The login is good, and yet a service says no: 403 for a role that is missing, 401 for the token itself."""
    # One step may ask several services; the error's text says which it was.
    service = next((name for name in _SERVICES if name in error.detail), service)
    if error.http_status == 403:
        needed, granted = _needed_role(observe_only=session.site.observe_only), ", ".join(token.roles) or "none"
        hint = (
            f"The login is good, but {service} does not let these roles do it ({granted}): "
            + (
                _BOTH_ROLES
                if _may_not_read(token)
                else f"ask the site for the role {needed} in project {token.project}"
            )
            + "."
        )
    elif error.http_status == 401:
        hint = f"Keystone has just given this token, and {service} does not take it: "
        hint += (
            "the application credential's access rules lack this request, the site cannot tell such rules, or that "
            "service's clock is off."
            if session.credential.is_application
            else "that service's clock is off, or it asks another Keystone. Only the site can mend that."
        )
    else:
        return Diagnosis(step, ok=False, detail=error.detail, hint=error.hint)
    return Diagnosis(step, ok=False, detail=error.detail, hint=hint)


def _count(step: str, found: list[Any], *, is_needed: bool) -> Diagnosis | str:
    noun = "instance types" if step == "flavors" else step
    if found or not is_needed:
        return f"{len(found)} {noun}"
    return Diagnosis(step, ok=False, detail=f"there are no {noun}", hint="Ask the site to share some with the project.")


def _first(session: Session, call: Call, key: str, deadline: Deadline) -> str:
    """Whether a list may be read: its whole is the listing's matter."""
    list_of(session.read(call, deadline), key, call.doing)
    return "may be listed"


def _volumes(session: Session, deadline: Deadline) -> str:
    if not session.has(Service.VOLUME, deadline):
        return "there is no Cinder"
    _first(session, _SNAPSHOTS, "snapshots", deadline)
    return _first(session, _VOLUMES, "volumes", deadline)


def _quotas(session: Session, deadline: Deadline) -> str:
    quotas = reading.read_quotas(session, deadline)
    return ", ".join(
        f"{quota.resource} {quota.used} of {'any number' if quota.limit is None else quota.limit}" for quota in quotas
    )


def _networks(session: Session, deadline: Deadline) -> str:
    networks = reading.read_networks(session, deadline)
    if session.site.observe_only:
        return f"{len(networks)} networks"
    inner = choose(networks, session.site.settings.get("network"), is_external=False)
    if not any(network.is_external for network in networks):
        return f"machines on {inner.name}; there is no network for public addresses"
    outer = choose(networks, session.site.settings.get("external_network"), is_external=True)
    return f"machines on {inner.name}, public addresses from {outer.name}"
