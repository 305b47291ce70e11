"""What the rig asks of the machine, and what it says when that is missing."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

DEBIAN_VERSION = "12"
# MariaDB 0.3 GB, logs, images, and 0.5 GB below which RabbitMQ stops taking messages.
STATE_BYTES = 2_000_000_000
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class RigError(Exception):
    """A failure a person can act on; its text says what is wrong and the way out."""


def require_root() -> None:
    """Packages are installed and databases are made as root."""
    if os.geteuid() != 0:
        raise RigError("needs root: run it as root, or with sudo")


def require_debian(os_release: Path = Path("/etc/os-release")) -> None:
    """Only Debian 12 carries the releases that the configuration here was written for (OpenStack Zed)."""
    facts: dict[str, str] = {}
    if os_release.exists():
        lines = (line.partition("=") for line in os_release.read_text().splitlines())
        facts = {key: value.strip('"') for key, _, value in lines}
    if (facts.get("ID"), facts.get("VERSION_ID")) != ("debian", DEBIAN_VERSION):
        found = facts.get("PRETTY_NAME", "an unknown system")
        raise RigError(
            f"needs Debian {DEBIAN_VERSION}, this is {found}: use a Debian {DEBIAN_VERSION} machine or container"
        )


def require_space(folder: Path, wanted: int, purpose: str) -> None:
    """Refuse early: half-made databases after a full disk are worse than none."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise RigError(
            f"disk full: {folder} has {free / 1e9:.1f} GB free, {purpose} needs {wanted / 1e9:.1f} GB: "
            "free some, or name another folder in LEEWAY_PEERS_HOME"
        )


def require_enterable(folder: Path) -> None:
    """Other users (mysql, www-data) must reach files below the state folder."""
    probe = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "test", "-x", str(folder)]
    if subprocess.run(probe, check=False, stderr=subprocess.DEVNULL, env={"PATH": SYSTEM_PATH}).returncode != 0:
        raise RigError(
            f"other users cannot enter {folder} (a folder above it is closed): "
            "name an open one, such as LEEWAY_PEERS_HOME=/var/lib/leeway-peers"
        )


def require_free(ports: Iterable[tuple[str, int]]) -> None:
    """Raise if another process already listens on one of `(service, port)`."""
    taken = [f"port {port} ({service})" for service, port in ports if not _is_free(port)]
    if taken:
        number = taken[0].split()[1]
        raise RigError(
            f"{', '.join(taken)} taken on 127.0.0.1: stop the program there (`ss -ltnp 'sport = :{number}'` names it)"
        )


def is_listening(port: int) -> bool:
    """Whether a server accepts connections on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As a server would: connections in TIME_WAIT are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
