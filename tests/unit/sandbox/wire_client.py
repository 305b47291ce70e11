"""A clock that stands still until told, and a client that knows nothing but HTTP."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from adapters.sandbox import SandboxCloud
from adapters.sandbox.profiles import DEMO_PASSWORD

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbbJJ3ATeMgF/Ks9/uGlB9ZO3zw3Sv0qzqTJ8sVh3rY someone@example.org"
_START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


class Clock:
    """Stands still until `pass_by`; read by the cloud's thread."""

    def __init__(self) -> None:
        self._now = _START
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def rewind(self) -> None:
        with self._lock:
            self._now = _START

    def pass_by(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)


class Client:
    """Logs in and sends requests; what comes back is not interpreted."""

    def __init__(
        self, cloud: SandboxCloud, *, user: str = "alice", project: str | None = "leeway", secret: str = DEMO_PASSWORD
    ) -> None:
        self.cloud = cloud
        self.session = requests.Session()
        self.session.trust_env = False
        self.microversion: str | None = None
        answer = self.log_in(password(user, secret), project)
        assert answer.status_code == 201, answer.text
        self.use(answer)

    def use(self, answer: requests.Response) -> None:
        self.session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        self.project_id: str = answer.json()["token"].get("project", {}).get("id", "")
        self.user_id: str = answer.json()["token"]["user"]["id"]

    def log_in(self, identity: dict[str, Any], project: str | None = None) -> requests.Response:
        auth: dict[str, Any] = {"identity": identity}
        if project is not None:
            auth["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
        return self.session.post(f"{self.cloud.auth_url}/auth/tokens", json={"auth": auth}, timeout=10)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        if self.microversion is not None:
            headers.setdefault("OpenStack-API-Version", f"compute {self.microversion}")
        data = None if body is None else json.dumps(body)
        return self.session.request(method, self.cloud.url + path, data=data, headers=headers, timeout=10)

    def get(self, path: str, **headers: str) -> Any:
        answer = self("GET", path, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def first(self, path: str, key: str, name: str) -> str:
        return str(next(item["id"] for item in self.get(path)[key] if item["name"] == name))

    def configured(self, noun: str, name: str) -> str:
        """The id of something in the configuration; that the API lists it under this id is tested with the SDKs."""
        return self.cloud.config.identifier(noun, name)

    def server_request(self, name: str = "m", **more: Any) -> dict[str, Any]:
        body = {
            "name": name,
            "flavorRef": self.configured("flavor", "a1.small"),
            "imageRef": self.configured("image", "Debian 12"),
            "networks": [{"uuid": self.network_id}],
        }
        return {"server": body | more}

    @property
    def network_id(self) -> str:
        return self.configured("network", "leeway-net")

    @property
    def public_id(self) -> str:
        return self.configured("network", "public")

    def create(self, name: str = "m", **more: Any) -> str:
        answer = self("POST", "/compute/v2.1/servers", self.server_request(name, **more))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["server"]["id"])

    def server(self, identifier: str) -> Any:
        return self.get(f"/compute/v2.1/servers/{identifier}")["server"]

    def act(self, identifier: str, action: str, argument: Any = None) -> requests.Response:
        return self("POST", f"/compute/v2.1/servers/{identifier}/action", {action: argument})

    def create_port(self, name: str = "p", **more: Any) -> Any:
        body = {"port": {"network_id": self.network_id, "name": name} | more}
        answer = self("POST", "/network/v2.0/ports", body)
        assert answer.status_code == 201, answer.text
        return answer.json()["port"]


def password(user: str, secret: str = DEMO_PASSWORD) -> dict[str, Any]:
    return {
        "methods": ["password"],
        "password": {"user": {"name": user, "password": secret, "domain": {"id": "default"}}},
    }
