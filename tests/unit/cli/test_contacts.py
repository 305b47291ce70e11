"""Contacts of a project, as a person gives and changes them."""

from __future__ import annotations

from tests.unit.cli.conftest import Leeway


def test_contacts_are_given_shown_and_changed(leeway: Leeway) -> None:
    project = ("letters", "--institution", "home", "--contact", "pi@example.org", "--contact", "b@example.org")
    assert leeway.json("project", "add", *project)["contacts"] == ["pi@example.org", "b@example.org"]
    said = leeway.ok("project", "contact", "letters", "--remove", "pi@example.org", "--add", "c@example.org")
    assert said == "Messages about letters go to b@example.org, c@example.org.\n"
    assert leeway.json("project", "contact", "letters")["contacts"] == ["b@example.org", "c@example.org"]
    said = leeway.ok("project", "contact", "letters", "--remove", "b@example.org", "--remove", "c@example.org")
    assert said.startswith("letters has no contacts")


def test_what_is_no_address_is_refused_with_the_way_out(leeway: Leeway) -> None:
    refused = leeway("project", "add", "wrong", "--institution", "home", "--contact", "pi at example.org")
    assert refused.exit_code == 1
    assert "contacts.0" in refused.output
    assert "pi@example.org" in refused.output
