"""The proxy of `wire.py`, told what goes wrong between Leeway and the cloud as `tests/contract` names it.

What only the cloud itself can do is not here: the front passes on, loses or replaces what is said, and makes up nothing
that the cloud keeps.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.contract.sites import Trouble
from tests.peers.openstack.wire import Answer, Request, Wire

SERVICES = {5000: "identity", 35357: "identity", 8774: "compute", 8776: "volume", 9292: "image", 9696: "network"}
SLOW_SECONDS = 2.0
DRIP_SECONDS = 1.0
LARGE_BYTES = 10 * 2**20
JSON = {"Content-Type": "application/json"}


def _refusal(status: int, name: str, message: str, **headers: str) -> Answer:
    """In the form that Nova gives its errors."""
    return Answer(status, JSON | headers, json.dumps({name: {"code": status, "message": message}}).encode())


# Said in the cloud's place; nothing reaches it. Words of Zed, save those of the foreign ones.
SAID: Mapping[Trouble, Answer] = {
    Trouble.SERVER_ERROR: _refusal(500, "computeFault", "Unexpected API Error. Please report this at launchpad.net"),
    Trouble.FOREIGN_JSON: Answer(200, JSON, b'{"status": "ok", "items": []}'),
    Trouble.WEB_PAGE: Answer(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Guest Wi-Fi</title>Log in!"),
    Trouble.UNAUTHORIZED: _refusal(401, "error", "The request you have made requires authentication."),
    Trouble.FORBIDDEN: _refusal(403, "forbidden", "Policy doesn't allow this to be performed."),
    Trouble.BUSY: _refusal(429, "overLimit", "This request was rate-limited.", **{"Retry-After": "7"}),
    Trouble.GENERAL_404: _refusal(404, "itemNotFound", "The resource could not be found."),
    Trouble.CONFLICT: _refusal(409, "conflictingRequest", "The request conflicts with another one."),
}


def _late(request: Request) -> Answer | None:
    """A reading is answered late; a change waits as long, and is lost then: its sender must not have waited."""
    time.sleep(SLOW_SECONDS)
    return request.send() if request.method == "GET" else None


def _lost(request: Request) -> None:
    request.send()


def _dripping(request: Request) -> Answer:
    return dataclasses.replace(request.send(), pause=DRIP_SECONDS)


def _large(request: Request) -> Answer:
    answer = request.send()
    return dataclasses.replace(answer, body=b" " * LARGE_BYTES + answer.body) if answer.body else answer


PASSED: Mapping[Trouble, Callable[[Request], Answer | None]] = {
    Trouble.SLOW: _late,
    Trouble.DRIP: _dripping,
    Trouble.LARGE: _large,
    Trouble.CUT: lambda _: None,
    Trouble.LOST: _lost,
}


@dataclass
class Rule:
    """The requests that trouble meets, so many of them or (None) all. A service, method or path that is None: any."""

    what: Trouble
    service: str | None
    method: str | None
    path: str | None
    left: int | None
    becomes: Callable[[Request], Request] | None = None  # what is sent to the cloud in its place

    def meets(self, request: Request) -> bool:
        """Whether it is one of them."""
        parts = urlsplit(request.url)
        return (
            self.left != 0
            and self.service in (None, SERVICES.get(parts.port or 0))
            and self.method in (None, request.method)
            and (self.path is None or re.search(self.path, parts.path) is not None)
        )


class Front(Wire):
    """Requests meet the first rule that is theirs. `tokens`: every token that Keystone gave out through here."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        """Without trouble."""
        super().__init__(server)
        self.rules: list[Rule] = []
        self.tokens: set[str] = set()
        self.ended: set[str] = set()

    def end_sessions(self) -> None:
        """No service believes the tokens of before any more, as if none had kept in mind that they were good."""
        self.ended |= self.tokens

    def carry(self, request: Request) -> Answer | None:
        """The answer for the sender; None where it gets none."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("x-auth-token") in self.ended:
            return SAID[Trouble.UNAUTHORIZED]
        with self._lock:
            rule = next((rule for rule in self.rules if rule.meets(request)), None)
            if rule is not None and rule.left is not None:
                rule.left -= 1
        if rule is None:
            answer = super().carry(request)
        elif rule.becomes is not None:
            answer = rule.becomes(request).send()
        elif rule.what in SAID:
            answer = SAID[rule.what]
        else:
            answer = PASSED[rule.what](request)
        if answer is not None:
            self.tokens |= {value for name, value in answer.headers.items() if name.lower() == "x-subject-token"}
        return answer
