"""What set-up needs of the machine: pip, space."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.setup.report import SetupError
from tools.setup.state import parse_version

OLDEST_PIP = (22, 3)  # the first with --python
# Installed size plus the downloads, measured on Linux x86-64, rounded up.
NEEDED_MIB = {"run": 500, "test": 800}
NEEDED_TEMPORARY_MIB = 200
# They redirect an installation out of the environment it was asked for.
REDIRECTING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PYTHONPATH", "PYTHONHOME")


@dataclass(frozen=True)
class Pip:
    """A pip that is able to install into another interpreter."""

    python: str
    version: str


def find_pip(candidates: Sequence[str]) -> Pip:
    """The first pip that is new enough; it need not belong to the Python the environment is made of."""
    seen = []
    for python in candidates:
        path = shutil.which(python)
        if path is None:
            continue
        command = [path, "-m", "pip", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
        found = re.match(r"pip (\S+)", done.stdout)
        if done.returncode == 0 and found:
            if parse_version(found[1]) >= OLDEST_PIP:
                return Pip(path, found[1])
            seen.append(f"{found[1]} of {path}")
    problem = f"pip is too old: {', '.join(seen)}" if seen else f"no pip found for {candidates[0]}"
    raise SetupError(
        f"{problem}; pip 22.3 or newer is needed.",
        "Debian, Ubuntu: apt-get install python3-pip. Elsewhere: python3 -m ensurepip --upgrade --user",
    )


def clean_environment() -> dict[str, str]:
    """The user's environment, pip settings included, without what would install elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in REDIRECTING}


def check_space(environment: Path, needed_mib: int) -> int:
    """The free MiB where `environment` is; raises if the set-up would not fit."""
    present = sum(entry.stat().st_blocks for entry in walk_files(environment)) * 512 // 2**20
    missing = max(needed_mib - present, 50)
    free = shutil.disk_usage(environment).free // 2**20
    if free < missing:
        raise SetupError(
            f"the disk is too full: set-up needs {missing} MiB in {environment.parent}, {free} MiB are free.",
            "Free some space, or clone Leeway to a larger disk.",
        )
    try:
        temporary = Path(tempfile.gettempdir())
        free_temporary = shutil.disk_usage(temporary).free // 2**20
    except OSError as error:
        raise SetupError(f"no temporary directory can be used: {error}", "Give one: TMPDIR=/some/dir") from error
    if present == 0 and free_temporary < NEEDED_TEMPORARY_MIB:
        raise SetupError(
            f"{temporary} is too full: pip needs {NEEDED_TEMPORARY_MIB} MiB there, {free_temporary} MiB are free.",
            "Free some space, or give another: TMPDIR=/some/dir",
        )
    return free


def walk_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk_files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry
