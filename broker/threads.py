"""Threads that wait for clouds, and do not keep the process from ending while they do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any


class DaemonThreads(futures.ThreadPoolExecutor):
    """A daemon thread for each call, at once; its caller sees to it that there are not too many.

    Python joins the threads of an ordinary pool before it ends: one that waits a minute for a silent cloud would hold
    up every stop for that minute. It is a ThreadPoolExecutor because asyncio takes nothing else.
    """

    def __init__(self, name: str) -> None:
        """`name` is the threads'."""
        super().__init__(max_workers=1)
        self._name = name
        self._open: set[futures.Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run it now."""
        future: futures.Future[Any] = futures.Future()

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                future.set_exception(error)

        self._open.add(future)
        future.add_done_callback(self._open.discard)
        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as its base
        """Wait for what runs; nothing ever waits to be run."""
        if wait:
            futures.wait(self._open.copy())
