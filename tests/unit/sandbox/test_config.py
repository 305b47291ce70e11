"""Configurations: the ready ones, those from files, and those that are refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.sandbox import ConfigError, profile, running
from adapters.sandbox.config import from_document, from_file
from tests.unit.sandbox.wire_client import Client

MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "projects": [{"name": "p", "quota": {"instances": 1}}],
    "users": [{"name": "u", "password": "secret", "projects": ["p"]}],
    "flavors": [{"name": "f", "vcpus": 1, "ram_mib": 512, "extra_specs": {"a": "b"}}],
    "images": [{"name": "i"}],
    "networks": [{"name": "n", "cidr": "10.0.0.0/29"}],
    "timing": {"build_seconds": 2},
    "capacity": {"cores": 1, "ram_mib": 1024},
}


@pytest.mark.parametrize("name", ["aurora", "borealis"])
def test_profiles_survive_json(name: str) -> None:
    config = profile(name)
    assert from_document(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_two_profiles_differ_where_a_broker_looks() -> None:
    aurora, borealis = profile("aurora"), profile("borealis")
    sizes = [{(flavor.vcpus, flavor.ram_mib) for flavor in config.flavors} for config in (aurora, borealis)]
    assert {(2, 4096), (4, 8192), (8, 32768)} <= sizes[0] & sizes[1]
    assert {flavor.name for flavor in aurora.flavors}.isdisjoint(flavor.name for flavor in borealis.flavors)
    assert aurora.projects[0].quota != borealis.projects[0].quota
    gpus = [
        [flavor.name for flavor in config.flavors if any("GPU" in key for key in flavor.extra_specs)]
        for config in (aurora, borealis)
    ]
    assert gpus == [[], ["gpu.8c64g"]]


def test_a_file_is_a_cloud(tmp_path: Path) -> None:
    path = tmp_path / "cloud.json"
    path.write_text(json.dumps(MINIMAL), encoding="utf-8")
    config = from_file(path)
    assert (config.projects[0].quota.instances, config.timing.build_seconds) == (1, 2.0)
    assert "secret" not in repr(config)
    with running(config) as cloud:
        assert cloud.config.identifier("flavor", "f") in cloud.cloud.flavors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "configuration.colour: is not known"),
        (
            {"users": [{"name": "u", "password": "x", "reader_of": ["q"]}]},
            "configuration.users.u.reader_of: no project 'q'",
        ),
        (
            {"users": [{"name": "u", "password": "x", "projects": ["p"], "reader_of": ["p"]}]},
            "configuration.users.u.reader_of: 'p' is in projects, too",
        ),
        ({"name": 5}, "configuration.name: is 5; must be of type str"),
        ({"page_limit": True}, "configuration.page_limit"),
        ({"page_limit": 0}, "page_limit: is 0"),
        ({"flavors": []}, "flavors: is empty"),
        ({"flavors": {}}, "configuration.flavors: is dict; must be a list"),
        ({"flavors": [{"name": "f", "vcpus": 1}]}, r"configuration.flavors\[0\].ram_mib: is missing"),
        ({"flavors": [{"name": "f", "vcpus": 1, "ram_mib": 1, "extra_specs": {"a": 1}}]}, "extra_specs.a"),
        ({"flavors": [{"name": "f", "vcpus": 1, "ram_mib": 1, "extra_specs": []}]}, "extra_specs: is list"),
        ({"images": [{"name": "i"}, {"name": "i"}]}, "images: 'i' appears twice"),
        ({"users": [{"name": "u", "password": "x", "projects": ["q"]}]}, "users.u.projects: no project 'q'"),
        ({"networks": [{"name": "n", "cidr": "10.0.0.0/8", "project": "q"}]}, "networks.n.project"),
        ({"networks": [{"name": "n", "cidr": "10.0.0.1/24"}]}, "networks.n.cidr"),
        ({"timing": 5}, "configuration.timing: is int"),
        ({"fence": "moat"}, "configuration.fence: is 'moat'; must be one of part, name, token, none"),
        ({"faults": [{"kind": "gremlin"}]}, r"configuration.faults\[0\].kind: is 'gremlin'; must be one of slow, "),
        ({"faults": [{"kind": "cut", "chance": 2}]}, r"configuration.faults\[0\].chance: is 2.0"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_document(MINIMAL | change)


def test_faults_of_the_configuration_are_on_from_the_start_and_after_a_reset() -> None:
    config = from_document(MINIMAL | {"faults": [{"kind": "429", "path": "/servers$", "times": 1}], "fence": "name"})
    assert from_document(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with running(config) as cloud:
        client = Client(cloud, user="u", project="p", secret="secret")
        for _ in range(2):
            assert [client("GET", "/compute/v2.1/servers").status_code for _ in range(2)] == [429, 200]
            cloud.reset(keep_identity=True)
        cloud.faults.clear()
        assert client("GET", "/compute/v2.1/servers").status_code == 200
        client.session.close()


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "cloud.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        from_file(path)
    path.write_text("name: tiny", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not JSON"):
        from_file(path)
    with pytest.raises(ConfigError, match="no 'zephyr'"):
        profile("zephyr")


def test_a_configured_capacity_ends_builds_in_error() -> None:
    config = from_document(
        MINIMAL | {"projects": [{"name": "p"}], "timing": {}, "capacity": {"cores": 1, "ram_mib": 512}}
    )
    with running(config) as cloud:
        (first,) = cloud.add_foreign_servers(1)
        client = Client(cloud, user="u", project="p", secret="secret")
        body = {"name": "m", "flavorRef": next(iter(cloud.cloud.flavors)), "imageRef": next(iter(cloud.cloud.images))}
        made = [client("POST", "/compute/v2.1/servers", {"server": body}).json()["server"]["id"] for _ in range(2)]
        assert [client.server(identifier)["status"] for identifier in (first, *made)] == ["ACTIVE", "ERROR", "ERROR"]
        for identifier in (first, *made):
            client("DELETE", f"/compute/v2.1/servers/{identifier}")
        again = client("POST", "/compute/v2.1/servers", {"server": body}).json()["server"]["id"]
        assert client.server(again)["status"] == "ACTIVE"
        client.session.close()
