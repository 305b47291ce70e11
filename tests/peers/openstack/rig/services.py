"""Which processes make up the cloud, and how each is started."""

import hashlib

from rig.layout import (
    CINDER_PORT,
    EPMD_PORT,
    GLANCE_PORT,
    KEYSTONE_INTERNAL_PORT,
    KEYSTONE_PORT,
    LAUNCH,
    MARIADB_PORT,
    MEMCACHED_PORT,
    NEUTRON_PORT,
    NOVA_PORT,
    PLACEMENT_PORT,
    RABBITMQ_PEER_PORT,
    RABBITMQ_PORT,
    State,
    digest,
)
from rig.processes import Service

PYTHON = "/usr/bin/python3"
# Stopped last, in this order: the services want to say good-bye to them.
STORES = ("rabbitmq", "epmd", "memcached", "mariadb")


def all_services(state: State) -> dict[str, Service]:
    """Every process of the rig by name, in no particular order."""
    found = (*_stores(state), *_wsgi_services(state), *_python_services(state))
    return {service.name: service for service in found}


def _stores(state: State) -> tuple[Service, ...]:
    mariadb = (
        *("/usr/sbin/mariadbd", "--no-defaults", "--user=root", f"--datadir={state.mysql}"),
        *(f"--socket={state.mysql}/socket", f"--pid-file={state.mysql}/pid"),
        *("--bind-address=127.0.0.1", f"--port={MARIADB_PORT}", "--skip-name-resolve", "--max-connections=500"),
        *("--character-set-server=utf8mb3", "--collation-server=utf8mb3_general_ci"),
        *("--innodb-buffer-pool-size=256M", "--innodb-log-file-size=64M"),
        # The data can be made again in two minutes: no waiting for the disk. A commit is handed to the system at once
        # (2), so it outlives a killed MariaDB, though not a machine without power.
        *("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=0"),
        *("--sync-frm=0", "--innodb-stats-persistent=0", "--skip-log-bin"),
    )
    memcached = ("/usr/bin/memcached", "-u", "memcache", "-l", "127.0.0.1", "-p", str(MEMCACHED_PORT), "-U", "0")
    epmd = {"ERL_EPMD_PORT": str(EPMD_PORT), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    folder = state.home / "rabbitmq"
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    rabbitmq = epmd | {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": "leeway-peer@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(RABBITMQ_PORT),
        "RABBITMQ_DIST_PORT": str(RABBITMQ_PEER_PORT),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": state.config("rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        # Two schedulers that sleep when idle: the default is one per core, spinning.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    config = digest(state.config("rabbitmq.conf"))
    return (
        _service("mariadb", mariadb, ports=(MARIADB_PORT,), stop_seconds=60),
        _service("memcached", memcached, ports=(MEMCACHED_PORT,)),
        _service("epmd", ("/usr/bin/epmd",), ports=(EPMD_PORT,), environment=epmd),
        _service(
            "rabbitmq",
            ("/usr/lib/rabbitmq/bin/rabbitmq-server",),
            ports=(RABBITMQ_PORT, RABBITMQ_PEER_PORT),
            environment=rabbitmq,
            config=config,
            stop_seconds=30,
        ),
    )


def _wsgi_services(state: State) -> tuple[Service, ...]:
    def uwsgi(name: str, module: str, ports: tuple[int, ...], *options: str, **environment: str) -> Service:
        sockets = (option for port in ports for option in ("--http-socket", f"127.0.0.1:{port}"))
        return _service(
            name,
            ("/usr/bin/uwsgi", "--ini", state.config("uwsgi.ini"), *sockets, "--module", module, *options),
            ports=ports,
            environment=environment,
            config=digest(state.config("uwsgi.ini"), state.config(f"{name.partition('-')[0]}.conf")),
        )

    nova_files = f"/usr/share/nova-common/api-paste.ini;{state.config('nova.conf')}"
    return (
        uwsgi(
            *("keystone", "keystone.server.wsgi:initialize_public_application()"),
            *((KEYSTONE_PORT, KEYSTONE_INTERNAL_PORT), "--processes=2"),
            OS_KEYSTONE_CONFIG_FILES=state.config("keystone.conf"),
        ),
        uwsgi(
            *("placement", "placement.wsgi:init_application()", (PLACEMENT_PORT,), "--processes=1"),
            OS_PLACEMENT_CONFIG_DIR=state.config(""),
        ),
        # Two processes, so that simultaneous requests really meet; each loads Nova itself (lazy-apps), because Nova
        # opens connections while it loads and two processes must not share one.
        uwsgi(
            *("nova-api", "nova.api.openstack.compute.wsgi:init_application()", (NOVA_PORT,)),
            *("--processes=2", "--lazy-apps"),
            OS_NOVA_CONFIG_FILES=nova_files,
        ),
    )


def _python_services(state: State) -> tuple[Service, ...]:
    def entry(name: str, module: str, *, ports: tuple[int, ...] = ()) -> Service:
        path = state.config(f"{name.partition('-')[0]}.conf")
        command = (PYTHON, str(LAUNCH / "entry.py"), module, name, "--config-file", path)
        return _service(name, command, ports=ports, config=digest(path))

    compute = (PYTHON, str(LAUNCH / "compute.py"), "--config-file", state.config("nova.conf"))
    volume = (PYTHON, str(LAUNCH / "volume.py"), "--config-file", state.config("cinder.conf"))
    compute_digest = digest(state.config("nova.conf"), LAUNCH / "hypervisor")
    return (
        entry("glance-api", "glance.cmd.api", ports=(GLANCE_PORT,)),
        entry("neutron-server", "neutron.cmd.eventlet.server", ports=(NEUTRON_PORT,)),
        entry("nova-conductor", "nova.cmd.conductor"),
        entry("nova-scheduler", "nova.cmd.scheduler"),
        _service("nova-compute", compute, config=compute_digest),
        entry("cinder-api", "cinder.cmd.api", ports=(CINDER_PORT,)),
        entry("cinder-scheduler", "cinder.cmd.scheduler"),
        _service("cinder-volume", volume, config=digest(state.config("cinder.conf"))),
    )


def _service(
    name: str,
    command: tuple[str, ...],
    *,
    ports: tuple[int, ...] = (),
    environment: dict[str, str] | None = None,
    config: str = "",
    stop_seconds: float = 10,
) -> Service:
    """A service whose fingerprint covers its command, its environment and its configuration files."""
    facts = repr((command, sorted((environment or {}).items()), config))
    fingerprint = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return Service(name, command, ports, environment or {}, fingerprint, stop_seconds)
