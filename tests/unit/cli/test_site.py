"""A site that is connected is looked at, until a person says that Leeway may act there."""

from __future__ import annotations

from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.unit.cli.conftest import Leeway

LOOKS = "Leeway only looks at real, and changes nothing there; to let it act, add it with --broker."
ACTS = "Leeway may start machines at real; to only look, add it with --observe."


def add(leeway: Leeway, *options: str, adapter: str = "openstack") -> str:
    return leeway.ok(
        "site", "add", "real", "--provider", "real", "--adapter", adapter, "--endpoint", leeway.cloud.auth_url,
        "--username", "leeway", "--project-name", "leeway", "--password-stdin", *options, stdin=f"{DEMO_PASSWORD}\n",
    )  # fmt: skip


def use(leeway: Leeway) -> bool:
    return bool(leeway.json("site", "show", "real")["observe_only"])


def test_a_real_cloud_is_observed_until_brokering_is_said(bare: Leeway) -> None:
    assert LOOKS in add(bare)
    assert use(bare)
    hints = [step["hint"] or "" for step in bare.json("site", "check", "real")["diagnosis"]]
    assert [hint for hint in hints if hint.startswith("More than is needed: member may change things")]
    assert LOOKS in add(bare)
    assert ACTS in add(bare, "--broker")
    assert ACTS in add(bare)
    assert not use(bare)
    assert LOOKS in add(bare, "--observe")
    assert use(bare)
