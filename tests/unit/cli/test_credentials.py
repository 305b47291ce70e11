"""Secrets come from files, standard input and the environment, and are never repeated."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from web.cli.command import Failure
from web.cli.credentials import Source, complete, from_clouds_yaml

NOWHERE = Source(None, is_stdin=False)
CLOUDS = """\
clouds:
  tartu:
    auth:
      auth_url: https://tartu.example.org:5000/v3
      username: ann
      project_name: climate
      user_domain_name: Institute
    region_name: north
    cacert: /etc/ssl/tartu.pem
  other:
    auth:
      auth_url: https://other.example.org/v3
      application_credential_id: abc
      application_credential_secret: s3cret
"""
SECURE = "clouds: {tartu: {auth: {password: 's3cret'}}}\n"


def test_the_secret_is_read_from_a_file_with_its_spaces(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" s3cret \n")
    found = complete(
        {"username": "ann", "project_name": "climate", "project_id": None}, Source(str(file), is_stdin=False)
    )
    assert found == {"username": "ann", "project_name": "climate", "password": " s3cret "}


def test_the_secret_is_read_from_the_variables_of_openstack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", "s3cret")
    assert complete({"application_credential_id": "abc", "project_name": "ignored"}, NOWHERE) == {
        "application_credential_id": "abc",
        "application_credential_secret": "s3cret",
    }
    monkeypatch.setenv("OS_PASSWORD", "other")
    assert complete({"username": "ann", "project_id": "p"}, NOWHERE)["password"] == "other"


def test_a_project_alone_is_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_TOKEN", "gAAAA")
    assert complete({"project_name": "climate"}, NOWHERE) == {"project_name": "climate", "token": "gAAAA"}
    monkeypatch.delenv("OS_TOKEN")
    with pytest.raises(click.UsageError, match="OS_TOKEN"):
        complete({"project_name": "climate"}, NOWHERE)


def test_an_empty_name_is_told_and_not_taken_for_another_kind_of_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_TOKEN", "gAAAA")
    with pytest.raises(click.UsageError, match="--user-domain-name is empty"):
        complete({"username": "ann", "user_domain_name": " ", "project_name": "climate"}, NOWHERE)
    with pytest.raises(click.UsageError, match="--username is empty"):
        complete({"username": "", "project_name": "climate"}, NOWHERE)


@pytest.mark.parametrize(
    ("entry", "fields"),
    [
        ("auth_type: v3token", {"token", "project_name"}),
        ("auth_type: token", {"token", "project_name"}),
        ("auth_type: v3password", {"username", "password", "project_name"}),
        ("interface: public", {"username", "password", "project_name"}),
    ],
)
def test_of_a_password_and_a_token_the_kind_of_login_says_which(tmp_path: Path, entry: str, fields: set[str]) -> None:
    auth = "{auth_url: https://x/v3, username: ann, password: s3cret, token: gAAAA, project_name: climate}"
    file = tmp_path / "clouds.yaml"
    file.write_text(f"clouds:\n  x:\n    {entry}\n    auth: {auth}\n")
    assert from_clouds_yaml(file, "x").credential.keys() == fields


@pytest.mark.parametrize("text", ["", "\n", "one\ntwo\n"])
def test_a_secret_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(Failure, match="lines"):
        complete({"application_credential_id": "abc"}, Source(str(file), is_stdin=False))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "either --application-credential-id, or --username"),
        ({"username": "ann", "application_credential_id": "abc"}, "either"),
        ({"username": "ann"}, "--project-name"),
    ],
)
def test_what_is_missing_is_named_by_its_option(known: dict[str, str], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        complete(known, NOWHERE)


def test_a_cloud_is_read_from_clouds_yaml_and_its_secret_from_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(CLOUDS)
    (tmp_path / "secure.yaml").write_text(SECURE)
    entry = from_clouds_yaml(file, "tartu")
    assert (entry.endpoint, entry.region) == ("https://tartu.example.org:5000/v3", "north")
    assert entry.settings == {"ca_bundle": "/etc/ssl/tartu.pem"}
    assert entry.credential == {
        "username": "ann",
        "password": "s3cret",
        "project_name": "climate",
        "user_domain_name": "Institute",
    }
    assert "s3cret" not in repr(entry)
    assert set(from_clouds_yaml(file, "other").credential) == {
        "application_credential_id",
        "application_credential_secret",
    }


def test_a_cloud_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(CLOUDS)
    for name, title in (("tartoo", "No such cloud"), (None, "Say which cloud")):
        with pytest.raises(Failure) as caught:
            from_clouds_yaml(file, name)
        assert caught.value.title == title
        assert caught.value.hint == "Add --cloud with one of: other, tartu."


@pytest.mark.parametrize(
    "text", ["", "clouds: []", "a: [1", "clouds: {x: {auth: {}}}", "clouds: {x: 3}", "\tpassword: s3cret"]
)
def test_a_file_that_is_no_clouds_yaml_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(text)
    with pytest.raises(Failure) as caught:
        from_clouds_yaml(file, "x")
    assert "s3cret" not in str(caught.value)
