"""The access rules of the guide to an observed site: every request that looking sends is among them, and no other."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.registry import Registry
from adapters.sandbox import profile, running
from adapters.sandbox.config import Timing
from broker.remote import Deadline, MachineSpec, PartKind, Secret, SiteAddress, ThingKind
from tests.contract.sites import PUBLIC_KEY, new_tags
from tests.peers.openstack.wire import Wire, wire

GUIDE = Path(__file__).parents[4] / "docs" / "howto" / "connect-openstack.md"
# Where the sandbox has a service, and the type that the service calls itself.
TYPES = {"compute": "compute", "image": "image", "network": "network", "volume": "volumev3"}


def rules() -> list[dict[str, str]]:
    found = re.search(r"^    \[\n.*?^    \]$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    wanted: list[dict[str, str]] = json.loads(found.group(0))
    return wanted


def matches(path: str, pattern: str) -> bool:
    """As keystonemiddleware compares them: `**` is any text, `*` any but a slash."""
    parts = re.split(r"(\*\*|\*)", pattern)
    regex = "".join({"**": ".*", "*": "[^/]+"}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, path) is not None


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Every request goes through it."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with wire() as made:
        monkeypatch.setenv("http_proxy", made.url)
        yield made


def soon() -> Deadline:
    return Deadline.after(20)


def look_at_everything(adapter: Any, made: dict[PartKind, str], since: datetime) -> None:
    """All that Leeway asks of an observed site, also of what a project adopted there."""
    assert all(step.ok for step in adapter.check(deadline=soon()))
    listing = adapter.listing(deadline=soon())
    for read in (adapter.quotas, adapter.offers, adapter.images, adapter.networks, adapter.scope):
        assert read(deadline=soon())
    for kind, remote_id in made.items():
        # Ports and key pairs are parts of machines that Leeway made, of which there are none at an observed site.
        if kind not in (PartKind.PORT, PartKind.KEY_PAIR):
            assert adapter.look(kind, remote_id, deadline=soon()) is not None
    for thing in listing.things:
        if thing.kind in (ThingKind.VOLUME, ThingKind.VOLUME_SNAPSHOT):
            assert adapter.look(PartKind(thing.kind.value), thing.remote_id, deadline=soon()) is not None
    adapter.changes(since=since, deadline=soon())
    adapter.ended_at(made[PartKind.SERVER], since=since, deadline=soon())


def test_looking_sends_what_the_rules_allow_and_needs_them_all(line: Wire) -> None:
    since, tags = datetime.now(UTC) - timedelta(hours=1), new_tags()
    with running(replace(profile("aurora"), timing=Timing())) as cloud:
        site = SiteAddress(uuid.uuid4(), "aurora", "openstack", cloud.auth_url, "aurora-1", uuid.uuid4())
        secret = Secret({"username": "leeway", "password": "sandbox", "project_name": "leeway"})
        registry = Registry()
        maker = registry.open(site, secret)
        flavor = next(offer.remote_id for offer in maker.offers(deadline=soon()) if offer.name == "a1.small")
        image = maker.images(deadline=soon())[0].remote_id
        machine = MachineSpec("m", flavor, image, public_address=True, ssh_key=PUBLIC_KEY)
        made: dict[PartKind, str] = {}
        for kind in (*[part.kind for part in maker.plan(machine)], PartKind.SNAPSHOT):
            made[kind] = maker.make(kind, machine, tags=tags, made=made, deadline=soon())
        line.seen.clear()
        look_at_everything(registry.open(replace(site, observe_only=True), secret), made, since)
        registry.close()
    sent = {(TYPES[path.split("/")[1]], method, path) for method, path in line.seen if not path.startswith("/v3")}
    assert len(sent) > 15
    used = set()
    for service, method, path in sent:
        allowing = [
            rule["path"]
            for rule in rules()
            if (rule["service"], rule["method"]) == (service, method) and matches(path, rule["path"])
        ]
        assert allowing, (service, method, path)
        used |= {(service, pattern) for pattern in allowing}
    # The sandbox shows extra specs in the list of flavors; older sites are asked for them one by one.
    spare = {("compute", "/**/flavors/*/os-extra_specs")}
    assert used == {(rule["service"], rule["path"]) for rule in rules()} - spare


def test_the_rules_only_read() -> None:
    assert {rule["method"] for rule in rules()} == {"GET"}
