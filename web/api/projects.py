"""Projects and their institutions."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from broker.projects import MOST_CONTACTS, NewProject, change_contacts, create_project, list_projects
from web.api.schemas import Items, PageQuery, Shown, Strict
from web.endpoint import Transaction

router = APIRouter(prefix="/projects", tags=["projects"])

Title = Annotated[str, Field(min_length=1, max_length=200)]
Addresses = Annotated[list[str], Field(max_length=MOST_CONTACTS)]


class InstitutionWanted(Strict):
    """Made with the project where there is none of this name."""

    name: str
    title: Title | None = None
    jurisdiction: str | None = Field(None, description="Country code (ISO 3166).")


class ProjectWanted(Strict):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "climate", "title": "Climate", "institution": {"name": "home", "jurisdiction": "EE"}}]
        }
    )

    name: str
    title: Title | None = None
    institution: InstitutionWanted
    contacts: Addresses = Field([], description="E-mail addresses that messages about the project go to.")


class ContactsWanted(Strict):
    """What is to be removed goes first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"add": ["pi@example.org"]}]})

    add: Addresses = Field([], description="E-mail addresses.")
    remove: Addresses = Field([], description="E-mail addresses.")


class Institution(Shown):
    name: str
    title: str
    jurisdiction: str | None


class Project(Shown):
    id: UUID
    name: str
    title: str
    institution: Institution
    contacts: list[str]


@router.get("", operation_id="list_projects")
def get_projects(session: Transaction, query: Annotated[PageQuery, Query()]) -> Items[Project]:
    """The projects there are."""
    found = list_projects(session, query.page())
    return Items[Project].of([Project.model_validate(project) for project in found.items], found.next)


@router.post("", status_code=201, operation_id="create_project")
def post_project(wanted: ProjectWanted, session: Transaction) -> Project:
    """Make a project."""
    new = NewProject(
        name=wanted.name,
        title=wanted.title,
        institution=wanted.institution.name,
        institution_title=wanted.institution.title,
        jurisdiction=wanted.institution.jurisdiction,
        contacts=wanted.contacts,
    )
    return Project.model_validate(create_project(session, new))


@router.post("/{name}/contacts", operation_id="change_contacts")
def post_contacts(name: str, wanted: ContactsWanted, session: Transaction) -> Project:
    """Change whom messages about the project go to; those that wait go to the new ones."""
    return Project.model_validate(change_contacts(session, name, add=wanted.add, remove=wanted.remove))
