"""One server and one sandbox cloud for each module of tests; commands are run as a person runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.config import Timing
from adapters.sandbox.profiles import DEMO_PASSWORD, aurora
from broker.database import Database
from tests.conftest import PostgresForTests
from tests.unit.cli.live import live_server
from web.cli.main import cli
from web.client.place import Place

RATES = """\
kind: rate-card
name: aurora-tests
provider: aurora
currency: EUR
valid_from: 2020-01-01T00:00:00Z
bills: openstack
prices:
  a1.small: {unit: hour, unit_price: 0.036}
  a1.medium: {unit: hour, unit_price: 0.072}
"""
WORKLOAD = """\
kind: machine
name: trial
project: climate
resources: {cores: 2, memory: 4 GiB}
image: ubuntu-24.04
duration: 2 hours
"""


@dataclass(frozen=True)
class Leeway:
    """Runs commands against one server."""

    place: Place
    data_dir: Path
    cloud: SandboxCloud

    @property
    def environment(self) -> dict[str, str | None]:
        """What makes commands find the server."""
        return {"LEEWAY_DATA_DIR": str(self.data_dir), "LEEWAY_URL": None, "LEEWAY_TOKEN": None, "NO_COLOR": "1"}

    def __call__(
        self, *arguments: str, stdin: str | bytes = "", environment: Mapping[str, str | None] | None = None
    ) -> Result:
        """One command line, whatever comes of it."""
        env = self.environment | dict(environment or {})
        return CliRunner().invoke(cli, list(arguments), input=stdin, env=env, prog_name="leeway")

    def ok(self, *arguments: str, stdin: str | bytes = "") -> str:
        """One that must succeed; returns what it printed."""
        done = self(*arguments, stdin=stdin)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return done.stdout

    def json(self, *arguments: str, stdin: str | bytes = "") -> Any:
        """Its answer to programs."""
        return json.loads(self.ok(*arguments, "--json", stdin=stdin))


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxCloud]:
    """A cloud whose machines do everything at once."""
    with running(replace(aurora(), timing=Timing(), foreign_servers=0)) as made:
        yield made


@pytest.fixture(scope="module")
def own_database(postgres: PostgresForTests, database: Database, worker_id: str) -> Iterator[Database]:
    """A database that no other test cleans, for the whole module."""
    assert database, "it is what makes the template"
    name = f"leeway_cli_{worker_id}"
    postgres.drop(name)
    yield postgres.create(name, template="leeway_template")
    postgres.drop(name)


@pytest.fixture(scope="module")
def bare(own_database: Database, cloud: SandboxCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leeway]:
    """A server that knows nothing yet."""
    data_dir = tmp_path_factory.mktemp("data dir")
    data_dir.chmod(0o700)
    with live_server(own_database, data_dir) as place:
        yield Leeway(place, data_dir, cloud)


@pytest.fixture(scope="module")
def leeway(bare: Leeway) -> Leeway:
    """A server with a site, prices, a project and a grant, all brought in by the commands."""
    endpoint = bare.cloud.auth_url
    bare.ok(
        "site", "add", "aurora", "--provider", "aurora", "--adapter", "sandbox", "--endpoint", endpoint,
        "--region", "aurora-1", "--jurisdiction", "EE", "--username", "leeway", "--project-name", "leeway",
        "--password-stdin", stdin=f"{DEMO_PASSWORD}\n",
    )  # fmt: skip
    bare.ok("rate-card", "import", "-", stdin=RATES)
    bare.ok("project", "add", "climate", "--institution", "home", "--jurisdiction", "EE")
    bare.ok("grant", "add", "first", "--project", "climate", "--amount", "100 EUR", "--until", "2100-01-01")
    return bare
