"""The command `python -m tools.setup`."""

import argparse
import errno
import os
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tools.setup.environment import (
    exclusive,
    make_environment,
    must_go,
    not_writable,
    remove_all,
    remove_half_installed,
)
from tools.setup.machine import NEEDED_MIB, check_space, find_pip
from tools.setup.packages import Installer
from tools.setup.report import Progress, SetupError
from tools.setup.state import identity, is_current, read_state, wanted_state, write_state

INTERRUPTED = 130  # what shells report for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.setup", description="Makes .venv fit for this checkout.")
    parser.add_argument("kind", choices=sorted(NEEDED_MIB), help="run: what Leeway needs; test: also the tests' tools")
    parser.add_argument("--into", type=Path, default=Path(".venv"), metavar="DIR", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    environment = Path.cwd() / chosen.into
    try:
        set_up(chosen.kind, environment)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT}:
            raise
        print(f"set-up: {not_writable(environment, error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def set_up(kind: str, environment: Path) -> None:
    """Brings `environment` to what the locks and pyproject.toml of the current directory say."""
    root = Path.cwd()
    wanted = wanted_state(kind, root)
    wanted_python = identity(sys.executable) if os.environ.get("PYTHON") else None
    if is_ready(environment, wanted, wanted_python):
        return  # also for a reader who may not write here
    with exclusive(environment) as lock:
        if is_ready(environment, wanted, wanted_python):
            return
        progress = Progress(of=4)
        progress.begin(f"this machine: Python {platform.python_version()} ({sys.executable})")
        pip = find_pip([sys.executable, "python3", "python3.13", "python3.12", "python3.11"])
        free = check_space(environment, NEEDED_MIB[kind])
        progress.say(f"this machine: pip {pip.version}, {free / 1024:.1f} GiB free")
        prepare(environment, root, wanted_python, progress)
        installer = Installer(pip, environment, lock)
        lock_file = Path("requirements") / f"{kind}.txt"
        progress.begin(f"packages: {lock_file}")
        installer.install_locked(lock_file, progress)
        progress.begin("the leeway command")
        installer.connect_checkout()
        write_state(environment, wanted | {"python": identity(environment / "bin" / "python")})
        progress.say(f"ready: {environment.name}")


def is_ready(environment: Path, wanted: dict[str, Any], wanted_python: str | None) -> bool:
    """Whether nothing is left to do."""
    have = identity(environment / "bin" / "python")
    return wanted_python in {None, have} and is_current(read_state(environment), wanted, have)


def prepare(environment: Path, root: Path, wanted_python: str | None, progress: Progress) -> None:
    """Leaves a virtual environment in which whatever is installed is whole."""
    state = read_state(environment)
    python = environment / "bin" / "python"
    if must_go(environment, state, root, wanted_python):
        progress.begin(f"{environment.name}: was made for another place or Python, making it again")
        remove_all(environment)
    else:
        progress.begin(f"{environment.name}")
        if mended := remove_half_installed(environment):
            progress.say(f"{environment.name}: cut off last time, to be installed again: {', '.join(mended)}")
    if identity(python) is None:
        make_environment(environment)
    write_state(environment, {"finished": False, "place": str(root), "python": identity(python)})


if __name__ == "__main__":
    sys.exit(main())
