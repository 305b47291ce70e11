"""Goes through the named calls at one cloud, and hands back the shape of each answer."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from tests.contract.shapes.asks import Ask, Until
from tests.contract.shapes.reducing import Shape, shape_of

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_VERSIONED = {"compute": "compute", "volume": "volume"}
_TYPES = {"compute": "compute", "image": "image", "network": "network", "volume": "volumev3"}
_CALL_SECONDS = 60.0
# What every place has.
USERS = {"alice": "climate", "tim": "tiny", "rita": "climate"}  # and the project of each
READERS = frozenset({"rita"})
FLAVORS = {
    "flavor": "m1.tiny",
    "larger": "m1.small",
    "large": "m1.xlarge",
    "with_specs": "c1.shares",
    "unplaceable": "x1.nowhere",
}
NAMES = {"image_name": "cirros", "network_name": "climate-net", "outside_name": "public"}
NOT_ASKED: Shape = {"status": "not asked: what it needs is not there"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the calls are made. Every place has the users, flavors and things of these names."""

    auth_url: str
    password: str
    wait_seconds: float
    pause_seconds: float


class _Missing(Exception):
    """A placeholder that no earlier answer filled."""


class _Walk:
    """One session at one cloud: tokens, addresses, and what the answers so far have given."""

    def __init__(self, place: Place, http: requests.Session) -> None:
        self._place = place
        self._http = http
        self._tokens: dict[str, str] = {}
        self._projects: dict[str, str] = {}
        self._roots: dict[str, str] = {"identity": re.sub(r"/v3/?$", "", place.auth_url)}
        now = datetime.now(UTC)
        self.known: dict[str, str] = {
            **NAMES,
            "name": f"shape-{uuid.uuid4().hex[:8]}",
            "user_name": "alice",
            "project_name": USERS["alice"],
            "password": place.password,
            "began": f"{now - timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}",
            "yesterday": f"{now - timedelta(days=1):%Y-%m-%dT%H:%M:%S}",
            "tomorrow": f"{now + timedelta(days=1):%Y-%m-%dT%H:%M:%S}",
        }
        for user in USERS:
            self._tokens[user] = self._log_in(user)
        self.known |= {"token": self._log_in("alice"), "spare": self._log_in("alice")}
        self._learn_flavors()

    def _log_in(self, user: str) -> str:
        domain = {"name": "Default"}
        by_password = {"user": {"name": user, "domain": domain, "password": self._place.password}}
        identity = {"methods": ["password"], "password": by_password}
        scope = {"project": {"name": USERS[user], "domain": domain}}
        url = f"{self._roots['identity']}/v3/auth/tokens"
        answer = self._http.post(url, json={"auth": {"identity": identity, "scope": scope}}, timeout=_CALL_SECONDS)
        answer.raise_for_status()
        token = answer.json()["token"]
        for service in token["catalog"]:
            public = next(item["url"] for item in service["endpoints"] if item["interface"] == "public")
            for ours, theirs in _TYPES.items():
                if service["type"] == theirs:
                    self._roots[ours] = re.sub(r"/v\d.*$", "", public)
        self._projects[user] = token["project"]["id"]
        if user == "alice":
            self.known |= {"user": token["user"]["id"], "project": token["project"]["id"]}
        return answer.headers["X-Subject-Token"]

    def _learn_flavors(self) -> None:
        listed = self._send(Ask("compute", "", "GET /v2.1/flavors")).json()["flavors"]
        ids = {flavor["name"]: flavor["id"] for flavor in listed}
        self.known |= {name: ids[flavor] for name, flavor in FLAVORS.items()}

    def ask(self, ask: Ask) -> Shape:
        """The shape of the answer; a call that lacks what an earlier one was to give is not made."""
        try:
            answer = self._send(ask)
        except _Missing:
            return NOT_ASKED
        body = _read(answer)
        for name, at in ask.keep.items():
            found = _at(body, at)
            if isinstance(found, str):
                self.known[name] = found
        if ask.until is not None and answer.ok:
            self._wait(ask, ask.until)
        return shape_of(answer.status_code, answer.headers, body)

    def _send(self, ask: Ask) -> requests.Response:
        known = self.known | ({"project": self._projects[ask.who]} if ask.who else {})
        headers = {"Accept": "application/json", **{name: _fill(text, known) for name, text in ask.headers.items()}}
        if ask.who:
            headers["X-Auth-Token"] = self._tokens[ask.who]
        if ask.version:
            headers["OpenStack-API-Version"] = f"{_VERSIONED[ask.service]} {ask.version}"
        url = self._roots[ask.service] + _fill(ask.path, known)
        body = None if ask.body is None else json.dumps(_filled(ask.body, known))
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._http.request(
            ask.method, url, data=body, headers=headers, timeout=_CALL_SECONDS, allow_redirects=False
        )

    def _wait(self, ask: Ask, until: Until) -> None:
        """Look again and again; a state that does not come is seen in the shapes of the calls that follow."""
        look = Ask(until.service, "", f"GET {until.path}", who=ask.who)
        wanted = _fill(until.value, self.known)
        limit = time.monotonic() + self._place.wait_seconds
        while time.monotonic() < limit:
            answer = self._send(look)
            if answer.status_code == requests.codes.not_found:
                return
            body = _read(answer)
            idle = _at(body, "server.OS-EXT-STS:task_state") is None
            if until.at and _at(body, until.at) == wanted and idle:
                return
            time.sleep(self._place.pause_seconds)

    def tidy(self, calls: Sequence[Ask]) -> None:
        """Delete whatever a walk that ended early has left, in the order of the calls: a port before its group."""
        for ask in calls:
            if ask.method == "DELETE" and "," not in ask.name:
                with contextlib.suppress(_Missing, requests.RequestException):
                    self.ask(ask)


def walk(place: Place, calls: Sequence[Ask]) -> Iterator[tuple[Ask, Shape]]:
    """Each call with the shape of its answer, in order. What is made is deleted, also when a walk is broken off."""
    with requests.Session() as http:
        http.trust_env = False
        walking = _Walk(place, http)
        is_over = False
        try:
            for ask in calls:
                yield ask, walking.ask(ask)
            is_over = True
        finally:
            if not is_over:
                walking.tidy(calls)


def _fill(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise _Missing(match[1])
        return known[match[1]]

    return _PLACEHOLDER.sub(value, text)


def _filled(document: Any, known: Mapping[str, str]) -> Any:
    if isinstance(document, str):
        return _fill(document, known)
    if isinstance(document, dict):
        return {key: _filled(value, known) for key, value in document.items()}
    if isinstance(document, list):
        return [_filled(item, known) for item in document]
    return document


def _read(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.JSONDecodeError:
        return answer.text


def _at(body: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(body, list) and step.isdigit() and int(step) < len(body):
            body = body[int(step)]
        elif isinstance(body, dict):
            body = body.get(step)
        else:
            return None
    return body
