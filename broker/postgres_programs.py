"""pg_dump, pg_restore and psql: which ones fit a server, and how they are run."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Connection, text

from broker.database import parse_url
from broker.embedded_files import binaries
from broker.errors import SetupError

# Where Debian and Red Hat keep several versions beside each other.
_KNOWN_PLACES: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_CHUNK: Final = 1 << 16
# Scripts of pg_restore 17 and newer begin with it, and servers before 17 refuse it.
_TIMEOUT_SINCE: Final = 17
_TIMEOUT: Final = b"SET transaction_timeout = 0;\n"


@dataclass(frozen=True, slots=True)
class Place:
    """A database as PostgreSQL's programs are told of it. The password goes by the environment: all can read `ps`."""

    address: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> Place:
        """From an address in SQLAlchemy's form, or as people write it."""
        parsed = parse_url(url)
        shown = parsed._replace(drivername="postgresql", password=None).render_as_string()
        where, _, query = shown.partition("?")
        secret = {} if parsed.password is None else {"PGPASSWORD": parsed.password}
        address = f"{where.replace(' ', '%20')}?{query.replace('+', '%20')}".removesuffix("?")
        return cls(address, dict(os.environ) | {"LC_ALL": "C", "TZ": "UTC"} | secret)


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs in one directory, all of one version."""

    folder: Path
    version: int

    def run(self, program: str, *arguments: str, place: Place | None = None) -> tuple[bytes, str]:
        """Run one to its end; returns what it printed, and what was wrong, empty if nothing."""
        try:
            done = subprocess.run(  # noqa: S603 - PostgreSQL's programs, no shell, arguments as a list
                [str(self.folder / program), *arguments],
                env=_environment(place),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise SetupError(f"{program} cannot be run: {error.strerror}.", hint="Install Leeway again.") from error
        return done.stdout, _said(program, done.returncode, done.stderr)

    def load(self, file: Path, place: Place, *, schema: str, before: str, after: str, server: int) -> str:
        """Load a dump's schema in one transaction, between two scripts; returns what was wrong, empty if nothing.

        Whatever goes wrong, and however this process ends, the database is as it was: psql commits at the end of its
        input, and that end comes only once pg_restore has read the dump to its own.
        """
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leeway-")))
            (folder / "before.sql").write_text(before)
            (folder / "after.sql").write_text(after)
            wrong = [stack.enter_context((folder / name).open("w+b")) for name in ("restore.err", "psql.err")]
            reading = ["--no-owner", "--no-privileges", f"--schema={schema}", "--file=-", str(file)]
            reader = stack.enter_context(_started(self.folder / "pg_restore", reading, None, wrong[0]))
            loading = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-d", place.address]
            loading += ["-f", str(folder / "before.sql"), "-f", "-", "-f", str(folder / "after.sql")]
            loader = stack.enter_context(_started(self.folder / "psql", loading, place, wrong[1]))
            is_whole = _hand_on(reader, loader, drop=_TIMEOUT if server < _TIMEOUT_SINCE else b"")
            if is_whole and reader.wait() != 0:
                return _said("pg_restore", reader.returncode, _text(wrong[0]))  # and psql is killed, not ended
            assert loader.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                loader.stdin.close()
            loader.wait()
            return _said("psql", loader.returncode, _text(wrong[1])) or ("" if is_whole else "psql ended too early")


def _hand_on(reader: subprocess.Popen[bytes], loader: subprocess.Popen[bytes], *, drop: bytes) -> bool:
    """Hand the script on; False where psql has given up: what it says is the reason."""
    assert reader.stdout is not None
    assert loader.stdin is not None
    try:
        while chunk := reader.stdout.read(_CHUNK):
            loader.stdin.write(chunk.replace(drop, b"", 1) if drop else chunk)
            drop = b""
    except BrokenPipeError:
        return False
    return True


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@contextlib.contextmanager
def _started(
    program: Path, arguments: Sequence[str], place: Place | None, wrong: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program with pipes at both ends; killed where it is still there at the end."""
    process = subprocess.Popen(  # noqa: S603 - PostgreSQL's programs, no shell, arguments as a list
        [str(program), *arguments],
        env=_environment(place),
        stdin=subprocess.PIPE if place is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE if place is None else subprocess.DEVNULL,
        stderr=wrong,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _environment(place: Place | None) -> Mapping[str, str]:
    return place.environment if place is not None else dict(os.environ) | {"LC_ALL": "C", "TZ": "UTC"}


def _said(program: str, code: int, error: bytes) -> str:
    if code == 0:
        return ""
    lines = [line.strip() for line in error.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return "; ".join((telling or lines or [f"{program} ended with exit code {code}"])[:3])


def server_version(connection: Connection) -> int:
    """The server's major version."""
    number: int = connection.scalars(text("SELECT current_setting('server_version_num')::int / 10000")).one()
    return number


def own_programs() -> Programs:
    """Those that come with Leeway: they read every dump that an older or equal version made."""
    found = binaries()
    return Programs(found, _version(found) or 0)


def programs_for(server: int) -> Programs:
    """Those of the server's own version where they are installed, else the nearest newer ones.

    Raises:
        SetupError: all are older than the server, and pg_dump refuses that.
    """
    places = [folder for pattern in _KNOWN_PLACES for folder in Path("/").glob(pattern)]
    folders = [binaries(), *places, *map(Path, os.get_exec_path())]  # the first of a version is taken
    found = {version: folder for folder in reversed(folders) if (version := _version(folder)) is not None}
    fitting = min((version for version in found if version >= server), default=None)
    if fitting is None:
        raise SetupError(
            f"The server is PostgreSQL {server}, and the newest programs here are of version {max(found)}.",
            hint=f"Install PostgreSQL's client programs, version {server} or newer (postgresql-client-{server}).",
        )
    return Programs(found[fitting], fitting)


def _version(folder: Path) -> int | None:
    """The major version of the programs in a directory; None where not all three are there."""
    if not all(os.access(folder / name, os.X_OK) for name in ("pg_dump", "pg_restore", "psql")):
        return None
    try:
        done = subprocess.run(  # noqa: S603 - asks a program for its version
            [str(folder / "pg_dump"), "--version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(match[1]) if match else None
