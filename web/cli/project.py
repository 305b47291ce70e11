"""`leeway project`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway project add climate --institution tartu --jurisdiction EE
  leeway project list
"""


@click.group("project", short_help=HELPS["project"], epilog=EPILOG)
def command() -> None:
    """Make projects: people working under a principal investigator, paid by grants."""


@command.command(
    "add",
    cls=LeewayCommand,
    epilog="\b\nExample:\n  leeway project add climate --institution tartu --title 'Baltic climate'\n",
)
@click.argument("name")
@click.option("--institution", required=True, help="Its home; made with the project where it is new.")
@click.option("--title", help="In words; the name where not given.")
@click.option("--institution-title", help="The institution in words.")
@click.option("--jurisdiction", help="The institution's country, like EE (ISO 3166).")
@json_option
def add(
    name: str,
    *,
    institution: str,
    title: str | None,
    institution_title: str | None,
    jurisdiction: str | None,
    as_json: bool,
) -> None:
    """Make the project NAME."""
    home = {"name": institution, "title": institution_title, "jurisdiction": jurisdiction}
    wanted = {"name": name, "title": title, "institution": {key: value for key, value in home.items() if value}}
    with connect() as client:
        project = client.add_project({key: value for key, value in wanted.items() if value})
    if as_json:
        print_json(project)
    else:
        output.say(f"Project {project['name']} of {project['institution']['title']}. Next: `leeway grant add`.")


@command.command("list", cls=LeewayCommand, epilog="\b\nExample:\n  leeway project list --json\n")
@json_option
def list_(*, as_json: bool) -> None:
    """List the projects."""
    with connect() as client:
        found = client.projects()
    if as_json:
        print_json(found)
        return
    made = output.table("project", "title", "institution", "country")
    for project in found:
        home = project["institution"]
        output.row(made, project["name"], project["title"], home["title"], home["jurisdiction"] or "-")
    output.show(made, empty="No project yet: `leeway project add`.")
