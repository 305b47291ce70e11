"""The gates of `make check`, one after the other; every one is tried, also after a failure."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BIN = Path(sys.prefix) / "bin"
GATES: Mapping[str, Sequence[Sequence[str]]] = {
    "format": [["ruff", "format", "--check", "--quiet", "."]],
    "lint": [["ruff", "check", "--quiet", "."]],
    # In two runs: naming files would make mypy forget the packages that pyproject.toml lists.
    "types": [["mypy"], ["mypy", "tools"]],
    "layers": [["lint-imports", "--no-cache"]],
    "dependencies": [["deptry", "--no-ansi", "."]],
    # `alembic check` on a database that the migrations have just made.
    "migrations": [["leeway", "db", "upgrade"], ["leeway", "db", "check"]],
}


def main() -> int:
    failed = [name for name, commands in GATES.items() if not passes(name, commands)]
    print(f"check: failed: {', '.join(failed)}" if failed else "check: all passed", flush=True)
    return 1 if failed else 0


def passes(name: str, commands: Sequence[Sequence[str]]) -> bool:
    """Runs one gate; what its commands print is shown only if one of them fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leeway-check-") as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LEEWAY_")}
        environment["LEEWAY_DATA_DIR"] = str(Path(folder) / "data")
        for program, *arguments in commands:
            done = subprocess.run(
                [BIN / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                env=environment,
            )
            if done.returncode != 0:
                print(f"{name:<14}FAILED: {program} {' '.join(arguments)}\n{done.stdout}", flush=True)
                return False
    print(f"{name:<14}ok      {time.monotonic() - started:5.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
