"""Errors as problem documents (RFC 9457), for programs as JSON and for people as a page; one place for both.

Whatever is raised in a request becomes a `LeewayError` here: the core's own as they are, those of the framework and of
the database in our words. What nothing expects is a 500 that says nothing but the request's id; the log has the rest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import psycopg.errors
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from broker.documents import field_path, shown
from broker.errors import Conflict, InvalidInput, LeewayError, NotFound, Rejected, SetupError
from broker.values import plain

MEDIA_TYPE = "application/problem+json"
# Seconds after which what was busy may be asked again.
RETRY_AFTER = 2
_WAIT = "Try again in a moment; see `leeway doctor`."

log = logging.getLogger(__name__)


class MethodNotAllowed(Rejected):
    code = "method_not_allowed"
    title = "That cannot be done to this address"
    status = 405


class TooLarge(Rejected):
    code = "too_large"
    title = "The request is too large"
    status = 413


class WrongHost(Rejected):
    """The Host header names another server: a page elsewhere may have made this name point here (DNS rebinding)."""

    code = "wrong_host"
    title = "This server has another name"
    status = 421


class Busy(LeewayError):
    """Others held what was needed for longer than one waits; nothing was changed."""

    code = "busy"
    title = "Busy"
    status = 503


class DatabaseUnavailable(LeewayError):
    """The database is away. Whether a change under way was kept is not known; a repeat with the same key is safe."""

    code = "database_unavailable"
    title = "The database does not answer"
    status = 503


class Internal(LeewayError):
    """A fault of Leeway itself."""

    code = "internal"
    title = "Something went wrong here"
    status = 500


def document(error: LeewayError, *, instance: str, request_id: str) -> dict[str, Any]:
    """The problem document of an error. The context of the error comes first, so that it cannot hide the rest."""
    return {
        **error.context,
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "hint": error.hint,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
    }


def headers(error: LeewayError) -> dict[str, str]:
    """What HTTP wants besides the document."""
    found = {}
    if isinstance(error, Busy | DatabaseUnavailable):
        found["Retry-After"] = str(RETRY_AFTER)
    if error.status == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = 'Bearer realm="leeway"'
    if "allow" in error.context:
        found["Allow"] = str(error.context["allow"])
    return found


def response(error: LeewayError, *, instance: str, request_id: str) -> Response:
    """The answer to a program."""
    content = json.dumps(
        document(error, instance=instance, request_id=request_id), default=_plain_json, ensure_ascii=False
    )
    return Response(content.encode(), error.status, headers(error), MEDIA_TYPE)


def _plain_json(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


# --- what others raise -----------------------------------------------------------------------------------------------


def explained(error: Exception) -> LeewayError | None:
    """An exception of the framework or the database in our words; None for one that nothing expects."""
    if isinstance(error, SetupError) and "is_transient" in error.context:
        # Its words name hosts and roles: they are for the log, not for whoever asks for the health.
        return DatabaseUnavailable("The database cannot be reached.", hint=_WAIT)
    found: LeewayError | None = None
    match error:
        case LeewayError():
            found = error
        case RequestValidationError():
            found = _invalid(error.errors())
        case HTTPException():
            found = _refused(error)
        case PoolTimeout():
            found = Busy("Every connection to the database is in use.", hint="Try again in a moment.")
        case StaleDataError():
            found = Conflict("Somebody else changed this at the same time.", hint="Look at it again, then repeat.")
        case DBAPIError():
            found = _database(error)
    return found


def _database(error: DBAPIError) -> LeewayError | None:
    cause = error.orig
    waited = (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
        psycopg.errors.QueryCanceled,
    )
    if isinstance(cause, waited):
        return Busy("Others are changing the same things.", hint="Try again in a moment.")
    if isinstance(cause, psycopg.DataError):
        return InvalidInput("request", "holds something that cannot be kept", hint="Is a number or text too long?")
    if isinstance(error, IntegrityError) and isinstance(cause, psycopg.errors.UniqueViolation):
        return Conflict("Somebody else made the same thing at the same time.", hint="Look at it, then repeat.")
    is_away = error.connection_invalidated or isinstance(cause, psycopg.errors.OperationalError)
    if isinstance(error, OperationalError) and is_away:
        return DatabaseUnavailable("The database went away while it was asked.", hint=_WAIT)
    return None


def _refused(error: HTTPException) -> LeewayError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this address.", hint="See /api/v1/openapi.json for what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed("This address takes other methods.", hint=f"Use {allowed}.", allow=allowed)
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge("The request is larger than this server takes.", hint="Send less at once.")
    return InvalidInput("request", str(error.detail), hint="See /api/v1/openapi.json.")


# --- validation ------------------------------------------------------------------------------------------------------

_PLACES = {"body", "query", "path", "header", "cookie"}
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a table",
    "list_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "uuid_type": "an id",
    "uuid_parsing": "an id",
}


def _invalid(details: Sequence[Any]) -> InvalidInput:
    """Every fault of the request, the first as the error itself. No value of a body is repeated: it may be secret."""
    faults = [_fault(detail) for detail in details]
    first = faults[0]
    return InvalidInput(str(first["field"]), str(first["reason"]), hint=first["hint"], errors=faults)


def _fault(detail: Any) -> dict[str, str | None]:
    place, *path = detail["loc"]
    context = detail.get("ctx") or {}
    if place not in _PLACES:
        path = [place, *path]
    field = field_path(tuple(path)) or str(place)
    repeated = shown(detail.get("input")) if place == "query" else "it"
    hint: str | None = None
    match detail["type"]:
        case "json_invalid":
            field, reason, hint = "body", f"is not JSON: {context.get('error')}", "Send a JSON object."
        case "missing":
            reason, hint = "is missing", "Send a JSON object." if field == "body" else f"Add {field}."
        case "unknown_key":
            field = field_path((*path, str(context["key"])))
            reason, hint = "unknown key", context["hint"]
        case "leeway":
            reason, hint = str(context["reason"]), context["hint"]
        case "model_attributes_type" | "dict_type" if field == "body":
            reason, hint = "is no JSON object", "Send a JSON object with Content-Type: application/json."
        case "enum" | "literal_error":
            reason, hint = f"{repeated} is not known", f"Write {context['expected']}."
        case "string_pattern_mismatch":
            reason, hint = "is not written as it must be", f"It must match {context['pattern']}."
        case kind if kind in _EXPECTED:
            reason = f"{repeated} is not {_EXPECTED[kind]}"
        case _:
            reason = _sentence(str(detail["msg"]))
    return {"field": field, "reason": reason, "hint": hint}


def _sentence(message: str) -> str:
    """Pydantic's own words where there are no better ones: `should be less than or equal to 200`."""
    for start in ("Input ", "Value error, ", "Value "):
        message = message.removeprefix(start)
    return message


# --- handlers --------------------------------------------------------------------------------------------------------

Answer = Callable[[Request, LeewayError], Response]


def install(app: FastAPI, answer: Answer) -> None:
    """Let the app answer every error with `answer`."""

    async def expected(request: Request, error: Exception) -> Response:
        found = explained(error)
        if found is None:
            raise error  # to the handler below, and to the server, which logs it with its traceback
        if found.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("request refused for now", extra={"code": found.code, "detail": str(error)})
        return answer(request, found)

    async def unexpected(request: Request, _error: Exception) -> Response:
        return answer(
            request,
            Internal("A fault of Leeway itself, not of the request.", hint="Tell the operator the request's id."),
        )

    handler: Callable[[Request, Exception], Awaitable[Response]] = expected
    for kind in (LeewayError, RequestValidationError, HTTPException, PoolTimeout, StaleDataError, DBAPIError):
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, unexpected)
