"""Messages reach people by a real SMTP server that is down, slow, strict or forgetful; or lie in a folder."""

from __future__ import annotations

import email
import email.policy
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from broker.database import Database
from broker.errors import InvalidInput, SetupError
from broker.messages import (
    PATIENCE,
    Draft,
    Letter,
    Mailer,
    Sending,
    Unserved,
    email_address,
    is_mail_due,
    one_line,
    post_message,
    send_due,
)
from broker.models.audit import Finding
from broker.models.federation import Installation
from broker.models.messages import Message
from broker.models.people import Person, Project
from broker.projects import NewProject, change_contacts, create_project
from broker.restored import begin_observing, first_imprint
from tests.unit.web.certificates import authority
from tests.unit.web.smtp import HANG_UP, PASSWORD, Postbox, listening
from web.clock import Clock
from web.compose import services
from web.mail import Envelope, SmtpMailer, SmtpServer, Spool, make_mailer, server_at
from web.settings import load_settings
from web.worker import Worker, register

PI = "pi@example.org"
ENVELOPE = Envelope("leeway@example.org", "operator@example.org")
# Due again at once; each round of one letter is told apart by `most=1`.
AT_ONCE = Sending(first_wait=timedelta(0), last_wait=timedelta(0), final_wait=timedelta(0))


@dataclass
class Outbox:
    """The table of messages, and project `climate`."""

    sessions: sessionmaker[Session]
    project_id: UUID

    def post(self, key: str = "one", *, recipients: tuple[str, ...] = (PI,), subject: str = "Hello") -> UUID:
        """A message of the project."""
        draft = Draft(key, "reminder", subject, "Text.\n", recipients, self.project_id)
        with self.sessions.begin() as session:
            assert post_message(session, draft)
            return session.scalars(select(Message.id).where(Message.key == key)).one()

    def row(self, key: str = "one") -> Message:
        """As it is now."""
        with self.sessions() as session:
            return session.scalars(select(Message).where(Message.key == key)).one()

    def send(self, mailer: Mailer, *, most: int = 1, sending: Sending = AT_ONCE) -> int:
        """One round."""
        return send_due(self.sessions, mailer, sending=sending, most=most)

    def findings(self) -> list[str]:
        """What a person is told."""
        with self.sessions() as session:
            return list(
                session.scalars(
                    select(Finding.text).where(Finding.kind == "mail_undelivered", Finding.resolved_at.is_(None))
                )
            )


@pytest.fixture
def outbox(sessions: sessionmaker[Session]) -> Outbox:
    with sessions.begin() as session:
        session.add(Installation(only_one=True, installation_id=UUID(int=1), made_at=func.clock_timestamp()))
        session.flush()
        first_imprint(session)
        project = create_project(session, NewProject("climate", "home", contacts=[PI]))
    return Outbox(sessions, project.id)


@pytest.fixture
def box() -> Iterator[Postbox]:
    made = Postbox()
    with listening(made):
        yield made


def mailer_at(port: int, *, envelope: Envelope = ENVELOPE) -> SmtpMailer:
    return SmtpMailer(server_at(f"smtp://127.0.0.1:{port}"), envelope)


HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}


def text_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


# --- the message -----------------------------------------------------------------------------------------------------


def test_a_letter_arrives_as_it_was_written(box: Postbox) -> None:
    made_at = datetime(2026, 12, 21, 14, 3, tzinfo=UTC)
    body = "Grüße aus Tartu: Õhtul läheb välja.\n\n" + "long " * 300 + "\n.\nFrom the start of a line\n"
    letter = Letter(UUID(int=7), (PI, "second@example.org"), "Läänemeri ends in 3 days ✓", body, made_at)
    assert mailer_at(box.port).send(letter) is None
    [(recipients, mail)] = box.letters
    assert recipients == (PI, "second@example.org")
    assert mail["To"] == "pi@example.org, second@example.org"
    assert mail["From"] == "Leeway <leeway@example.org>"
    assert mail["Subject"] == "Läänemeri ends in 3 days ✓"
    assert mail["Date"].datetime == made_at
    assert mail["Message-ID"] == f"<{UUID(int=7)}@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    assert text_of(mail) == body


@pytest.mark.parametrize(
    "name",
    [
        "x\r\nBcc: thief@example.org",
        "x\nSubject: other",
        "x\rBcc: thief@example.org",
        "x\u2028Bcc: thief@example.org",
        "x\x0bBcc: thief@example.org\r\n\r\nAnother body",
        "x\x85Bcc: thief@example.org",
        "=?utf-8?q?x=0D=0ABcc:_thief@example.org?=",
        "\u202egro.elpmaxe@feiht\u202c\x00x" + "y" * 500,
    ],
)
def test_no_name_makes_a_header_or_a_recipient(box: Postbox, name: str) -> None:
    letter = Letter(UUID(int=7), (PI,), f"{name} ends", "Text.\n", datetime.now(UTC))
    assert mailer_at(box.port).send(letter) is None
    [(recipients, mail)] = box.letters
    assert recipients == (PI,)
    assert set(mail.keys()) == HEADERS
    assert mail["Subject"] == one_line(f"{name} ends").replace("=?", "= ?")
    assert text_of(mail) == "Text.\n"


def test_one_line_keeps_words_and_drops_what_could_break_or_turn_a_line() -> None:
    assert one_line("a\r\nb\tc\u2028d\u202ee\u200bf\x00g  h") == "a b c d e f g h"
    assert one_line(" Läänemeri-2026 (β) ") == "Läänemeri-2026 (β)"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "pi",
        "pi@",
        "@example.org",
        "pi@example",
        "pi@example.org\n",
        "pi@example.org\r\nRCPT TO:<x@y.org>",
        "pi@example.org, x@y.org",
        "pi @example.org",
        "PI <pi@example.org>",
        "pi@exa_mple.org",
        "pi@-example.org",
        ".pi@example.org",
        "p..i@example.org",
        "pi@example..org",
        "pi@bücher.example",
        "p\u0131@example.org",
        "pi\x00@example.org",
        "a" * 65 + "@example.org",
        "a@" + ".".join(["b" * 60] * 5),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        email_address(address, field="contacts.0")
    assert refused.value.field == "contacts.0"


@pytest.mark.parametrize("address", ["pi@example.org", "a.b+c@x-y.example", "o'neil@uni.example", "root@localhost"])
def test_addresses_that_people_have_are_taken(address: str) -> None:
    assert email_address(address, field="contacts.0") == address


# --- sending ---------------------------------------------------------------------------------------------------------


def test_what_is_due_is_sent_once_and_the_same_occasion_makes_one_message(outbox: Outbox, box: Postbox) -> None:
    outbox.post()
    with outbox.sessions.begin() as session:
        assert not post_message(session, Draft("one", "reminder", "Again", "Text.\n"))
    assert outbox.send(mailer_at(box.port), most=10) == 1
    assert outbox.send(mailer_at(box.port), most=10) == 0
    assert len(box.letters) == 1
    assert outbox.row().sent_at is not None


def test_a_message_of_a_transaction_that_is_rolled_back_is_none(outbox: Outbox, box: Postbox) -> None:
    with outbox.sessions() as session:
        post_message(session, Draft("one", "reminder", "Hello", "Text.\n", (PI,)))
        session.rollback()
    assert outbox.send(mailer_at(box.port)) == 0
    assert box.letters == []


def test_a_server_that_was_down_gets_it_when_it_is_up_and_all_wait_together(outbox: Outbox) -> None:
    box = Postbox()
    with listening(box):
        pass
    for key in ("one", "two"):
        outbox.post(key)
    slow = replace(AT_ONCE, first_wait=timedelta(hours=1), last_wait=timedelta(hours=1))
    assert outbox.send(mailer_at(box.port), most=10, sending=slow) == 0
    one, two = outbox.row("one"), outbox.row("two")
    assert (one.failures, two.failures) == (1, 0)
    assert abs(one.next_try_at - two.next_try_at) < timedelta(minutes=1)
    assert "127.0.0.1" in (one.trouble or "")
    make_due(outbox)
    with listening(box):
        assert outbox.send(mailer_at(box.port), most=10) == 2
    assert len(box.letters) == 2
    assert outbox.row().trouble is None


def make_due(outbox: Outbox) -> None:
    with outbox.sessions.begin() as session:
        session.execute(update(Message).values(next_try_at=func.clock_timestamp()))


@pytest.mark.parametrize("answer", ["451 come back later", "421 too busy"])
def test_a_letter_that_is_not_taken_now_is_taken_later(outbox: Outbox, box: Postbox, answer: str) -> None:
    outbox.post()
    box.answers = [answer, answer]
    assert [outbox.send(mailer_at(box.port)) for _ in range(3)] == [0, 0, 1]
    assert outbox.row().failures == 2
    assert len(box.letters) == 1
    assert outbox.findings() == []


def test_who_was_served_does_not_get_it_again(outbox: Outbox, box: Postbox) -> None:
    outbox.post(recipients=(PI, "slow@example.org"))
    box.refused["slow@example.org"] = "450 greylisted"
    assert outbox.send(mailer_at(box.port)) == 0
    box.refused.clear()
    assert outbox.send(mailer_at(box.port)) == 1
    assert [recipients for recipients, _ in box.letters] == [(PI,), ("slow@example.org",)]


def test_a_final_refusal_is_told_at_once_and_not_tried_hot(outbox: Outbox, box: Postbox) -> None:
    outbox.post("one")
    outbox.post("two", recipients=("other@example.org",))
    box.refused[PI] = "550 no such user"
    assert outbox.send(mailer_at(box.port), most=10, sending=Sending()) == 1, "the other letter goes out"
    [told] = outbox.findings()
    assert told.startswith("1 message of project climate cannot be delivered")
    assert "550 no such user" in told
    with outbox.sessions() as session:
        wait = session.scalars(select(Message.next_try_at - func.clock_timestamp()).where(Message.key == "one")).one()
        assert wait > timedelta(hours=5)
        assert not is_mail_due(session)


def test_a_corrected_address_gets_what_waits(outbox: Outbox, box: Postbox) -> None:
    outbox.post()
    box.refused[PI] = "550 no such user"
    outbox.send(mailer_at(box.port), sending=Sending())
    with outbox.sessions.begin() as session:
        change_contacts(session, "climate", add=["new@example.org"], remove=[PI])
    assert outbox.findings() == []
    assert outbox.send(mailer_at(box.port)) == 1
    assert [recipients for recipients, _ in box.letters] == [("new@example.org",)]


def test_a_letter_that_is_refused_for_its_content_is_final(outbox: Outbox, box: Postbox) -> None:
    outbox.post()
    box.answers = ["554 looks like spam"]
    outbox.send(mailer_at(box.port), sending=Sending())
    assert "554 looks like spam" in outbox.findings()[0]
    assert outbox.send(mailer_at(box.port), sending=Sending()) == 0


def test_a_lost_answer_sends_it_again_under_the_same_id(outbox: Outbox, box: Postbox) -> None:
    message_id = outbox.post()
    box.answers = [HANG_UP]
    assert [outbox.send(mailer_at(box.port)) for _ in range(3)] == [0, 1, 0]
    assert [mail["Message-ID"] for _, mail in box.letters] == [f"<{message_id}@example.org>"] * 2
    assert box.letters[0][1].as_bytes() == box.letters[1][1].as_bytes()


def test_two_senders_at_once_send_each_once(outbox: Outbox, box: Postbox) -> None:
    for number in range(6):
        outbox.post(f"message {number}", subject=f"number {number}")
    box.seconds = 0.05
    barrier = threading.Barrier(3)

    def send(_: int) -> int:
        barrier.wait(10)
        return outbox.send(mailer_at(box.port), most=10, sending=Sending())

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(send, range(3))) == 6
    assert sorted(mail["Subject"] for _, mail in box.letters) == [f"number {number}" for number in range(6)]


KILLED = """
import os, signal, sys
from datetime import timedelta
from broker.database import engine, sessions
from broker.messages import Sending, send_due
from web.mail import Envelope, SmtpMailer, server_at

class Killed(SmtpMailer):
    def send(self, letter):
        if sys.argv[3] == "after":
            super().send(letter)
        os.kill(os.getpid(), signal.SIGKILL)

mailer = Killed(server_at(sys.argv[2]), Envelope("leeway@example.org", None))
send_due(sessions(engine(sys.argv[1])), mailer, sending=Sending(claim=timedelta(hours=1)))
"""


@pytest.mark.parametrize(("moment", "copies"), [("before", 1), ("after", 2)])
def test_a_sender_that_is_killed_leaves_it_to_the_next(
    outbox: Outbox, box: Postbox, database: Database, *, moment: str, copies: int
) -> None:
    message_id = outbox.post()
    command = [sys.executable, "-c", KILLED, database.application_url, f"smtp://127.0.0.1:{box.port}", moment]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert outbox.send(mailer_at(box.port)) == 0, "it is in the dead one's hands until its claim ends"
    make_due(outbox)
    assert outbox.send(mailer_at(box.port)) == 1
    assert [mail["Message-ID"] for _, mail in box.letters] == [f"<{message_id}@example.org>"] * copies


def test_no_transaction_is_open_while_a_letter_is_sent(outbox: Outbox) -> None:
    open_now = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    seen: list[int] = []

    class Watching:
        def send(self, letter: Letter) -> Unserved | None:
            assert letter.recipients
            with outbox.sessions() as session:
                seen.append(session.scalars(open_now).one())
            return None

    outbox.post()
    assert outbox.send(Watching()) == 1
    assert seen == [0]


def test_after_enough_failures_a_person_is_told_until_it_is_sent(outbox: Outbox) -> None:
    box = Postbox()
    with listening(box):
        pass
    outbox.post()
    for number in range(1, PATIENCE + 1):
        assert outbox.findings() == [], number
        outbox.send(mailer_at(box.port))
    [told] = outbox.findings()
    assert "refused" in told
    with listening(box):
        assert outbox.send(mailer_at(box.port)) == 1
    assert outbox.findings() == []


def test_the_wait_doubles_up_to_its_longest() -> None:
    waits = [Sending().wait(failures, is_final=False) // timedelta(minutes=1) for failures in (1, 2, 3, 5, 6, 9, 10**6)]
    assert waits == [1, 2, 4, 16, 30, 30, 30]


def test_a_late_failure_does_not_undo_what_another_sender_did(outbox: Outbox, box: Postbox) -> None:
    """A sender that was frozen for longer than its claim wakes up and finds its letter sent."""

    class Frozen:
        def send(self, letter: Letter) -> Unserved | None:
            make_due(outbox)
            assert outbox.send(mailer_at(box.port)) == 1
            return Unserved(letter.recipients, "no answer", is_final=True)

    outbox.post()
    assert outbox.send(Frozen()) == 0
    row = outbox.row()
    assert (row.sent_at is not None, row.failures, row.trouble) == (True, 0, None)
    assert outbox.findings() == []


def test_what_has_no_recipients_goes_to_the_operator_or_is_a_finding(outbox: Outbox, box: Postbox) -> None:
    outbox.post("one", recipients=())
    assert outbox.send(mailer_at(box.port)) == 1
    assert box.letters[0][0] == ("operator@example.org",)
    outbox.post("two", recipients=())
    nobody = mailer_at(box.port, envelope=replace(ENVELOPE, operator=None))
    assert outbox.send(nobody, sending=Sending()) == 0
    assert "LEEWAY_MAIL_OPERATOR is not set" in outbox.findings()[0]
    with outbox.sessions.begin() as session:
        change_contacts(session, "climate", add=["new@example.org"], remove=[])
    assert outbox.send(nobody) == 1
    assert box.letters[1][0] == (PI, "new@example.org")


def test_nothing_is_sent_while_leeway_only_observes(outbox: Outbox, box: Postbox) -> None:
    outbox.post()
    with outbox.sessions.begin() as session:
        begin_observing(session, "tests")
        assert not is_mail_due(session)
    assert outbox.send(mailer_at(box.port)) == 0
    assert box.letters == []


def test_the_pi_gets_it_too_where_the_address_is_one(outbox: Outbox, sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        head = Person(name="Head", email="head@example.org")
        session.add(head)
        session.flush()
        session.execute(update(Project).values(pi_id=head.id))
    outbox.post(recipients=())
    for address, expected in (("head@example.org", [PI, "x@example.org", "head@example.org"]), ("no\naddress", [PI])):
        with sessions.begin() as session:
            session.execute(update(Person).values(email=address))
        with sessions.begin() as session:
            session.execute(update(Message).values(recipients=[]))
            add, remove = (["x@example.org"], []) if len(expected) > 1 else ([], ["x@example.org"])
            change_contacts(session, "climate", add=add, remove=remove)
        assert outbox.row().recipients == expected


# --- the conversation ------------------------------------------------------------------------------------------------


def letter() -> Letter:
    return Letter(UUID(int=7), (PI,), "Hello", "Text.\n", datetime.now(UTC))


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_tls_is_checked_and_the_password_is_sent_in_it(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, tls = authority(tmp_path, host="localhost")
    box = Postbox()
    end = "" if scheme == "smtps" else "?tls=starttls"
    with listening(box, tls=tls, implicit=scheme == "smtps") as port:
        url = f"{scheme}://leeway:p%40ss%2Fword@localhost:{port}{end}"
        unserved = SmtpMailer(server_at(url), ENVELOPE).send(letter())
        assert unserved is not None
        assert "certificate" in unserved.trouble.lower()
        assert (unserved.is_away, box.logins, box.letters) == (True, [], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert SmtpMailer(server_at(url), ENVELOPE).send(letter()) is None
        wrong = SmtpMailer(server_at(url.replace("localhost", "127.0.0.1")), ENVELOPE).send(letter())
        assert wrong is not None, "the certificate is for another name"
    assert box.logins == [PASSWORD.encode()]
    assert len(box.letters) == 1


def test_a_wrong_password_is_final_and_not_the_letters_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted, tls = authority(tmp_path, host="localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with listening(Postbox(), tls=tls) as port:
        mailer = SmtpMailer(server_at(f"smtp://leeway:wrong@localhost:{port}?tls=starttls"), ENVELOPE)
        unserved = mailer.send(letter())
    assert unserved is not None
    assert unserved.trouble.startswith(f"localhost:{port}: 535")
    assert (unserved.is_final, unserved.is_away) == (True, True)


def test_a_server_without_starttls_is_not_used(box: Postbox) -> None:
    unserved = SmtpMailer(server_at(f"smtp://127.0.0.1:{box.port}?tls=starttls"), ENVELOPE).send(letter())
    assert unserved is not None
    assert "STARTTLS" in unserved.trouble
    assert box.letters == []


def speaking(talk: Callable[[socket.socket], None]) -> tuple[int, threading.Thread, socket.socket]:
    """A server of one conversation, for what no real one does on demand."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            talk(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    return server.getsockname()[1], thread, server


def test_a_server_that_answers_for_ever_is_cut_off() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"220 here\r\n")
        connection.recv(1000)
        try:
            while True:
                connection.sendall(b"250-and another thing\r\n")
                time.sleep(0.05)
        except OSError:
            pass

    port, thread, server = speaking(drip)
    patient = SmtpServer("127.0.0.1", port, "none", silence_seconds=5, total_seconds=0.3)
    unserved = SmtpMailer(patient, ENVELOPE).send(letter())
    thread.join(10)
    server.close()
    assert unserved is not None
    assert unserved.is_away


@pytest.mark.parametrize("good_bye", [b"", b"500 what?\r\n"])
def test_what_was_taken_is_sent_however_the_server_says_good_bye(good_bye: bytes) -> None:
    def rude(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        connection.sendall(b"220 here\r\n")
        for line in lines:
            match line[:4].upper():
                case b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    while lines.readline() != b".\r\n":
                        pass
                    connection.sendall(b"250 taken\r\n")
                case b"QUIT":
                    connection.sendall(good_bye)
                    lines.close()
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                case _:
                    connection.sendall(b"250 OK\r\n")

    port, thread, server = speaking(rude)
    assert mailer_at(port).send(letter()) is None
    thread.join(10)
    server.close()


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.org", SmtpServer("mail.example.org", 587, "starttls")),
        ("smtp://mail.example.org:25?tls=none", SmtpServer("mail.example.org", 25, "none")),
        ("smtps://u:p@mail.example.org/", SmtpServer("mail.example.org", 465, "implicit", "u", "p")),
        ("smtp://u%40x:p%2F%3A%40%25@h:2525", SmtpServer("h", 2525, "starttls", "u@x", "p/:@%")),
        ("smtp://localhost", SmtpServer("localhost", 587, "none")),
        ("smtp://u:p@[::1]:25", SmtpServer("::1", 25, "none", "u", "p")),
    ],
)
def test_addresses_of_mail_servers(url: str, server: SmtpServer) -> None:
    assert server_at(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.org",
        "http://u:hunter2@mail.example.org",
        "smtp://",
        "smtp://u:hunter2@",
        "smtp://u:hunter2@mail.example.org:port",
        "smtp://u:hunter2@mail.example.org:99999",
        "smtp://u:hunter2/@mail.example.org",
        "smtp://u:hunter2#@mail.example.org",
        "smtp://u:hunter2@mail.example.org/path",
        "smtp://u:hunter2@mail.example.org?tls=no",
        "smtp://u:hunter2@mail.example.org?tls=none",
        "smtp://u:hunter2@mail.example.org?verify=false",
        "smtp://u:hunter2@mail.example.org?x",
        "smtps://u:hunter2@mail.example.org?tls=none",
        "smtp://u@mail.example.org",
        "smtp://:hunter2@mail.example.org",
        "smtp://u:hunter2@mail..example",
        "smtp://u:hunter2%C3%A4@mail.example.org",
        "smtp://u:hunter2@[::1",
    ],
)
def test_another_address_is_refused_and_its_password_not_shown(url: str, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, smtp_url=url, mail_from="leeway@example.org")
    with pytest.raises(SetupError, match="LEEWAY_SMTP_URL") as refused:
        make_mailer(settings)
    assert "hunter2" not in f"{refused.value} {refused.value.__cause__} {settings!r}"


def test_the_other_settings_of_mail_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="LEEWAY_MAIL_FROM is not"):
        make_mailer(load_settings(data_dir=tmp_path, smtp_url="smtp://localhost"))
    with pytest.raises(SetupError, match=r"LEEWAY_MAIL_FROM: .* no e-mail address"):
        make_mailer(load_settings(data_dir=tmp_path, mail_from="Leeway"))
    with pytest.raises(SetupError, match=r"LEEWAY_MAIL_OPERATOR: .* no e-mail address"):
        make_mailer(load_settings(data_dir=tmp_path, mail_operator="a@b.org,c@d.org"))
    assert "secret" not in repr(server_at("smtps://u:secret@h"))


# --- the folder ------------------------------------------------------------------------------------------------------


def test_without_a_server_each_message_is_a_file_that_a_repeat_replaces(tmp_path: Path) -> None:
    mailer = make_mailer(load_settings(data_dir=tmp_path))
    assert not (tmp_path / "mail").exists(), "nothing is made before it is needed"
    for _ in range(2):
        assert mailer.send(letter()) is None
    [file] = (tmp_path / "mail").iterdir()
    assert file.name == f"{UUID(int=7)}.eml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert (mail["From"], mail["To"], mail["Subject"]) == ("Leeway <leeway@localhost>", PI, "Hello")
    assert mailer.send(replace(letter(), id=UUID(int=8), recipients=())) is None, "a file needs no recipient"


def test_a_folder_that_cannot_be_written_is_trouble_and_no_loss(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.write_text("in the way")
    unserved = Spool(folder, ENVELOPE).send(letter())
    assert unserved is not None
    assert unserved.is_away
    assert str(folder) in unserved.trouble


def test_clock_and_worker_send_what_is_posted(
    database: Database, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    with sessions.begin() as session:
        post_message(session, Draft("one", "reminder", "Hello", "Text.\n", (PI,)))
    with services(load_settings(data_dir=tmp_path), replace(database, is_embedded=False)) as made:
        register(made.queue, made)
        with Worker(made.queue, size=2), Clock(made):
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob("mail/*.eml")):
                assert time.monotonic() < deadline, "it was not sent"
                time.sleep(0.05)
