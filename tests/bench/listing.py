"""A listing of 5,000 servers by the adapter, against a plain loop over the same pages of the same lists.

The adapter's listing is of more than the servers, so the plain loop reads all of that too; the ratio to the servers'
pages alone is printed beside it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from broker.remote import Deadline
from tests.bench.clouds import cloud_process, opened, roomy
from tests.bench.figures import Figure, Figures
from tests.bench.raw import RawApi

SERVERS = 5_000
ROUNDS = 5


def listing() -> Figures:
    """Wall and CPU of both, interleaved, best of five each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud_process(roomy(foreign_servers=SERVERS), Path(folder)) as cloud,
    ):
        adapter = opened(cloud["auth_url"])
        api = RawApi(cloud["auth_url"])

        def ours() -> int:
            return len(adapter.listing(deadline=Deadline.after(120)).machines)

        def raw() -> int:
            api.others()
            return api.servers()

        runs = {"ours": ours, "raw": raw, "servers": api.servers}
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
