"""Builds `dist/*.whl` and tries it where nothing of the checkout is in reach."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tools.setup.environment import exclusive, make_environment
from tools.setup.machine import find_pip
from tools.setup.packages import Installer
from tools.setup.report import Progress, SetupError

PACKAGES = {"accounting", "adapters", "broker", "policies", "web"}
# What Alembic needs, at the place where the installed program looks for it.
SHIPPED = ("broker/alembic.ini", "broker/alembic/env.py")


def main() -> int:
    try:
        wheel = build()
        look_into(wheel)
        with tempfile.TemporaryDirectory(prefix="leeway wheel ") as folder:
            try_out(wheel, Path(folder))
    except SetupError as error:
        print(f"wheel: {error}", file=sys.stderr)
        return 1
    print(f"wheel: good: {wheel}")
    return 0


def build() -> Path:
    """The one wheel in `dist`."""
    shutil.rmtree("dist", ignore_errors=True)
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], Path.cwd())
    (wheel,) = Path("dist").glob("*.whl")
    return wheel


def look_into(wheel: Path) -> None:
    """Raises SetupError if the wheel would write beside Leeway's packages, or lacks the migrations."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    if tops != PACKAGES:
        raise SetupError(f"the wheel holds {sorted(tops)}, not {sorted(PACKAGES)}.", "See tool.hatch in pyproject.toml")
    if missing := [name for name in SHIPPED if name not in names]:
        raise SetupError(f"the wheel lacks {', '.join(missing)}.", "See tools/build_hook.py")
    if not any(name.startswith("broker/alembic/versions/") for name in names):
        raise SetupError("the wheel holds no migration.", "See tools/build_hook.py")


def try_out(wheel: Path, folder: Path) -> None:
    """Installs the wheel with what is locked, and runs it from another directory."""
    environment = folder / "environment"
    with exclusive(environment) as lock:
        installer = Installer(find_pip([sys.executable, "python3"]), environment, lock)
        progress = Progress(of=2)
        progress.begin("packages of a fresh environment")
        make_environment(environment)
        installer.install_locked(Path("requirements/run.txt"), progress)
        progress.begin(wheel.name)
        installer.install_wheel(wheel)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    leeway = str(environment / "bin" / "leeway")
    run([leeway, "--version"], elsewhere)
    run([leeway, "db", "upgrade"], elsewhere)
    run([leeway, "db", "check"], elsewhere)


def run(command: Sequence[str], folder: Path) -> None:
    """Raises SetupError with what the command said if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LEEWAY_", "PYTHON"))}
    environment["LEEWAY_DATA_DIR"] = str(folder / "data")
    print(f"wheel: {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed ({done.returncode}):", done.stdout.strip())


if __name__ == "__main__":
    sys.exit(main())
