"""The requests, one method each. Every call blocks; each raises `Problem` or `Unreachable`, nothing else."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote as quoted
from urllib.parse import urlsplit

import httpx

from web.client.errors import Problem, Unreachable
from web.client.place import START_HINT, Place
from web.client.shapes import (
    BootPlan,
    Explanation,
    Finding,
    FindingSums,
    Grant,
    Health,
    Installation,
    Inventory,
    Overdue,
    Project,
    Quote,
    RateCard,
    Resumed,
    Site,
    SiteHealth,
    Spend,
    Thing,
    Workload,
    WorkloadItem,
)

_PREFIX = "/api/v1"
# How often, and after how many seconds, a request is sent again that may be sent twice.
_TRIES = 4
_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5.0
_BUSY = 503
_PAGE = 200

Json = Any


class Client:
    """A conversation with one server. Not for two threads at once."""

    def __init__(self, place: Place, *, timeout_seconds: float = 40.0) -> None:
        """`timeout_seconds`: the longest silence; the server itself gives up on its database after 30."""
        self.place = place
        # A proxy of this account's environment is for the world outside, not for this machine.
        try:
            self._http = httpx.Client(
                base_url=f"{place.url}{_PREFIX}",
                headers={"Authorization": f"Bearer {place.token}", "User-Agent": "leeway"},
                timeout=httpx.Timeout(timeout_seconds, connect=5.0),
                trust_env=not _is_loopback(place.url),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise Unreachable(f"{place.url} is no address: {error}.", hint="Correct LEEWAY_URL.") from None

    def __enter__(self) -> Self:
        """Itself; nothing is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    # --- what the installation is ------------------------------------------------------------------------------------

    def health(self) -> Health:
        return cast("Health", self.get("/health"))

    def installation(self) -> Installation:
        """Whether Leeway acts or only observes, and what is missing."""
        return cast("Installation", self.get("/installation"))

    def resume(self, leave: Sequence[str] = ()) -> Resumed:
        """Act again after a restore; the sites in `leave` are only observed from now on."""
        return cast("Resumed", self.post("/installation/resume", {"leave": list(leave)}))

    def sites(self) -> list[Site]:
        return list(cast("Iterator[Site]", self.each("/sites")))

    def site(self, name: str) -> Site:
        return cast("Site", self.get(f"/sites/{_step(name)}"))

    def site_health(self, name: str) -> SiteHealth:
        """How well it answers now, and hour by hour in the last day."""
        return cast("SiteHealth", self.get(f"/sites/{_step(name)}/health"))

    def add_site(self, wanted: Mapping[str, Json]) -> Site:
        return cast("Site", self.post("/sites", wanted))

    def check_site(self, name: str) -> Site:
        """Have a worker try the credential; it is done when `check_pending` is false."""
        return cast("Site", self.post(f"/sites/{_step(name)}/checks"))

    def start_boot_test(self, name: str, wanted: Mapping[str, Json]) -> str:
        """Order a machine to see whether it comes up; returns the order's id."""
        return str(self.post(f"/sites/{_step(name)}/boot-tests", wanted)["order_id"])

    def plan_boot_tests(self, name: str, wanted: Mapping[str, Json]) -> BootPlan:
        """Test a site at intervals."""
        return cast("BootPlan", self._repeat(self._request("PUT", f"/sites/{_step(name)}/boot-plan", json=wanted)))

    def forget_boot_plan(self, name: str) -> None:
        """Test a site at intervals no more."""
        self._repeat(self._request("DELETE", f"/sites/{_step(name)}/boot-plan"))

    def rate_cards(self) -> list[RateCard]:
        return list(cast("Iterator[RateCard]", self.each("/rate-cards")))

    def import_rate_card(self, wanted: Mapping[str, Json]) -> RateCard:
        return cast("RateCard", self.post("/rate-cards", wanted))

    def projects(self) -> list[Project]:
        return list(cast("Iterator[Project]", self.each("/projects")))

    def add_project(self, wanted: Mapping[str, Json]) -> Project:
        return cast("Project", self.post("/projects", wanted))

    def change_contacts(self, project: str, *, add: Sequence[str], remove: Sequence[str]) -> Project:
        """Whom messages about the project go to; what is to be removed goes first."""
        wanted = {"add": list(add), "remove": list(remove)}
        return cast("Project", self.post(f"/projects/{_step(project)}/contacts", wanted))

    def grants(self, *, project: str | None = None) -> list[Grant]:
        return list(cast("Iterator[Grant]", self.each("/grants", project=project)))

    def add_grant(self, wanted: Mapping[str, Json]) -> Grant:
        return cast("Grant", self.post("/grants", wanted))

    # --- the life of a workload --------------------------------------------------------------------------------------

    def make_quote(self, document: str | Mapping[str, Json], *, preview: bool = False) -> Quote:
        """Price a workload document; a preview is not kept."""
        query = {"preview": "true"} if preview else {}
        return cast("Quote", self.post("/quotes", {"document": document}, **query))

    def quote(self, quote_id: str) -> Quote:
        return cast("Quote", self.get(f"/quotes/{_step(quote_id)}"))

    def place_order(self, quote_id: str, *, rank: int = 1, key: str | None = None) -> Workload:
        """Order an offer of a quote. Where the answer is lost the request is sent again: its key makes it one order."""
        return cast("Workload", self.post("/orders", {"quote_id": quote_id, "rank": rank}, key=key or uuid.uuid4().hex))

    def workloads(
        self, *, project: str | None = None, state: str | None = None, name: str | None = None, most: int | None = None
    ) -> list[WorkloadItem]:
        """Ordered workloads, the newest first; at most `most` of them."""
        found: list[WorkloadItem] = []
        for item in self.each("/workloads", project=project, state=state, name=name):
            if most is not None and len(found) == most:
                break
            found.append(cast("WorkloadItem", item))
        return found

    def workload(self, ref: str) -> Workload:
        """By id, the beginning of one, or name (its newest order)."""
        return cast("Workload", self.get(f"/workloads/{_step(ref)}"))

    def explanation(self, ref: str) -> Explanation:
        return cast("Explanation", self.get(f"/workloads/{_step(ref)}/explanation"))

    def stop(self, ref: str, *, how: str = "end", reason: str | None = None) -> Workload:
        """`how`: `end` deletes it, `stop` powers off and keeps it, `shelve` gives its place back and keeps its disk."""
        wanted = {"how": how} | ({} if reason is None else {"reason": reason})
        return cast("Workload", self.post(f"/workloads/{_step(ref)}/stop", wanted))

    def start(self, ref: str) -> Workload:
        return cast("Workload", self.post(f"/workloads/{_step(ref)}/start"))

    def extend(self, order_id: str, *, until: datetime) -> Workload:
        """Let an order last until then. Where the answer is lost the request is sent again: twice is once."""
        body = {"until": until.isoformat()}
        return cast("Workload", self.post(f"/orders/{_step(order_id)}/extend", body, key=uuid.uuid4().hex))

    def spend(self, *, project: str | None = None) -> list[Spend]:
        return list(cast("Iterator[Spend]", self.each("/spend", project=project)))

    def inventory(self, name: str) -> Inventory:
        """What is at a site, added up."""
        return cast("Inventory", self.get(f"/sites/{_step(name)}/inventory"))

    def things(
        self,
        name: str,
        *,
        kind: str | None = None,
        owner: str | None = None,
        project_id: str | None = None,
        idle: bool = False,
    ) -> list[Thing]:
        """What is at a site, one by one. `owner` and `project_id` are the site's ids."""
        wanted = {"kind": kind, "owner": owner, "project_id": project_id, "idle": "true" if idle else None}
        return list(cast("Iterator[Thing]", self.each(f"/sites/{_step(name)}/things", **wanted)))

    def adopt(self, site: str, things: Sequence[str], *, project: str, until: datetime | None = None) -> list[Workload]:
        """Have a project pay for things of a site, by their ids; where the answer is lost, twice is once."""
        wanted: dict[str, Json] = {"project": project, "things": list(things)}
        if until is not None:
            wanted["until"] = until.isoformat()
        made = self.post(f"/sites/{_step(site)}/adoptions", wanted, key=uuid.uuid4().hex)
        return cast("list[Workload]", made["workloads"])

    def finding_sums(self, *, most: int) -> FindingSums:
        """The open findings added up, and the first ones to look at."""
        return cast("FindingSums", self.get("/findings/summary", most=str(most)))

    def findings(self) -> list[Finding]:
        return list(cast("Iterator[Finding]", self.each("/findings")))

    def overdue(self) -> list[Overdue]:
        """What has not moved for longer than it should."""
        return list(cast("Iterator[Overdue]", self.each("/overdue")))

    # --- requests ----------------------------------------------------------------------------------------------------

    def get(self, path: str, **query: str | None) -> Json:
        """Read something; tried again while the server is busy or was cut off."""
        request = self._request("GET", path, params=_given(query))
        return self._repeat(request, tries=_TRIES)

    def each(self, path: str, **query: str | None) -> Iterator[Json]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, limit=str(_PAGE), cursor=cursor)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def post(self, path: str, body: Mapping[str, Json] | None = None, *, key: str | None = None, **query: str) -> Json:
        """Change something. With a key it may be repeated, so it is, until there is an answer."""
        headers = {} if key is None else {"Idempotency-Key": key}
        request = self._request("POST", path, params=query, json=body, headers=headers)
        return self._repeat(request, tries=1 if key is None else _TRIES)

    def _request(self, method: str, path: str, **parts: Any) -> httpx.Request:
        try:
            return self._http.build_request(method, path, **parts)
        except UnicodeEncodeError:  # bytes of the command line that are no text stay lone surrogates
            raise Problem(
                {
                    "code": "invalid_input",
                    "title": "That is no text",
                    "detail": "Something that was given is not UTF-8.",
                    "hint": "Write it in UTF-8.",
                },
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
            ) from None

    def _repeat(self, request: httpx.Request, *, tries: int = _TRIES) -> Json:
        for left in reversed(range(tries)):
            try:
                answer = self._http.send(request)
            except httpx.ConnectError as error:
                raise Unreachable(f"Nobody answers at {self.place.url} ({error}).", hint=START_HINT) from None
            except httpx.TransportError as error:
                if not left:
                    raise self._lost(request, error) from None
                time.sleep(_WAIT_SECONDS)
                continue
            if answer.status_code == _BUSY and left:
                time.sleep(_wished(answer))
                continue
            return _read(answer)
        raise AssertionError("the last try returns or raises")

    def _lost(self, request: httpx.Request, error: httpx.TransportError) -> Unreachable:
        what = str(error) or type(error).__name__
        changes = request.method != "GET"
        return Unreachable(
            f"The answer of {self.place.url} did not arrive ({what})."
            + (" Whether the request was carried out is not known." if changes else ""),
            hint="Look with `leeway ps` before you repeat it." if changes else START_HINT,
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _given(query: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


def _step(text: str) -> str:
    """One step of a path: a slash in what a person typed must not lead elsewhere. A lone dot would be resolved away."""
    return quoted(text, safe="", errors="surrogateescape") if text.strip(".") else "%2E" * len(text) or "%20"


def _wished(answer: httpx.Response) -> float:
    """Seconds to wait, as the server asks (RFC 9110 Retry-After), within reason."""
    wish = answer.headers.get("Retry-After", "")
    return min(float(wish), _LONGEST_WAIT_SECONDS) if wish.isdecimal() else _WAIT_SECONDS


def _read(answer: httpx.Response) -> Json:
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and body is not None:
        return body
    if isinstance(body, dict) and "code" in body:
        raise Problem(body, status=answer.status_code)
    raise Problem(
        {
            "code": "foreign_answer",
            "title": "That is not Leeway",
            "detail": f"{answer.request.url.copy_with(query=None)} answered {answer.status_code}, not as Leeway does.",
            "hint": "Is something else listening there? Correct LEEWAY_URL, or start `leeway serve` again.",
        },
        status=answer.status_code,
    )
