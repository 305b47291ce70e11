"""A listing of 5,000 servers by the adapter, against a plain loop over the same pages of the same four lists.

The adapter's listing is all of servers, ports, public addresses and key pairs, so the plain loop reads these too; the
ratio to the servers' pages alone is printed beside it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from adapters.registry import Registry
from adapters.sandbox.profiles import DEMO_PASSWORD
from broker.remote import Deadline, Secret, SiteAddress
from tests.bench.clouds import cloud_process, roomy
from tests.bench.figures import Figure, Figures

SERVERS = 5_000
ROUNDS = 5


def listing() -> Figures:
    """Wall and CPU of both, interleaved, best of five each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud_process(roomy(foreign_servers=SERVERS), Path(folder)) as cloud,
    ):
        secret = Secret(
            {
                "username": "leeway",
                "password": DEMO_PASSWORD,
                "project_name": "leeway",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            }
        )
        site = SiteAddress(uuid4(), "aurora", "sandbox", cloud["auth_url"], "aurora-1", uuid4())
        adapter = Registry().open(site, secret)
        session, compute, network = _raw_session(cloud["auth_url"])

        def ours() -> int:
            return len(adapter.listing(deadline=Deadline.after(120)).machines)

        def servers() -> int:
            return _raw_servers(session, compute)

        def raw() -> int:
            return _raw_servers(session, compute) + _raw_others(session, compute, network)

        runs = {"ours": ours, "raw": raw, "servers": servers}
        gc.collect()
        gc.freeze()  # as the server does
        times = {who: [_timed(run)] for who, run in runs.items()}  # warm
        for _ in range(ROUNDS):
            for who, run in runs.items():
                times[who].append(_timed(run))
    wall, cpu = ({who: min(found[kind] for found in times[who]) for who in times} for kind in (0, 1))
    note = "; ".join(f"{who} {wall[who]:.3f} s wall, {cpu[who]:.3f} s CPU" for who in runs)
    yield Figure("listing_5000_servers", wall["ours"] / wall["raw"], "x raw paged API, wall", "<= 1.2", note)
    yield Figure("listing_5000_servers_cpu", cpu["ours"] / cpu["raw"], "x raw paged API, CPU", "printed", note)
    yield Figure(
        "listing_5000_to_servers_alone", wall["ours"] / wall["servers"], "x servers' pages, wall", "printed", note
    )


def _timed(run: Callable[[], int]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    if found != SERVERS:
        raise RuntimeError(f"listed {found} of {SERVERS}")
    return time.perf_counter() - wall, time.process_time() - cpu


def _raw_session(auth_url: str) -> tuple[requests.Session, str, str]:
    session = requests.Session()
    user = {"name": "leeway", "password": DEMO_PASSWORD, "domain": {"name": "Default"}}
    scope = {"project": {"name": "leeway", "domain": {"name": "Default"}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    answer = session.post(f"{auth_url}/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
    session.headers["OpenStack-API-Version"] = "compute 2.79"
    catalogue = answer.json()["token"]["catalog"]
    return session, _address(catalogue, "compute"), _address(catalogue, "network")


def _address(catalogue: list[dict[str, Any]], kind: str) -> str:
    (service,) = [service for service in catalogue if service["type"] == kind]
    found: str = next(end["url"] for end in service["endpoints"] if end["interface"] == "public")
    return found


def _raw_servers(session: requests.Session, compute: str) -> int:
    """Every page of servers, parsed, as short as it can be written."""
    found = 0
    marker = None
    while True:
        query = {"limit": "1000"} | ({"marker": marker} if marker else {})
        page = session.get(f"{compute}/servers/detail", params=query, timeout=60).json()["servers"]
        if not page:
            return found
        found += len(page)
        marker = page[-1]["id"]


def _raw_others(session: requests.Session, compute: str, network: str) -> int:
    """Ports, public addresses and key pairs, with the fields that a listing needs; 0, as they are no servers."""
    fields = "fields=id&fields=name&fields=description"
    for address in (
        f"{network}/v2.0/ports?{fields}",
        f"{network}/v2.0/floatingips?{fields}",
        f"{compute}/os-keypairs",
    ):
        session.get(address, timeout=60).json()
    return 0
