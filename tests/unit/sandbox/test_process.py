"""The sandbox as a process: it says where it listens, stops when told, and does not outlive who started it."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.sandbox.test_config import MINIMAL

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "adapters.sandbox"]


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, "the sandbox ended before it listened"
        assert time.monotonic() < deadline, "the sandbox did not listen within 20 s"
        time.sleep(0.02)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    port_file = tmp_path / "port file.json"
    command = [*COMMAND, "--profile", "borealis", "--port", "0", "--port-file", str(port_file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process, _wait_for(port_file, process)
        finally:
            process.kill()


def _control(port: int, method: str, path: str, body: Any = None) -> Any:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, f"http://127.0.0.1:{port}/{path}", json=body, timeout=10)


def test_it_says_where_it_listens_and_stops_at_once(
    started: tuple[subprocess.Popen[bytes], dict[str, Any]],
) -> None:
    process, written = started
    assert written["auth_url"] == f"http://127.0.0.1:{written['port']}/v3"
    assert _control(written["port"], "GET", "v3").json()["version"]["id"].startswith("v3")
    # One request hangs in a fault while the signal comes: it is cut, not waited for.
    _control(written["port"], "POST", "_control/faults", {"kind": "slow", "seconds": 60, "path": "^/v3$"})
    ended: list[type[BaseException]] = []

    def hang() -> None:
        try:
            _control(written["port"], "GET", "v3")
        except requests.ConnectionError as error:
            ended.append(type(error))

    hanging = threading.Thread(target=hang)
    hanging.start()
    while _control(written["port"], "GET", "_control/faults").json()["faults"][0]["hits"] == 0:
        time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    seconds = time.monotonic() - begun
    hanging.join(10)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out) == written
    assert seconds < 3  # 0.2 on an idle machine; the request would have taken 60
    assert len(ended) == 1


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [*COMMAND, "--profile", "aurora", "--port-file", str(port_file), "--die-with-parent"]
    script = f"import subprocess, time; subprocess.Popen({command!r}, stdout=subprocess.DEVNULL); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as parent:
        port = _wait_for(port_file, parent)["port"]
        assert _control(port, "GET", "_control").json()["name"] == "aurora"
        parent.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.02)
    pytest.fail("the sandbox outlived its parent by 5 s")


def test_a_configured_cloud_has_its_fence_and_its_faults(tmp_path: Path) -> None:
    busy = {"kind": "429", "service": "identity", "path": "^/v3$", "times": 1}
    (tmp_path / "cloud.json").write_text(json.dumps(MINIMAL | {"fence": "token", "faults": [busy]}), encoding="utf-8")
    where = tmp_path / "where.json"
    command = [*COMMAND, "--config", str(tmp_path / "cloud.json"), "--port-file", str(where)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            port = _wait_for(where, process)["port"]
            answers = [_control(port, "GET", "v3") for _ in range(2)]
            assert [answer.status_code for answer in answers] == [429, 200]
            assert answers[0].headers["Retry-After"] == "0"
            assert _control(port, "GET", "_control/log?since=0").json() == {"entries": [], "next": 0}
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--config", "none.json"], 2, "none.json: cannot be read"),
        (["--profile", "zephyr"], 2, "invalid choice"),
        ([], 2, "required"),
        (["--profile", "aurora", "--port", "99999"], 2, "port 99999 cannot be had"),
        (
            ["--profile", "aurora", "--port-file", "/nowhere/at/all"],
            2,
            "--port-file: /nowhere/at/all cannot be written",
        ),
    ],
)
def test_what_it_cannot_do_it_says(arguments: list[str], status: int, words: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (status, True, False), done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [*COMMAND, "--profile", "aurora", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, f"port {port}" in done.stderr) == (2, True), done.stderr
