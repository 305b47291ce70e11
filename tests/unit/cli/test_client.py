"""The client against a server that loses answers, is busy, or is no Leeway; and where it looks for one."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from web.client.client import Client
from web.client.errors import Problem, Unreachable
from web.client.place import Place, find_place

Answer = tuple[int, dict[str, str], str] | None
JSON = {"Content-Type": "application/json"}


class Scripted(HTTPServer):
    """Answers in turn what it was given; None reads the request and cuts the connection."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, json.loads(body) if body else None))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, extra, text = answer
        self.send_response(status)
        for name, value in {**extra, "Content-Length": str(len(text.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815 - the base class looks for these names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


@contextlib.contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[Client, Scripted]]:
    server = Scripted(list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with Client(Place(f"http://127.0.0.1:{server.server_port}", "token")) as client:
            yield client, server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_order_whose_answer_was_lost_is_sent_again_as_the_same_order() -> None:
    with scripted(None, None, (201, JSON, '{"id": "w"}')) as (client, server):
        assert client.place_order("q", rank=2)["id"] == "w"
    assert [(method, path, body) for method, path, _, body in server.seen] == [
        ("POST", "/api/v1/orders", {"quote_id": "q", "rank": 2})
    ] * 3
    assert len({headers["idempotency-key"] for _, _, headers, _ in server.seen}) == 1
    assert server.seen[0][2]["authorization"] == "Bearer token"


def test_a_change_without_a_key_is_never_repeated_by_itself() -> None:
    with scripted(None) as (client, server), pytest.raises(Unreachable, match="carried out is not known"):
        client.add_project({"name": "climate"})
    assert len(server.seen) == 1


def test_who_is_busy_is_asked_again_when_it_wishes() -> None:
    busy = (503, {"Content-Type": "application/problem+json", "Retry-After": "0"}, '{"code": "busy"}')
    with scripted(busy, busy, (200, JSON, '{"status": "ok"}')) as (client, _):
        assert client.health()["status"] == "ok"
    with scripted(*[busy] * 4) as (client, _), pytest.raises(Problem) as caught:
        client.health()
    assert (caught.value.code, caught.value.status) == ("busy", 503)


def test_lists_are_followed_page_by_page() -> None:
    first = (200, JSON, '{"items": [1, 2], "next": "c"}')
    with scripted(first, (200, JSON, '{"items": [3], "next": null}')) as (client, server):
        assert list(client.each("/sites")) == [1, 2, 3]
    assert [path for _, path, _, _ in server.seen] == ["/api/v1/sites?limit=200", "/api/v1/sites?limit=200&cursor=c"]


@pytest.mark.parametrize(
    "answer", [(200, {"Content-Type": "text/html"}, "<h1>router</h1>"), (404, {}, "no"), (502, {}, "")]
)
def test_what_is_not_leeway_is_said_to_be(answer: Answer) -> None:
    with scripted(answer) as (client, _), pytest.raises(Problem) as caught:
        client.health()
    assert caught.value.code == "foreign_answer"
    assert "LEEWAY_URL" in str(caught.value.hint)


@pytest.mark.parametrize("ref", ["../../admin", "a/b", "..", ".", "", "?x=1", "ä"])
def test_a_name_stays_one_step_of_the_path(ref: str) -> None:
    with scripted((200, JSON, "{}")) as (client, server):
        client.workload(ref)
    path = server.seen[0][1]
    assert path.startswith("/api/v1/workloads/")
    assert "/" not in path.removeprefix("/api/v1/workloads/")
    assert "?" not in path


def test_the_files_of_the_server_say_where_it_is(tmp_path: Path) -> None:
    environment = {"LEEWAY_DATA_DIR": str(tmp_path)}
    with pytest.raises(Unreachable, match="No server has written its address") as caught:
        find_place(environment)
    assert "leeway serve" in str(caught.value.hint)
    (tmp_path / "address").write_text("http://127.0.0.1:8642\n")
    (tmp_path / "token").write_text("abc\n")
    assert find_place(environment) == Place("http://127.0.0.1:8642", "abc")
    assert "abc" not in repr(find_place(environment))
    elsewhere = environment | {"LEEWAY_URL": "https://broker.example.org/", "LEEWAY_TOKEN": "xyz"}
    assert find_place(elsewhere) == Place("https://broker.example.org", "xyz")


def test_the_token_of_this_machine_is_not_shown_to_another() -> None:
    with pytest.raises(Unreachable, match="no token for it"):
        find_place({"LEEWAY_URL": "https://broker.example.org"})


@pytest.mark.parametrize("url", ["broker.example.org", "ftp://x", "http://[", "http://host:port"])
def test_what_is_no_address_is_said_to_be(url: str) -> None:
    with (
        pytest.raises(Unreachable, match="is no address"),
        Client(find_place({"LEEWAY_URL": url, "LEEWAY_TOKEN": "t"})),
    ):
        pass
