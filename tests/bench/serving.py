"""`leeway serve` at rest: its CPU, its memory; and how long `leeway --help` takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.bench.figures import Figure, Figures, child_cpu, cpu_of, pss_mb_of

IDLE_SECONDS = 30
ROUNDS = 5
LEEWAY = [sys.executable, "-m", "web.cli.main"]


def help_cpu() -> Figures:
    """Best of five."""
    best = min(child_cpu([*LEEWAY, "--help"]) for _ in range(ROUNDS))
    yield Figure("help_cpu", best, "s", "<= 0.5", "leeway --help, user and system, best of 5")


def serving() -> Figures:
    """Idle CPU over 30 s, then a burst of requests; the highest PSS seen."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as (process, url, token):
        time.sleep(5)
        before = cpu_of(process.pid)
        peak = pss_mb_of(process.pid)
        for _ in range(IDLE_SECONDS):
            time.sleep(1)
            peak = max(peak, pss_mb_of(process.pid))
        idle = (cpu_of(process.pid) - before) / IDLE_SECONDS * 100
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(headers=headers, timeout=30) as client:
            for _ in range(300):
                client.get(f"{url}/api/v1/workloads").raise_for_status()
        peak = max(peak, pss_mb_of(process.pid))
    yield Figure("serve_idle_cpu", idle, "% of a core", "<= 2", f"over {IDLE_SECONDS} s, without PostgreSQL")
    yield Figure("serve_peak_pss", peak, "MB", "<= 250", "at rest and under 300 requests, without PostgreSQL")


@contextmanager
def _server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    environment = {**os.environ, "LEEWAY_DATA_DIR": str(folder), "LEEWAY_PORT": "0", "LEEWAY_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([*LEEWAY, "serve"], env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not (folder / "address").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("`leeway serve` did not start")
            time.sleep(0.1)
        yield process, (folder / "address").read_text().strip(), (folder / "token").read_text().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
