"""`leeway site`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from web.cli import boot_test, output
from web.cli.command import Failure, Interrupted, LeewayCommand, connect, json_option, print_json
from web.cli.credentials import Source, complete, from_clouds_yaml
from web.cli.health_view import show_health
from web.cli.main import HELPS
from web.cli.site_view import progress, show_diagnosis, show_list, show_site
from web.cli.waiting import Waiting
from web.client.client import Client
from web.client.shapes import Site

EPILOG = """\b
Examples:
  leeway site add aurora --provider tartu --from-clouds-yaml ~/.config/openstack/clouds.yaml
  leeway site check aurora
  leeway site list
"""
_ADD_EPILOG = """\b
Examples:
  leeway site add aurora --provider tartu --endpoint https://cloud.example.org:5000/v3 \\
    --application-credential-id 21dced0f --password-file secret.txt
  leeway site add aurora --provider tartu --from-clouds-yaml clouds.yaml --cloud aurora --broker

The secret comes from --password-file, --password-stdin, OS_PASSWORD, OS_APPLICATION_CREDENTIAL_SECRET or OS_TOKEN, or
you are asked for it: never from the command line, which others on this machine can read.
"""
# A worker that is there takes a check at once; one conversation with a site lasts 60 s at most.
_CHECK_SECONDS: Final = 120.0
_LISTING_SECONDS: Final = 300.0


@click.group("site", short_help=HELPS["site"], epilog=EPILOG)
def command() -> None:
    """Connect clouds, and look at them. A site is one place at a provider where machines can be started."""


command.add_command(boot_test.command)


@command.command("add", cls=LeewayCommand, epilog=_ADD_EPILOG)
@click.argument("name")
@click.option("--provider", required=True, help="Who bills for it; its rate cards name the same.")
@click.option("--adapter", default="openstack", show_default=True, help="Which API it speaks.")
@click.option("--endpoint", help="Its address: of an OpenStack, Keystone's, like https://cloud.example.org:5000/v3.")
@click.option("--region", help="Its region, where the cloud has several.")
@click.option("--jurisdiction", help="The country whose law holds there, like EE (ISO 3166).")
@click.option("--observe/--broker", "observe", default=None, help="Only look at it (where neither is given, save at "
              "a sandbox), or start machines there too. Added again, it stays as it was.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the adapter, like network=.")
@click.option(
    "--from-clouds-yaml", "clouds", type=click.Path(path_type=Path), help="Read endpoint and credential here."
)
@click.option("--cloud", help="Which cloud of that file.")
@click.option("--username", help="Log in as this user.")
@click.option("--user-domain-name", help="Of the user; Default where not given.")
@click.option("--project-name", help="The OpenStack project that the machines will be in.")
@click.option("--project-id", help="The same, by id.")
@click.option("--project-domain-name", help="Of the project; Default where not given.")
@click.option("--application-credential-id", help="Log in with this application credential.")
@click.option("--password-file", "--secret-file", "secret_file", help="Read the secret from this file.")
@click.option("--password-stdin", "--secret-stdin", "secret_stdin", is_flag=True, help="Read it from standard input.")
@json_option
def add(name: str, *, as_json: bool, **options: Any) -> None:
    """Connect the site NAME: its credential is tried, encrypted and kept, and what it sells is listed.

    Leeway only looks at it, and changes nothing there, until --broker is given.
    """
    wanted = {"name": name, **_wanted(options)}
    with connect() as client:
        client.add_site(wanted)
        with _going_on(name):
            site = _checked(client, name, is_quiet=as_json)
            if all(step["ok"] for step in site["diagnosis"]):
                site = wait_until_listed(client, [name], is_quiet=as_json)[0]
    _answer(site, as_json=as_json)
    if not as_json:
        output.say("")
        output.say(
            f"{name}: {site['offers']} machine types, {len(site['images'])} images. Prices: `leeway rate-card import`."
        )
        if site["observe_only"]:
            output.say(f"Leeway only looks at {name}, and changes nothing there; to let it act, add it with --broker.")
        else:
            output.say(f"Leeway may start machines at {name}; to only look, add it with --observe.")


def _wanted(options: dict[str, Any]) -> dict[str, Any]:
    """The site as the API takes it; options overrule what a clouds.yaml says of the site, and not of its credential."""
    wanted = {key: options[key] for key in ("provider", "adapter", "endpoint", "region", "jurisdiction")}
    settings = dict(_pair(text) for text in options["settings"])
    names = ("username", "user_domain_name", "project_name", "project_id", "project_domain_name")
    known = {key: options[key] for key in (*names, "application_credential_id")}
    source = Source(options["secret_file"], options["secret_stdin"])
    if options["clouds"] is not None:
        if any(value is not None for value in (*known.values(), source.file)) or source.is_stdin:
            raise click.UsageError(
                "A clouds.yaml says who logs in, with which secret, and for which project: leave these options out, or "
                "--from-clouds-yaml. For another project add an entry to the file."
            )
        entry = from_clouds_yaml(options["clouds"].expanduser(), options["cloud"])
        wanted["endpoint"] = wanted["endpoint"] or entry.endpoint
        wanted["region"] = wanted["region"] or entry.region
        wanted["credential"] = entry.credential
        settings = entry.settings | settings
    else:
        if not wanted["endpoint"]:
            raise click.UsageError("Where is it? Add --endpoint, or --from-clouds-yaml.")
        wanted["credential"] = complete(known, source)
    if settings:
        wanted["settings"] = settings
    wanted["observe_only"] = options["observe"]
    return {key: value for key, value in wanted.items() if value is not None}


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"--set takes KEY=VALUE, not {text!r}.")
    return key, value


@command.command("check", cls=LeewayCommand, epilog="\b\nExample:\n  leeway site check aurora\n")
@click.argument("name")
@json_option
def check(name: str, *, as_json: bool) -> None:
    """Try the credential of the site NAME step by step. Exit code 1 where a step fails."""
    with connect() as client:
        client.check_site(name)
        with _going_on(name):
            site = _checked(client, name, is_quiet=as_json)
    _answer(site, as_json=as_json)


def _answer(site: Site, *, as_json: bool) -> None:
    if as_json:
        print_json(site)
    else:
        show_diagnosis(site["diagnosis"])
    failed = next((step for step in site["diagnosis"] if not step["ok"]), None)
    if failed is not None:
        raise Failure(
            f"{failed['step']}: {failed['detail']}",
            title=f"{site['name']} is connected, and cannot be used",
            hint=failed["hint"],
        )


@contextmanager
def _going_on(name: str) -> Iterator[None]:
    """Ctrl-C ends the waiting, and nothing of what is waited for."""
    try:
        yield
    except KeyboardInterrupt:
        goes_on = f"{name} is connected, and its check goes on; `leeway site show {name}` tells what came of it."
        raise Interrupted(goes_on, title="Interrupted") from None


def _checked(client: Client, name: str, *, is_quiet: bool) -> Site:
    """The site once a worker has tried its credential."""
    with Waiting(f"checking {name}", is_quiet=is_quiet) as waiting:
        while (site := client.site(name))["check_pending"]:
            if waiting.seconds > _CHECK_SECONDS:
                raise Failure(
                    f"nobody has checked {name} for {_CHECK_SECONDS:.0f} s.",
                    title="No answer",
                    hint="Does a worker run? See `leeway doctor`; then `leeway site check`.",
                )
            waiting.pause(0.3)
        return site


def wait_until_listed(client: Client, names: Sequence[str], *, is_quiet: bool = False) -> list[Site]:
    """The sites once each has been listed, or has trouble."""
    with Waiting(f"listing {' and '.join(names)}", is_quiet=is_quiet) as waiting:
        while True:
            sites = [client.site(name) for name in names]
            if all(site["listed_at"] is not None or site["trouble"] for site in sites):
                return sites
            if waiting.seconds > _LISTING_SECONDS:
                missing = ", ".join(site["name"] for site in sites if site["listed_at"] is None)
                raise Failure(
                    f"{missing} has not been listed for {_LISTING_SECONDS:.0f} s.",
                    title="No listing",
                    hint="See `leeway site show`, and `leeway doctor`.",
                )
            waiting.say(waited_for(sites))
            waiting.pause(0.3)


def waited_for(sites: Sequence[Site]) -> str:
    """`listing aurora: 3,000 things read so far`; the name alone where a site's listing has not begun, or is over."""
    words = (f"{site['name']}: {far}" if (far := _first_progress(site)) else site["name"] for site in sites)
    return f"listing {' and '.join(words)}"


def _first_progress(site: Site) -> str | None:
    return progress(site) if site["listed_at"] is None else None


@command.command("list", cls=LeewayCommand, epilog="\b\nExample:\n  leeway site list --json\n")
@json_option
def list_(*, as_json: bool) -> None:
    """List the sites that are connected."""
    with connect() as client:
        found = client.sites()
    if as_json:
        print_json(found)
    else:
        show_list(found, now=datetime.now(UTC))


@command.command("show", cls=LeewayCommand, epilog="\b\nExample:\n  leeway site show aurora\n")
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show the site NAME: what is there, its quota and images, what the last check found, and how well it answers."""
    with connect() as client:
        found, health = client.site(name), client.site_health(name)
        if as_json:
            print_json({**found, "health": health})
            return
        things = client.inventory(name)
    now = datetime.now(UTC)
    show_site(found, now=now, inventory=things)
    output.say("")
    show_health(health, now=now)
