"""Several projects of one cloud at one observed site: the setting `projects`, as names or ids, or `*` for all of them.

A token of Keystone is for one project. So everything is asked once for each project with that project's own token, and
put together here: what is shown is everybody's or it is an error, as for one project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import TypeVar

from adapters.cloud import ReadSoFar, foreign
from adapters.openstack import inventory
from adapters.openstack.session import Document, Service, Session, get, list_of
from broker.errors import InvalidInput, SiteDenied, SiteError
from broker.ports import Changes
from broker.remote import Deadline, Diagnosis, Listing, RemoteQuota, SiteAddress, ThingKind
from broker.threads import DaemonThreads

Value = TypeVar("Value")

EVERY = "*"
# Projects asked at one time; the bulkhead bounds the requests.
_AT_ONCE = 4


def wanted_projects(site: SiteAddress, *, is_application: bool) -> tuple[str, ...]:
    """The names and ids that the site's setting `projects` holds; none: the login's own project alone.

    Raises:
        InvalidInput: the setting cannot be used, here or with this credential.
    """
    text = site.settings.get("projects")
    if text is None:
        return ()
    field, words = "settings.projects", tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if "" in words or (EVERY in words and len(words) > 1):
        hint = "Write names or ids with commas between them, or * alone for every project that the login may enter."
        raise InvalidInput(field, f"{text!r} is no list of projects", hint=hint)
    if not site.observe_only:
        hint = "Machines are started in the login's own project: leave the setting out, or only observe the site."
        raise InvalidInput(field, "is for observed sites", hint=hint)
    if is_application:
        hint = "Log in with a user's password or token, or add a site for each project, each with its own credential."
        raise InvalidInput(field, "an application credential is for its own project alone", hint=hint)
    return words


class Projects:
    """The projects that a site's credential is used for. Thread-safe."""

    def __init__(self, own: Session) -> None:
        """Ask nothing yet.

        Raises:
            InvalidInput: as `wanted_projects`.
        """
        self._own = own
        self._wanted = wanted_projects(own.site, is_application=own.credential.is_application)
        self._sessions: dict[str, Session] = {}  # by id; replaced, never changed
        self._named: frozenset[str] = frozenset()  # ids of the wanted names, as last read

    def scope(self, deadline: Deadline) -> str:
        """Region and projects. It stays the same while `*` means more or fewer of them, and while names do not move."""
        if not self._wanted:
            return inventory.scope(self._own, deadline)
        if self._wanted != (EVERY,) and not self._named:
            self._sessions_now(deadline)
        which = EVERY if self._wanted == (EVERY,) else ",".join(sorted(self._named))
        return f"{self._own.site.region or ''}/{which}"

    def each(self, read: Callable[[Session], Value], deadline: Deadline) -> list[Value]:
        """What `read` finds in each project.

        Raises:
            SiteDenied: a wanted project cannot be entered (any more).
            SiteError: one of the readings failed; its text names the project.
        """
        if not self._wanted:
            return [read(self._own)]
        found: list[Value] = []
        left = iter(self._sessions_now(deadline).items())
        with DaemonThreads("projects") as pool:
            while some := list(islice(left, _AT_ONCE)):
                running = [pool.submit(_in_project, name, read, session) for name, session in some]
                found += [one.result() for one in running]
        return found

    def first(self, read: Callable[[Session], Value | None], deadline: Deadline) -> Value | None:
        """What `read` finds in the one project that has it; None where it finds nothing in any."""
        if not self._wanted:
            return read(self._own)
        answers = (_in_project(name, read, session) for name, session in self._sessions_now(deadline).items())
        return next((found for found in answers if found is not None), None)

    def all(self, read: Callable[[Session], Iterable[Value]], deadline: Deadline) -> list[Value]:
        """What `read` finds, of all projects."""
        return [one for some in self.each(read, deadline) for one in some]

    def close(self) -> None:
        """Close the idle connections of all, the login's own included."""
        for session in (self._own, *self._sessions.values()):
            session.close()

    # --- put together -------------------------------------------------------------------------------------------

    def listing(self, deadline: Deadline, read: ReadSoFar) -> Listing:
        """Everything in all of them. Key pairs belong to the user, and show in each: they are there once."""
        listings = self.each(lambda session: inventory.listing(session, deadline, read), deadline)
        if not self._wanted:
            return listings[0]
        unread: dict[ThingKind, str] = {}
        for one in listings:
            unread = {**one.unread, **unread}
        parts = {(part.kind, part.remote_id): part for one in listings for part in one.parts}
        return Listing(
            scope=self.scope(deadline),
            machines=tuple(machine for one in listings for machine in one.machines),
            parts=tuple(parts.values()),
            # Where a kind is unread in one project, what the others have of it is not all.
            things=tuple(thing for one in listings for thing in one.things if thing.kind not in unread),
            unread=unread,
            projects=frozenset(project for one in listings for project in one.projects),
        )

    def changes(self, read: Callable[[Session], Changes], deadline: Deadline) -> Changes:
        """What changed in any of them."""
        found = self.each(read, deadline)
        if not self._wanted:
            return found[0]
        ended = {remote_id: at for one in found for remote_id, at in one.ended.items()}
        return Changes(self.scope(deadline), tuple(machine for one in found for machine in one.machines), ended)

    def quotas(self, read: Callable[[Session], Sequence[RemoteQuota]], deadline: Deadline) -> list[RemoteQuota]:
        """The sum of each resource's limits and use; one that a project does not say is not known."""
        found = [{quota.resource: quota for quota in some} for some in self.each(read, deadline)]
        known = [name for name in (found[0] if found else ()) if all(name in some for some in found)]
        return [_sum([some[name] for some in found]) for name in known]

    def check(self, deadline: Deadline) -> list[Diagnosis]:
        """Whether each may be entered; no step where there is only the login's own."""
        if not self._wanted:
            return []
        try:
            names = self.each(lambda session: session.token(deadline).project, deadline)
        except SiteError as error:
            return [Diagnosis("projects", ok=False, detail=error.detail, hint=error.hint)]
        return [Diagnosis("projects", ok=True, detail=f"{len(names)}: {', '.join(sorted(names))}")]

    # --- which they are -------------------------------------------------------------------------------------------

    def _sessions_now(self, deadline: Deadline) -> dict[str, Session]:
        """A session for each wanted project, by a name for people; which there are is asked each time."""
        doing = "reading the projects"
        document = self._own.read(get(Service.IDENTITY, "/v3/auth/projects", doing), deadline)
        there = {one["id"]: one for one in list_of(document, "projects", doing) if one.get("enabled") is not False}
        if document.get("truncated"):
            raise foreign(doing, "the list is cut")
        wanted = [*there] if self._wanted == (EVERY,) else [_chosen(word, there) for word in self._wanted]
        known = self._sessions
        self._sessions = {one: known.get(one) or self._own.for_project(one) for one in wanted}
        for one in known.keys() - self._sessions.keys():
            known[one].close()
        self._named = frozenset(wanted)
        return {_words(there[one]): session for one, session in self._sessions.items()}


def _chosen(word: str, there: dict[str, Document]) -> str:
    """The id of a project that the setting names."""
    named = [word] if word in there else [one for one, project in there.items() if project.get("name") == word]
    if len(named) == 1:
        return named[0]
    if named:
        hint = f"Set the site's setting projects to their ids: {', '.join(named)}."
        raise SiteDenied(f"reading the projects: {len(named)} are called {word!r}", hint=hint)
    names = ", ".join(_words(project) for project in there.values()) or "none"
    hint = f"Ask for the role reader in it, or take it out of the site's setting projects. Those that can: {names}."
    raise SiteDenied(f"reading the projects: project {word!r} cannot be entered with this credential", hint=hint)


def _words(project: Document) -> str:
    return f"{project.get('name')} ({project['id']})"


def _in_project(name: str, read: Callable[[Session], Value], session: Session) -> Value:
    try:
        return read(session)
    except SiteError as error:
        error.detail = f"project {name}: {error.detail}"
        raise


def _sum(quotas: Sequence[RemoteQuota]) -> RemoteQuota:
    limits = [quota.limit for quota in quotas if quota.limit is not None]
    limit = sum(limits, Decimal(0)) if len(limits) == len(quotas) else None
    return replace(quotas[0], limit=limit, used=sum((quota.used for quota in quotas), Decimal(0)))
