"""HTTP under a deadline, against a real socket."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.wire import Answer, SiteConnection
from broker.errors import SiteBusy, SiteUnknown
from broker.remote import Deadline
from tests.unit.adapters.scripted import Reply, Request, ScriptedServer


class Wire:
    """One server and one connection to it."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.connection = SiteConnection(f"{server.url}/root", socket_seconds=2.0)

    def send(self, method: str = "GET", *, seconds: float = 5.0, body: bytes | None = None) -> Answer:
        return self.connection.send(
            method, "/thing", body=body, headers={"X-Auth-Token": "t"}, deadline=Deadline.after(seconds), doing="trying"
        )


@pytest.fixture
def wire() -> Iterator[Callable[[Reply], Wire]]:
    opened: list[Wire] = []

    def start(answer: Reply) -> Wire:
        server = ScriptedServer(lambda _: answer)
        server.__enter__()
        opened.append(Wire(server))
        return opened[-1]

    yield start
    for item in opened:
        item.connection.close()
        item.server.__exit__(None, None, None)


Start = Callable[[Reply], Wire]


def test_status_headers_and_bytes_come_back_whatever_the_status(wire: Start) -> None:
    one = wire(Reply(418, b"\xff\x00", {"X-Thing": "a"}))
    answer = one.send()
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (418, b"\xff\x00", "a")
    assert one.server.requests[0].path == "/root/thing"


def test_connections_are_kept(wire: Start) -> None:
    one = wire(Reply(200, b"{}"))
    for method in ("GET", "POST", "DELETE", "GET"):
        one.send(method, body=b"{}" if method == "POST" else None)
    assert one.server.connections == 1


def test_a_write_does_not_go_out_on_a_connection_that_was_idle_for_long(wire: Start) -> None:
    one = wire(Reply(200, b"{}"))
    one.send()
    one.connection._used -= 60
    one.send("GET")
    assert one.server.connections == 1
    one.connection._used -= 60
    one.send("POST", body=b"{}")
    assert one.server.connections == 2


def test_redirects_are_not_followed(wire: Start) -> None:
    elsewhere = wire(Reply(200, b"stolen"))
    one = wire(Reply(302, b"", {"Location": f"{elsewhere.server.url}/there"}))
    assert one.send("POST", body=b"{}").status == 302
    assert elsewhere.server.requests == []


def test_gzip_is_unpacked(wire: Start) -> None:
    text = b'{"servers": []}' * 20_000
    assert wire(Reply(200, gzip.compress(text), {"Content-Encoding": "gzip"})).send().body == text


def test_a_body_that_trickles_ends_at_the_deadline(wire: Start) -> None:
    def trickle() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b" "

    one = wire(Reply(200, trickle()))
    start = time.monotonic()
    with pytest.raises(SiteUnknown, match="deadline"):
        one.send(seconds=0.4)
    assert time.monotonic() - start < 0.8


def test_silence_ends_at_the_deadline(wire: Start) -> None:
    def silence() -> Iterator[bytes]:
        time.sleep(2)
        yield b""

    start = time.monotonic()
    with pytest.raises(SiteUnknown):
        wire(Reply(200, silence())).send(seconds=0.3)
    assert time.monotonic() - start < 0.8


def test_silence_amid_a_body_waits_only_for_what_is_left() -> None:
    def stop_talking() -> Iterator[bytes]:
        time.sleep(0.8)
        yield b"{"
        time.sleep(3)

    with ScriptedServer(lambda _: Reply(200, stop_talking(), length=100)) as server:
        wire = Wire(server)
        start = time.monotonic()
        with pytest.raises(SiteUnknown):
            wire.send(seconds=1.0)
        assert time.monotonic() - start < 1.5
        wire.connection.close()


def test_a_cut_body_is_unknown_and_the_next_request_works(wire: Start) -> None:
    one = wire(Reply(200, b'{"half', length=1000))
    with pytest.raises(SiteUnknown, match="broke"):
        one.send()
    one.server.answer = lambda _: Reply(200, b"{}")
    assert one.send().body == b"{}"


def test_a_broken_encoding_is_unknown(wire: Start) -> None:
    with pytest.raises(SiteUnknown):
        wire(Reply(200, b"not gzip", {"Content-Encoding": "gzip"})).send()


def test_an_answer_without_end_is_refused(wire: Start) -> None:
    piece = b" " * 1024 * 1024
    with pytest.raises(SiteUnknown, match="larger"):
        wire(Reply(200, (piece for _ in range(80)))).send(seconds=20)


def test_no_connection_means_nothing_was_sent() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    connection = SiteConnection(f"http://127.0.0.1:{port}", socket_seconds=2.0)
    with pytest.raises(SiteBusy, match="nothing was sent") as caught:
        connection.send("POST", "/", body=b"{}", headers={}, deadline=Deadline.after(2), doing="trying")
    assert caught.value.hint
    connection.close()


def test_passwords_of_the_machine_stay_here(wire: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login root password toor\n")
    monkeypatch.setenv("NETRC", str(netrc))
    one = wire(Reply(200, b"{}"))
    one.send()
    assert "authorization" not in one.server.requests[0].headers


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "site.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


def test_a_strange_certificate_is_refused_and_a_bundle_helps(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer(_: Request) -> Reply:
        return Reply(200, b"{}")

    with ScriptedServer(answer, context) as server:
        strict = SiteConnection(server.url, socket_seconds=2.0)
        with pytest.raises(SiteUnknown, match="not trusted") as caught:
            strict.send("GET", "/", body=None, headers={}, deadline=Deadline.after(2), doing="trying")
        assert "ca_bundle" in (caught.value.hint or "")
        assert server.requests == []
        trusting = SiteConnection(server.url, socket_seconds=2.0, ca_bundle=str(certificate))
        sent = trusting.send("GET", "/", body=None, headers={}, deadline=Deadline.after(2), doing="trying")
        assert sent.status == 200
        strict.close()
        trusting.close()
