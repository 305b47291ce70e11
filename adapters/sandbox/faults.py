"""Troubles that can be switched on: which request they hit, how often, and what they do to it.

A fault hits the next `times` requests that match (after letting `skip` of them pass), or every one until it is removed;
with a `chance` below 1 it hits only that share of them, by seeded dice. The first faults that match win; all that match
are spent.
"""

import dataclasses
import random
import re
import threading
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from adapters.sandbox.errors import ConfigError


class FaultKind(StrEnum):
    """What a fault does."""

    SLOW = "slow"  # answers after `seconds`
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    CONFLICT = "409"
    TOO_MANY_REQUESTS = "429"  # with Retry-After: `seconds`
    SERVER_ERROR = "500"
    DRIP = "drip"  # carried out, then answered at once, but for the body: a byte every `seconds`
    LARGE = "large"  # 10 MiB of white space come before the answer's JSON
    CUT = "cut"  # the connection ends without an answer; nothing was done
    ANSWER_LOST = "answer_lost"  # the request is carried out, then the connection ends without an answer
    HIDDEN = "hidden"  # what this request makes exists, but no list, GET or port tells of it for `seconds`
    LOST_LINK = "lost_link"  # a page without the link to the next one
    SHORT_PAGE = "short_page"  # half of a page's items are missing; the next link is as if they had been there
    FOREIGN_JSON = "foreign_json"  # 200 with the JSON of something else
    HTML = "html"  # 200 with a web page, as from a captive portal
    QUOTA = "quota"  # the quota refusal of the service, at once
    NO_CAPACITY = "no_capacity"  # 202, then the server, or volume, goes to ERROR (after `seconds`)
    VANISH = "vanish"  # the server created by this request is gone `seconds` later, without a deletion


STATUS_FAULTS = {
    FaultKind.UNAUTHORIZED: 401,
    FaultKind.FORBIDDEN: 403,
    FaultKind.NOT_FOUND: 404,
    FaultKind.CONFLICT: 409,
    FaultKind.TOO_MANY_REQUESTS: 429,
    FaultKind.SERVER_ERROR: 500,
}
SERVICES = ("identity", "compute", "image", "network", "volume")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One trouble. `path` is a regular expression searched in the path, e.g. `/servers$`; None matches all.

    `chance` is above 0 and at most 1; a request that the dice spare does not count in `times`.
    """

    kind: FaultKind
    service: str | None = None
    method: str | None = None
    path: str | None = None
    times: int | None = None
    skip: int = 0
    seconds: float = 0.0
    message: str = ""
    chance: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what could never match."""
        if self.service is not None and self.service not in SERVICES:
            raise ConfigError(f"service: no {self.service!r}; there are {', '.join(SERVICES)}")
        if self.times is not None and self.times < 1:
            raise ConfigError(f"times: is {self.times}; must be 1 or more, or left out for every request")
        if self.skip < 0 or self.seconds < 0:
            raise ConfigError("skip, seconds: must be 0 or more")
        if not 0 < self.chance <= 1:
            raise ConfigError(f"chance: is {self.chance}; must be above 0 and at most 1")
        try:
            re.compile(self.path or "")
        except re.error as error:
            raise ConfigError(f"path: {error}; must be a regular expression such as /servers$") from error

    def matches(self, service: str, method: str, path: str) -> bool:
        return (
            self.service in (None, service)
            and (self.method is None or self.method.upper() == method)
            and (self.path is None or re.search(self.path, path) is not None)
        )


@dataclasses.dataclass(slots=True)
class _Armed:
    fault: Fault
    to_skip: int
    left: int | None
    hits: int = 0


class FaultBoard:
    """The faults that are on. Safe to use from the test's thread while the cloud answers in its own."""

    def __init__(self, standing: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._standing = tuple(standing)
        self._seed = seed
        self._count = 0
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As at the start: the faults of the configuration, and the dice as new."""
        with self._lock:
            self._dice = random.Random(self._seed)  # noqa: S311 - chance that can be repeated, not a secret
            self._armed: dict[str, _Armed] = {}
            for fault in self._standing:
                self._arm(fault)

    def _arm(self, fault: Fault) -> str:
        self._count += 1
        identifier = f"fault-{self._count}"
        self._armed[identifier] = _Armed(fault, to_skip=fault.skip, left=fault.times)
        return identifier

    def add(self, kind: FaultKind | str, **fields: Any) -> str:
        """Switch a fault on; its id, for `remove` and `hits`.

        Raises:
            ConfigError: no such kind or field, or a value that makes no sense.
        """
        try:
            fault = Fault(kind=FaultKind(kind), **fields)
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"kind: no {kind!r}; there are {', '.join(FaultKind)}") from error
        except TypeError as error:
            known = ", ".join(field.name for field in dataclasses.fields(Fault))
            raise ConfigError(f"fault: {error}; known fields are {known}") from error
        with self._lock:
            return self._arm(fault)

    def remove(self, identifier: str) -> bool:
        """Switch a fault off; False when there is none of that id."""
        with self._lock:
            return self._armed.pop(identifier, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def hits(self, identifier: str) -> int:
        """How many requests this fault has hit."""
        with self._lock:
            armed = self._armed.get(identifier)
            return armed.hits if armed else 0

    def take(self, service: str, method: str, path: str) -> tuple[Fault, ...]:
        """The faults that hit this request; each counts it as one of its `times`."""
        if not self._armed:
            return ()
        hit = []
        with self._lock:
            for armed in self._armed.values():
                if armed.left == 0 or not armed.fault.matches(service, method, path):
                    continue
                if armed.to_skip:
                    armed.to_skip -= 1
                    continue
                if armed.fault.chance < 1 and self._dice.random() >= armed.fault.chance:
                    continue
                if armed.left is not None:
                    armed.left -= 1
                armed.hits += 1
                hit.append(armed.fault)
        return tuple(hit)

    def documents(self) -> list[dict[str, Any]]:
        """All faults with their ids, hits and what is left of them, as plain JSON values."""
        with self._lock:
            return [
                {"id": identifier, **dataclasses.asdict(armed.fault), "hits": armed.hits, "left": armed.left}
                for identifier, armed in self._armed.items()
            ]
