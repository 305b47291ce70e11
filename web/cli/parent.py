"""Ending with the process that started this one, however it ended (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from broker.errors import SetupError

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def die_with_parent() -> None:
    """Ask for SIGTERM when the parent ends; end at once where it just has.

    To Linux the parent is the thread that started this process: it must live as long as this is wanted.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SetupError(f"this system cannot end a process with its parent: {reason}", hint="Run it on Linux.")
    if os.getppid() != parent:
        raise SystemExit(0)
