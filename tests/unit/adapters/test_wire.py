"""HTTP under a deadline, against a real socket."""

from __future__ import annotations

import gzip
import ipaddress
import itertools
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        self.connection = SiteConnection(f"{server.url}/base", socket_seconds=2.0)

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
    assert one.server.requests[0].path == "/base/thing"


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


def drip(text: bytes, *, seconds: float = 0.05) -> Iterator[bytes]:
    """A byte at a time."""
    for byte in text:
        time.sleep(seconds)
        yield bytes([byte])


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "status": (b"", OK + b"Content-Length: 2\r\n\r\n{}"),
    "header": (OK + b"X-Slow: ", b"a" * 200 + b"\r\n\r\n"),
    "headers": (OK, b"X-Thing: a\r\n" * 20),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
    "body": (OK + b"Content-Length: 200\r\n\r\n", b" " * 200),
    "body_to_the_end": (OK + b"Connection: close\r\n\r\n", b" " * 200),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 50),
    "length_of_a_chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 200 + b"1\r\n"),
    "trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", b"X-Thing: a\r\n" * 20),
}


@pytest.mark.parametrize("part", DRIPS)
def test_whatever_drips_ends_at_the_deadline(wire: Start, part: str) -> None:
    """No single read waits long: a byte comes every 50 ms, for ten seconds and more."""
    at_once, slowly = DRIPS[part]
    one = wire(Reply(raw=itertools.chain([at_once], drip(slowly))))
    start = time.monotonic()
    with pytest.raises(SiteUnknown, match=r"trying: .*(deadline|time)"):
        one.send(seconds=0.5)
    assert time.monotonic() - start < 1.5


def test_a_slow_answer_within_the_deadline_is_read(wire: Start) -> None:
    whole = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\n{}\r\n0\r\n\r\n"
    assert wire(Reply(raw=drip(whole, seconds=0.005))).send().body == b"{}"


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


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Len",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n8\r\n{",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nall of it\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02P",
    ],
)
def test_a_connection_that_ends_anywhere_in_the_answer_is_unknown(wire: Start, answer: bytes) -> None:
    with pytest.raises(SiteUnknown, match=r"^trying: 127\.0\.0\.1:\d+ "):
        wire(Reply(raw=[answer])).send()


def test_a_broken_encoding_is_unknown(wire: Start) -> None:
    with pytest.raises(SiteUnknown):
        wire(Reply(200, b"not gzip", {"Content-Encoding": "gzip"})).send()


MIB = 1024 * 1024


def test_an_answer_of_many_megabytes_is_read_whole(wire: Start) -> None:
    body = b"0123456789abcdef" * MIB
    assert wire(Reply(200, body)).send(seconds=20).body == body


@contextmanager
def no_more_memory_than(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_an_answer_without_end_is_refused(wire: Start) -> None:
    piece = b" " * MIB
    with no_more_memory_than(100 * MIB), pytest.raises(SiteUnknown, match=r"^trying: .*larger"):
        wire(Reply(200, (piece for _ in range(1024)))).send(seconds=20)


def deflated(*, layers: int) -> bytes:
    """A GiB of zeros, in some layers of gzip."""
    text = gzip.compress(bytes(MIB)) * 1024
    for _ in range(layers - 1):
        text = gzip.compress(text)
    return text


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_small_until_it_is_unpacked_does_not_fill_the_memory(wire: Start, layers: int) -> None:
    text = deflated(layers=layers)
    one = wire(Reply(200, text, {"Content-Encoding": ", ".join(["gzip"] * layers)}))
    with no_more_memory_than(100 * MIB), pytest.raises(SiteUnknown, match=r"^trying: .*larger"):
        one.send(seconds=20)


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


def test_what_drips_through_tls_ends_at_the_deadline_too(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedServer(lambda _: Reply(raw=drip(OK + b"X-Thing: a\r\n" * 20)), context) as server:
        connection = SiteConnection(server.url, socket_seconds=2.0, ca_bundle=str(certificate))
        start = time.monotonic()
        with pytest.raises(SiteUnknown, match=r"in time|deadline"):
            connection.send("GET", "/", body=None, headers={}, deadline=Deadline.after(0.5), doing="trying")
        assert time.monotonic() - start < 1.5
        connection.close()
