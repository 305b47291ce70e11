"""What is at a site, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, update

from broker.models.federation import Site
from tests.api.federation import Federation, list_site, site_document
from web.compose import Services

API = "/api/v1"


def get(federation: Federation, path: str, **query: Any) -> Any:
    answer = federation.client.get(f"{API}{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def relist(federation: Federation, services: Services) -> None:
    list_site(services, UUID(get(federation, "/sites/aurora")["id"]))


def test_an_observed_site_shows_what_is_there_and_what_it_costs(federation: Federation, services: Services) -> None:
    observed = site_document(federation.cloud, observe_only=True)
    assert federation.client.post(f"{API}/sites", json=observed).status_code == 201
    federation.cloud.add_foreign_servers(5)
    relist(federation, services)
    found = get(federation, "/sites/aurora/inventory")
    assert found["site"] == "aurora"
    assert found["listed_at"] is not None
    (servers,) = [kind for kind in found["kinds"] if kind["kind"] == "server"]
    assert (servers["count"], servers["idle"], servers["unknown"]) == (5, 0, 0)
    assert servers["per_hour"]["commodity"] == "EUR"
    assert sum(owner["count"] for owner in found["owners"]) == found["total"]["count"]
    assert [finding["kind"] for finding in get(federation, "/findings")["items"]] == []
    (project,) = found["projects"]
    assert project["count"] == found["total"]["count"]
    there = get(federation, "/sites/aurora/things", kind="server", project_id=project["project"])
    assert {thing["project"] for thing in there["items"]} == {project["project"]}
    assert len(there["items"]) == 5
    assert get(federation, "/sites/aurora/things", project_id="elsewhere")["items"] == []
    things = get(federation, "/sites/aurora/things", kind="server", limit=3)
    assert len(things["items"]) == 3
    rest = get(federation, "/sites/aurora/things", kind="server", limit=3, cursor=things["next"])
    assert (len(rest["items"]), rest["next"]) == (2, None)
    thing = rest["items"][0]
    assert (thing["kind"], thing["state"], thing["lease_id"]) == ("server", "running", None)
    assert thing["instance_type"].startswith("a1.")
    assert thing["seen_at"] == found["listed_at"]
    assert thing["per_hour"]["commodity"] == "EUR"
    assert get(federation, "/sites/aurora/things", owner="nobody")["items"] == []
    assert get(federation, "/sites/aurora/things", kind="server", idle="true")["items"] == []


def test_a_site_of_several_projects_has_sums_by_project(federation: Federation, services: Services) -> None:
    credential = site_document(federation.cloud)["credential"] | {"username": "alice"}
    several = {"credential": credential, "settings": {"projects": "leeway,physics"}}
    refused = federation.client.post(
        f"{API}/sites", json=site_document(federation.cloud, observe_only=False, **several)
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert "settings.projects" in refused.text
    observed = site_document(federation.cloud, observe_only=True, **several)
    assert federation.client.post(f"{API}/sites", json=observed).status_code == 201
    federation.cloud.add_foreign_servers(5)
    federation.cloud.add_foreign_servers(2, project="physics")
    relist(federation, services)
    projects = {project.name: project.id for project in federation.cloud.cloud.projects.values()}
    machines = {
        name: get(federation, "/sites/aurora/things", kind="server", project_id=project)["items"]
        for name, project in projects.items()
    }
    assert {name: len(items) for name, items in machines.items()} == {"leeway": 5, "physics": 2}
    found = get(federation, "/sites/aurora/inventory")
    counts = {one["project"]: one["count"] for one in found["projects"]}
    assert set(counts) == set(projects.values())
    assert sum(counts.values()) == found["total"]["count"]
    quota = {one["resource"]: one["limit"] for one in get(federation, "/sites/aurora")["quota"]}
    assert quota["instances"] == "50"


def test_a_site_that_was_not_listed_has_an_empty_inventory(federation: Federation) -> None:
    document = site_document(federation.cloud, name="later")
    assert federation.client.post(f"{API}/sites", json=document).status_code == 201
    found = get(federation, "/sites/later/inventory")
    assert (found["listed_at"], found["total"]["count"], found["kinds"]) == (None, 0, [])
    assert found["total"]["per_hour"] is None


def test_a_site_tells_how_far_its_first_listing_is(federation: Federation, services: Services) -> None:
    assert federation.client.post(f"{API}/sites", json=site_document(federation.cloud, name="later")).status_code == 201
    with services.sessions.begin() as session:
        values = {"listing_since": func.clock_timestamp(), "listing_read": 3000}
        session.execute(update(Site).where(Site.name == "later").values(values))
    found = get(federation, "/sites/later")
    assert (found["listed_at"], found["changes_at"], found["listing_read"]) == (None, None, 3000)
    assert found["listing_since"] is not None
    assert "3000 things read so far" in federation.client.get("/").text


def test_what_is_asked_wrongly_is_refused(federation: Federation) -> None:
    client = federation.client
    assert client.get(f"{API}/sites/nowhere/inventory").json()["code"] == "not_found"
    assert client.get(f"{API}/sites/nowhere/things").json()["code"] == "not_found"
    for query in ({"kind": "car"}, {"idle": "perhaps"}, {"size": "3"}):
        answer = client.get(f"{API}/sites/aurora/things", params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), query
    assert client.get(f"{API}/findings/summary", params={"most": "1000"}).status_code == 422


def test_findings_are_summed(federation: Federation, services: Services) -> None:
    federation.cloud.add_foreign_servers(3)
    relist(federation, services)
    found = get(federation, "/findings/summary", most=2)
    assert (found["count"], found["per_day"], found["unknown"]) == (3, [{"value": "2.88", "commodity": "EUR"}], 0)
    (one,) = found["sums"]
    assert (one["kind"], one["site"], one["count"], one["unknown"]) == ("unknown_machine", "aurora", 3, 0)
    assert len(found["first"]) == 2


def test_the_page_shows_the_first_findings_and_how_many_more_there_are(
    federation: Federation, services: Services
) -> None:
    federation.cloud.add_foreign_servers(23)
    relist(federation, services)
    page = federation.client.get("/").text
    assert page.count("was not made by Leeway") == 20
    assert f"And {get(federation, '/findings/summary')['count'] - 20} more" in page
