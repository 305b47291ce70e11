"""A listing of 5,000 servers by the adapter, against a plain loop over the same pages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
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
        session, address = _raw_session(cloud["auth_url"])

        def ours() -> int:
            return len(adapter.listing(deadline=Deadline.after(120)).machines)

        def raw() -> int:
            return _raw_listing(session, address)

        times = {"ours": [_timed(ours)], "raw": [_timed(raw)]}  # warm
        for _ in range(ROUNDS):
            times["ours"].append(_timed(ours))
            times["raw"].append(_timed(raw))
    wall, cpu = ({who: min(found[kind] for found in times[who]) for who in times} for kind in (0, 1))
    note = (
        f"ours {wall['ours']:.3f} s wall {cpu['ours']:.3f} s CPU, raw {wall['raw']:.3f} s wall {cpu['raw']:.3f} s CPU"
    )
    yield Figure("listing_5000_servers_wall_ratio", wall["ours"] / wall["raw"], "x raw paged API", "<= 1.2", note)
    yield Figure("listing_5000_servers_cpu_ratio", cpu["ours"] / cpu["raw"], "x raw paged API", "printed", note)


def _timed(run: Callable[[], int]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    if found != SERVERS:
        raise RuntimeError(f"listed {found} of {SERVERS}")
    return time.perf_counter() - wall, time.process_time() - cpu


def _raw_session(auth_url: str) -> tuple[requests.Session, str]:
    session = requests.Session()
    user = {"name": "leeway", "password": DEMO_PASSWORD, "domain": {"name": "Default"}}
    scope = {"project": {"name": "leeway", "domain": {"name": "Default"}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    answer = session.post(f"{auth_url}/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
    session.headers["OpenStack-API-Version"] = "compute 2.79"
    catalogue = answer.json()["token"]["catalog"]
    (compute,) = [service for service in catalogue if service["type"] == "compute"]
    address = next(end["url"] for end in compute["endpoints"] if end["interface"] == "public")
    return session, address


def _raw_listing(session: requests.Session, address: str) -> int:
    """Every page of servers, parsed, as short as it can be written."""
    found = 0
    marker = None
    while True:
        query = {"limit": "1000"} | ({"marker": marker} if marker else {})
        page = session.get(f"{address}/servers/detail", params=query, timeout=60).json()["servers"]
        if not page:
            return found
        found += len(page)
        marker = page[-1]["id"]
