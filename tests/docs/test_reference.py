"""The reference knows all that there is, and nothing that there is not."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

import broker.ratecards
import broker.workloads
import web.app
from adapters.openstack.adapter import SETTINGS as SITE_SETTINGS
from broker.errors import tree
from broker.models.leases import LeaseState
from broker.values import Unit
from tests.contract.shapes import conformance
from tests.docs.pages import REFERENCE, ROOT, commands, first_cells, pages, prose_of, text_of
from web.cli import main
from web.metrics import FAMILIES
from web.settings import Settings


def test_every_setting_is_documented_and_no_other() -> None:
    known = {f"LEEWAY_{name.upper()}" for name in Settings.model_fields} | {"LEEWAY_URL", "LEEWAY_TOKEN"}
    assert {word for word in first_cells(REFERENCE / "settings.md") if word.startswith("LEEWAY_")} == known


def test_variables_that_any_page_names_exist() -> None:
    known = {f"LEEWAY_{name.upper()}" for name in Settings.model_fields} | {"LEEWAY_URL", "LEEWAY_TOKEN"}
    named = {word for page in pages() for word in re.findall(r"LEEWAY_[A-Z_]*[A-Z]", text_of(page))}
    assert named - known == set()


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", text_of(REFERENCE / "errors.md"), re.MULTILINE)
    ours = {kind for kind in tree() if kind.__module__.partition(".")[0] != "tests"}
    assert "web.problems" in {kind.__module__ for kind in ours}, web.app
    assert sorted(rows) == sorted({(kind.code, str(kind.status)) for kind in ours})


def test_every_key_of_a_workload_is_documented_and_no_other() -> None:
    known = {key for table in tables(broker.workloads._Machine) for key in table.model_fields}
    documented = first_cells(REFERENCE / "workload-document.md")
    assert documented == known


def tables(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and those it is made of."""
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from tables(field.annotation)


def test_every_key_of_a_rate_card_is_documented_and_no_other() -> None:
    known = {*broker.ratecards._CARD_KEYS, *broker.ratecards._PRICE_KEYS, *broker.ratecards._TIER_KEYS}
    states = set(broker.ratecards.BILLS_OPENSTACK)
    assert first_cells(REFERENCE / "rate-card.md") - states == known


def test_the_rate_card_page_knows_units_columns_states_and_the_shares_of_openstack() -> None:
    text = text_of(REFERENCE / "rate-card.md")
    assert [unit.value for unit in Unit if f"`{unit.value}`" not in text] == []
    assert [column for column in broker.ratecards._COLUMNS if f"`{column}`" not in text] == []
    bills = broker.ratecards.BILLS_OPENSTACK
    header = "| " + " | ".join(f"`{state}`" for state in bills) + " |"
    shares = "| " + " | ".join(f"{share:f}" for share in bills.values()) + " |"
    assert f"{header}\n{'|---' * len(bills)}|\n{shares}\n" in text
    assert set(bills) <= {state.value for state in LeaseState}


def test_every_setting_of_a_site_is_documented() -> None:
    assert set(SITE_SETTINGS) <= first_cells(ROOT / "docs" / "howto" / "connect-openstack.md")


def test_every_run_time_dependency_has_its_reason() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    names = sorted(re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependencies"])
    rows = re.findall(r"^\| ([\w-]+) \|", text_of(ROOT / "docs" / "adr" / "0010-dependencies.md"), re.MULTILINE)
    assert sorted(set(rows) - {"Dependency"}) == names


def test_every_finding_is_documented() -> None:
    sources = [path for package in ("broker", "accounting") for path in (ROOT / package).rglob("*.py")]
    raised = {kind for path in sources for kind in re.findall(r"kind=\"([a-z_]+)\",\n\s+key=", text_of(path))}
    raised |= {
        kind
        for path in sources
        for kind in re.findall(r"^[A-Z_]+ = \"([a-z_]+_unknown|unknown_[a-z]+)\"$", text_of(path), re.MULTILINE)
    }
    assert {"overdraft", "launch_unknown", "ours_unknown"} <= raised
    assert raised <= first_cells(REFERENCE / "errors.md")


# --- commands --------------------------------------------------------------------------------------------------------


def command_of(name: str) -> click.Command:
    """The command as `leeway` itself finds it."""
    found = main.cli.get_command(click.Context(main.cli), name)
    assert found is not None
    return found


def leaves(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command, or the commands of a group, with the words that call each."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from leaves(below, *path, name)


@pytest.mark.parametrize("name", main.HELPS)
def test_every_command_is_documented_with_its_options(name: str) -> None:
    sections = {
        match[1]: match[2]
        for match in re.finditer(
            r"^### `leeway ([^`]+)`\n(.*?)(?=^##|\Z)", text_of(REFERENCE / "cli.md"), re.MULTILINE | re.DOTALL
        )
    }
    for path, command in leaves(command_of(name), name):
        section = next((text for call, text in sections.items() if tuple(call.split())[: len(path)] == path), None)
        assert section is not None, path
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        wanted = {option for option in options if option.startswith("--")} - {"--json", "--help"}
        told = set(re.findall(r"--[a-z][a-z-]*", section)) - {"--json", "--help"}
        assert told == wanted, path


def test_the_page_of_commands_has_every_exit_code() -> None:
    codes = {"0", str(main.REFUSED), str(main.USAGE), str(main.UNREACHABLE), str(main.INTERRUPTED)}
    assert codes <= first_cells(REFERENCE / "cli.md")


@pytest.mark.parametrize(
    "page", [page for page in pages() if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_in_the_docs_exist(page: Path) -> None:
    missing = [call for call in sorted(commands(page)) if not exists(call)]
    assert missing == []


def exists(call: tuple[str, ...]) -> bool:
    """Whether the words begin with a command, and where that is a group, with one of its own."""
    if call[0].startswith("-"):
        return call[0] in ("--help", "--version")
    if call[0] not in main.HELPS:
        return False
    found = command_of(call[0])
    return not isinstance(found, click.Group) or len(call) == 1 or call[1] in found.commands or call[1] == "--help"


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(leeway_[a-z_]+)` \| ([^|]*)\|", text_of(REFERENCE / "metrics.md"), re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {family.name: family.labels for family in FAMILIES.values()}


def test_alerts_are_about_metrics_that_exist() -> None:
    named = set(re.findall(r"leeway_[a-z_]+[a-z]", prose_of(REFERENCE / "metrics.md")))
    assert named == set(FAMILIES)


# --- the API ---------------------------------------------------------------------------------------------------------


def test_every_route_is_documented_and_no_other() -> None:
    documented = set()
    for methods, path in re.findall(r"^\| `([A-Z, ]+) (/api/[^`]+)`", text_of(REFERENCE / "api.md"), re.MULTILINE):
        documented |= {(method, re.sub(r"\{\w+\}", "{}", path)) for method in methods.split(", ")}
    there = set()
    for noun in web.app._NOUNS:
        for route in noun.router.routes:
            path = re.sub(r"\{\w+\}", "{}", f"/api/v1{route.path}")
            there |= {(method, path) for method in route.methods}
    assert documented == there


def test_words_of_the_design_are_in_the_glossary() -> None:
    text = prose_of(REFERENCE / "glossary.md")
    words = (
        "institution, project, grant, provider, site, offer, rate card, image, workload, quote, order, hold, lease, "
    )
    words += "part, attempt, observation, segment, charge, cost, tariff, credit, bill, ledger, finding, "
    words += "exit assessment, identity, person"
    assert [word for word in words.split(", ") if f"*{word}*" not in text.casefold()] == []


def test_modules_of_commands_can_be_imported() -> None:
    for name in main.HELPS:
        assert importlib.import_module(f"web.cli.{name.replace('-', '_')}").command.name == name


# --- the sandbox -----------------------------------------------------------------------------------------------------


def test_the_tables_of_what_the_sandbox_has_are_those_of_its_routes_and_tests() -> None:
    page = text_of(REFERENCE / "sandbox.md")
    assert page == conformance.page(), "run: python -m tests.contract.shapes.conformance"
