"""`leeway project`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway project add climate --institution tartu --jurisdiction EE --contact pi@example.org
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
@click.option("--contact", "contacts", multiple=True, help="An e-mail address for reminders; may be repeated.")
@json_option
def add(name: str, *, institution: str, contacts: tuple[str, ...], as_json: bool, **described: str | None) -> None:
    """Make the project NAME."""
    home = {
        "name": institution,
        "title": described["institution_title"],
        "jurisdiction": described["jurisdiction"],
    }
    wanted = {
        "name": name,
        "title": described["title"],
        "institution": {key: value for key, value in home.items() if value},
        "contacts": contacts,
    }
    with connect() as client:
        project = client.add_project({key: value for key, value in wanted.items() if value})
    if as_json:
        print_json(project)
    else:
        output.say(f"Project {project['name']} of {project['institution']['title']}. Next: `leeway grant add`.")


@command.command(
    "contact",
    cls=LeewayCommand,
    epilog="\b\nExample:\n  leeway project contact climate --remove old@example.org --add new@example.org\n",
)
@click.argument("name", metavar="PROJECT")
@click.option("--add", "added", multiple=True, help="An e-mail address; may be repeated.")
@click.option("--remove", "removed", multiple=True, help="An address that is a contact now; may be repeated.")
@json_option
def contact(name: str, *, added: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Show or change whom reminders about PROJECT go to."""
    with connect() as client:
        project = client.change_contacts(name, add=added, remove=removed)
    if as_json:
        print_json(project)
    elif project["contacts"]:
        output.say(f"Messages about {name} go to {', '.join(project['contacts'])}.")
    else:
        output.say(f"{name} has no contacts: messages about it go to the operator. Add one with --add.")


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
