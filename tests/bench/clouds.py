"""A sandbox cloud as a process of its own, so that its CPU is not counted as the broker's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from adapters.registry import Registry
from adapters.sandbox.config import CloudConfig, QuotaConfig, Timing
from adapters.sandbox.profiles import DEMO_PASSWORD, aurora
from broker.ports import CloudAdapter
from broker.remote import Secret, SiteAddress


def roomy(*, foreign_servers: int = 0, **more: Any) -> CloudConfig:
    """Aurora with room for thousands, where everything happens at once; `more` are fields of its configuration."""
    quota = QuotaConfig(
        instances=20_000, cores=100_000, ram_mib=400_000_000, ports=50_000, key_pairs=50_000, floating_ips=10_000
    )
    config = aurora()
    projects = tuple(replace(project, quota=quota) for project in config.projects)
    return replace(config, projects=projects, timing=Timing(), foreign_servers=foreign_servers, **more)


@contextmanager
def cloud_process(config: CloudConfig, folder: Path) -> Iterator[dict[str, Any]]:
    """Its port file's content (`auth_url`, ...) while it runs; stopped by its pid."""
    settings, port_file = folder / "cloud.json", folder / "port.json"
    settings.write_text(json.dumps(asdict(config)))
    port_file.unlink(missing_ok=True)
    command = ["-m", "adapters.sandbox", "--config", str(settings), "--port", "0", "--port-file", str(port_file)]
    process = subprocess.Popen([sys.executable, *command, "--die-with-parent"], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the sandbox cloud did not start")
            time.sleep(0.02)
        yield json.loads(port_file.read_text()) | {"pid": process.pid}
    finally:
        process.terminate()
        process.wait(10)


def opened(auth_url: str) -> CloudAdapter:
    """The adapter of such a cloud, as its user `leeway`."""
    secret = Secret(
        {
            "username": "leeway",
            "password": DEMO_PASSWORD,
            "project_name": "leeway",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
    )
    return Registry().open(SiteAddress(uuid4(), "aurora", "sandbox", auth_url, "aurora-1", uuid4()), secret)
