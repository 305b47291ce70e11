"""Projects and the institutions they belong to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from broker.documents import suggestion
from broker.errors import Conflict, InvalidInput, NotFound
from broker.messages import email_address, readdress
from broker.models.federation import Institution
from broker.models.people import Person, Project
from broker.paging import Listed, Page, rows_of

# As workload documents name it.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_COUNTRY = re.compile(r"[A-Z]{2}")
MOST_CONTACTS = 20


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project to make. The institution is made with it where there is none of that name; titles default to names."""

    name: str
    institution: str
    title: str | None = None
    institution_title: str | None = None
    jurisdiction: str | None = None
    contacts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class InstitutionView:
    name: str
    title: str
    jurisdiction: str | None


@dataclass(frozen=True, slots=True)
class ProjectView:
    id: UUID
    name: str
    title: str
    institution: InstitutionView
    contacts: Sequence[str]  # e-mail addresses that messages about the project go to


def create_project(session: Session, new: NewProject) -> ProjectView:
    """Make a project.

    Raises:
        InvalidInput: a name, an address or the jurisdiction is not right, or not the one known of the institution.
        Conflict: there is a project of this name.
    """
    _check_name("name", new.name)
    _check_name("institution.name", new.institution)
    if new.jurisdiction is not None and not _COUNTRY.fullmatch(new.jurisdiction):
        raise InvalidInput(
            "institution.jurisdiction",
            f"{new.jurisdiction!r} is not a country code",
            hint="Write two capital letters, like EE (ISO 3166).",
        )
    contacts = _with([], new.contacts, field="contacts")
    if session.scalars(select(Project.id).where(Project.name == new.name)).first() is not None:
        raise Conflict(f"there is a project {new.name!r} already", hint="Choose another name.")
    institution = session.scalars(select(Institution).where(Institution.name == new.institution)).one_or_none()
    if institution is None:
        institution = Institution(
            name=new.institution, title=new.institution_title or new.institution, jurisdiction=new.jurisdiction
        )
        session.add(institution)
        session.flush()
    elif new.jurisdiction not in (None, institution.jurisdiction):
        raise InvalidInput(
            "institution.jurisdiction",
            f"{new.institution} is known to be in {institution.jurisdiction or 'no jurisdiction'}",
            hint="Leave the jurisdiction out.",
        )
    project = Project(name=new.name, title=new.title or new.name, institution_id=institution.id, contacts=contacts)
    session.add(project)
    session.flush()
    return _view(project, institution)


def change_contacts(session: Session, name: str, *, add: Sequence[str], remove: Sequence[str]) -> ProjectView:
    """Take addresses away, then add others; what waits to be sent goes to those who are there then.

    Raises:
        NotFound: no such project.
        InvalidInput: an address is none, one to remove is not there, or there would be too many.
    """
    project = project_named(session, name)
    session.refresh(project, with_for_update={"key_share": True})
    contacts = list(project.contacts)
    for position, address in enumerate(remove):
        found = [known for known in contacts if known.casefold() == address.casefold()]
        if not found:
            known = f"Its contacts: {', '.join(contacts)}." if contacts else "It has none."
            raise InvalidInput(f"remove.{position}", f"{address[:70]!r} is no contact of {name}", hint=known)
        contacts.remove(found[0])
    before = list(project.contacts)
    project.contacts = _with(contacts, add, field="add")
    if project.contacts != before:
        readdress(session, project.id, addresses(session, project))
    return _view(project, session.get_one(Institution, project.institution_id))


def _with(contacts: Sequence[str], more: Sequence[str], *, field: str) -> list[str]:
    """The contacts and those that are not among them yet."""
    found = {address.casefold(): address for address in contacts}
    for position, address in enumerate(more):
        found.setdefault(address.casefold(), email_address(address, field=f"{field}.{position}"))
    if len(found) > MOST_CONTACTS:
        raise InvalidInput(
            field, f"would make {len(found)} contacts", hint=f"Keep at most {MOST_CONTACTS}, or give a mailing list."
        )
    return list(found.values())


def addresses(session: Session, project: Project) -> list[str]:
    """Where messages about the project go: its contacts, and its PI where an address is known. May be empty."""
    pi = None if project.pi_id is None else session.get_one(Person, project.pi_id).email
    found = {address.casefold(): address for address in project.contacts}
    with contextlib.suppress(InvalidInput):  # the PI's address comes with an identity: nobody has checked it
        if pi is not None:
            found.setdefault(pi.casefold(), email_address(pi, field="pi"))
    return list(found.values())


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            field, f"{name[:70]!r} is no name", hint="Use a-z, 0-9, dots, dashes and underscores, at most 63."
        )


def list_projects(session: Session, page: Page) -> Listed[ProjectView]:
    """The projects there are."""
    statement = select(Project, Institution).join(Institution, Institution.id == Project.institution_id)
    views = [_view(project, institution) for project, institution in rows_of(session, statement, Project.id, page)]
    return Listed.cut(views, page, lambda view: view.id)


def project_named(session: Session, name: str) -> Project:
    """A project by name; raises `NotFound` with the nearest name there is."""
    project = session.scalars(select(Project).where(Project.name == name)).one_or_none()
    if project is None:
        names = session.scalars(select(Project.name).order_by(Project.name).limit(1000)).all()
        near = suggestion(name, names)
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none yet"
        hint = f"Did you mean {near}?" if near else f"Known projects: {known}."
        raise NotFound(f"there is no project {name[:70]!r}", hint=hint)
    return project


def _view(project: Project, institution: Institution) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name,
        title=project.title,
        institution=InstitutionView(institution.name, institution.title, institution.jurisdiction),
        contacts=tuple(project.contacts),
    )
