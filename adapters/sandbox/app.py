"""The cloud as one ASGI application: which service a path belongs to, and the faults in front of the services."""

import asyncio
import ipaddress
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.sandbox import cinder, control, glance, keystone, neutron, nova, roles
from adapters.sandbox.faults import STATUS_FAULTS, Fault, FaultKind
from adapters.sandbox.sending import sending
from adapters.sandbox.state import Cloud
from adapters.sandbox.wire import UNAUTHORIZED, ApiError, Handler, Reply, Service, render, routes

CUT = "leeway.sandbox.cut"
_HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form>Network login</form></body></html>"
_FOREIGN = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "items": [{"name": "node-1"}]}
_TEXTS = {
    401: UNAUTHORIZED,
    403: "Policy doesn't allow this action to be performed.",
    404: "The resource could not be found.",
    409: "Conflict: the resource is being changed by another request.",
    429: "This request was rate-limited.",
    500: "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the API log.",
}
_BEFORE = frozenset({*STATUS_FAULTS, FaultKind.CUT, FaultKind.FOREIGN_JSON, FaultKind.HTML})


class Application:
    """Routes a request to its service, unless a fault gets in its way."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.closing = asyncio.Event()
        modules: dict[str, tuple[Service, Mapping[str, Mapping[str, Handler]]]] = {
            "/compute": (nova.SERVICE, nova.TABLE),
            "/network": (neutron.SERVICE, neutron.TABLE),
            "/image": (glance.SERVICE, glance.TABLE),
            "/volume": (cinder.SERVICE, cinder.TABLE),
            "/_control": (control.SERVICE, control.TABLE),
        }
        self._services = {
            prefix: (service, _router(cloud, service, table)) for prefix, (service, table) in modules.items()
        }
        table = keystone.TABLE if cloud.has_keystone else {}  # the one that a region shares listens elsewhere
        self._identity = (keystone.SERVICE, _router(cloud, keystone.SERVICE, table))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        prefix = "/" + path[1:].partition("/")[0]
        service, router = self._services.get(prefix, self._identity)
        scope["effects"] = ()
        if prefix == "/_control":
            if not _is_loopback(scope):
                await _send(Reply(403, {"error": "only loopback may control the cloud"}), scope, receive, send)
                return
        else:
            inner = path if service is keystone.SERVICE else path.removeprefix(prefix)
            faults = self._cloud.faults.take(service.name, scope["method"], inner)
            if faults:
                await self._troubled(faults, service, router)(scope, receive, send)
                return
        await router(scope, receive, send)

    def _troubled(self, faults: tuple[Fault, ...], service: Service, router: ASGIApp) -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            cut: Callable[[], None] = scope["extensions"][CUT]
            if await self._slow_down(sum(fault.seconds for fault in faults if fault.kind is FaultKind.SLOW)):
                await _cut(cut)
                return
            before = next((fault for fault in faults if fault.kind in _BEFORE), None)
            if before is not None and before.kind is FaultKind.CUT:
                await _cut(cut)
            elif before is not None:
                await _send(_answer_of(before, service), scope, receive, send)
            elif any(fault.kind is FaultKind.ANSWER_LOST for fault in faults):
                scope["effects"] = faults
                await router(scope, receive, _discard)
                await _cut(cut)
            else:
                scope["effects"] = faults
                await router(scope, receive, sending(send, faults, self.closing))

        return respond

    async def _slow_down(self, seconds: float) -> bool:
        """Wait; True when the cloud is being closed meanwhile."""
        try:
            return seconds > 0 and await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return False


async def _cut(cut: Callable[[], None]) -> None:
    cut()
    await asyncio.sleep(0)  # let the server learn that the connection is gone before this request ends


async def _discard(_message: Message) -> None:
    """An answer that nobody gets."""


def _answer_of(fault: Fault, service: Service) -> Reply:
    if fault.kind is FaultKind.FOREIGN_JSON:
        return Reply(200, _FOREIGN)
    if fault.kind is FaultKind.HTML:
        return Reply(200, _HTML, {}, "text/html")
    status = STATUS_FAULTS[fault.kind]
    reply = service.refuse(ApiError(status, fault.message or _TEXTS[status]))
    if fault.kind is FaultKind.TOO_MANY_REQUESTS:
        reply.headers["Retry-After"] = f"{fault.seconds:.0f}"
    return reply


async def _send(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()  # an unread body would make the connection unusable for the next request
    await render(reply)(scope, receive, send)


def _router(cloud: Cloud, service: Service, table: Mapping[str, Mapping[str, Handler]]) -> Router:
    async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
        await _send(service.refuse(ApiError(404, "The resource could not be found.")), scope, receive, send)

    return Router(
        routes(cloud, service, roles.guarded(service.name, table)), redirect_slashes=False, default=nothing_here
    )


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and ipaddress.ip_address(client[0]).is_loopback
