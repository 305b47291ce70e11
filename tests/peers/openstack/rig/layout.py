"""Where everything of the rig is: the state folder, the ports, the public password, the rendered configuration."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rig.machine import RigError

SOURCE = Path(__file__).parent.parent
TEMPLATES = SOURCE / "templates"
LAUNCH = SOURCE / "launch"

# Public on purpose: everything listens on loopback and holds nothing of worth.
PASSWORD = "labsecret"
REGION = "RegionOne"
COMPUTE_HOST = "fake1"

MARIADB_PORT = 3307
MEMCACHED_PORT = 11212
EPMD_PORT = 4370
RABBITMQ_PORT = 5673
RABBITMQ_PEER_PORT = 25673
KEYSTONE_PORT = 5000
# The services use this one, so that a proxy for federated logins can take over the public port.
KEYSTONE_INTERNAL_PORT = 35357
PLACEMENT_PORT = 8778
GLANCE_PORT = 9292
NEUTRON_PORT = 9696
NOVA_PORT = 8774
CINDER_PORT = 8776

KEYSTONE_PUBLIC = f"http://127.0.0.1:{KEYSTONE_PORT}/v3"
KEYSTONE_INTERNAL = f"http://127.0.0.1:{KEYSTONE_INTERNAL_PORT}/v3"
MYSQL = f"mysql+pymysql://openstack:{PASSWORD}@127.0.0.1:{MARIADB_PORT}"

_SERVICE_LOGIN = f"""auth_type = password
auth_url = {KEYSTONE_INTERNAL}
username = services
password = {PASSWORD}
project_name = services
user_domain_name = Default
project_domain_name = Default
region_name = {REGION}"""

# Our files, and the templates that stand in each; later lines win.
_FILES = {
    "keystone.conf": ("keystone.conf",),
    "placement.conf": ("shared.conf", "placement.conf"),
    "glance.conf": ("shared.conf", "glance.conf"),
    "neutron.conf": ("shared.conf", "neutron.conf"),
    "nova.conf": ("shared.conf", "nova.conf"),
    "cinder.conf": ("shared.conf", "cinder.conf"),
    "uwsgi.ini": ("uwsgi.ini",),
    "rabbitmq.conf": ("rabbitmq.conf",),
}


def state_folder() -> Path:
    """`openstack` in LEEWAY_PEERS_HOME (default /var/lib/leeway-peers)."""
    return Path(os.environ.get("LEEWAY_PEERS_HOME") or "/var/lib/leeway-peers").resolve() / "openstack"


@dataclass(frozen=True)
class State:
    """The state folder and what is in it."""

    home: Path

    @property
    def mysql(self) -> Path:
        """MariaDB's files; closed to others, and the socket is inside."""
        return self.home / "mysql"

    @property
    def snapshot(self) -> Path:
        """A copy of the databases and images as they were when first filled."""
        return self.home / "snapshot"

    @property
    def clouds(self) -> Path:
        """The clouds.yaml for openstacksdk and the command line client."""
        return self.home / "clouds.yaml"

    def config(self, name: str) -> str:
        """The path of a rendered configuration file."""
        return str(self.home / "etc" / name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse to run beside another `up` or `down`."""
        with (self.home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RigError(f"another up or down works on {self.home}: wait for it") from None
            yield

    def make_folders(self) -> None:
        """Make what the services expect to find."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o755)
        work = ("locks", "glance-staging", "glance-tasks", "neutron", "nova", "cinder", "volumes")
        for name in ("etc", "log", "run", "done", "images", "rabbitmq", *(f"work/{name}" for name in work)):
            (self.home / name).mkdir(parents=True, exist_ok=True)

    def render(self) -> None:
        """Write every configuration file anew from its templates."""
        facts = {
            "home": str(self.home),
            "password": PASSWORD,
            "region": REGION,
            "mysql": MYSQL,
            "service_login": _SERVICE_LOGIN,
            "transport_url": f"rabbit://openstack:{PASSWORD}@127.0.0.1:{RABBITMQ_PORT}/",
            "keystone_public": KEYSTONE_PUBLIC,
            "memcached_port": str(MEMCACHED_PORT),
            "glance_port": str(GLANCE_PORT),
            "neutron_port": str(NEUTRON_PORT),
            "cinder_port": str(CINDER_PORT),
        }
        for name, parts in _FILES.items():
            text = "\n".join(Template((TEMPLATES / part).read_text()).substitute(facts) for part in parts)
            (self.home / "etc" / name).write_text(text)

    def is_done(self, step: str, version: str = "") -> bool:
        """Whether a step that is done once was done, in this version."""
        mark = self.home / "done" / step
        return mark.exists() and mark.read_text() == version

    def mark_done(self, step: str, version: str = "") -> None:
        """Note that a step need not be done again."""
        (self.home / "done" / step).write_text(version)


def digest(*paths: str | Path) -> str:
    """A short fingerprint of what files say; a folder stands for all files directly inside."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(file.read_bytes())
    return total.hexdigest()[:16]
