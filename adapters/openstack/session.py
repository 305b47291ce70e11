"""One credential's conversation with one OpenStack: every request of the adapter goes through `Session.send`."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

from adapters.cloud import Bulkhead, Fault, ReadSoFar, error_for, every_page, foreign, seconds_in
from adapters.openstack.faults import read_fault
from adapters.openstack.login import Credential, Token, read_token
from adapters.openstack.roots import catalogue_types, identity_root, service_root
from adapters.wire import Answer, SiteConnection
from broker.errors import SiteBusy, SiteDenied, SiteError, SiteRefused, SiteUnknown
from broker.remote import Deadline, SiteAddress

Value = TypeVar("Value")
Document = dict[str, Any]

_RESTARTS = 3
# A refused login is not repeated at once for every lease that is due: Keystone may lock the account after a few.
_DENIAL_SECONDS = 5.0


class Service(StrEnum):
    """The services used, by their type in the catalogue. Cinder may be missing: see `Session.has`."""

    IDENTITY = "identity"
    COMPUTE = "compute"
    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "volumev3"


# One connection for each service.
Channel = dict[Service, SiteConnection]

# What is asked for; a site that allows less sends smaller pages. Nova and Cinder allow 1,000 unless told otherwise,
# Neutron any number, and only a few fields of its things are asked for.
_PAGES = {Service.COMPUTE: 1_000, Service.IMAGE: 1_000, Service.NETWORK: 10_000, Service.VOLUME: 1_000}
# The service's name in the header that asks for a microversion.
_VERSIONED = {Service.COMPUTE: "compute", Service.VOLUME: "volume"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `doing` begins the text of its errors; `microversion` is of Nova or Cinder, the lowest where None.

    `headers` come beside those of every request.
    """

    service: Service
    method: str
    path: str
    doing: str
    query: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    body: Document | None = None
    microversion: str | None = None
    expect: frozenset[int] = frozenset({200})
    headers: Mapping[str, str] = field(default_factory=dict)


def get(service: Service, path: str, doing: str, **query: str | tuple[str, ...]) -> Call:
    """A reading request."""
    return Call(service, "GET", path, doing, query=query)


class Session:
    """Thread-safe: each request takes an idle set of connections, and one token serves all."""

    def __init__(
        self, site: SiteAddress, credential: Credential, bulkhead: Bulkhead, idle: deque[Channel] | None = None
    ) -> None:
        """Open nothing yet. `idle` are connections that others use too, when they are free.

        Raises:
            InvalidInput: endpoint or a setting cannot be used.
        """
        self.site = site
        self.credential = credential
        self.identity_url = identity_root(site.endpoint)
        self._bulkhead = bulkhead
        self._socket_seconds = seconds_in(site.settings, "call_timeout", default=30, least=1)
        self._idle: deque[Channel] = deque() if idle is None else idle
        self._login = threading.Lock()
        self._token: Token | None = None
        self._roots: tuple[Token, dict[Service, str]] | None = None
        self._denied: tuple[float, str, str | None, int | None] = (0.0, "", None, None)

    def for_project(self, project_id: str) -> Session:
        """The same login's conversation about another project: a token of its own, over the same connections."""
        return Session(self.site, self.credential.for_project(project_id), self._bulkhead, self._idle)

    # --- requests -------------------------------------------------------------------------------------------------

    def send(self, call: Call, deadline: Deadline) -> Answer:
        """Send a request with the token, once more with a fresh one after a 401 (which comes before any work).

        Raises:
            SiteDenied: Leeway only observes the site, and the request would change something; it was not sent.
            SiteError: the answer's status is not one of `call.expect`, or there was no whole answer.
        """
        if self.site.observe_only and call.method != "GET":
            hint = "Whoever wants Leeway to act there adds the site again with --broker."
            raise SiteDenied(f"{call.doing}: Leeway only observes {self.site.name}", hint=hint)
        with self._bulkhead.place(deadline, call.doing):
            channel = self._channel()
            try:
                token = self._good_token(channel, deadline)
                answer = self._ask(channel, call, token, deadline)
                if answer.status == 401:
                    token = self._good_token(channel, deadline, instead_of=token)
                    answer = self._ask(channel, call, token, deadline)
            finally:
                self._idle.append(channel)
        if answer.status in call.expect:
            return answer
        raise error_for(answer.status, answer.headers, read_fault(answer.body), doing=call.doing)

    def read(self, call: Call, deadline: Deadline) -> Document:
        """The JSON object that a request is answered with.

        Raises:
            SiteUnknown: the body is anything else.
        """
        return json_object(self.send(call, deadline).body, call.doing)

    def one(self, call: Call, key: str, deadline: Deadline) -> Document:
        """The object under `key` in the answer."""
        content = self.read(call, deadline).get(key)
        if not isinstance(content, dict):
            raise foreign(call.doing, f"no object {key!r}")
        return content

    def all(
        self,
        call: Call,
        key: str,
        convert: Callable[[Document], Value | None],
        deadline: Deadline,
        *,
        read: ReadSoFar | None = None,
    ) -> list[Value]:
        """Every item of a paged list, converted; what `convert` makes None is left out. `read` counts them all.

        Paged by our own marker until a page is empty: a page that lost its link, or that was cut at its end, then
        loses nothing. Every id counts once, however the list moves. A marker that was deleted meanwhile makes the
        site refuse the page; the list is then read again from its start.

        Raises:
            SiteUnknown: an answer is not a page of this list, or the list would not stand still.
        """
        for _ in range(_RESTARTS):
            found: dict[str, Value | None] = {}
            try:
                for page in every_page(
                    lambda marker: self._page(call, key, marker, convert=convert, deadline=deadline), doing=call.doing
                ):
                    found.update(page)
                    if read is not None:
                        read.add(len(page))
            except _MarkerGoneError:
                if read is not None:
                    read.add(-len(found))
                continue
            return [value for value in found.values() if value is not None]
        raise SiteUnknown(f"{call.doing}: the list changed under every one of {_RESTARTS} readings")

    def _page(
        self,
        call: Call,
        key: str,
        marker: str | None,
        *,
        convert: Callable[[Document], Value | None],
        deadline: Deadline,
    ) -> tuple[dict[str, Value | None], str | None]:
        """One page, converted here so that its JSON (megabytes) is freed before the next one comes."""
        query = {**call.query, "limit": str(_PAGES[call.service])} | ({"marker": marker} if marker else {})
        page = Call(call.service, call.method, call.path, call.doing, query=query, microversion=call.microversion)
        try:
            document = self.read(page, deadline)
        except SiteRefused as error:
            if marker and error.http_status in (400, 404):
                raise _MarkerGoneError from error
            raise
        items = list_of(document, key, call.doing)
        if not items:
            return {}, None
        last: str = items[-1]["id"]
        said = next_marker(document, key)
        if said not in (None, last):
            raise foreign(call.doing, f"a page ends at {last}, its link goes on from {said}: something is missing")
        return {item["id"]: convert(item) for item in items}, last

    def _ask(self, channel: Channel, call: Call, token: Token, deadline: Deadline) -> Answer:
        headers = {**call.headers, "X-Auth-Token": token.value, "Accept": "application/json"}
        if call.microversion:
            headers["OpenStack-API-Version"] = f"{_VERSIONED[call.service]} {call.microversion}"
        body = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(call.body).encode()
        path = f"{call.path}?{urlencode(call.query, doseq=True)}" if call.query else call.path
        connection = self._connection(channel, call.service, self.root(call.service, token))
        return connection.send(call.method, path, body=body, headers=headers, deadline=deadline, doing=call.doing)

    def _channel(self) -> Channel:
        """Idle connections, or none yet. Not looked at first: another thread may take the last ones in between."""
        try:
            return self._idle.pop()
        except IndexError:
            return {}

    def _connection(self, channel: Channel, service: Service, url: str) -> SiteConnection:
        connection = channel.get(service)
        if connection is None or connection.url != url:
            if connection is not None:
                connection.close()
            connection = SiteConnection(
                url, socket_seconds=self._socket_seconds, ca_bundle=self.site.settings.get("ca_bundle")
            )
            channel[service] = connection
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            for connection in self._channel().values():
                connection.close()

    # --- the token ------------------------------------------------------------------------------------------------

    def token(self, deadline: Deadline) -> Token:
        """A token that is good now."""
        with self._bulkhead.place(deadline, "logging in"):
            channel = self._channel()
            try:
                return self._good_token(channel, deadline)
            finally:
                self._idle.append(channel)

    def forget(self) -> None:
        """Drop token and refusal, so that the next request logs in anew."""
        with self._login:
            self._token = None
            self._denied = (0.0, "", None, None)

    def ask_identity(
        self, method: str, path: str, deadline: Deadline, *, body: bytes | None = None, token: str | None = None
    ) -> Answer:
        """One request to Keystone without our token handling, whatever its status."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token:
            headers["X-Auth-Token"] = token
        with self._bulkhead.place(deadline, "asking Keystone"):
            channel = self._channel()
            try:
                connection = self._connection(channel, Service.IDENTITY, self.identity_url)
                return connection.send(
                    method, path, body=body, headers=headers, deadline=deadline, doing="asking Keystone"
                )
            finally:
                self._idle.append(channel)

    def has(self, service: Service, deadline: Deadline) -> bool:
        """Whether the catalogue names the service for the site's region; if it does and `root` fails, that is an error.

        A project without volumes and a catalogue that does not say where they are must not look the same.
        """
        token, region = self.token(deadline), self.site.region
        return any(
            region in (None, endpoint.region)
            for kind in catalogue_types(service)
            for endpoint in token.catalog.get_endpoints(service_type=kind)  # type: ignore[no-untyped-call] # libcloud is typed in part
        )

    def root(self, service: Service, token: Token) -> str:
        """The service's address in the token's catalogue, without what the paths of this adapter begin with.

        Raises:
            SiteDenied: the catalogue has none in the site's region.
        """
        if service is Service.IDENTITY:
            return self.identity_url
        if self._roots is None or self._roots[0] is not token:
            self._roots = (token, {})
        roots = self._roots[1]
        if service not in roots:
            kinds = catalogue_types(service)
            url = next(filter(None, (token.endpoint(kind, self.site.region) for kind in kinds)), None)
            if url is None or urlsplit(url).scheme not in ("http", "https"):
                text = f"reading the catalogue: there is no {service} service in region {self.site.region or '(none)'}"
                raise SiteDenied(text, hint=f"Regions with machines: {', '.join(token.regions()) or 'none'}.")
            roots[service] = service_root(service, url, token.project_id)
        return roots[service]

    def _good_token(self, channel: Channel, deadline: Deadline, *, instead_of: Token | None = None) -> Token:
        token = self._token
        if token is not None and token is not instead_of and token.is_good:
            return token
        if not self._login.acquire(timeout=max(0.0, deadline.remaining)):
            raise SiteBusy("logging in: another request's login took all the time")
        try:
            token = self._token
            if token is None or token is instead_of or not token.is_good:
                until, detail, hint, status = self._denied
                if time.monotonic() < until:
                    raise SiteDenied(detail, hint=hint, http_status=status)
                self._token = None
                self._token = token = self._log_in(channel, deadline)
            return token
        finally:
            self._login.release()

    def _log_in(self, channel: Channel, deadline: Deadline) -> Token:
        doing = "logging in"
        connection = self._connection(channel, Service.IDENTITY, self.identity_url)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        body = self.credential.body()
        answer = connection.send("POST", "/v3/auth/tokens", body=body, headers=headers, deadline=deadline, doing=doing)
        if answer.status != 201:
            error = login_error(answer, self.credential, doing)
            if isinstance(error, SiteDenied):
                self._denied = (time.monotonic() + _DENIAL_SECONDS, error.detail, error.hint, error.http_status)
            raise error
        return read_token(answer.body, answer.headers.get("x-subject-token"), doing=doing)


class _MarkerGoneError(Exception):
    """The item after which the next page begins was deleted. Never leaves this module."""


def login_error(answer: Answer, credential: Credential, doing: str) -> SiteError:
    """What Keystone's refusal of a login means."""
    fault = read_fault(answer.body)
    error = error_for(answer.status, answer.headers, _without_meaning(fault), doing=doing)
    if answer.status == 404 and fault and credential.is_application:
        # Keystone says 404 for an application credential that is deleted or was never there.
        return SiteDenied(error.detail, hint="The application credential does not exist (any more).", http_status=404)
    if credential.is_token and fault and answer.status in (401, 403, 404):
        # 404: Keystone knows the token no more. 403: it is another credential's, or may not be exchanged here.
        hint = "A token is good for some hours: give the site a new one, or better an application credential."
        return SiteDenied(error.detail, hint=hint, http_status=answer.status)
    return error


def _without_meaning(fault: Fault | None) -> Fault | None:
    return Fault(fault.kind, fault.message) if fault else None


def json_object(body: bytes, doing: str) -> Document:
    """A JSON object.

    Raises:
        SiteUnknown: it is anything else.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:  # Recursion: a megabyte of brackets
        raise foreign(doing, "not JSON") from error
    if not isinstance(document, dict):
        raise foreign(doing, "not a JSON object")
    return document


def list_of(document: Document, key: str, doing: str, *, identify: str | None = "id") -> list[Document]:
    """The list under `key`, of objects that each have the text `identify`.

    Raises:
        SiteUnknown: it is anything else; a missing list is not an empty one.
    """
    items = document.get(key)
    if not isinstance(items, list):
        raise foreign(doing, f"no list {key!r}")
    for item in items:
        if not isinstance(item, dict) or (identify and not isinstance(item.get(identify), str)):
            raise foreign(doing, f"an item of {key!r} is no object with {identify}")
    return items


def next_marker(document: Document, key: str) -> str | None:
    """The marker in the link to the next page: `servers_links` of Nova and Neutron, `next` of Glance."""
    links = document.get(f"{key}_links") or []
    address = document.get("next")
    if isinstance(links, list):
        for link in links:
            if isinstance(link, dict) and link.get("rel") == "next":
                address = link.get("href")
    if not isinstance(address, str):
        return None
    markers = parse_qs(urlsplit(address).query).get("marker")
    return markers[0] if markers else None
