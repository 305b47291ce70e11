"""Starting the embedded PostgreSQL again where it ended under us: nobody else would.

The kernel kills it when memory runs out, a person kills the wrong process. A server of the institution's own has a
supervisor for that; this one has only the processes that use it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

from broker.embedded import EmbeddedServer
from broker.embedded_files import read_postmaster
from broker.errors import SetupError

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
# After a start that failed: a full disk does not become empty by trying.
_PAUSE_SECONDS: Final = 10.0


@contextlib.contextmanager
def kept_running(server: EmbeddedServer) -> Iterator[None]:
    """Start a started `server` again whenever it has ended. Only this thread may touch `server` meanwhile."""
    closing = threading.Event()
    thread = threading.Thread(target=_keep, args=(server, closing), name="postgres-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _keep(server: EmbeddedServer, closing: threading.Event) -> None:
    pause = _LOOK_SECONDS
    while not closing.wait(pause):
        pause = _LOOK_SECONDS
        # Where the directory was deleted, a new and empty database would only hide that.
        if read_postmaster(server.cluster) is not None or not server.cluster.is_dir():
            continue
        log.warning("the embedded PostgreSQL ended by itself; starting it again", extra={"log": str(server.log_file)})
        try:
            server.start()
        except (SetupError, OSError) as error:
            pause = _PAUSE_SECONDS
            detail = error.detail if isinstance(error, SetupError) else str(error)
            log.error("the embedded PostgreSQL does not start again", extra={"detail": detail})  # noqa: TRY400 - said in full; no fault of ours to trace
