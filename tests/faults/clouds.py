"""The sites of the run: sandbox clouds of every fence and temper, all in one process, and their own logs.

`SETTLE` is what Leeway is told to take as their settle time. A site may be slower than that only where a fence holds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from adapters.sandbox import running
from adapters.sandbox.config import (
    CloudConfig,
    FlavorConfig,
    ImageConfig,
    NetworkConfig,
    ProjectConfig,
    QuotaConfig,
    ServerFence,
    Timing,
    UserConfig,
)
from adapters.sandbox.truth import Entry
from tests.faults.processes import forked

SETTLE = 0.6
PASSWORD = "sandbox"
PROJECT = "leeway"
FLAVOR = "m.small"
ADDRESS_SKU = "public-address"
SNAPSHOT_SKU = "snapshot-storage"
DISK_GIB = 20
_LONG_ANSWER = 60.0
_SERVERS = {"service": "compute", "method": "POST", "path": "/servers$"}
_PORTS = {"service": "network", "method": "POST", "path": "/(ports|floatingips)$"}
_KEYS = {"service": "compute", "method": "POST", "path": "/os-keypairs$"}
_SNAPSHOTS = {"service": "compute", "method": "POST", "path": "/action$"}  # and, where it makes sense, power
_DELETES = {"method": "DELETE"}
_LISTS = {"method": "GET", "path": "/(servers/detail|ports|floatingips|images)$"}

FaultDocument = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """One site: how it fences, what goes wrong there, and how long its things stay hidden (seconds).

    Nothing fences a snapshot. One that shows later than the settle time is taken for lost and taken anew, until the
    machine is given up; so only some of them are hidden for so long.
    """

    name: str
    fence: str = "part"
    faults: Sequence[FaultDocument] = ()
    hidden: float = 0.0
    build_seconds: float = 0.2
    snapshot_seconds: float = 0.4

    @property
    def config(self) -> CloudConfig:
        """The cloud: one project, one flavour, one image, room for all."""
        quota = QuotaConfig(
            instances=5000, cores=50_000, ram_mib=400_000_000, ports=20_000, key_pairs=20_000, floating_ips=5000
        )
        timing = Timing(
            build_seconds=self.build_seconds,
            bind_seconds=self.build_seconds / 4,
            stop_seconds=0.1,
            start_seconds=0.1,
            shelve_seconds=0.1,
            unshelve_seconds=0.1,
            snapshot_seconds=self.snapshot_seconds,
            delete_seconds=0.1,
        )
        image = ImageConfig(name="Ubuntu 24.04", os_distro="ubuntu", os_version="24.04", min_disk_gib=8)
        return CloudConfig(
            name=self.name,
            region="here",
            projects=(ProjectConfig(name=PROJECT, quota=quota),),
            users=(UserConfig(name="leeway", password=PASSWORD, projects=(PROJECT,)),),
            flavors=(FlavorConfig(name=FLAVOR, vcpus=2, ram_mib=4096, disk_gib=DISK_GIB),),
            images=(image,),
            networks=(
                NetworkConfig(name="public", cidr="203.0.0.0/16", external=True),
                NetworkConfig(name="inside", cidr="10.64.0.0/16", project=PROJECT),
            ),
            timing=timing,
            fence=ServerFence(self.fence),
        )

    @property
    def troubles(self) -> list[FaultDocument]:
        """All its faults, as the control interface takes them."""
        hiding: list[FaultDocument] = [
            {"kind": "hidden", "seconds": self.hidden, **where} for where in (_SERVERS, _PORTS) if self.hidden
        ]
        if self.hidden:
            chance = 1 if self.hidden < SETTLE else 0.2
            hiding.append({"kind": "hidden", "seconds": self.hidden, "chance": chance, **_SNAPSHOTS})
        return [*hiding, *self.faults]


def _lossy(chance: float) -> list[FaultDocument]:
    """Requests that are lost on their way, answers that are, and errors that say nothing."""
    return [
        {"kind": kind, "chance": chance, **where}
        for where in (_SERVERS, _PORTS, _KEYS, _SNAPSHOTS, _DELETES)
        for kind in ("answer_lost", "cut", "500")
    ]


_REFUSING = (
    {"kind": "no_capacity", "seconds": 0.2, "chance": 0.4, **_SERVERS},
    {"kind": "quota", "chance": 0.1, **_SERVERS},
    {"kind": "no_capacity", "seconds": 0.2, "chance": 0.4, **_SNAPSHOTS},
    {"kind": "quota", "chance": 0.1, **_SNAPSHOTS},
)
_PAGES = tuple({"kind": kind, "chance": 0.05, **_LISTS} for kind in ("short_page", "lost_link", "foreign_json"))
_BUSY = tuple({"kind": "429", "seconds": 1, "chance": 0.15, "service": service} for service in ("compute", "image"))

SITES: tuple[SiteSpec, ...] = (
    SiteSpec("swift", build_seconds=0.05, snapshot_seconds=0.1),
    SiteSpec("hazy", hidden=SETTLE / 2),
    SiteSpec("slow", hidden=SETTLE * 3, build_seconds=0.5, snapshot_seconds=1.5),
    SiteSpec("lossy", faults=(*_lossy(0.05), *_PAGES)),
    SiteSpec("refusing", faults=_REFUSING),
    SiteSpec("busy", faults=_BUSY),
    SiteSpec("named", fence="name", hidden=SETTLE * 2, faults=_lossy(0.05)),
    SiteSpec("token", fence="token", hidden=SETTLE * 2, faults=_lossy(0.05)),
    SiteSpec("bare", fence="none", hidden=SETTLE / 2, faults=_lossy(0.02)),
)


# --- the process -------------------------------------------------------------------------------------------------


def read_entry(document: Mapping[str, Any]) -> Entry:
    """A line of a cloud's log, from JSON."""
    return Entry(**{**document, "at": datetime.fromisoformat(document["at"])})


Logs = dict[str, list[Entry]]


class Clouds:
    """The clouds as the run sees them: their addresses, faults and logs."""

    def __init__(self, specs: Sequence[SiteSpec], ports: Mapping[str, int]) -> None:
        """`ports`: where each listens."""
        self.specs = {spec.name: spec for spec in specs}
        self._ports = ports
        self._session = requests.Session()
        self._session.trust_env = False
        self._lock = threading.Lock()
        self._read: dict[str, tuple[list[Entry], int]] = {}

    def auth_url(self, name: str) -> str:
        """Keystone's address."""
        return f"http://127.0.0.1:{self._ports[name]}/v3"

    def read(self) -> Logs:
        """All that happened at all clouds so far."""
        for name in self.specs:
            entries, since = self._read.setdefault(name, ([], 0))
            answer = self._ask("GET", name, f"log?since={since}")
            entries.extend(read_entry(document) for document in answer["entries"])
            self._read[name] = (entries, answer["next"])
        return {name: list(entries) for name, (entries, _) in self._read.items()}

    def add_fault(self, name: str, fault: FaultDocument) -> None:
        """Switch a fault on."""
        self._ask("POST", name, "faults", fault)

    def calm(self) -> None:
        """Switch all faults off but those that hide: a person has mended the sites."""
        for name, spec in self.specs.items():
            self._ask("DELETE", name, "faults")
            for fault in spec.troubles:
                if fault["kind"] == "hidden":
                    self.add_fault(name, fault)

    def trouble(self) -> None:
        """Switch each site's own faults on."""
        for name, spec in self.specs.items():
            self._ask("DELETE", name, "faults")
            for fault in spec.troubles:
                self.add_fault(name, fault)

    def lose(self, names: Sequence[str], share: float) -> None:
        """From now on lose so many answers to launches at these sites."""
        for name in names if share else ():
            self.add_fault(name, {"kind": "answer_lost", "chance": share, **_SERVERS})

    def _ask(self, method: str, name: str, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self._ports[name]}/_control/{path}"
        with self._lock:
            answer = self._session.request(method, url, json=body, timeout=_LONG_ANSWER)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@contextmanager
def clouds(specs: Sequence[SiteSpec], *, log: Path) -> Iterator[Clouds]:
    """Fork the process in which all of them run. Call it before any thread is started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def body() -> None:
        ours.close()
        with ExitStack() as stack:
            made = {spec.name: stack.enter_context(running(spec.config)).port for spec in specs}
            theirs.send(json.dumps(made).encode())
            theirs.recv(1)  # until the parent closes the line

    pid = forked(body, log=log)
    theirs.close()
    try:
        ours.settimeout(30)
        yield Clouds(specs, json.loads(ours.recv(65536)))
    finally:
        ours.close()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
