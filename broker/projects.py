"""Projects and the institutions they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from broker.documents import suggestion
from broker.errors import Conflict, InvalidInput, NotFound
from broker.models.federation import Institution
from broker.models.people import Project
from broker.paging import Listed, Page, rows_of

# As workload documents name it.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_COUNTRY = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project to make. The institution is made with it where there is none of that name; titles default to names."""

    name: str
    institution: str
    title: str | None = None
    institution_title: str | None = None
    jurisdiction: str | None = None


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


def create_project(session: Session, new: NewProject) -> ProjectView:
    """Make a project.

    Raises:
        InvalidInput: a name or the jurisdiction is not right, or not the one that is known of the institution.
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
    project = Project(name=new.name, title=new.title or new.name, institution_id=institution.id)
    session.add(project)
    session.flush()
    return _view(project, institution)


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
    )
