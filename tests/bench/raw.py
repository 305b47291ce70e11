"""The raw API: what anybody would have to read and parse, as short as it can be written. What we take is held to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import requests

from adapters.sandbox.profiles import DEMO_PASSWORD

_TIMEOUT: Final = 120
# Services with their lists: path, key, and whether it comes in pages of 1,000.
_OTHERS: Final = {
    "network": (("/v2.0/ports?fields=id&fields=name&fields=description", "ports", False),
                ("/v2.0/floatingips", "floatingips", False)),
    "compute": (("/os-keypairs", "keypairs", False),),
    "image": (("/v2/images", "images", True),),
    "volumev3": (("/volumes/detail", "volumes", True), ("/snapshots/detail", "snapshots", True)),
}  # fmt: skip


class RawApi:
    """A session of the user `leeway`, logged in."""

    def __init__(self, auth_url: str) -> None:
        """Log in, and read the catalogue."""
        self._session = requests.Session()
        user = {"name": "leeway", "password": DEMO_PASSWORD, "domain": {"name": "Default"}}
        scope = {"project": {"name": "leeway", "domain": {"name": "Default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        answer = self._session.post(f"{auth_url}/auth/tokens", json=body, timeout=_TIMEOUT)
        answer.raise_for_status()
        self._session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        self._control = f"{auth_url.removesuffix('/v3')}/_control"
        self._urls = {service["type"]: _public(service) for service in answer.json()["token"]["catalog"]}

    def servers(self) -> int:
        """Every page of the servers; how many there are."""
        return sum(map(len, self._pages(f"{self._urls['compute']}/servers/detail", "servers")))

    def others(self) -> int:
        """Every page of all that a listing reads beside the servers."""
        found = 0
        for kind, lists in _OTHERS.items():
            for path, key, is_paged in lists:
                url = f"{self._urls[kind]}{path}"
                found += sum(map(len, self._pages(url, key))) if is_paged else len(self._get(url)[key])
        return found

    def _pages(self, url: str, key: str) -> Iterator[list[dict[str, Any]]]:
        query = {"limit": "1000"}
        while page := self._get(url, **query)[key]:
            yield page
            query["marker"] = page[-1]["id"]

    def _get(self, url: str, **query: str) -> dict[str, Any]:
        document: dict[str, Any] = self._session.get(url, params=query, timeout=_TIMEOUT).json()
        return document

    # --- people who change something there ------------------------------------------------------------------------

    def first_servers(self, count: int) -> list[str]:
        """Ids of some that run."""
        query = {"limit": str(count), "status": "ACTIVE"}
        return [server["id"] for server in self._get(f"{self._urls['compute']}/servers", **query)["servers"]]

    def stop(self, ids: Iterable[str]) -> None:
        """Switch them off."""
        for one in ids:
            url = f"{self._urls['compute']}/servers/{one}/action"
            self._session.post(url, json={"os-stop": None}, timeout=_TIMEOUT).raise_for_status()

    def delete(self, ids: Iterable[str]) -> None:
        """Delete them."""
        for one in ids:
            self._session.delete(f"{self._urls['compute']}/servers/{one}", timeout=_TIMEOUT).raise_for_status()

    def add(self, count: int) -> None:
        """So many more."""
        body = {"count": count, "project": "leeway"}
        self._session.post(f"{self._control}/servers", json=body, timeout=_TIMEOUT).raise_for_status()


def _public(service: dict[str, Any]) -> str:
    found: str = next(end["url"] for end in service["endpoints"] if end["interface"] == "public")
    return found
