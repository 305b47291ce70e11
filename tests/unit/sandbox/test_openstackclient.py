"""openstacksdk and the `openstack` command run every operation that the sandbox claims."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import openstack
import pytest
from keystoneauth1.identity.v3 import Password
from openstack.connection import Connection
from openstackclient.shell import OpenStackShell

from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.config import Timing
from tests.contract.shapes.sandbox import CONFIG, PASSWORD
from tests.unit.sandbox.operations.operation import Ids, Operation, stage
from tests.unit.sandbox.operations.table import OPERATIONS
from tests.unit.sandbox.wire_client import PUBLIC_KEY

pytestmark = [
    # The clients warn of each other's next versions.
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedFieldWarning"),
]

_PREFIXES = ("compute", "image", "network", "volume")
_AUTH = {
    "username": "alice",
    "password": PASSWORD,
    "project_name": "climate",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
}


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxCloud]:
    with running(dataclasses.replace(CONFIG, name="operations", timing=Timing())) as made:
        yield made


@pytest.fixture(scope="module")
def connection(cloud: SandboxCloud) -> Iterator[Connection]:
    """Sends its microversions as the command does."""
    made = openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth=_AUTH | {"auth_url": cloud.auth_url},
        region_name="RegionOne",
        compute_default_microversion="2.79",
        block_storage_default_microversion="3.70",
    )
    yield made
    made.session.session.close()
    made.close()


class Stage:
    """What `stage` made, made anew after whatever may have changed it."""

    def __init__(self, cloud: SandboxCloud, connection: Connection, folder: Path) -> None:
        self._cloud = cloud
        self._connection = connection
        self._file = folder / "key.pub"
        self._file.write_text(PUBLIC_KEY, encoding="utf-8")
        self._ids: Ids | None = None

    def ids_for(self, operation: Operation) -> Ids:
        """The ids for one operation, with a token to spare."""
        if self._ids is None:
            self._cloud.reset(keep_identity=True)  # the connection's token goes on
            with self._cloud.cloud.lock:
                self._cloud.cloud.app_credentials.clear()
            login = Password(
                auth_url=self._cloud.auth_url,
                username=_AUTH["username"],
                password=_AUTH["password"],
                user_domain_name=_AUTH["user_domain_name"],
            )
            spare = {"token": str(login.get_token(self._connection.session)), "public_key_file": str(self._file)}
            self._ids = stage(self._connection) | spare
        found = self._ids
        if operation.method != "GET" or operation.first:
            self._ids = None
        return found


@pytest.fixture(scope="module")
def staged(cloud: SandboxCloud, connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(cloud, connection, tmp_path_factory.mktemp("stage"))


@pytest.fixture
def ids(staged: Stage, operation: Operation) -> Ids:
    return staged.ids_for(operation)


def run(cloud: SandboxCloud, command: str, ids: Ids) -> None:
    """One command, in this process."""
    options = {f"--os-{name.replace('_', '-')}": value for name, value in _AUTH.items()} | {
        "--os-auth-url": cloud.auth_url,
        "--os-region-name": "RegionOne",
        "--os-compute-api-version": "2.79",
        "--os-volume-api-version": "3.70",
    }
    words = [word for option in options.items() for word in option]
    assert OpenStackShell().run([*words, *shlex.split(command.format_map(ids))]) == 0, command


def watch(cloud: SandboxCloud, operation: Operation) -> str:
    """Count the requests on the operation's route: a fault that does nothing."""
    service, _, path = operation.path.removeprefix("/").partition("/")
    if service not in _PREFIXES:
        service, path = "identity", operation.path.removeprefix("/")
    pattern = "^/" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + "$"
    return cloud.faults.add("slow", service=service, method=operation.method, path=pattern)


def check(cloud: SandboxCloud, operation: Operation, ids: Ids, *, shown: str, watched: str) -> None:
    assert cloud.faults.hits(watched) > 0, f"{operation.route} was not asked for"
    assert operation.shows.format_map(ids) in shown
    if operation.so is not None:
        with cloud.cloud.lock:
            cloud.cloud.advance(cloud.cloud.clock())
            assert operation.so(cloud.cloud, ids)


@pytest.mark.parametrize("operation", [item for item in OPERATIONS if item.command], ids=str)
def test_the_command_runs_it(
    cloud: SandboxCloud, ids: Ids, operation: Operation, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in operation.first:
        run(cloud, command, ids)
    capsys.readouterr()
    watched = watch(cloud, operation)
    run(cloud, operation.command, ids)
    check(cloud, operation, ids, shown=capsys.readouterr().out, watched=watched)


@pytest.mark.parametrize("operation", [item for item in OPERATIONS if item.sdk], ids=lambda item: item.route)
def test_the_sdk_runs_it(cloud: SandboxCloud, connection: Connection, ids: Ids, operation: Operation) -> None:
    for command in operation.first:
        run(cloud, command, ids)
    watched = watch(cloud, operation)
    assert operation.sdk is not None
    answer: Any = operation.sdk(connection, ids)
    shown = str(list(answer) if isinstance(answer, GeneratorType) else answer)
    check(cloud, operation, ids, shown=shown, watched=watched)
