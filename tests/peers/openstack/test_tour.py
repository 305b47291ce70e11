"""The tour of the demo, by the same commands, on a real OpenStack: from quote to charge, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.peers.openstack.federation import CLOUDS, PEER

CLOUD = "leeway-alice"

pytestmark = PEER


class Commands:
    """`leeway ...`, as a person types it, against one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEEWAY_")},
            "LEEWAY_DATA_DIR": str(folder / "data"),
            "LEEWAY_PORT": "0",
            "LEEWAY_SWEEP_INTERVAL": "1",
            "LEEWAY_LISTING_INTERVAL": "5",
            "NO_COLOR": "1",
        }

    def __call__(self, *words: str, ok: bool = True) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "web.cli.main", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert (run.returncode == 0) is ok, f"leeway {' '.join(words)}: {run.returncode}\n{run.stdout}\n{run.stderr}"
        return run.stdout + run.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def settings() -> dict[str, str]:
    """What else the server is told by its environment; for modules to override."""
    return {}


@pytest.fixture
def leeway(tmp_path: Path, settings: dict[str, str]) -> Iterator[Commands]:
    """A server of its own, and its commands; stopped by Ctrl-C."""
    commands = Commands(tmp_path)
    commands.environment |= settings
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "web.cli.main", "serve"], env=commands.environment, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "data" / "address").exists():
                assert server.poll() is None, (tmp_path / "serve.log").read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.2)
            yield commands
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    print((tmp_path / "serve.log").read_text()[-2000:])


@pytest.fixture
def cloud() -> Iterator[Connection]:
    """The same project, through a client that nobody here wrote; what a failed test left is deleted."""
    config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
    connection = Connection(config=config.get_one(CLOUD))
    before = ours(connection)
    yield connection
    for kind, identifier in sorted(ours(connection) - before, reverse=True):  # servers before ports
        if kind == "server":
            connection.compute.delete_server(identifier)
        else:
            connection.network.delete_port(identifier)
    connection.close()


WORKLOAD = """
kind: machine
name: tour
project: climate
resources: {{cores: {cores}, memory: 512 MiB}}
image: {image}
duration: 1 hour
"""


def ours(cloud: Connection) -> set[tuple[str, str]]:
    """Kind and id of what carries Leeway's names; a server's begins with the person's name for it."""
    servers = {("server", server.id) for server in cloud.compute.servers() if "leeway-" in server.name}
    return servers | {("port", port.id) for port in cloud.network.ports() if port.name.startswith("leeway-")}


def test_the_tour(leeway: Commands, cloud: Connection) -> None:
    before = ours(cloud)
    leeway("site", "add", "real", "--provider", "home", "--from-clouds-yaml", str(CLOUDS), "--cloud", CLOUD, "--broker")
    pay(leeway, cloud)
    site = leeway.json("site", "show", "real")
    image = site["images"][0]

    quote = leeway.json("quote", leeway.file("tour.yaml", WORKLOAD.format(cores=1, image=json.dumps(image))))
    assert quote["offers"][0]["site"] == "real"
    leeway("submit", "--yes", str(leeway.folder / "tour.yaml"))
    shown = leeway.json("show", "tour")
    (machine,) = shown["machines"]
    assert machine["state"] == "running"
    assert machine["addresses"]
    assert "real" in leeway("explain", "tour")
    assert sorted(kind for kind, _ in ours(cloud) - before) == ["port", "server"]

    leeway("stop", "tour")
    (spent,) = leeway.json("spend", "climate")
    (grant,) = spent["grants"]
    assert float(grant["spent"]["value"]) > 0
    assert float(grant["held"]["value"]) == 0
    assert ours(cloud) == before

    refusal = leeway(
        "submit", "--yes", leeway.file("huge.yaml", WORKLOAD.format(cores=500, image=json.dumps(image))), ok=False
    )
    assert "cores" in refusal


def test_with_a_reader_leeway_looks_and_nothing_changes(leeway: Commands, cloud: Connection) -> None:
    before = ours(cloud)
    reader = ("--provider", "home", "--from-clouds-yaml", str(CLOUDS), "--cloud", "leeway-rita")
    assert "Leeway only looks at real" in leeway("site", "add", "real", *reader)
    pay(leeway, cloud)
    site = leeway.json("site", "check", "real")
    assert [step for step in site["diagnosis"] if not step["ok"] or step["hint"]] == []
    assert site["offers"]
    assert site["quota"]

    image = json.dumps(leeway.json("site", "show", "real")["images"][0])
    refusal = leeway("submit", "--yes", leeway.file("tour.yaml", WORKLOAD.format(cores=1, image=image)), ok=False)
    assert "Leeway only observes this site" in " ".join(refusal.split())
    refusal = leeway("site", "add", "real", *reader, "--broker", ok=False)
    assert "ask for the role member" in " ".join(refusal.split())
    assert ours(cloud) == before


def pay(leeway: Commands, cloud: Connection) -> None:
    """A project with a grant, and a price for every flavor of the cloud."""
    leeway("project", "add", "climate", "--institution", "home")
    leeway("grant", "add", "first", "--project", "climate", "--amount", "100 EUR", "--until", "2099-01-01")
    prices = "".join(f"  {flavor.name}: {{unit: hour, unit_price: '3.60'}}\n" for flavor in cloud.compute.flavors())
    leeway(
        "rate-card",
        "import",
        leeway.file(
            "prices.yaml",
            "kind: rate-card\nname: home\nprovider: home\ncurrency: EUR\nvalid_from: 2020-01-01T00:00:00Z\n"
            f"bills: openstack\nprices:\n{prices}",
        ),
    )
