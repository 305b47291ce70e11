"""Credentials and tokens of Keystone v3."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from libcloud.common.openstack_identity import (
    OpenStackIdentityEndpointType,
    OpenStackServiceCatalog,
    OpenStackServiceCatalogEntryEndpoint,
)

from adapters.cloud import foreign, utc
from broker.errors import InvalidInput
from broker.remote import Secret

_APPLICATION = ("application_credential_id", "application_credential_secret")
_PASSWORD = ("username", "password")


@dataclass(frozen=True, slots=True)
class Credential:
    """What logs in: a password or a token, each with a project, or an application credential, which carries its own.

    A token is only exchanged for another one, which ends when it does: it is for an hour's look at a site.
    """

    identity: dict[str, Any] = field(repr=False)
    scope: dict[str, Any] | None
    is_application: bool
    is_token: bool
    user: str
    user_domain: str
    project: str

    @classmethod
    def read(cls, secret: Secret) -> Credential:
        """Sort out the fields of a stored credential.

        Raises:
            InvalidInput: a field is missing.
        """
        if any(secret.get(name) for name in _APPLICATION):
            _need(secret, _APPLICATION, "an application credential has id and secret")
            identity: dict[str, Any] = {
                "methods": ["application_credential"],
                "application_credential": {
                    "id": secret[_APPLICATION[0]],
                    "secret": secret[_APPLICATION[1]],
                },
            }
            user = secret[_APPLICATION[0]]
            return cls(identity, None, is_application=True, is_token=False, user=user, user_domain="", project="")
        token = secret.get("token")
        if not token:
            _need(secret, _PASSWORD, f"give username and password, or a token, or {' and '.join(_APPLICATION)}")
        if not (secret.get("project_name") or secret.get("project_id")):
            raise InvalidInput("secret.project_name", "is missing; a login is for one project")
        project_id = secret.get("project_id")
        wanted = {"id": project_id} if project_id else _named(secret["project_name"], _domain(secret, "project_domain"))
        scope, project = {"project": wanted}, project_id or secret["project_name"]
        if token:
            identity = {"methods": ["token"], "token": {"id": token}}
            return cls(identity, scope, is_application=False, is_token=True, user="", user_domain="", project=project)
        user_domain = _domain(secret, "user_domain")
        identity = {
            "methods": ["password"],
            "password": {"user": _named(secret["username"], user_domain) | {"password": secret["password"]}},
        }
        return cls(
            identity,
            scope,
            is_application=False,
            is_token=False,
            user=secret["username"],
            user_domain=next(iter(user_domain.values())),
            project=project,
        )

    def of_domain(self, name: str) -> Credential:
        """The same user name and password, in another domain of users; for a password only."""
        user = self.identity["password"]["user"] | {"domain": {"name": name}}
        return replace(self, identity=self.identity | {"password": {"user": user}}, user_domain=name)

    def for_project(self, project_id: str) -> Credential:
        """The same login, for another project; not of an application credential, which carries its own."""
        return replace(self, scope={"project": {"id": project_id}}, project=project_id)

    def body(self, *, scoped: bool = True) -> bytes:
        """The body of POST /v3/auth/tokens. Unscoped is said outright: left out, it is the user's default project."""
        auth: dict[str, Any] = {"identity": self.identity}
        if self.scope is not None:
            auth["scope"] = self.scope if scoped else "unscoped"
        return json.dumps({"auth": auth}).encode()


def _need(secret: Secret, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if not secret.get(name):
            raise InvalidInput(f"secret.{name}", f"is missing; {reason}")


def _named(name: str, domain: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "domain": domain}


def _domain(secret: Secret, prefix: str) -> dict[str, str]:
    domain_id = secret.get(f"{prefix}_id")
    return {"id": domain_id} if domain_id else {"name": secret.get(f"{prefix}_name") or "Default"}


@dataclass(frozen=True, slots=True)
class Token:
    """A scoped token.

    `good_until` is by this process's monotonic clock, as the site's own clock may be wrong; `issued_at` and
    `expires_at` are by the site's.
    """

    value: str = field(repr=False)
    good_until: float
    issued_at: datetime
    expires_at: datetime
    project_id: str
    project: str
    roles: tuple[str, ...]
    catalog: OpenStackServiceCatalog

    @property
    def is_good(self) -> bool:
        return time.monotonic() < self.good_until

    def endpoint(self, service: str, region: str | None) -> str | None:
        """The public address of a service in the region, or in the only region there is; None without one."""
        found = {
            endpoint.url
            for endpoint in self._endpoints(service)
            if endpoint.endpoint_type == OpenStackIdentityEndpointType.EXTERNAL and region in (None, endpoint.region)
        }
        return found.pop() if len(found) == 1 else None

    def regions(self) -> list[str]:
        """The regions of the catalogue's compute services."""
        return sorted({endpoint.region for endpoint in self._endpoints("compute") if isinstance(endpoint.region, str)})

    def _endpoints(self, service: str) -> list[OpenStackServiceCatalogEntryEndpoint]:
        found: list[OpenStackServiceCatalogEntryEndpoint] = self.catalog.get_endpoints(  # type: ignore[no-untyped-call] # libcloud is typed in part
            service_type=service
        )
        return found


def read_token(body: bytes, value: str | None, *, doing: str) -> Token:
    """The token in Keystone's answer; `value` is its X-Subject-Token header.

    Raises:
        SiteUnknown: the answer is not Keystone's.
    """
    now = time.monotonic()
    try:
        token = json.loads(body)["token"]
        issued, expires = utc(token["issued_at"]), utc(token["expires_at"])
        project = token.get("project") or {"id": "", "name": ""}
        if not value or issued is None or expires is None:
            raise foreign(doing, "a token without value or times")
        life = (expires - issued).total_seconds()
        return Token(
            value=value,
            good_until=now + life - min(60.0, life / 4),
            issued_at=issued,
            expires_at=expires,
            project_id=str(project["id"]),
            project=str(project["name"]),
            roles=tuple(str(role["name"]) for role in token.get("roles", ())),
            catalog=OpenStackServiceCatalog(token.get("catalog", []), auth_version="3.x_password"),  # type: ignore[no-untyped-call] # libcloud is typed in part
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise foreign(doing, "no token of Keystone v3") from error
