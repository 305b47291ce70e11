"""The demo's directory: its own, one demo at a time, and new at each start."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker.embedded_files import FileLock, make_private_dir
from broker.errors import Conflict, SetupError

# What a demo throws away at its start must be a demo's.
_MARK: Final = "made-by-leeway-demo"
_FORGOTTEN: Final = ("address", "token")


def default_folder() -> Path:
    """LEEWAY_DATA_DIR, else `.leeway/demo` where the demo is run."""
    chosen = os.environ.get("LEEWAY_DATA_DIR")
    return Path(chosen).expanduser().absolute() if chosen else Path.cwd() / ".leeway" / "demo"


@contextlib.contextmanager
def demo_folder(folder: Path) -> Iterator[Path]:
    """Hold the directory for as long as the demo runs.

    Raises:
        SetupError: it cannot be made, or is the data directory of something else.
        Conflict: a demo runs in it.
    """
    mark = folder / _MARK
    if folder.is_dir() and not mark.exists() and any(folder.iterdir()):
        raise SetupError(
            f"{folder} is not empty, and no demo made it; a demo would throw away what is in it.",
            hint="Set LEEWAY_DATA_DIR to a new directory, or leave it unset.",
        )
    make_private_dir(folder)
    mark.touch()
    lock = FileLock(folder / "demo.lock")
    if not lock.try_exclusive():
        lock.release()
        raise Conflict(f"a demo runs in {folder} already{_where(folder)}", hint="End that one with Ctrl-C first.")
    try:
        for name in _FORGOTTEN:
            (folder / name).unlink(missing_ok=True)
        yield folder
    finally:
        lock.release()


def _where(folder: Path) -> str:
    """The other demo's page, where it has one yet."""
    try:
        return f", with its page at {(folder / 'address').read_text(encoding='utf-8').strip()}"
    except OSError:
        return ""
