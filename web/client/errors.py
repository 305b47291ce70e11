"""What a client may meet: a refusal that says why, or nobody at home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of both. `detail` says what is wrong, `hint` the way out."""

    title = "The request did not succeed"

    def __init__(self, detail: str, *, hint: str | None = None) -> None:
        """Keep the parts apart, so that each surface can lay them out its own way."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class Problem(ClientError):
    """The server's answer, where it is a problem document (RFC 9457). `context` is all of it."""

    def __init__(self, document: Mapping[str, Any], *, status: int) -> None:
        """`status` is the HTTP status, also where the document names none."""
        super().__init__(str(document.get("detail") or f"the server answered {status}"), hint=document.get("hint"))
        self.status = status
        self.code = str(document.get("code") or "error")
        self.title = str(document.get("title") or "The server refused")
        self.request_id: str | None = document.get("request_id")
        self.context = dict(document)


class Unreachable(ClientError):
    """Nobody answers at the address. Whether a request that was sent has been acted on is not known."""

    title = "The server cannot be reached"
