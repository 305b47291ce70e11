"""Keystone v3: discovery, tokens, the catalogue, a user's projects, and the table of all its paths."""

import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from adapters.sandbox import keystone_credentials
from adapters.sandbox.entities import AppCredential, Project, Token, User
from adapters.sandbox.keystone_credentials import own_user, role_documents
from adapters.sandbox.state import Cloud
from adapters.sandbox.wire import UNAUTHORIZED, ApiError, Call, Handler, Reply, Service

_MALFORMED = (
    "The server could not comply with the request since it is either malformed or otherwise incorrect. "
    "The client is assumed to be in error."
)
_FERNET = "gAAAAAB"  # how every token begins
DOMAIN = {"id": "default", "name": "Default"}
_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}


def _refuse(error: ApiError) -> Reply:
    title = _TITLES.get(error.status, "Error")
    return Reply(error.status, {"error": {"code": error.status, "message": error.message, "title": title}})


def _finish(call: Call, reply: Reply) -> None:
    reply.headers["Vary"] = "X-Auth-Token"
    if reply.status == 401 and call.path == "/v3/auth/tokens":
        reply.headers["WWW-Authenticate"] = f'Keystone uri="{call.base_url}/v3"'


SERVICE = Service("identity", _refuse, finish=_finish)


def _unauthorized() -> ApiError:
    """One answer for all failures to log in, so that nothing is given away."""
    return ApiError(401, UNAUTHORIZED)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _version_document(call: Call) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{call.base_url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def show_versions(call: Call) -> Reply:
    return Reply(300, {"versions": {"values": [_version_document(call)]}}, {"Location": f"{call.base_url}/v3/"})


def show_version(call: Call) -> Reply:
    return Reply(200, {"version": _version_document(call)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """Who logs in: by an application credential, which carries its project, by another token, or by neither."""

    user: User
    project: Project | None = None
    credential: AppCredential | None = None
    parent: Token | None = None


def create_token(call: Call) -> Reply:
    """Log in by password, application credential or another token; scope to a project, or not."""
    auth = call.document("auth")
    identity = auth.get("identity")
    methods = identity.get("methods") if isinstance(identity, dict) else None
    if not isinstance(identity, dict) or not isinstance(methods, list) or len(methods) != 1:
        raise ApiError(400, "Expecting to find exactly one method in auth.identity.methods.")
    method = methods[0]
    if method not in _METHODS:
        raise _unauthorized()
    if not isinstance(identity.get(method), dict):
        raise ApiError(400, f"Expecting to find {method} in identity. {_MALFORMED}")
    login, scope = _METHODS[method](call, identity[method]), auth.get("scope")
    if login.credential is not None and scope is not None:
        raise ApiError(401, "Application credentials cannot request a scope.")
    if isinstance(scope, dict):
        login = replace(login, project=_scoped(call.cloud, login.user, scope))
    token = _issue(call, login, method)
    return Reply(201, {"token": _token_document(call, token)}, {"X-Subject-Token": token.id})


def _by_password(call: Call, given: dict[str, Any]) -> _Login:
    wanted = given.get("user")
    if not isinstance(wanted, dict):
        raise _unauthorized()
    user = _find_user(call.cloud, wanted)
    password = wanted.get("password")
    if user is None or not isinstance(password, str) or not compare_digest(user.password.encode(), password.encode()):
        raise _unauthorized()
    return _Login(user=user)


def _find_user(cloud: Cloud, wanted: dict[str, Any]) -> User | None:
    if "id" in wanted:
        return cloud.users.get(str(wanted["id"]))
    if not _is_default_domain(wanted.get("domain")):
        return None
    return next((user for user in cloud.users.values() if user.name == wanted.get("name")), None)


def _is_default_domain(domain: Any) -> bool:
    return isinstance(domain, dict) and (domain.get("id") == DOMAIN["id"] or domain.get("name") == DOMAIN["name"])


def _by_app_credential(call: Call, given: dict[str, Any]) -> _Login:
    cloud = call.cloud
    if "id" in given:
        credential = cloud.app_credentials.get(str(given["id"]))
    else:
        owner = _find_user(cloud, given["user"]) if isinstance(given.get("user"), dict) else None
        credential = next(
            (
                item
                for item in cloud.app_credentials.values()
                if owner is not None and item.user_id == owner.id and item.name == given.get("name")
            ),
            None,
        )
    if credential is None:
        raise ApiError(404, f"Could not find Application Credential: {given.get('id') or given.get('name')}.")
    over = credential.expires_at is not None and credential.expires_at <= call.now
    if over or not compare_digest(credential.secret.encode(), str(given.get("secret")).encode()):
        raise _unauthorized()
    user, project = cloud.users[credential.user_id], cloud.projects[credential.project_id]
    return _Login(user=user, project=project, credential=credential)


def _by_token(call: Call, given: dict[str, Any]) -> _Login:
    token = call.cloud.tokens.get(str(given.get("id")))
    if token is None or token.expires_at <= call.now:
        is_one = str(given.get("id")).startswith(_FERNET)
        raise ApiError(404, "Failed to validate token" if is_one else "Could not recognize Fernet token")
    if token.app_credential_id is not None:
        refused = "Using a delegated token to create another token is not allowed.."
        raise ApiError(403, f"You are not authorized to perform the requested action: {refused}")
    return _Login(user=token.user, parent=token)


_METHODS = {"password": _by_password, "application_credential": _by_app_credential, "token": _by_token}


def _scoped(cloud: Cloud, user: User, scope: dict[str, Any]) -> Project:
    wanted = scope.get("project")
    if not isinstance(wanted, dict):
        raise _unauthorized()
    if "id" in wanted:
        project = cloud.projects.get(str(wanted["id"]))
    elif _is_default_domain(wanted.get("domain")):
        project = next((item for item in cloud.projects.values() if item.name == wanted.get("name")), None)
    else:
        project = None
    if project is None or project.id not in user.roles:
        raise _unauthorized()
    return project


def _issue(call: Call, login: _Login, method: str) -> Token:
    """A token for the login. One that was made by another ends when that does."""
    user, project, credential, parent = login.user, login.project, login.credential, login.parent
    expires_at = call.now + timedelta(seconds=call.cloud.config.token_seconds)
    for other in (credential, parent):
        if other is not None and other.expires_at is not None:
            expires_at = min(expires_at, other.expires_at)
    roles = user.roles[project.id] if project is not None else ()
    audit_id = secrets.token_urlsafe(16)
    token = Token(
        id=f"{_FERNET}{secrets.token_urlsafe(120)}",
        user=user,
        project=project,
        issued_at=call.now,
        expires_at=expires_at,
        methods=(method,) if parent is None else tuple(dict.fromkeys((method, *parent.methods))),
        audit_ids=(audit_id,) if parent is None else (audit_id, parent.audit_ids[-1]),
        roles=roles if credential is None else tuple(role for role in roles if role in credential.roles),
        app_credential_id=credential.id if credential else None,
    )
    call.cloud.tokens[token.id] = token
    return token


def _token_document(call: Call, token: Token) -> dict[str, Any]:
    document: dict[str, Any] = {
        "methods": list(token.methods),
        "user": {"domain": DOMAIN, "id": token.user.id, "name": token.user.name, "password_expires_at": None},
        "audit_ids": list(token.audit_ids),
        "issued_at": _time(token.issued_at),
        "expires_at": _time(token.expires_at),
    }
    if token.project is not None:
        document |= {
            "project": {"domain": DOMAIN, "id": token.project.id, "name": token.project.name},
            "is_domain": False,
            "roles": role_documents(token.roles),
        }
        if "nocatalog" not in call.query:
            document["catalog"] = catalog(call, token.project)
    credential = call.cloud.app_credentials.get(token.app_credential_id or "")
    if credential is not None:
        document["application_credential"] = {
            "id": credential.id,
            "name": credential.name,
            "restricted": not credential.unrestricted,
        }
    return document


def catalog(call: Call, project: Project) -> list[dict[str, Any]]:
    """Where the services are, in each region. Glance and Neutron are named without a version, as most sites do."""
    home = call.cloud.config
    places = [(home, call.base_url), *((region.config, region.url) for region in call.cloud.identity.regions)]
    services = [
        ("identity", "keystone", [(config, f"{call.base_url}/v3") for config, _ in places]),
        ("compute", "nova", [(config, f"{url}/compute/v2.1") for config, url in places]),
        ("image", "glance", [(config, f"{url}/image") for config, url in places]),
        ("network", "neutron", [(config, f"{url}/network") for config, url in places]),
        (
            "volumev3",
            "cinderv3",
            [(config, f"{url}/volume/v3/{project.id}") for config, url in places if config.has_volumes],
        ),
    ]
    return [
        {
            "id": uuid.uuid5(uuid.NAMESPACE_URL, f"{home.name} {kind}").hex,
            "type": kind,
            "name": name,
            "endpoints": [
                _endpoint(config.region, url, interface) for config, url in found for interface in _INTERFACES
            ],
        }
        for kind, name, found in services
        if found
    ]


_INTERFACES = ("public", "internal", "admin")


def _endpoint(region: str, url: str, interface: str) -> dict[str, str]:
    return {
        "id": uuid.uuid5(uuid.NAMESPACE_URL, f"{region} {interface} {url}").hex,
        "interface": interface,
        "region": region,
        "region_id": region,
        "url": url,
    }


def _subject(call: Call) -> Token:
    """The token in X-Subject-Token, which must be one's own."""
    caller = call.token
    subject = call.cloud.tokens.get(call.headers.get("x-subject-token", ""))
    if subject is None or subject.expires_at <= call.now:
        raise ApiError(404, "Failed to validate token")
    if subject.user.id != caller.user.id:
        raise ApiError(403, "You are not authorized to perform the requested action: identity:validate_token.")
    return subject


def show_token(call: Call) -> Reply:
    subject = _subject(call)
    return Reply(200, {"token": _token_document(call, subject)}, {"X-Subject-Token": subject.id})


def revoke_token(call: Call) -> Reply:
    call.cloud.tokens.pop(_subject(call).id)
    return Reply(204)


def show_catalog(call: Call) -> Reply:
    return Reply(200, {"catalog": catalog(call, call.project), "links": {"self": f"{call.base_url}/v3/auth/catalog"}})


def _project_document(call: Call, project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "domain_id": DOMAIN["id"],
        "parent_id": DOMAIN["id"],
        "is_domain": False,
        "enabled": True,
        "description": "",
        "tags": [],
        "options": {},
        "links": {"self": f"{call.base_url}/v3/projects/{project.id}"},
    }


def list_projects(call: Call) -> Reply:
    """The projects one may work in, by one's own token."""
    projects = (call.cloud.projects[identifier] for identifier in call.token.user.roles)
    name = call.query.get("name")
    documents = [_project_document(call, project) for project in projects if name in (None, project.name)]
    links = {"self": f"{call.base_url}{call.path}", "previous": None, "next": None}
    return Reply(200, {"projects": documents, "links": links})


def list_all_projects(call: Call) -> Reply:
    """The administrator's to see."""
    _ = call.token
    raise ApiError(403, "You are not authorized to perform the requested action: identity:list_projects.")


def list_own_projects(call: Call) -> Reply:
    own_user(call, "identity:list_user_projects")
    return list_projects(call)


def show_project(call: Call) -> Reply:
    if call.params["project"] not in call.token.user.roles:
        raise ApiError(403, "You are not authorized to perform the requested action: identity:get_project.")
    return Reply(200, {"project": _project_document(call, call.cloud.projects[call.params["project"]])})


TABLE: dict[str, dict[str, Handler]] = {
    "/": {"GET": show_versions},
    "/v3": {"GET": show_version},
    "/v3/": {"GET": show_version},
    "/v3/auth/tokens": {"POST": create_token, "GET": show_token, "DELETE": revoke_token},
    "/v3/auth/catalog": {"GET": show_catalog},
    "/v3/auth/projects": {"GET": list_projects},
    "/v3/projects": {"GET": list_all_projects},
    "/v3/projects/{project}": {"GET": show_project},
    "/v3/users/{user}/projects": {"GET": list_own_projects},
    **keystone_credentials.TABLE,
}
