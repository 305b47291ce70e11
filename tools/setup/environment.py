"""The virtual environment: made, guarded, mended."""

import contextlib
import csv
import errno
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.setup.machine import clean_environment
from tools.setup.report import SetupError
from tools.setup.state import identity


@contextlib.contextmanager
def exclusive(environment: Path) -> Iterator[int]:
    """Only one set-up works on `environment` at a time; the others wait here. Yields the lock's descriptor."""
    try:
        environment.mkdir(exist_ok=True)
        (environment / ".gitignore").write_text("*\n", "utf-8")
        descriptor = os.open(environment / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise not_writable(environment, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another set-up is at work in this checkout; waiting for it", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def not_writable(environment: Path, error: OSError) -> SetupError:
    if error.errno == errno.ENOSPC:
        return SetupError("the disk is full.", "Free some space and run the same command again.")
    place = environment if environment.exists() else environment.parent
    number = place.stat().st_uid
    try:
        owner = pwd.getpwuid(number).pw_name
    except KeyError:
        owner = f"user {number}"
    return SetupError(
        f"{place} cannot be written ({error.strerror}); it belongs to {owner}.",
        "Run as its owner, or make a clone of your own.",
    )


def must_go(environment: Path, state: dict[str, Any], place: Path, wanted_python: str | None) -> bool:
    """Whether what is there cannot be mended: made elsewhere, or of another Python than it must have."""
    have = identity(environment / "bin" / "python")
    if have is None:
        return (environment / "bin").exists()
    made_at, made_of = state.get("place", str(place)), state.get("python", have)
    return made_at != str(place) or made_of != have or wanted_python not in {None, have}


def remove_all(environment: Path) -> None:
    """Empties the environment, but keeps the lock that is being held."""
    for entry in environment.iterdir():
        if entry.name == "lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_half_installed(environment: Path) -> list[str]:
    """Forgets packages whose installation was cut off, so that pip installs them again.

    pip takes a package for installed as soon as its metadata folder exists. It writes INSTALLER after the files, and
    moves what it replaces to names that begin with "~".
    """
    removed = []
    for site in environment.glob("lib/python*/site-packages"):
        for leftover in site.glob("~*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        for metadata in site.glob("*.dist-info"):
            if not is_complete(metadata):
                shutil.rmtree(metadata)
                removed.append(metadata.name.removesuffix(".dist-info"))
    return sorted(removed)


def is_complete(metadata: Path) -> bool:
    """Whether every file of an installed package is there in the size that was recorded."""
    if not (metadata / "INSTALLER").is_file():
        return False
    try:
        with (metadata / "RECORD").open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.reader(lines) if len(row) == 3]  # path, hash, size
        return all((metadata.parent / path).stat().st_size == int(size) for path, _, size in rows if size)
    except (OSError, ValueError):
        return False


def make_environment(environment: Path) -> None:
    """An empty virtual environment. Without pip: Debian's Python has no ensurepip."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    if done.returncode != 0 or identity(environment / "bin" / "python") is None:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment: {(done.stderr or done.stdout).strip()[-500:]}",
            "Debian, Ubuntu: apt-get install python3-venv. Or choose another Python: make setup PYTHON=python3.12",
        )
