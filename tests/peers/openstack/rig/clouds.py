"""The clouds.yaml by which openstacksdk and the command line client reach the rig."""

from pathlib import Path

from rig.contents import CREDENTIAL_OWNER, USERS
from rig.layout import KEYSTONE_PUBLIC, PASSWORD, REGION

PREFIX = "leeway"


def write_clouds(path: Path, *, credential_id: str) -> None:
    """One entry per user, `leeway-NAME`, plus one for the application credential; replaced as a whole."""
    # Names and numbers of ours need no quoting; the standard library writes no YAML.
    blocks = [_entry("admin", _password("admin", "admin"))]
    blocks += [_entry(user, _password(user, next(iter(memberships)))) for user, memberships in USERS.items()]
    credential = {"application_credential_id": credential_id, "application_credential_secret": PASSWORD}
    blocks.append(_entry(f"{CREDENTIAL_OWNER}-credential", credential, kind="v3applicationcredential"))
    part = path.with_suffix(".part")
    part.write_text("\n".join(["clouds:", *blocks]) + "\n")
    part.replace(path)


def _password(user: str, project: str) -> dict[str, str]:
    login = {"username": user, "password": PASSWORD, "project_name": project}
    return login | {"user_domain_name": "Default", "project_domain_name": "Default"}


def _entry(name: str, auth: dict[str, str], *, kind: str = "password") -> str:
    lines = [f"  {PREFIX}-{name}:", f"    region_name: {REGION}", f"    auth_type: {kind}", "    auth:"]
    return "\n".join(
        [*lines, *(f"      {key}: {value}" for key, value in ({"auth_url": KEYSTONE_PUBLIC} | auth).items())]
    )
