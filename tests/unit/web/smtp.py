"""A real SMTP server on loopback, which answers as a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "p@ss/word"
HANG_UP = "hang up"


@dataclass
class Postbox:
    """What came, and what is answered instead of "taken", in turn: `HANG_UP` takes it and never says so."""

    port: int = 0
    letters: list[tuple[tuple[str, ...], EmailMessage]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # address -> the answer to RCPT
    seconds: float = 0  # that it thinks before it takes a letter
    logins: list[bytes] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802, PLR0917 - aiosmtpd's signature
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        assert (server, session, options) is not None
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - likewise
        """Take a letter, or not."""
        assert session is not None
        await asyncio.sleep(self.seconds)
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer in (HANG_UP, "250 taken"):
            assert isinstance(envelope.content, bytes)
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            self.letters.append((tuple(envelope.rcpt_tos), message))
        if answer == HANG_UP:
            assert server.transport is not None
            server.transport.close()
        return answer

    def log_in(  # noqa: PLR0917 - aiosmtpd's signature
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, auth: Any
    ) -> AuthResult:
        """The one password."""
        assert (server, session, envelope, mechanism) is not None
        assert isinstance(auth, LoginPassword)
        self.logins.append(auth.password)
        return AuthResult(success=auth.password == PASSWORD.encode(), handled=False)


@contextlib.contextmanager
def listening(box: Postbox, *, tls: ssl.SSLContext | None = None, implicit: bool = False) -> Iterator[int]:
    """Serve it on a port of its own, or again on the one that it had; `tls` offers STARTTLS, or speaks TLS at once."""
    loop = asyncio.new_event_loop()

    def serve() -> SMTP:
        return SMTP(
            box,
            hostname="mail.example.org",
            tls_context=None if implicit else tls,
            authenticator=box.log_in if tls else None,
            auth_require_tls=not implicit,
            loop=loop,
        )

    server = loop.run_until_complete(loop.create_server(serve, "127.0.0.1", box.port, ssl=tls if implicit else None))
    box.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield box.port
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(_rest(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _rest() -> None:
    """Let the conversations end."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (others := asyncio.all_tasks() - {asyncio.current_task()}):
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1)
