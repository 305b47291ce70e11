"""The pages: the same read models for people, without scripts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from uuid import UUID

import pytest
from sqlalchemy import func, update
from starlette.testclient import TestClient

from adapters.sandbox import running
from adapters.sandbox.config import Timing
from adapters.sandbox.profiles import aurora
from broker.models.leases import Lease
from tests.api.federation import RATES, Federation, list_site, site_document
from web.compose import Services
from web.token import load_token

# Elements that HTML never closes.
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a reader of the page, or of its structure, finds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def read(client: TestClient, path: str, status: int = 200) -> Page:
    """A page, and what all pages promise."""
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    page = Page(answer.text)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert not page.all("script")
    assert not page.all("style")
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("href", "src"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
    return page


def test_a_workload_from_the_list_to_its_last_line(federation: Federation) -> None:
    empty = read(federation.client, "/")
    assert "Nothing has been ordered yet" in empty.text
    federation.order(count=2)
    running = federation.work_until("trial", machines="running")
    home = read(federation.client, "/")
    assert "2\xa0running" in home.text
    link = next(one["href"] for one in home.all("a") if (one["href"] or "").startswith("/workloads/"))
    assert link is not None

    page = read(federation.client, link)
    for machine in running["machines"]:
        assert machine["name"] in page.text
        assert machine["addresses"][0] in page.text
    assert running["money"]["held"]["value"] in {one["value"] for one in page.all("data")}, "exact in the markup"
    for event in running["events"]:
        assert event["text"] in page.text
    assert "chosen" in page.text

    federation.client.post("/api/v1/workloads/trial/stop", json={"reason": "<b>done</b> & dusted"})
    over = federation.work_until("trial", order="over")
    page = read(federation.client, "/workloads/trial")
    assert "<b>done</b> & dusted" in page.text, "shown as it was written, not as markup"
    assert over["money"]["spent"]["value"] in {one["value"] for one in page.all("data")}


def test_a_kept_snapshot_is_no_machine(federation: Federation) -> None:
    """The order goes on, but nobody is to be told that it runs somewhere."""
    card = f'{RATES}  snapshot-storage: {{unit: GiB-hour, unit_price: "0.0001"}}\n'
    assert federation.client.post("/api/v1/rate-cards", json={"document": card, "format": "yaml"}).status_code == 201
    federation.order(keep_snapshot="30 days")
    (address,) = federation.work_until("trial", machines="running")["machines"][0]["addresses"]
    assert "active" in badges(federation, "/workloads/trial")
    with federation.services.sessions.begin() as session:
        session.execute(update(Lease).values(ends_at=func.clock_timestamp(), grace=timedelta(0)))
    shown = federation.work_until("trial", machines="snapshot")
    assert shown["order"]["state"] == "active"
    assert shown["machines"][0]["addresses"] == []
    for path in ("/", "/workloads/trial"):
        assert "snapshot" in badges(federation, path)
        assert "active" not in badges(federation, path)
    page = read(federation.client, "/workloads/trial")
    assert address not in page.text.partition("Timeline")[0]
    assert "none yet" not in page.text


def test_what_was_adopted_is_shown_as_what_it_is(federation: Federation) -> None:
    """A volume does not run, has no address, and nobody chose where it is."""
    card = f'{RATES}  volume-storage: {{unit: GiB-hour, unit_price: "0.0001"}}\n'
    client, services = federation.client, federation.services
    assert client.post("/api/v1/rate-cards", json={"document": card, "format": "yaml"}).status_code == 201
    with running(replace(aurora(), timing=Timing())) as other:
        made = client.post("/api/v1/sites", json=site_document(other, name="other", provider="aurora"))
        list_site(services, UUID(made.json()["id"]))
        (volume, *_) = client.get("/api/v1/sites/other/things?kind=volume").json()["items"]
        wanted = {"project": "climate", "things": [volume["id"]]}
        assert client.post("/api/v1/sites/other/adoptions", json=wanted).status_code == 201
    page = read(client, f"/workloads/{volume['name']}")
    assert "nothing of it" in page.text
    for wrong in ("Running since", "Address", "shall be", "Why there", "chosen", "Machines"):
        assert wrong not in page.text.partition("Timeline")[0], wrong
    assert "as it was asked for" not in page.text
    home = read(client, "/")
    assert "per day" in home.text.partition("For a person to look at")[2]


def badges(federation: Federation, path: str) -> set[str]:
    """The states that a page shows."""
    classes = [(one["class"] or "").split() for one in read(federation.client, path).all("span") if "class" in one]
    return {words[1] for words in classes if words[:1] == ["state"]}


def test_why_not_and_what_to_change_is_on_the_page(federation: Federation) -> None:
    with_room = federation.order(resources={"cores": 8, "memory": "32 GiB"})
    quote = federation.client.get(f"/api/v1/quotes/{with_room['quote_id']}").json()
    page = read(federation.client, f"/workloads/{with_room['id']}")
    assert quote["verdicts"][0]["summary"] in page.text


def test_older_workloads_are_a_link_away(federation: Federation) -> None:
    for number in range(3):
        federation.order(name=f"trial-{number}")
    page = read(federation.client, "/?limit=2")
    older = next(one["href"] for one in page.all("a") if one.get("rel") == "next")
    assert older is not None
    assert "trial-0" not in page.text
    assert "trial-0" in read(federation.client, older).text


def test_the_link_opens_the_pages_once_and_for_all(anonymous: TestClient, services: Services) -> None:
    token = load_token(services.settings.token_file).value
    closed = read(anonymous, "/", 401)
    assert "leeway open" in closed.text
    assert token not in closed.text
    for wrong in ("/login", "/login?token=", f"/login?token={token}x"):
        assert read(anonymous, wrong, 401)
        assert read(anonymous, "/", 401)
    answer = anonymous.get("/login", params={"token": token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert re.search(r"HttpOnly", cookie)
    assert re.search(r"SameSite=strict", cookie, re.IGNORECASE)
    assert token not in cookie
    assert read(anonymous, "/")


@pytest.mark.parametrize(("path", "status"), [("/workloads/nothing", 404), ("/nothing", 404), ("/problems/x", 404)])
def test_errors_are_pages_for_people(client: TestClient, path: str, status: int) -> None:
    page = read(client, path, status)
    assert "Request" in page.text
    assert any((one["href"] or "").startswith("/problems/") for one in page.all("a"))


def test_style_is_small_and_ours(anonymous: TestClient) -> None:
    style = anonymous.get("/static/leeway.css")
    assert style.status_code == 200
    assert len(style.content) < 10_000
    assert "http" not in style.text
    assert "@import" not in style.text
    assert "prefers-color-scheme: dark" in style.text
    again = anonymous.get("/static/leeway.css", headers={"If-None-Match": style.headers["ETag"]})
    assert again.status_code == 304
    assert anonymous.get("/static/../app.py").status_code in (401, 404)
    assert anonymous.get("/static/%2e%2e/views.py").status_code == 404


def test_colours_have_contrast(anonymous: TestClient) -> None:
    style = anonymous.get("/static/leeway.css").text
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in style.split("@media", 2)[:2])
    for colours in (light, dark):
        pairs = [
            ("ink", "paper"),
            ("ink", "card"),
            ("soft", "paper"),
            ("soft", "card"),
            ("link", "paper"),
            ("link", "card"),
        ]
        pairs += [(word, f"{word}-bg") for word in ("good", "wait", "bad", "calm")]
        for ink, paper in pairs:
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper, colours)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
