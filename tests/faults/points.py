"""Named points in a worker's life, at which it may be killed or frozen. The product knows nothing of them.

Every commit and every remote call is a point by construction, whoever writes it:

    launching._open_attempt:before-commit    a transaction's commit, by the function that opened it
    API POST /orders:after-commit            or by the request that it belongs to
    make:server:before, :after, :error       a call of the adapter, by its kind of part where it names one
    POST compute/servers:unsent              after the last look at the deadline, before the first byte
    POST compute/servers:sent                the site has the request, nobody has read its answer

They are made in the worker's process alone, by listening to SQLAlchemy's sessions and by wrapping what the registry and
the wire give out.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import Any

import urllib3.connection
from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.requests import Request

from adapters import registry, wire
from broker.ports import CloudAdapter, Endings, Powers, Shelves
from broker.remote import PartKind

_OURS = ("broker.", "accounting.", "web.")
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|leeway-[0-9a-f]{32}|[0-9a-f]{32}")
_SUBJECTS = ("lease_id", "site_id", "order_id")


class Deed(StrEnum):
    """What happens to a worker at a point."""

    KILL = "kill"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Arm:
    """At the `nth` time that the worker comes to the point, the deed."""

    nth: int
    deed: Deed


@dataclass(slots=True)
class Points:
    """One worker's points: counts how often it came to each, says which are new to the run, and does the deed.

    `known`: points that need no telling any more. `tell` gets one message per call and must not lose any.
    """

    arms: Mapping[str, Arm]
    known: set[str]
    tell: Callable[[dict[str, Any]], None]
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, name: str) -> None:
        """The worker is at this point."""
        with self._lock:
            self._counts[name] += 1
            count = self._counts[name]
            if name not in self.known:
                self.known.add(name)
                self.tell({"seen": name})
        arm = self.arms.get(name)
        if arm is None or arm.nth != count:
            return
        self.tell({"hit": name, "deed": arm.deed, "pid": os.getpid(), "subject": _subject(sys._getframe(1))})
        if arm.deed is Deed.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        # To this very thread: sent to the process, another thread may take it, and this one run on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _subject(frame: FrameType | None) -> str:
    """Of what lease or site the nearest caller speaks; for reading only."""
    while frame is not None:
        claim = frame.f_locals.get("mine")
        found = [frame.f_locals.get(name) for name in _SUBJECTS] + [getattr(claim, "lease_id", None)]
        for value in found:
            if value is not None:
                return str(value)
        frame = frame.f_back
    return ""


# --- commits -----------------------------------------------------------------------------------------------------


def watch_commits(points: Points) -> None:
    """Before and after every commit of every session; a savepoint's is told apart."""

    def before(session: Session) -> None:
        points.reach(f"{_committer()}:before-{_kind(session)}")

    def after(session: Session) -> None:
        points.reach(f"{_committer()}:after-{_kind(session)}")

    event.listen(Session, "before_commit", before)
    event.listen(Session, "after_commit", after)


def _kind(session: Session) -> str:
    return "savepoint" if session.in_nested_transaction() else "commit"


def _committer() -> str:
    """What the transaction belongs to: a function of ours, or a request to the API.

    Context managers stand for whoever uses them.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_OURS):
            request = frame.f_locals.get("request")
            if isinstance(request, Request):
                return f"API {request.method} {request.scope['route'].path}"
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:
                return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


# --- calls of adapters -------------------------------------------------------------------------------------------


def watch_adapters(points: Points) -> None:
    """Before and after every call that the core makes, and after each that fails."""
    registry.BUILT_IN = {kind: _watched(factory, points) for kind, factory in registry.BUILT_IN.items()}


def _watched(factory: registry.Factory, points: Points) -> registry.Factory:
    methods = {
        name
        for port in (CloudAdapter, Powers, Shelves, Endings)
        for name, value in vars(port).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }

    def make(*arguments: Any) -> CloudAdapter:
        adapter = factory(*arguments)
        for name in methods:
            method = getattr(adapter, name, None)
            if method is not None:
                setattr(adapter, name, _watched_call(method, name, points))  # shadows the class's
        return adapter

    return make


def _watched_call(method: Callable[..., Any], name: str, points: Points) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        kind = arguments[0] if arguments and isinstance(arguments[0], PartKind) else None
        point = f"{name}:{kind}" if kind else name
        points.reach(f"{point}:before")
        try:
            answer = method(*arguments, **keywords)
        except BaseException:
            points.reach(f"{point}:error")
            raise
        points.reach(f"{point}:after")
        return answer

    return call


# --- the wire ----------------------------------------------------------------------------------------------------


def watch_wire(points: Points) -> None:
    """Around every request that changes something: decided but unsent, and sent but not answered."""
    here = threading.local()
    send = wire._Transport.request
    answer = urllib3.connection.HTTPConnection.getresponse

    def request(self: wire._Transport, method: str, url: str, *rest: Any, **keywords: Any) -> None:
        if method not in _WRITES:
            send(self, method, url, *rest, **keywords)
            return
        here.request = f"{method} {shape(url)}"
        points.reach(f"{here.request}:unsent")
        try:
            send(self, method, url, *rest, **keywords)
        finally:
            here.request = None

    def getresponse(self: urllib3.connection.HTTPConnection) -> Any:
        current = getattr(here, "request", None)
        if current is not None:
            points.reach(f"{current}:sent")
        return answer(self)

    wire._Transport.request = request  # type: ignore[method-assign] # in the worker under test alone
    urllib3.connection.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign] # as above


def shape(url: str) -> str:
    """A path without its ids: `/compute/v2.1/servers/<id>/action` is `compute/servers/*/action`."""
    words = [word for word in url.partition("?")[0].split("/") if word and not re.fullmatch(r"v\d(\.\d+)?", word)]
    return "/".join("*" if _ID.fullmatch(word) else word for word in words)


def watch(points: Points) -> None:
    """All of them, in this process, for good."""
    watch_commits(points)
    watch_adapters(points)
    watch_wire(points)
