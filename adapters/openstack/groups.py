"""The groups that machines are put into: Neutron's, which open ports, and Nova's, which keep machines apart.

The site's settings name them by name or id. They are read for every machine, because a group that was replaced by one
of the same name must not live on in a cache.
"""

from __future__ import annotations

from adapters.cloud import foreign
from adapters.openstack.session import Document, Service, Session, get, list_of
from broker.errors import SiteRefused
from broker.remote import Deadline


class GroupChoice:
    """What the settings `security_groups` and `server_group` mean at the site now."""

    def __init__(self, session: Session) -> None:
        """Read nothing yet."""
        self._session = session
        self._security = split(session.site.settings.get("security_groups"))
        self._server = (session.site.settings.get("server_group") or "").strip()

    def security(self, deadline: Deadline) -> list[str]:
        """The ids of the security groups, none where the site's default is to stand.

        Raises:
            SiteRefused: there is no such group, or more than one.
        """
        if not self._security:
            return []
        doing = "choosing the security groups"
        project_id = self._session.token(deadline).project_id
        call = get(Service.NETWORK, "/v2.0/security-groups", doing, project_id=project_id, fields=("id", "name"))
        known = self._session.all(call, "security_groups", _id_and_name, deadline)
        chosen = [_choose(known, wanted, setting="security_groups", doing=doing) for wanted in self._security]
        return list(dict.fromkeys(chosen))

    def server(self, deadline: Deadline) -> str | None:
        """The id of the server group, None where there is to be none.

        Raises:
            SiteRefused: there is no such group, or more than one.
        """
        if not self._server:
            return None
        doing = "choosing the server group"
        # Nova pages these by `offset` alone; a project may have ten of them unless its quota was raised a lot.
        document = self._session.read(get(Service.COMPUTE, "/os-server-groups", doing), deadline)
        known = [_id_and_name(group) for group in list_of(document, "server_groups", doing)]
        return _choose(known, self._server, setting="server_group", doing=doing)


def split(setting: str | None) -> list[str]:
    """The words of a setting that is a list with commas."""
    return [word.strip() for word in (setting or "").split(",") if word.strip()]


def _id_and_name(group: Document) -> tuple[str, str]:
    name = group.get("name")
    if not isinstance(name, str):
        raise foreign("reading a group", f"{group.get('id')} has no name")
    return group["id"], name


def _choose(known: list[tuple[str, str]], wanted: str, *, setting: str, doing: str) -> str:
    fitting = [identifier for identifier, name in known if wanted in (identifier, name)]
    if len(fitting) == 1:
        return fitting[0]
    reason = f"{len(fitting)} groups are called {wanted!r}" if fitting else f"there is no group {wanted!r}"
    names = ", ".join(f"{name} ({identifier})" for identifier, name in known if not fitting or identifier in fitting)
    raise SiteRefused(
        f"{doing}: {reason}",
        hint=f"Set the site's setting {setting} to one of: {names}." if names else "This project has none: make one.",
    )
