"""A person's first day, command by command, over a real server, a real database and a sandbox cloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.unit.cli.conftest import RATES, WORKLOAD, Leeway
from web.client.client import Client

HUGE = WORKLOAD.replace("cores: 2", "cores: 64").replace("name: trial", "name: huge")


@pytest.fixture
def document(tmp_path: Path) -> str:
    file = tmp_path / "work load.yaml"
    file.write_text(WORKLOAD)
    return str(file)


def named(name: str) -> str:
    return WORKLOAD.replace("name: trial", f"name: {name}")


# --- connecting ------------------------------------------------------------------------------------------------------


def test_lists_that_are_empty_say_what_to_do(bare: Leeway) -> None:
    assert "`leeway site add`" in bare.ok("site", "list")
    assert "`leeway rate-card import`" in bare.ok("rate-card", "list")
    assert "`leeway project add`" in bare.ok("project", "list")
    assert "`leeway grant add`" in bare.ok("grant", "list")
    assert "`leeway submit FILE`" in bare.ok("ps")
    assert "Nothing needs you." in bare.ok("findings")
    assert "`leeway project add`" in bare.ok("spend")


def test_a_site_is_connected_checked_and_shown(leeway: Leeway) -> None:
    site = leeway.json("site", "show", "aurora")
    assert (site["offers"], site["trouble"], site["check_pending"]) == (4, None, False)
    assert DEMO_PASSWORD not in json.dumps(site).replace('"adapter": "sandbox"', "")
    assert "leeway is logged in" in leeway.ok("site", "check", "aurora")
    assert "aurora  aurora    sandbox  broker" in leeway.ok("site", "list")
    shown = leeway.ok("site", "show", "aurora")
    assert "debian-12, ubuntu-24.04" in shown
    assert "640 GiB" in shown
    assert [one["name"] for one in leeway.json("site", "list")] == ["aurora"]


def test_a_wrong_password_fails_with_the_step_and_keeps_the_site_to_be_mended(leeway: Leeway) -> None:
    done = leeway(
        "site", "add", "locked", "--provider", "aurora", "--adapter", "sandbox", "--endpoint", leeway.cloud.auth_url,
        "--username", "leeway", "--project-name", "leeway", "--password-stdin", stdin="wrong\n",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "locked is connected, and cannot be used: credential: user 'leeway' is refused" in done.stderr
    assert "credential  failed" in done.stdout


def test_a_rate_card_comes_from_yaml_or_csv(leeway: Leeway, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("sku,unit,unit_price\na1.small,hour,0.03\n")
    done = leeway("rate-card", "import", str(file))
    assert done.exit_code == 1
    assert "CSV holds prices only" in done.stderr
    card = leeway.json(
        "rate-card", "import", str(file), "--name", "later", "--provider", "aurora", "--currency", "EUR",
        "--valid-from", "2090-01-01T00:00:00Z", "--bills", "openstack",
    )  # fmt: skip
    assert (card["name"], card["skus"], card["currency"]) == ("later", 1, "EUR")
    assert "later" in leeway.ok("rate-card", "list")
    broken = leeway("rate-card", "import", "-", stdin=RATES.replace("hour", "hours", 1))
    assert broken.exit_code == 1
    assert "prices.a1.small.unit" in broken.stderr
    assert "(line 8)" in broken.stderr


def test_projects_and_grants_are_made_and_listed(leeway: Leeway) -> None:
    assert "climate  climate  home" in leeway.ok("project", "list")
    assert leeway.json("grant", "list", "--project", "climate")[0]["amount"] == {"value": "100", "commodity": "EUR"}
    twice = leeway("project", "add", "climate", "--institution", "home")
    assert twice.exit_code == 1
    assert "there is a project 'climate' already" in twice.stderr
    unknown = leeway("grant", "add", "x", "--project", "climat", "--amount", "1 EUR", "--until", "2100-01-01")
    assert unknown.exit_code == 1
    assert "Did you mean climate?" in unknown.stderr


# --- quotes ----------------------------------------------------------------------------------------------------------


def test_a_quote_shows_offers_and_reasons_and_is_kept(leeway: Leeway, document: str) -> None:
    shown = leeway.ok("quote", document)
    assert "trial for project climate: 2 cores, 4 GiB, ubuntu-24.04, 2 hours" in shown
    assert "1  aurora  a1.small" in shown
    assert "rank 1: a1.small" in shown
    quote = leeway.json("quote", document)
    assert leeway.json("explain", quote["id"])["id"] == quote["id"]


def test_a_preview_promises_nothing(leeway: Leeway) -> None:
    assert leeway.json("quote", "--preview", "-", stdin=WORKLOAD)["id"] is None
    assert "Quote " not in leeway.ok("quote", "--preview", "-", stdin=WORKLOAD)


def test_explain_of_a_document_says_what_to_change(leeway: Leeway) -> None:
    shown = leeway.ok("explain", "-", stdin=HUGE)
    assert "No site can take it." in shown
    assert "cores: wanted 64, but 16 (a1.pinned). Ask for 16 cores." in shown
    assert "What would help most:" in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: machine\n", "name: is missing"),
        (WORKLOAD + "durations: 1 hour\n", "durations"),
        (WORKLOAD.replace("4 GiB", "4 gigs"), "resources.memory"),
        ("{", "no valid YAML: did not find expected node content (line 2)\n"),
        ("", "workload"),
    ],
)
def test_a_bad_document_is_refused_by_field(leeway: Leeway, text: str, said: str) -> None:
    done = leeway("quote", "-", stdin=text)
    assert done.exit_code == 1
    assert said in done.stderr
    assert not done.stdout


def test_every_fault_of_a_document_is_told(leeway: Leeway) -> None:
    text = WORKLOAD.replace("cores: 2", "cores: two").replace("2 hours", "soon")
    done = leeway("quote", "-", stdin=text)
    assert "resources.cores" in done.stderr
    assert "also duration" in done.stderr


# --- the life of a workload ------------------------------------------------------------------------------------------


def test_a_workload_is_submitted_shown_stopped_and_charged(leeway: Leeway, document: str) -> None:
    done = leeway("submit", "--yes", document)
    assert done.exit_code == 0, done.output
    assert "the site says running" in done.stderr
    assert "trial is running (id " in done.stdout
    item = leeway.json("show", "trial")
    assert item["machines"][0]["state"] == "running"
    assert item["machines"][0]["addresses"][0] in done.stdout
    assert leeway.json("ps", "--state", "active")[0]["id"] == item["id"]
    assert "trial" in leeway.ok("ps", "--project", "climate", "--name", "trial", "--most", "1")
    assert "ordered a1.small" in leeway.ok("show", item["id"][:13])
    assert "rank 1: a1.small" in leeway.ok("explain", "trial")
    assert leeway.json("explain", "trial")["quote"]["id"] == item["quote_id"]

    done = leeway("stop", "trial", "--reason", "seen enough")
    assert "trial is over" in done.stdout
    assert "seen enough" in done.stderr
    assert "the site says running" not in done.stderr, "what was before it is no news"
    over = leeway.json("show", "trial")
    assert over["order"]["state"] == "over"
    assert "seen enough" in leeway.ok("show", "trial")
    spend = leeway.json("spend", "climate")[0]
    assert [line["state"] for line in spend["workloads"] if line["lease_id"] == over["machines"][0]["lease_id"]] == [
        "gone"
    ]
    assert "first" in leeway.ok("spend")


def test_a_workload_is_powered_off_and_on(leeway: Leeway) -> None:
    leeway.ok("submit", "--yes", "-", stdin=named("sleeper"))
    assert "sleeper is stopped" in leeway.ok("stop", "sleeper", "--keep")
    assert "sleeper is running" in leeway.ok("start", "sleeper")
    assert leeway.json("stop", "sleeper", "--shelve")["machines"][0]["state"] == "shelved"
    assert "sleeper is over" in leeway.ok("stop", "sleeper")


def test_explain_says_which_offer_was_ordered(leeway: Leeway) -> None:
    leeway.ok("submit", "--yes", "--rank", "2", "-", stdin=named("dearer"))
    shown = leeway.ok("explain", "dearer")
    assert "Ordered: rank 2, a1.medium at aurora for 0.144 EUR" in shown
    assert "The price of a1.medium at aurora" in shown
    leeway.ok("stop", "dearer")


def test_two_orders_of_one_quote_have_two_ids(leeway: Leeway) -> None:
    quote = leeway.json("quote", "-", stdin=named("twice"))
    with Client(leeway.place) as client:
        orders = [client.place_order(quote["id"])["order"]["id"] for _ in range(2)]
    for order in orders:
        assert order[:13] in leeway.ok("ps", "--name", "twice")
        leeway.ok("stop", order[:13])
    assert {item["order"]["state"] for item in leeway.json("ps", "--name", "twice")} == {"over"}


def test_what_is_no_text_is_refused_or_not_found(leeway: Leeway) -> None:
    odd = b"\xff".decode(errors="surrogateescape")
    assert "there is no ordered workload" in leeway("show", odd).stderr
    for line in (("project", "add", odd, "--institution", "home"), ("ps", "--name", odd)):
        done = leeway(*line)
        assert done.exit_code == 1
        assert "That is no text: Something that was given is not UTF-8." in done.stderr


def test_explain_of_a_file_that_is_not_there_names_it(leeway: Leeway, tmp_path: Path) -> None:
    done = leeway("explain", str(tmp_path / "missing.yaml"))
    assert done.exit_code == 1
    assert "missing.yaml: No such file" in done.stderr.replace("\n", "")


def test_a_field_of_another_pattern_says_the_pattern(leeway: Leeway) -> None:
    done = leeway("site", "add", "x", "--provider", "p", "--endpoint", "http://127.0.0.1:9", "--jurisdiction", "ZZZ",
                  "--username", "u", "--project-name", "p", "--password-stdin", stdin="x\n")  # fmt: skip
    assert "jurisdiction: is not written as it must be" in done.stderr
    assert "^[A-Z]{2}$" in done.stderr


def test_what_nobody_can_take_is_not_ordered(leeway: Leeway) -> None:
    done = leeway("submit", "--yes", "-", stdin=HUGE)
    assert done.exit_code == 1
    assert "Nothing was ordered: no site can take huge." in done.stderr
    assert "Ask for 16 cores." in done.stdout
    assert leeway.json("ps", "--name", "huge") == []


def test_a_rank_that_is_not_offered_is_told_with_those_that_are(leeway: Leeway) -> None:
    done = leeway("submit", "--yes", "--rank", "9", "-", stdin=named("picky"))
    assert done.exit_code == 1
    assert "there is no offer of rank 9" in done.stderr
    assert "There are: 1, 2." in done.stderr


def test_an_order_is_never_placed_unasked(leeway: Leeway, document: str) -> None:
    for arguments in (("submit", document), ("submit", "-"), ("submit", "--json", document)):
        done = leeway(*arguments, stdin=WORKLOAD)
        assert done.exit_code == 2
        assert "add --yes" in done.stderr


def test_no_wait_returns_at_once_and_json_is_only_json(leeway: Leeway) -> None:
    item = leeway.json("submit", "--yes", "--no-wait", "-", stdin=named("quick"))
    assert item["name"] == "quick"
    waited: Any = leeway.json("stop", "quick")
    assert waited["order"]["state"] == "over"


def test_an_unknown_workload_is_told_the_nearest(leeway: Leeway) -> None:
    leeway.ok("submit", "--yes", "--no-wait", "-", stdin=named("era5-trial"))
    for command in ("show", "stop", "explain", "start"):
        done = leeway(command, "era5-trail")
        assert done.exit_code == 1, command
        assert "Did you mean era5-trial?" in done.stderr, command
    leeway.ok("stop", "era5-trial")


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"), [("missing.yaml", "No such file or directory"), ("", "Name a file in it"), ("image", "not UTF-8")]
)
def test_a_file_that_cannot_be_read_is_named(leeway: Leeway, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "image").write_bytes(b"\x89PNG\xff")
    done = leeway("submit", "--yes", str(tmp_path / name))
    assert done.exit_code == 1
    assert said in done.stderr


def test_nobody_at_home_is_exit_code_3(leeway: Leeway, tmp_path: Path) -> None:
    gone = {"LEEWAY_URL": "http://127.0.0.1:9", "LEEWAY_TOKEN": "t"}
    done = leeway("ps", environment=gone)
    assert done.exit_code == 3
    assert "Nobody answers at http://127.0.0.1:9" in done.stderr
    assert "leeway serve" in done.stderr
    assert leeway("ps", environment={"LEEWAY_DATA_DIR": str(tmp_path)}).exit_code == 3


def test_a_wrong_token_is_refused(leeway: Leeway) -> None:
    done = leeway("ps", environment={"LEEWAY_URL": leeway.place.url, "LEEWAY_TOKEN": "wrong"})
    assert done.exit_code == 1
    assert "Who are you?: The token is not this server's." in done.stderr


def test_the_link_for_the_browser_holds_the_token(leeway: Leeway) -> None:
    assert leeway.ok("open") == f"{leeway.place.url}/login?token={leeway.place.token}\n"
    assert leeway.json("open")["url"] == leeway.place.url


def test_nothing_is_coloured_for_a_pipe(leeway: Leeway) -> None:
    done = leeway("ps", environment={"NO_COLOR": None, "TERM": "xterm-256color"})
    assert "\x1b" not in done.output
