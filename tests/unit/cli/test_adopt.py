"""`leeway adopt` over a real server: from the inventory to charges and back."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Leeway
from tests.unit.cli.test_inventory_shown import until


def test_what_is_there_is_paid_by_a_project_until_it_is_stopped(leeway: Leeway) -> None:
    first, second = leeway.cloud.add_foreign_servers(2)
    until(lambda: len(leeway.json("inventory", "aurora", "--kind", "server")) >= 2)
    found = {thing["remote_id"]: thing for thing in leeway.json("inventory", "aurora", "--kind", "server")}
    name = found[first]["name"]
    dry = leeway.json("adopt", "aurora", name, "--project", "climate", "--dry-run")
    assert [thing["remote_id"] for thing in dry] == [first]
    assert leeway.json("ps") == []
    its_project = found[first]["project"]
    dry = leeway.json("adopt", "aurora", "--project-id", its_project, "--project", "climate", "--dry-run")
    assert {first, second} <= {thing["remote_id"] for thing in dry}
    assert leeway.json("adopt", "aurora", "--project-id", "", "--project", "climate", "--dry-run") == []
    dry_sums = leeway.ok("adopt", "aurora", name, second, "--project", "climate", "--dry-run").splitlines()[-1]
    assert dry_sums == "2 things, 0.072 EUR an hour, 1.728 EUR a day"
    said = leeway.ok("adopt", "aurora", name, second, "--project", "climate", "--until", "2027-01-01")
    assert said.count("EUR an hour, charged to climate from now on") == 2
    again = leeway.json("adopt", "aurora", first, "--project", "climate")
    shown = leeway.json("show", name)
    assert again[0]["order"]["id"] == shown["order"]["id"]
    assert shown["machines"][0]["adopted_at"] is not None
    assert shown["document"]["kind"] == "adopted"
    assert "(adopted: not deleted)" in leeway.ok("show", name)
    assert "adopted  a1.small at aurora" in leeway.ok("show", name)
    assert leeway.ok("ps", "--project", "nobodys").strip() == "No such workloads."
    assert "(adopted: not deleted)" in leeway.ok("ps")
    assert {line["machine"] for spend in leeway.json("spend") for line in spend["workloads"]} >= {name}
    assert f"{name} for project climate: server {first}, as it was" in leeway.ok("explain", name)
    assert "It was there before, and nothing was chosen." in leeway.ok("explain", name)
    assert "charged no longer, and still at aurora" in leeway.ok("stop", name)
    until(lambda: leeway.json("inventory", "aurora", "--kind", "server") != [])
    still = {thing["remote_id"]: thing for thing in leeway.json("inventory", "aurora", "--kind", "server")}
    assert first in still
    refused = leeway("start", found[second]["name"])
    assert refused.exit_code == 1
    assert "adopted" in refused.output
    leeway.ok("stop", found[second]["name"])


def test_what_has_no_price_or_no_name_is_refused_with_the_way_out(leeway: Leeway) -> None:
    (large,) = leeway.cloud.add_foreign_servers(1, flavor="a1.large")
    until(lambda: large in str(leeway.json("inventory", "aurora", "--kind", "server")))
    refused = leeway("adopt", "aurora", large, "--project", "climate")
    assert refused.exit_code == 1
    assert "a1.large" in refused.output
    dry = leeway.ok("adopt", "aurora", large, "--project", "climate", "--dry-run")
    assert dry.splitlines()[-1] == "1 thing; 1 without a price: the rate card lacks it"
    nobody = leeway("adopt", "aurora", "x" * 10_000, "--project", "climate")
    assert len(nobody.output) < 1000
    unknown = leeway("adopt", "aurora", "nothing-like-it", "--project", "climate")
    assert "nothing is called 'nothing-like-it'" in unknown.output
    which = leeway("adopt", "aurora", "--project", "climate")
    assert which.exit_code == 2
    assert "Which things?" in which.output


def test_who_adopts_much_is_told_what_is_adopted_when_a_later_part_is_refused(
    leeway: Leeway, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = leeway.cloud.add_foreign_servers(2)
    until(
        lambda: {first, second} <= {one["remote_id"] for one in leeway.json("inventory", "aurora", "--kind", "server")}
    )
    leeway.ok("project", "add", "small", "--institution", "home")
    leeway.ok("grant", "add", "little", "--project", "small", "--amount", "8 EUR", "--until", "2100-01-01")
    monkeypatch.setattr("web.cli.adopt._AT_ONCE", 1)
    refused = leeway("adopt", "aurora", first, second, "--project", "small")
    assert refused.exit_code == 1
    said = " ".join(refused.stderr.split())
    assert "Project small needs" in said
    assert "1 of the 2 things are adopted already." in said
    assert [item["project"] for item in leeway.json("ps", "--project", "small")] == ["small"]
