"""Why Keystone refuses a login: it says the same 401 for user, password, domain and project, so others are tried."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from adapters.openstack.login import Credential
from adapters.openstack.session import Session
from adapters.wire import Answer
from broker.errors import SiteDenied, SiteError
from broker.remote import Deadline, Diagnosis

# The domain that every Keystone has, by id and by name.
_DEFAULT_ID, _DEFAULT = "default", "Default"


def why_no_login(session: Session, error: SiteError, deadline: Deadline) -> Diagnosis:
    """What is wrong with the credential, as far as it can be found out, after a login for its project ended in `error`.

    A user's refused login is repeated without the project, then in the other domains that the credential speaks of:
    at most three more, so that a rule about failed logins does not lock the account.
    """
    credential = session.credential
    if not isinstance(error, SiteDenied):
        return Diagnosis("credential", ok=False, detail=error.detail, hint=error.hint or "Try again later.")
    if credential.is_application:
        return _application(error)
    try:
        answer = _log_in(session, credential, deadline)
        if answer.status == 201:
            return _wrong_project(session, answer, deadline)
        for domain in _other_domains(credential):
            if _log_in(session, credential.of_domain(domain), deadline).status == 201:
                return Diagnosis(
                    "credential",
                    ok=False,
                    detail=f"user {credential.user!r} is not of the domain {credential.user_domain!r}",
                    hint=f"User and password are right in the domain {domain}: set user_domain_name to it.",
                )
    except SiteError as second:
        return Diagnosis("credential", ok=False, detail=second.detail, hint=second.hint or "Try again later.")
    return _refused(credential, error)


def _refused(credential: Credential, error: SiteDenied) -> Diagnosis:
    if credential.is_token:
        return Diagnosis("credential", ok=False, detail="the token is refused", hint=error.hint)
    return Diagnosis(
        "credential",
        ok=False,
        detail=f"user {credential.user!r} is refused",
        hint=(
            "Keystone does not say which of them is wrong: password, user name, or the user's domain "
            f"(user_domain_name, here {credential.user_domain!r}). Who logs in through an institution needs an "
            "application credential."
        ),
    )


def _application(error: SiteDenied) -> Diagnosis:
    if error.http_status == 404:
        hint = "It was deleted or its id is wrong: make a new one in the site's dashboard."
    else:
        hint = "Its secret is wrong, it has expired, or its owner lost the role: make a new one in the dashboard."
    return Diagnosis("credential", ok=False, detail="the application credential is refused", hint=hint)


def _log_in(session: Session, credential: Credential, deadline: Deadline) -> Answer:
    return session.ask_identity("POST", "/v3/auth/tokens", deadline, body=credential.body(scoped=False))


def _other_domains(credential: Credential) -> list[str]:
    """Where the user may be instead: in the project's domain, or in the one that every Keystone has.

    A token knows its user, and is tried in no other domain.
    """
    if credential.is_token:
        return []
    wanted = _projects_domain(credential)
    tried = {credential.user_domain, _DEFAULT if credential.user_domain == _DEFAULT_ID else credential.user_domain}
    return [name for name in dict.fromkeys((wanted.get("name"), _DEFAULT)) if name and name not in tried]


def _projects_domain(credential: Credential) -> dict[str, str]:
    """The domain in which the credential's project is looked for; empty where the project is named by its id."""
    project: dict[str, Any] = credential.scope["project"] if credential.scope else {}
    domain: dict[str, str] = project.get("domain", {})
    return domain


# --- the project -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Project:
    """A project that the user may log in to, and its domain: by id, and by name where that is known."""

    name: str
    domain_id: str
    domain: str

    def is_in(self, wanted: dict[str, str]) -> bool:
        return wanted.get("id") == self.domain_id or wanted.get("name") == self.domain


def _wrong_project(session: Session, answer: Answer, deadline: Deadline) -> Diagnosis:
    """User and password are right; `answer` holds the token of their login to no project."""
    credential = session.credential
    projects = _projects(session, answer, deadline)
    named = [project for project in projects if project.name == credential.project]
    wanted = _projects_domain(credential)
    if wanted and named and not any(project.is_in(wanted) for project in named):
        where = ", ".join(f"{project.domain} (id {project.domain_id})" for project in named)
        return Diagnosis(
            "project",
            ok=False,
            detail=f"project {credential.project!r} is not in the domain {next(iter(wanted.values()))!r}",
            hint=f"It is in the domain {where}: set project_domain_name or project_domain_id to that.",
        )
    login = "the token is right" if credential.is_token else f"user {credential.user!r} and password are right"
    names = ", ".join(f"{project.name} (domain {project.domain})" for project in projects)
    return Diagnosis(
        "project",
        ok=False,
        detail=f"{login}, but not for project {credential.project!r}",
        hint=f"Projects of this user: {names}."
        if names
        else "This user has a role in no project: ask the site for one.",
    )


def _projects(session: Session, answer: Answer, deadline: Deadline) -> list[_Project]:
    """The projects that a login may be for; none where Keystone does not tell."""
    token = answer.headers.get("x-subject-token")
    try:
        listed: Any = json.loads(session.ask_identity("GET", "/v3/auth/projects", deadline, token=token).body)
        own = json.loads(answer.body)["token"]["user"]["domain"]
        names = {_DEFAULT_ID: _DEFAULT, str(own["id"]): str(own["name"])}
        found = [
            _Project(str(one["name"]), str(one["domain_id"]), names.get(one["domain_id"], str(one["domain_id"])))
            for one in listed["projects"]
        ]
    except (SiteError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return sorted(found, key=lambda project: (project.name, project.domain_id))
