"""Application credentials: secrets a user makes for a program, for one project."""

import dataclasses
import secrets
import uuid
from datetime import datetime
from typing import Any

from adapters.sandbox.entities import BOTH, AppCredential, User
from adapters.sandbox.state import Cloud
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

_ROLES = (*BOTH, "admin")  # those that there are


def role_documents(names: tuple[str, ...]) -> list[dict[str, str]]:
    """Roles with their ids, the same at every start."""
    return [{"id": uuid.uuid5(uuid.NAMESPACE_OID, name).hex, "name": name} for name in names]


def own_user(call: Call, action: str) -> User:
    """The user of the path, which must be the caller.

    Raises:
        ApiError: 403.
    """
    if call.params["user"] != call.token.user.id:
        raise ApiError(403, f"You are not authorized to perform the requested action: {action}.")
    return call.token.user


def _credential_document(call: Call, credential: AppCredential) -> dict[str, Any]:
    address = f"{call.base_url}/v3/users/{credential.user_id}/application_credentials/{credential.id}"
    return {
        "id": credential.id,
        "name": credential.name,
        "description": credential.description,
        "project_id": credential.project_id,
        "roles": [
            role | {"domain_id": None, "description": None, "options": {"immutable": True}}
            for role in role_documents(credential.roles)
        ],
        "unrestricted": credential.unrestricted or None,  # null is what Keystone keeps where nothing was asked
        "user_id": credential.user_id,
        "expires_at": credential.expires_at and f"{credential.expires_at:%Y-%m-%dT%H:%M:%S.%f}",
        "system": None,
        "links": {"self": address},
    }


def create_app_credential(call: Call) -> Reply:
    user = own_user(call, "identity:create_application_credential")
    project = call.project
    parent = call.cloud.app_credentials.get(call.token.app_credential_id or "")
    if parent is not None and not parent.unrestricted:
        raise ApiError(403, "Using method 'application_credential' is not allowed for managing application credentials")
    wanted = call.document("application_credential")
    name = wanted.get("name")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "Invalid input for field 'name': 'name' is a required property")
    if any(item.user_id == user.id and item.name == name for item in call.cloud.app_credentials.values()):
        text = "Conflict occurred attempting to store application_credential - Duplicate entry found with name"
        raise ApiError(409, f"{text} {name}.")
    credential = AppCredential(
        id=uuid.uuid4().hex,
        name=name,
        secret=wanted.get("secret") or secrets.token_urlsafe(64),
        user_id=user.id,
        project_id=project.id,
        description=wanted.get("description"),
        roles=_roles(wanted.get("roles"), call.token.roles),
        unrestricted=bool(wanted.get("unrestricted")),
        expires_at=_expiry(wanted.get("expires_at"), call.now),
    )
    call.cloud.app_credentials[credential.id] = credential
    document = _credential_document(call, credential) | {"secret": credential.secret}
    return Reply(201, {"application_credential": document})


def _roles(wanted: Any, given: tuple[str, ...]) -> tuple[str, ...]:
    """Roles by id or name, each of which the token has; none named means all of them. None implies another here."""
    if wanted is not None and not (isinstance(wanted, list) and all(isinstance(role, dict) for role in wanted)):
        raise ApiError(400, "Invalid input for field 'roles': it must be a list of objects with 'id' or 'name'")
    by_id = {role["id"]: role["name"] for role in role_documents(_ROLES)}
    names = [str(role.get("name") or by_id.get(str(role.get("id")))) for role in wanted or []]
    for role, name in zip(wanted or [], names, strict=True):
        if name not in _ROLES:
            raise ApiError(404, f"Role {role.get('name') or role.get('id')} is not defined")
    if any(name not in given for name in names):
        text = "Invalid application credential: Cannot create an application credential with unassigned role"
        raise ApiError(400, text)
    return tuple(names) or given


def _expiry(text: Any, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ApiError(400, "Invalid input for field 'expires_at': not an ISO 8601 date") from error
    moment = moment.replace(tzinfo=moment.tzinfo or now.tzinfo)  # Keystone takes a naive time as UTC
    if moment <= now:
        raise ApiError(400, "Invalid input for field 'expires_at': it lies in the past")
    return moment


def list_app_credentials(call: Call) -> Reply:
    user = own_user(call, "identity:list_application_credentials")
    name = call.query.get("name")
    chosen = [
        _credential_document(call, item)
        for item in call.cloud.app_credentials.values()
        if item.user_id == user.id and name in (None, item.name)
    ]
    links = {"self": f"{call.base_url}{call.path}", "previous": None, "next": None}
    return Reply(200, {"application_credentials": chosen, "links": links})


def _credential(call: Call) -> AppCredential:
    user = own_user(call, "identity:get_application_credential")
    credential = call.cloud.app_credentials.get(call.params["credential"])
    if credential is None or credential.user_id != user.id:
        raise ApiError(404, f"Could not find Application Credential: {call.params['credential']}.")
    return credential


def show_app_credential(call: Call) -> Reply:
    return Reply(200, {"application_credential": _credential_document(call, _credential(call))})


def delete_app_credential(call: Call) -> Reply:
    """Delete it; tokens made with it are over at once (a real site may let them live for its cache's minutes)."""
    credential = _credential(call)
    del call.cloud.app_credentials[credential.id]
    tokens = call.cloud.tokens
    for identifier in [item.id for item in tokens.values() if item.app_credential_id == credential.id]:
        del tokens[identifier]
    return Reply(204)


def take_roles(cloud: Cloud, user_name: str, project_name: str) -> None:
    """What an administrator does who takes a user's roles in a project away, both by name."""
    user = next(item for item in cloud.users.values() if item.name == user_name)
    project_id = next(item.id for item in cloud.projects.values() if item.name == project_name)
    left = {project: roles for project, roles in user.roles.items() if project != project_id}
    cloud.users[user.id] = dataclasses.replace(user, roles=left)
    for token in [item for item in cloud.tokens.values() if item.user.id == user.id]:
        if token.project is not None and token.project.id == project_id:
            del cloud.tokens[token.id]
        else:
            cloud.tokens[token.id] = dataclasses.replace(token, user=cloud.users[user.id])
    for credential in [item for item in cloud.app_credentials.values() if item.user_id == user.id]:
        if credential.project_id == project_id:
            del cloud.app_credentials[credential.id]


_CREDENTIALS = "/v3/users/{user}/application_credentials"
TABLE: dict[str, dict[str, Handler]] = {
    _CREDENTIALS: {"POST": create_app_credential, "GET": list_app_credentials},
    _CREDENTIALS + "/{credential}": {"GET": show_app_credential, "DELETE": delete_app_credential},
}
