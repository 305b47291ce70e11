"""The credential of a site, from wherever a person keeps it: never from the command line, which others can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import yaml

from web.cli.command import Failure

# What OpenStack's own tools call them.
PASSWORD_VARIABLE: Final = "OS_PASSWORD"  # noqa: S105 - the name of a variable
SECRET_VARIABLE: Final = "OS_APPLICATION_CREDENTIAL_SECRET"  # noqa: S105 - same
TOKEN_VARIABLE: Final = "OS_TOKEN"  # noqa: S105 - same
_AUTH_KEYS: Final = (
    "username",
    "password",
    "token",
    "project_name",
    "project_id",
    "user_domain_name",
    "user_domain_id",
    "project_domain_name",
    "project_domain_id",
    "application_credential_id",
    "application_credential_secret",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the secret itself comes from: a file, standard input, else the environment, else a question."""

    file: str | None
    is_stdin: bool


@dataclass(frozen=True, slots=True)
class CloudEntry:
    """One cloud of a clouds.yaml: what it says of the site, beside the credential."""

    endpoint: str
    region: str | None
    credential: dict[str, str] = field(repr=False)
    settings: dict[str, str]


def complete(known: Mapping[str, str | None], source: Source) -> dict[str, str]:
    """The credential's fields with the secret added: of an application credential, a user, or else a token.

    Raises:
        click.UsageError: it is none of them, or two, or for no project.
        Failure: the secret cannot be read.
    """
    for name, value in known.items():
        if value is not None and not value.strip():
            raise click.UsageError(f"--{name.replace('_', '-')} is empty.")
    credential = {name: value for name, value in known.items() if value}
    is_application, is_user = "application_credential_id" in credential, "username" in credential
    has_project = bool({"project_name", "project_id"} & set(credential))
    if (is_application and is_user) or not (is_application or is_user or has_project):
        raise click.UsageError(
            "Give either --application-credential-id, or --username with --project-name, or --project-name alone for "
            "a token."
        )
    if not is_application and not has_project:
        raise click.UsageError("A login is for one project: add --project-name or --project-id.")
    if is_application:
        # It carries its user and its project.
        secret = _secret(source, SECRET_VARIABLE, "Secret of the application credential")
        return {
            "application_credential_id": credential["application_credential_id"],
            "application_credential_secret": secret,
        }
    if is_user:
        return credential | {"password": _secret(source, PASSWORD_VARIABLE, f"Password of {credential['username']}")}
    return credential | {"token": _secret(source, TOKEN_VARIABLE, "Token")}


def _secret(source: Source, variable: str, question: str) -> str:
    if source.file is not None and source.is_stdin:
        raise click.UsageError("Give --password-file or --password-stdin, not both.")
    if source.file is not None:
        return _line(_text(Path(source.file)), source.file)
    if source.is_stdin:
        return _line(sys.stdin.read(), "standard input")
    if value := os.environ.get(variable):
        return value
    if not sys.stdin.isatty():
        raise click.UsageError(f"Nobody can be asked for the secret here: use --password-stdin or set {variable}.")
    answer: str = click.prompt(question, hide_input=True, err=True)
    return answer


def _line(text: str, where: str) -> str:
    """One line, without its end; a password may have spaces at its ends."""
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0]:
        raise Failure(
            f"{where} has {len(lines)} lines.", title="The secret cannot be read", hint="It is one line, and no more."
        )
    return lines[0]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}.", title="The file cannot be read") from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is no text.", title="The file cannot be read") from None


# --- clouds.yaml -----------------------------------------------------------------------------------------------------


def from_clouds_yaml(file: Path, name: str | None) -> CloudEntry:
    """One cloud of the file that OpenStack's own tools read; its secrets may lie in a `secure.yaml` beside it.

    Raises:
        Failure: the file cannot be read, or the cloud is not in it, or lacks something.
    """
    clouds = _clouds(file)
    if not clouds:
        raise Failure(f"{file} holds no clouds.", title="No such cloud", hint="It begins with `clouds:`.")
    if name is None and len(clouds) == 1:
        name = next(iter(clouds))
    if name not in clouds:
        names = ", ".join(sorted(clouds))
        title, what = ("Say which cloud", "several are") if name is None else ("No such cloud", f"no {name!r} is")
        raise Failure(f"{what} in {file}.", title=title, hint=f"Add --cloud with one of: {names}.")
    secure = file.with_name("secure.yaml")
    entry = _merged(clouds[name], _clouds(secure).get(name, {}) if secure.is_file() else {})
    auth = entry.get("auth")
    if not isinstance(auth, dict) or not auth.get("auth_url"):
        raise Failure(
            f"clouds.{name}.auth.auth_url is missing in {file}.", title="The cloud is not complete", hint="Add it."
        )
    return CloudEntry(
        endpoint=str(auth["auth_url"]),
        region=str(entry["region_name"]) if entry.get("region_name") else None,
        credential=_credential(entry, auth),
        settings={"ca_bundle": str(entry["cacert"])} if entry.get("cacert") else {},
    )


def _credential(entry: dict[str, Any], auth: dict[str, Any]) -> dict[str, str]:
    """What logs in. Where an entry has both a password and a token, its `auth_type` says which is meant."""
    kept = {key: str(auth[key]) for key in _AUTH_KEYS if auth.get(key) is not None}
    of_a_user = ("username", "password", "user_domain_name", "user_domain_id")
    is_token = "token" in kept and (entry.get("auth_type") in ("token", "v3token") or "password" not in kept)
    return {key: value for key, value in kept.items() if key not in (of_a_user if is_token else ("token",))}


def _clouds(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise Failure(f"{file} is no YAML{where}.", title="The file cannot be read") from None  # it may quote a secret
    clouds = read.get("clouds") if isinstance(read, dict) else None
    return clouds if isinstance(clouds, dict) else {}


def _merged(entry: object, over: object) -> dict[str, Any]:
    """Tables laid over each other, as openstacksdk does it."""
    merged = dict(entry) if isinstance(entry, dict) else {}
    for key, value in (over if isinstance(over, dict) else {}).items():
        merged[key] = _merged(merged.get(key), value) if isinstance(value, dict) else value
    return merged
