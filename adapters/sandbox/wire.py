"""From an HTTP request to a plain function call and back, the same way for all services.

A handler is a synchronous function from `Call` to `Reply`. It runs under the cloud's lock, after everything due has
happened, and raises `ApiError` to refuse; each service renders refusals in its own shape.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.sandbox.entities import Project, Token
from adapters.sandbox.faults import Fault, FaultKind
from adapters.sandbox.state import Cloud

UNAUTHORIZED = "The request you have made requires authentication."


class ApiError(Exception):
    """A refusal: HTTP status, text, the service's own name for it, and extra headers."""

    def __init__(self, status: int, message: str, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as a handler sees it. `version` is Nova's microversion, (2, 1) elsewhere."""

    cloud: Cloud
    now: datetime
    method: str
    path: str
    params: Mapping[str, str]
    query: QueryParams
    headers: Headers
    body: Any
    base_url: str
    request_id: str
    effects: tuple[Fault, ...] = ()
    version: tuple[int, int] = (2, 1)
    known_token: Token | None = None

    @property
    def token(self) -> Token:
        """The caller's token.

        Raises:
            ApiError: 401, there is none or it is over.
        """
        if self.known_token is None:
            raise ApiError(401, UNAUTHORIZED, headers={"WWW-Authenticate": f'Keystone uri="{self.base_url}/v3"'})
        return self.known_token

    @property
    def project(self) -> Project:
        """The project of the caller's token.

        Raises:
            ApiError: 401 without a valid token, 403 when it is unscoped.
        """
        if self.token.project is None:
            raise ApiError(403, "Policy doesn't allow this action to be performed with an unscoped token.")
        return self.token.project

    def effect(self, kind: FaultKind) -> Fault | None:
        """The fault of this kind that hits this request."""
        return next((fault for fault in self.effects if fault.kind is kind), None)

    def document(self, key: str) -> dict[str, Any]:
        """The object under `key` in the body.

        Raises:
            ApiError: 400, it is not there.
        """
        value = self.body.get(key) if isinstance(self.body, dict) else None
        if not isinstance(value, dict):
            raise ApiError(400, f"Invalid input for field/attribute {key}. '{key}' is a required property")
        return value


@dataclass(slots=True)
class Reply:
    """What goes back: `body` as JSON, or bytes as they are, or None for none."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


Handler = Callable[[Call], Reply]


@dataclass(frozen=True, slots=True)
class Service:
    """How one service answers: its name in the faults, the shape of its refusals, its request id header."""

    name: str
    refuse: Callable[[ApiError], Reply]
    request_id_header: str = "X-Openstack-Request-Id"
    negotiate: Callable[[Headers], tuple[int, int]] = lambda _headers: (2, 1)
    finish: Callable[[Call, Reply], None] = lambda _call, _reply: None


def routes(cloud: Cloud, service: Service, table: Mapping[str, Mapping[str, Handler]]) -> list[Route]:
    """Starlette routes for a table of path -> method -> handler; other methods get the service's own 405."""
    return [Route(path, _endpoint(cloud, service, handlers), methods=_METHODS) for path, handlers in table.items()]


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def _endpoint(
    cloud: Cloud, service: Service, handlers: Mapping[str, Handler]
) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        raw = await request.body()
        request_id = f"req-{uuid.uuid4()}"
        call = None
        try:
            handler = handlers.get("GET" if request.method == "HEAD" else request.method, _no_such_method)
            version = service.negotiate(request.headers)
            body = _parse(raw)
            with cloud.lock:
                now = cloud.clock()
                cloud.advance(now)
                call = Call(
                    cloud=cloud,
                    now=now,
                    method=request.method,
                    path=request.url.path,
                    params=request.path_params,
                    query=request.query_params,
                    headers=request.headers,
                    body=body,
                    base_url=f"http://{request.headers['host']}",
                    request_id=request_id,
                    effects=request.scope["effects"],
                    version=version,
                    known_token=_known_token(cloud, request.headers.get("x-auth-token"), now),
                )
                reply = handler(call)
        except ApiError as error:
            reply = service.refuse(error)
            reply.headers |= error.headers
        if call is not None:
            service.finish(call, reply)
        reply.headers[service.request_id_header] = request_id
        return render(reply)

    return respond


def _no_such_method(_call: Call) -> Reply:
    raise ApiError(405, "The method is not allowed for the requested URL.")


def _parse(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return raw  # not JSON: whoever wants a document refuses it


def _known_token(cloud: Cloud, identifier: str | None, now: datetime) -> Token | None:
    token = cloud.tokens.get(identifier or "")
    return token if token is not None and token.expires_at > now else None


def render(reply: Reply) -> Response:
    """The reply as Starlette sends it."""
    if reply.body is None:
        content = b""
    elif isinstance(reply.body, bytes):
        content = reply.body
    else:
        content = json.dumps(reply.body, separators=(",", ":")).encode()
    media_type = reply.media_type if content else None
    return Response(content, reply.status, headers=reply.headers, media_type=media_type)


def stamp(moment: datetime) -> str:
    """As most of OpenStack writes a time: UTC to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
