"""MariaDB's files, and the databases of the six services."""

import shutil
import subprocess
from pathlib import Path
from string import Template

from rig.layout import COMPUTE_HOST, KEYSTONE_INTERNAL, KEYSTONE_PUBLIC, LAUNCH, MYSQL, PASSWORD, REGION, State
from rig.machine import RigError
from rig.processes import Processes
from rig.services import PYTHON

DATABASES = ("keystone", "placement", "glance", "neutron", "nova", "nova_api", "nova_cell0", "cinder")

# Beside the databases: what was filled in (done) and what it points to (images).
KEPT = ("images", "done")

# No agent runs. A row with a heartbeat in the future makes Neutron's stock driver bind ports on the compute host,
# so that servers become ACTIVE.
_AGENT = """
INSERT INTO neutron.agents (id, agent_type, `binary`, topic, host, admin_state_up, created_at, started_at,
                            heartbeat_timestamp, configurations, `load`)
VALUES (UUID(), 'Open vSwitch agent', 'neutron-openvswitch-agent', 'N/A', '$host', 1, NOW(), NOW(),
        '2037-01-01 00:00:00',
        '{"bridge_mappings": {"physnet1": "br-ex"}, "tunnel_types": ["vxlan"], "tunneling_ip": "127.0.0.1",
          "datapath_type": "system", "integration_bridge": "br-int"}', 0)
ON DUPLICATE KEY UPDATE heartbeat_timestamp = VALUES(heartbeat_timestamp)
"""


class Databases:
    """Makes the databases; each method does its work once and may be called again at any time."""

    def __init__(self, state: State, processes: Processes) -> None:
        self._state = state
        self._processes = processes

    def install(self) -> None:
        """Make MariaDB's own tables; its root is the system's root, through the socket."""
        if self._state.is_done("mariadb"):
            return
        shutil.rmtree(self._state.mysql, ignore_errors=True)  # a half-made one
        self._state.mysql.mkdir(mode=0o700)
        self._run(
            "mariadb-install",
            *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self._state.mysql}", "--skip-test-db"),
            *("--auth-root-authentication-method=socket", "--auth-root-socket-user=root"),
        )
        self._state.mark_done("mariadb")

    def create(self) -> None:
        """Make the empty databases and the user all services share."""
        if self._state.is_done("databases"):
            return
        user = f"openstack@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'"
        grant = f"CREATE USER IF NOT EXISTS {user}; GRANT ALL ON *.* TO openstack@'127.0.0.1'"
        self._sql("; ".join([*(f"CREATE DATABASE IF NOT EXISTS {name}" for name in DATABASES), grant]))
        self._state.mark_done("databases")

    def migrate_keystone(self) -> None:
        """Keys, tables, and the first administrator, service and endpoints."""
        if self._state.is_done("keystone"):
            return
        manage = ("keystone-manage", "--config-file", self._state.config("keystone.conf"))
        for keys in ("fernet_setup", "credential_setup"):
            self._run("keystone-db", *manage, keys, "--keystone-user", "root", "--keystone-group", "root")
        self._run("keystone-db", *manage, "db_sync")
        self._run(
            "keystone-db",
            *(*manage, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION),
            *("--bootstrap-public-url", KEYSTONE_PUBLIC, "--bootstrap-internal-url", KEYSTONE_INTERNAL),
            *("--bootstrap-admin-url", KEYSTONE_INTERNAL),
        )
        self._state.mark_done("keystone")

    def migrate_placement(self) -> None:
        """Placement's tables."""
        path = self._state.config("placement.conf")
        self._migrate("placement", "placement-manage", "--config-file", path, "db", "sync")

    def migrate_glance(self) -> None:
        """Glance's tables."""
        self._migrate("glance", "glance-manage", "--config-file", self._state.config("glance.conf"), "db_sync")

    def migrate_neutron(self) -> None:
        """Neutron's tables, and the agent that binds ports."""
        path = self._state.config("neutron.conf")
        self._migrate("neutron", "neutron-db-manage", "--config-file", path, "upgrade", "heads")
        if not self._state.is_done("neutron-agent"):
            self._sql(Template(_AGENT).substitute(host=COMPUTE_HOST))
            self._state.mark_done("neutron-agent")

    def migrate_nova(self) -> None:
        """Nova's tables and cells."""
        path = self._state.config("nova.conf")
        self._migrate(
            *("nova", PYTHON, str(LAUNCH / "nova_databases.py"), path, f"{MYSQL}/nova_cell0", COMPUTE_HOST),
        )

    def migrate_cinder(self) -> None:
        """Cinder's tables."""
        self._migrate("cinder", "cinder-manage", "--config-file", self._state.config("cinder.conf"), "db", "sync")

    def save_snapshot(self) -> None:
        """Copy databases and content marks as they are now, unless a copy is there.

        MariaDB is frozen meanwhile, so the copy is what its sudden end at this instant would leave: every commit is
        in the files (innodb-flush-log-at-trx-commit=2), and InnoDB recovers the rest.
        """
        if self._state.snapshot.exists():
            return
        making = self._state.home / "snapshot.part"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        self._processes.pause("mariadb", paused=True)
        try:
            _copy(self._state.mysql, making / "mysql")
        finally:
            self._processes.pause("mariadb", paused=False)
        for name in KEPT:
            _copy(self._state.home / name, making / name)
        making.rename(self._state.snapshot)

    def restore_snapshot(self) -> bool:
        """Put the copy back while nothing runs; False when there is none."""
        if not self._state.snapshot.exists():
            return False
        for name in ("mysql", *KEPT):
            shutil.rmtree(self._state.home / name, ignore_errors=True)
            _copy(self._state.snapshot / name, self._state.home / name)
        shutil.rmtree(self._state.home / "rabbitmq", ignore_errors=True)
        return True

    def _migrate(self, name: str, *command: str) -> None:
        if not self._state.is_done(name):
            self._run(f"{name}-db", *command, hint="; if an earlier run was cut off in it: `down --wipe`, then `up`")
            self._state.mark_done(name)

    def _sql(self, statements: str) -> None:
        self._run("sql", "mariadb", "--no-defaults", f"--socket={self._state.mysql}/socket", "-e", statements)

    def _run(self, log_name: str, *command: str, hint: str = "") -> None:
        """Run to the end; a failure carries the end of what it wrote."""
        path = self._processes.log(log_name)
        with path.open("ab") as log:
            done = subprocess.run(
                command,
                check=False,
                stdout=log,
                stderr=log,
                cwd=self._state.home / "work",
                env=self._processes.environment(),
            )
        if done.returncode != 0:
            tail = "\n    ".join(path.read_text(errors="replace").splitlines()[-8:])
            raise RigError(f"{command[0]} failed with status {done.returncode}{hint}; the end of {path}:\n    {tail}")


def _copy(source: Path, target: Path) -> None:
    # cp knows sparse files and reflinks, and skips MariaDB's socket without a fuss.
    subprocess.run(["cp", "--archive", "--reflink=auto", str(source), str(target)], check=True)
