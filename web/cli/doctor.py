"""`leeway doctor`: what this installation needs, looked at one by one, each with the way out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from broker.database import database_now, sessions, single_use_engine
from broker.errors import LeewayError
from broker.schema import head_revision, require_current
from web.cli import output
from web.cli.command import Failure, LeewayCommand, json_option, print_json
from web.cli.main import HELPS
from web.cli.site_view import show_diagnosis, unnamed_trouble
from web.client.client import Client
from web.client.errors import ClientError
from web.client.place import find_place
from web.client.shapes import Diagnosis, Installation, Overdue, SiteHealth
from web.compose import database
from web.identity.vault import load_key
from web.overdue import find_overdue
from web.settings import Settings, load_settings
from web.token import load_token

EPILOG = """\b
Examples:
  leeway doctor
  leeway doctor --json
"""
_OLDEST_PYTHON: Final = (3, 11)
_LEAST_FREE_BYTES: Final = 1_000_000_000
# More leases than that are due at once only where nobody works on them.
_MANY_DUE: Final = 1000


@click.command("doctor", cls=LeewayCommand, short_help=HELPS["doctor"], epilog=EPILOG)
@json_option
def command(*, as_json: bool) -> None:
    """Check this installation, and say what to mend. Exit code 1 where a check fails."""
    found = [_python()]
    try:
        settings = load_settings()
    except LeewayError as error:
        found.append(_failed("settings", error))
    else:
        found += [*_files(settings), _database(settings), *_server(settings)]
    if as_json:
        print_json(found)
    else:
        show_diagnosis(found)
    bad = [check["step"] for check in found if not check["ok"]]
    if bad:
        raise Failure(", ".join(bad), title="To be mended")


def _good(step: str, detail: str) -> Diagnosis:
    return {"step": step, "ok": True, "detail": detail, "hint": None}


def _bad(step: str, detail: str, hint: str | None) -> Diagnosis:
    return {"step": step, "ok": False, "detail": detail, "hint": hint}


def _failed(step: str, error: LeewayError | ClientError) -> Diagnosis:
    return _bad(step, error.detail, error.hint)


def _python() -> Diagnosis:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < _OLDEST_PYTHON:
        return _bad("python", f"this is Python {version}", "Use Python 3.11 or newer.")
    return _good("python", f"{version}, {sys.executable}")


def _files(settings: Settings) -> Iterator[Diagnosis]:
    folder = settings.data_dir
    if folder.exists() and not folder.is_dir():
        yield _bad("data directory", f"{folder} is no directory", "Set LEEWAY_DATA_DIR elsewhere.")
        return
    if not folder.is_dir():
        yield _good("data directory", f"{folder} is not there yet; `leeway serve` makes it")
        return
    if folder.stat().st_uid != os.geteuid() or not os.access(folder, os.W_OK | os.X_OK):
        hint = "Run Leeway as the account that owns it, or set LEEWAY_DATA_DIR elsewhere."
        yield _bad("data directory", f"{folder} belongs to another account", hint)
        return
    yield _closed("data directory", folder, mode="700")
    if settings.secret_key is None and (folder / "key").exists():
        yield _sound("vault key", folder / "key", lambda path: load_key(None, path))
    if settings.token_file.exists():
        yield _sound("token", settings.token_file, load_token)
    free = shutil.disk_usage(folder).free
    room = f"{free / 1e9:.1f} GB free in {folder}"
    if free < _LEAST_FREE_BYTES:
        yield _bad("disk", room, "Free some space: PostgreSQL stops where it cannot write.")
    else:
        yield _good("disk", room)


def _closed(step: str, path: Path, *, mode: str) -> Diagnosis:
    found = path.stat().st_mode & 0o777
    if found & 0o077:
        return _bad(step, f"{path} has mode {found:o}: others can read it", f"Run: chmod {mode} '{path}'")
    return _good(step, str(path))


def _sound(step: str, path: Path, load: Callable[[Path], object]) -> Diagnosis:
    """A file that is there, read as the server will read it."""
    try:
        load(path)
    except LeewayError as error:
        return _failed(step, error)
    except (UnicodeDecodeError, OSError) as error:
        return _bad(step, f"{path} cannot be read: {error}", "Bring it back from the backup.")
    return _good(step, str(path))


def _database(settings: Settings) -> Diagnosis:
    kind = "embedded" if settings.database_url is None else "LEEWAY_DATABASE_URL"
    if settings.database_url is None and not (settings.data_dir / "postgres" / "cluster").exists():
        return _good("database", "embedded, not made yet; `leeway serve` makes it")
    try:
        with database(settings) as found:
            require_current(found.application_url)
    except LeewayError as error:
        return _failed("database", error)
    return _good("database", f"{kind}, revision {head_revision()}")


def _server(settings: Settings) -> Iterator[Diagnosis]:
    """The server, its token, its worker, its sites, what does not move: each only where the one before it is well."""
    try:
        with Client(find_place(os.environ)) as client:
            health = client.health()
            yield _good("server", f"{client.place.url}, version {health['version']}")
            yield _queue(is_working=health["worker"], due=health["due"])
            yield _ticking(is_ticking=health["clock"])
            if health["observing"]:
                yield _observing(client.installation())
            sites = client.sites()
            reasons = {site["name"]: _failing(client.site_health(site["name"])) for site in sites}
            yield _good("access", "the server takes the token")
            overdue = client.overdue()
    except ClientError as error:
        yield _failed("server", error)
        yield from _moving(_asked_without_server(settings))
        return
    for site in sites:
        found = reasons[site["name"]] or unnamed_trouble(site)
        if not found:
            yield _good(f"site {site['name']}", f"{site['offers']} machine types")
        else:
            hint = next((step["hint"] for step in site["diagnosis"] if not step["ok"]), None)
            if hint is None or hint in found:  # the last contact's words hold their way out
                hint = f"Then run `leeway site check {site['name']}`."
            yield _bad(f"site {site['name']}", found, hint)
    # It was told above that Leeway only observes.
    yield from _moving([thing for thing in overdue if thing["kind"] != "observing"])


def _failing(health: SiteHealth) -> str | None:
    """Why quotes avoid a site. What is only shaky needs nobody."""
    return health["reason"] if health["state"] == "failing" else None


def _moving(overdue: Sequence[Overdue] | None) -> Iterator[Diagnosis]:
    """A line for each thing that should have moved; one line where all did."""
    if overdue is None:
        return
    now = datetime.now(UTC)
    for thing in overdue:
        since = output.moment(thing["since"])
        time = "" if since is None else f", for {output.span((now - since).total_seconds())} already"
        yield _bad(f"overdue: {thing['kind']}", f"{thing['thing']}{time}: {thing['why']}", thing["hint"])
    if not overdue:
        yield _good("moving", "nothing is overdue")


def _asked_without_server(settings: Settings) -> list[Overdue] | None:
    """What the rows tell, where no server answers: other workers may do without it. None where nobody can be asked."""
    if settings.database_url is None and not (settings.data_dir / "postgres" / "cluster").exists():
        return None
    try:
        with database(settings) as found:
            require_current(found.application_url)
            bind = single_use_engine(found.application_url, application_name="leeway doctor")
            with sessions(bind)() as session:
                things = find_overdue(session, settings, database_now(session))
    except LeewayError:  # the step "database" has told
        return None
    return [
        Overdue(
            kind=thing.kind,
            thing=thing.thing,
            since=None if thing.since is None else thing.since.isoformat(),
            why=thing.why,
            hint=thing.hint,
        )
        for thing in things
    ]


def _ticking(*, is_ticking: bool) -> Diagnosis:
    if not is_ticking:
        return _bad("clock", "no clock ticks in the server", "Restart `leeway serve`; its log says why it stopped.")
    return _good("clock", "ticking")


def _observing(found: Installation) -> Diagnosis:
    """After a restore: why, and what `leeway resume` still waits for."""
    missing = "; ".join(f"{site['site']}: {site['why']}" for site in found["sites"] if not site["ready"])
    hint = f"`leeway resume` waits for listings: {missing}." if missing else "Run `leeway resume`."
    return _bad("restored", f"Leeway only observes: {found['reason']}", hint)


def _queue(*, is_working: bool, due: int) -> Diagnosis:
    if not is_working:
        return _bad("worker", "no worker runs in the server", "Restart `leeway serve`; its log says why it stopped.")
    if due > _MANY_DUE:
        return _bad("worker", f"{due} machines wait to be looked at", "Run one more: `leeway worker`.")
    return _good("worker", f"alive, {due} machines wait to be looked at")
