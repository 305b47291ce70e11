"""Plain HTTP to the services: one token, one connection per service, JSON in and out."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from rig.layout import KEYSTONE_INTERNAL, PASSWORD
from rig.machine import RigError

# What `json.loads` gives; the services' schemas are not ours to describe.
Json = dict[str, Any]
READY_SECONDS = 180


class Api:
    """Calls in the name of one user, scoped to one project."""

    def __init__(self, user: str, project: str) -> None:
        scope = {"project": {"name": project, "domain": {"id": "default"}}}
        person = {"name": user, "password": PASSWORD, "domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": person}}
        login = {"auth": {"identity": identity, "scope": scope}}
        response, answer = _send("POST", f"{KEYSTONE_INTERNAL}/auth/tokens", json.dumps(login).encode(), {})
        if response.status != 201:
            raise RigError(f"Keystone refuses {user} in {project}: {response.status} {answer!r}")
        self._token = response.headers["X-Subject-Token"]
        self.user_id: str = json.loads(answer)["token"]["user"]["id"]

    def call(
        self, method: str, url: str, body: Json | None = None, *, version: str = "", accept: tuple[int, ...] = ()
    ) -> Json:
        """Send one request and return its JSON.

        Args:
            method: the HTTP method.
            url: the whole address.
            body: sent as JSON.
            version: the value of OpenStack-API-Version, such as "compute 2.53".
            accept: statuses above 299 that are no failure, such as 409 for "is there already".
        """
        headers = {"X-Auth-Token": self._token, "Content-Type": "application/json", "OpenStack-API-Version": version}
        data = None if body is None else json.dumps(body).encode()
        response, answer = _send(method, url, data, {name: value for name, value in headers.items() if value})
        if response.status > 299 and response.status not in accept:
            raise RigError(f"{method} {url}: {response.status} {answer.decode(errors='replace')[:500]}")
        found: Json = json.loads(answer) if answer.startswith(b"{") else {}
        return found

    def upload(self, url: str, data: bytes) -> None:
        """PUT raw bytes."""
        headers = {"X-Auth-Token": self._token, "Content-Type": "application/octet-stream"}
        response, answer = _send("PUT", url, data, headers)
        if response.status > 299:
            raise RigError(f"PUT {url}: {response.status} {answer!r}")


def wait_for_answer(url: str, still_running: Callable[[], None]) -> None:
    """Wait until a service answers; `still_running` raises when its process has died."""

    def answers() -> bool:
        try:
            response, _ = _send("GET", url, None, {})
        except (OSError, http.client.HTTPException):
            return False
        return response.status < 500

    wait_until(answers, f"{url} does not answer", still_running)


def wait_until(met: Callable[[], bool], otherwise: str, still_running: Callable[[], None]) -> None:
    """Ask again and again until `met`, at most READY_SECONDS; raises `otherwise` then."""
    give_up = time.monotonic() + READY_SECONDS
    while not met():
        still_running()
        if time.monotonic() > give_up:
            raise RigError(f"{otherwise} after {READY_SECONDS} s; run `up` again, or look at the logs")
        time.sleep(0.3)


def _send(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
