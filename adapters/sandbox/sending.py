"""How an answer goes out where a fault makes that odd: drop by drop, or with a great deal of nothing before it."""

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Send

from adapters.sandbox.faults import Fault, FaultKind

_PADDING = b" " * (10 * 1024 * 1024)  # white space before a JSON document means nothing


def sending(send: Send, faults: Iterable[Fault], closing: asyncio.Event) -> Send:
    """`send`, as the faults have it."""
    for fault in faults:
        if fault.kind is FaultKind.LARGE:
            send = _padded(send)
        elif fault.kind is FaultKind.DRIP:
            send = _dripping(send, fault.seconds, closing)
    return send


def _padded(send: Send) -> Send:
    is_json = False

    async def pad(message: Message) -> None:
        nonlocal is_json
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            is_json = headers.get(b"content-type", b"").startswith(b"application/json")
            if is_json:
                headers[b"content-length"] = b"%d" % (int(headers[b"content-length"]) + len(_PADDING))
            message = {**message, "headers": list(headers.items())}
        elif is_json:
            message = {**message, "body": _PADDING + message.get("body", b"")}
            is_json = False
        await send(message)

    return pad


def _dripping(send: Send, seconds: float, closing: asyncio.Event) -> Send:
    async def drip(message: Message) -> None:
        body = message.get("body", b"")
        for place in range(len(body)):
            await send({**message, "body": body[place : place + 1], "more_body": True})
            try:
                await asyncio.wait_for(closing.wait(), seconds)
            except TimeoutError:
                continue
            return
        await send({**message, "body": b""} if body else message)

    return drip
