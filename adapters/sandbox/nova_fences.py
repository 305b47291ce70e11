"""What keeps a second POST of a server from making a second one, beside its port (`CloudConfig.fence`).

Both are asked before the quota, so that "it is there already" is never taken for "there is no room".
"""

from datetime import timedelta
from typing import Any

from adapters.sandbox.config import ServerFence
from adapters.sandbox.entities import ClientToken, Server
from adapters.sandbox.wire import ApiError, Call

HEADER = "client-token"


def refuse_taken_name(call: Call, name: str) -> None:
    """Fence `name`: one server of a name in a project, whether it is shown, in ERROR, or being deleted.

    Raises:
        ApiError: 409 with the words of Nova's InstanceExists.
    """
    if call.cloud.config.fence is ServerFence.NAME and any(
        server.name == name and server.project_id == call.project.id for server in call.cloud.servers.values()
    ):
        raise ApiError(409, f"Instance {name} already exists.")


def made_before(call: Call, document: dict[str, Any]) -> Server | None:
    """Fence `token`: the server that this token made already, whatever became of it; None where it may make one.

    Raises:
        ApiError: 409 where the token came with another document (EC2's IdempotentParameterMismatch).
    """
    key = _key(call)
    known = call.cloud.client_tokens.get(key) if key else None
    if known is None or known.forgotten_at <= call.now:
        return None
    if known.document != document:
        raise ApiError(409, "The client token was used before, for a request with other parameters.")
    return known.server


def remember(call: Call, document: dict[str, Any], server: Server) -> None:
    """Fence `token`: from now on the request's token stands for this server."""
    key = _key(call)
    if key:
        forgotten_at = call.now + timedelta(seconds=call.cloud.config.token_life_seconds)
        call.cloud.client_tokens[key] = ClientToken(server, document, forgotten_at)


def _key(call: Call) -> tuple[str, str] | None:
    token = call.headers.get(HEADER)
    return (call.project.id, token) if token and call.cloud.config.fence is ServerFence.TOKEN else None
