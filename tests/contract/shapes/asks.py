"""One named call, and what is waited for after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

NOVA = "2.79"  # the newest that the sandbox speaks; the first of each kind of document is asked for at 2.1 too
CINDER = "3.70"
NOWHERE = "00000000-0000-4000-8000-000000000000"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuTqGmdwDXWJtxyvn6G0mOWWSe36KwhDtUqVWqMZVVT shapes@example.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """What to wait for after a call: the text at `at` in the answer of a GET is `value`; or the thing is gone."""

    service: str
    path: str
    at: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call. `path` stands below the service's address; `keep` has names and where in the answer their texts are."""

    service: str
    name: str
    line: str
    body: Any = None
    version: str = ""
    who: str = "alice"
    keep: dict[str, str] = field(default_factory=dict)
    until: Until | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """GET, POST, ..."""
        return self.line.partition(" ")[0]

    @property
    def path(self) -> str:
        """With placeholders, and with what is asked behind `?`."""
        return self.line.partition(" ")[2]


identity = partial(Ask, "identity")
image = partial(Ask, "image")
network = partial(Ask, "network")
volume = partial(Ask, "volume", version=CINDER)
compute = partial(Ask, "compute", version=NOVA)
VOLUME = "/v3/{project}/volumes/{volume}"
