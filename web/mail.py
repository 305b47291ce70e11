"""E-mail: letters as messages of RFC 5322, handed to a mail server, or left as files where none is set."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from broker.embedded_files import make_private_dir
from broker.errors import InvalidInput, SetupError
from broker.messages import Letter, Mailer, Unserved, email_address, one_line
from web.settings import Settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}|[0-9a-fA-F:.]{{2,45}}")
_FINAL = 500
_HINT = "Write it like smtp://user:password@mail.example.org:587 or smtps://user:password@mail.example.org."

Tls = Literal["none", "starttls", "implicit"]


def make_mailer(settings: Settings) -> Mailer:
    """The mail server of the settings, or the folder `mail` in the data directory; opens nothing.

    Raises:
        SetupError: names the setting that is wrong or missing, and never a password.
    """
    sender = _address(settings.mail_from, "LEEWAY_MAIL_FROM")
    operator = _address(settings.mail_operator, "LEEWAY_MAIL_OPERATOR")
    if settings.smtp_url is None:
        return Spool(settings.data_dir / "mail", Envelope(sender or "leeway@localhost", operator))
    if sender is None:
        raise SetupError(
            "LEEWAY_SMTP_URL is set and LEEWAY_MAIL_FROM is not", hint="Set it to the address that messages come from."
        )
    return SmtpMailer(server_at(settings.smtp_url.get_secret_value()), Envelope(sender, operator))


def _address(text: str | None, name: str) -> str | None:
    try:
        return None if text is None else email_address(text, field=name)
    except InvalidInput as error:
        raise SetupError(error.detail, hint=error.hint) from None


# --- the message -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who writes, and who gets what has no recipients."""

    sender: str
    operator: str | None

    def recipients(self, letter: Letter) -> tuple[str, ...]:
        """Empty where nobody is known."""
        return letter.recipients or (() if self.operator is None else (self.operator,))

    def message(self, letter: Letter) -> EmailMessage:
        """The same letter makes the same message, so that a mail program knows one that comes twice.

        In pure ASCII on the wire, whatever is in it. Raises ValueError for a recipient that is no address.
        """
        mail = EmailMessage(policy=SMTP)
        mail["From"] = Address(display_name="Leeway", addr_spec=self.sender)
        recipients = [email_address(address, field="recipients") for address in self.recipients(letter)]
        mail["To"] = ", ".join(recipients) or "undisclosed-recipients:;"
        # An encoded word (RFC 2047) in a name would be decoded here, and may hold what `one_line` took out: tried.
        mail["Subject"] = one_line(letter.subject).replace("=?", "= ?")
        mail["Date"] = format_datetime(letter.made_at.astimezone(UTC))
        mail["Message-ID"] = f"<{letter.id}@{self.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        mail.set_content(letter.body, cte="quoted-printable")
        return mail


# --- a folder --------------------------------------------------------------------------------------------------------


class Spool:
    """`broker.messages.Mailer`: one file per message, which a repeated one replaces."""

    def __init__(self, folder: Path, envelope: Envelope) -> None:
        """The folder is made when it is needed."""
        self._folder = folder
        self._envelope = envelope

    def send(self, letter: Letter) -> Unserved | None:
        """Write it whole, or not at all."""
        file = self._folder / f"{letter.id}.eml"
        try:
            make_private_dir(self._folder)
            _replace(file, self._envelope.message(letter).as_bytes())
        except (OSError, SetupError) as error:
            return Unserved(letter.recipients, f"{file} cannot be written: {error}", is_away=True)
        except InvalidInput as error:
            return Unserved(letter.recipients, error.detail, is_final=True)
        return None


def _replace(file: Path, content: bytes) -> None:
    """0600, and durable before it has its name. Its draft's name is the same each time, so that none is left behind."""
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


# --- a mail server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where and how mail is handed over."""

    host: str
    port: int
    tls: Tls
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    silence_seconds: float = 20.0  # the longest wait for one answer
    total_seconds: float = 90.0  # of a conversation; far below `broker.messages.Sending.claim`


def server_at(url: str) -> SmtpServer:
    """What an address says.

    `smtp://` means STARTTLS, save on this machine, and `smtps://` TLS from the first byte; `?tls=none` and
    `?tls=starttls` say otherwise.

    Raises:
        SetupError: says what is wrong with it, without its password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        query = parse_qs(parts.query, strict_parsing=bool(parts.query), max_num_fields=5)
    except ValueError:
        raise _malformed("cannot be read: a sign in the password may need its %-form") from None
    if parts.scheme not in ("smtp", "smtps"):
        raise _malformed("does not begin with smtp:// or smtps://")
    if host is None or not _HOST.fullmatch(host):
        raise _malformed("names no host")
    if parts.path not in ("", "/") or parts.fragment or set(query) - {"tls"}:
        raise _malformed("has more than a host, a port and ?tls= after its password")
    if bool(parts.username) != bool(parts.password):
        raise _malformed("has a user or a password, and not both")
    user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
    if not f"{user}{password}".isascii():
        raise _malformed("has letters in its user or password that SMTP does not know", hint="Use ASCII only.")
    tls = _tls(parts.scheme, host, query.get("tls"))
    if tls == "none" and password and host not in _LOOPBACK:
        raise _malformed("would send the password in plain", hint="Leave ?tls=none out, or the user and password.")
    return SmtpServer(
        host=host,
        port=port or (465 if tls == "implicit" else 587),
        tls=tls,
        user=user,
        password=password,
    )


def _tls(scheme: str, host: str, wanted: list[str] | None) -> Tls:
    if scheme == "smtps":
        if wanted is not None:
            raise _malformed("is smtps:// and says ?tls=", hint="Leave ?tls= out.")
        return "implicit"
    match wanted:
        case None:
            return "none" if host in _LOOPBACK else "starttls"
        case ["none"]:
            return "none"
        case ["starttls"]:
            return "starttls"
    raise _malformed("says something unknown in ?tls=", hint="Write ?tls=none or ?tls=starttls.")


def _malformed(what: str, *, hint: str = _HINT) -> SetupError:
    return SetupError(f"LEEWAY_SMTP_URL {what}", hint=hint)


class SmtpMailer:
    """`broker.messages.Mailer` over SMTP; one connection per letter, so that none is held while nothing is sent."""

    def __init__(self, server: SmtpServer, envelope: Envelope) -> None:
        """Opens nothing."""
        self._server = server
        self._envelope = envelope

    def send(self, letter: Letter) -> Unserved | None:
        """Hand it over; whatever comes but the server's "taken" for each recipient is unserved."""
        recipients = self._envelope.recipients(letter)
        if not recipients:
            return Unserved((), "its project has no contacts, and LEEWAY_MAIL_OPERATOR is not set", is_final=True)
        try:
            mail = self._envelope.message(letter).as_bytes()
        except InvalidInput as error:
            return Unserved(recipients, error.detail, is_final=True)
        try:
            with self._connected() as smtp:
                refused = smtp.sendmail(self._envelope.sender, recipients, mail)
        except smtplib.SMTPRecipientsRefused as error:
            return self._refused(error.recipients)
        except smtplib.SMTPException as error:
            return self._failed(recipients, error)
        except OSError as error:
            return self._unserved(recipients, str(error) or type(error).__name__, is_away=True)
        return self._refused(refused) if refused else None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        server = self._server
        context = ssl.create_default_context()
        if server.tls == "implicit":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=server.silence_seconds, context=context
            )
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=server.silence_seconds)
        watchdog = threading.Timer(server.total_seconds, _cut, [smtp])
        watchdog.daemon = True
        watchdog.start()
        try:
            if server.tls == "starttls":
                smtp.starttls(context=context)
            if server.user is not None and server.password is not None:
                smtp.login(server.user, server.password)
            yield smtp
            with contextlib.suppress(OSError):  # what it took it has taken, however it says good-bye
                smtp.quit()
        finally:
            watchdog.cancel()
            smtp.close()

    def _refused(self, refused: Mapping[str, tuple[int, bytes]]) -> Unserved:
        """Some or all recipients were refused, each with a code and words."""
        words = "; ".join(f"{address}: {code} {_text(reason)}" for address, (code, reason) in refused.items())
        return self._unserved(tuple(refused), words, is_final=all(code >= _FINAL for code, _ in refused.values()))

    def _failed(self, recipients: tuple[str, ...], error: smtplib.SMTPException) -> Unserved:
        """Nobody was served, as far as is known."""
        match error:
            case smtplib.SMTPSenderRefused() | smtplib.SMTPDataError():
                is_away = False
            case _:  # it greets, logs in or hangs up: nothing that this letter did
                is_away = True
        match error:
            case smtplib.SMTPResponseException(smtp_code=code, smtp_error=reason):
                return self._unserved(recipients, f"{code} {_text(reason)}", is_final=code >= _FINAL, is_away=is_away)
            case smtplib.SMTPNotSupportedError():
                return self._unserved(recipients, str(error), is_final=True, is_away=True)
        return self._unserved(recipients, str(error), is_away=True)

    def _unserved(
        self, recipients: tuple[str, ...], trouble: str, *, is_final: bool = False, is_away: bool = False
    ) -> Unserved:
        where = f"{self._server.host}:{self._server.port}"
        return Unserved(recipients, f"{where}: {trouble}", is_final=is_final, is_away=is_away)


def _text(reason: bytes | str) -> str:
    return reason.decode(errors="replace") if isinstance(reason, bytes) else reason


def _cut(smtp: smtplib.SMTP) -> None:
    """End a conversation in which every answer comes just in time and none is the last."""
    if smtp.sock is not None:
        with contextlib.suppress(OSError):
            smtp.sock.shutdown(socket.SHUT_RDWR)
