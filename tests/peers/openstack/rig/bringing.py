"""The order in which the cloud comes up."""

from collections.abc import Callable

from rig.content import CINDER, GLANCE, NEUTRON, NOVA, PLACEMENT, Content
from rig.databases import Databases
from rig.http_api import wait_for_answer, wait_until
from rig.layout import KEYSTONE_INTERNAL, MARIADB_PORT, RABBITMQ_PORT, State, digest
from rig.machine import is_listening
from rig.processes import Processes
from rig.progress import Step
from rig.services import all_services

CONTENT_SOURCES = ("content.py", "contents.py")


class Bringing:
    """Builds the steps: what waits for what, and nothing more than that."""

    def __init__(self, state: State, processes: Processes, databases: Databases, content: Content) -> None:
        self._state = state
        self._processes = processes
        self._databases = databases
        self._content = content
        self._services = all_services(state)
        self._version = digest(*(f"{__file__.rpartition('/')[0]}/{name}" for name in CONTENT_SOURCES))

    def steps(self) -> list[Step]:
        """All of them; those on the longest way come first."""
        return [*self._stores(), *self._databases_and_apis(), *self._workers(), *self._contents()]

    def _stores(self) -> list[Step]:
        databases = self._databases
        return [
            Step("mariadb-files", databases.install),
            Step("mariadb", self._start("mariadb", port=MARIADB_PORT), ("mariadb-files",)),
            Step("databases", databases.create, ("mariadb",), says="MariaDB is up"),
            Step("memcached", self._start("memcached")),
            Step("epmd", self._start("epmd")),
            Step("rabbitmq", self._start("rabbitmq", port=RABBITMQ_PORT), ("epmd",), says="RabbitMQ is up"),
        ]

    def _databases_and_apis(self) -> list[Step]:
        databases = self._databases
        return [
            Step("keystone-db", databases.migrate_keystone, ("databases",)),
            Step("neutron-db", databases.migrate_neutron, ("databases",)),
            Step("nova-db", databases.migrate_nova, ("databases",)),
            Step("placement-db", databases.migrate_placement, ("keystone-db",)),
            Step("glance-db", databases.migrate_glance, ("placement-db",)),
            Step("cinder-db", databases.migrate_cinder, ("glance-db",)),
            Step("keystone", self._start("keystone", url=KEYSTONE_INTERNAL), ("keystone-db", "memcached")),
            Step("identity", self._fill("identity", self._content.fill_identity), ("keystone",), "Keystone answers"),
            Step(
                "placement",
                self._start("placement", url=f"{PLACEMENT}/"),
                ("placement-db", "identity"),
                "Placement answers",
            ),
            Step("glance-api", self._start("glance-api", url=GLANCE), ("glance-db", "identity"), "Glance answers"),
            Step(
                "neutron-server",
                self._start("neutron-server", url=NEUTRON),
                ("neutron-db", "rabbitmq", "identity"),
                "Neutron answers",
            ),
            Step("nova-api", self._start("nova-api", url=NOVA), ("nova-db", "rabbitmq", "identity"), "Nova answers"),
            Step(
                "cinder-api",
                self._start("cinder-api", url=CINDER),
                ("cinder-db", "rabbitmq", "identity"),
                "Cinder answers",
            ),
        ]

    def _workers(self) -> list[Step]:
        nova, cinder = ("nova-db", "rabbitmq", "identity"), ("cinder-db", "rabbitmq", "identity")
        return [
            Step("nova-conductor", self._start("nova-conductor"), nova),
            Step("nova-scheduler", self._start("nova-scheduler"), nova),
            Step("nova-compute", self._start("nova-compute"), (*nova, "placement")),
            Step("cinder-scheduler", self._start("cinder-scheduler"), cinder),
            Step("cinder-volume", self._start("cinder-volume"), cinder),
            Step(
                "compute",
                self._wait(self._content.compute_is_up, "nova-conductor", "nova-scheduler", "nova-compute"),
                ("nova-api", "nova-conductor", "nova-scheduler", "nova-compute"),
                "Nova's compute nodes are up",
            ),
            Step(
                "volume",
                self._wait(self._content.volumes_are_up, "cinder-scheduler", "cinder-volume"),
                ("cinder-api", "cinder-scheduler", "cinder-volume"),
                "Cinder's volume service is up",
            ),
        ]

    def _contents(self) -> list[Step]:
        content = self._content
        return [
            Step("images", self._fill("images", content.fill_images), ("glance-api",)),
            Step("networks", self._fill("networks", content.fill_networks), ("neutron-server",)),
            Step("flavors", self._fill("flavors", content.fill_flavors), ("nova-api",)),
            Step("volumes", self._fill("volumes", content.fill_volumes), ("cinder-api",)),
        ]

    def _start(self, name: str, *, port: int = 0, url: str = "") -> Callable[[], None]:
        """Work that starts a service and waits for its port or its answer."""

        def work() -> None:
            self._processes.start(self._services[name])
            still_running = self._still_running(name)
            if port:
                wait_until(lambda: is_listening(port), f"{name} does not listen on port {port}", still_running)
            if url:
                wait_for_answer(url, still_running)

        return work

    def _wait(self, met: Callable[[], bool], *names: str) -> Callable[[], None]:
        return lambda: wait_until(met, f"{' and '.join(names)} are not ready", self._still_running(*names))

    def _still_running(self, *names: str) -> Callable[[], None]:
        def check() -> None:
            for name in names:
                self._processes.require_running(name)

        return check

    def _fill(self, name: str, fill: Callable[[], None]) -> Callable[[], None]:
        """Work that fills in content, unless this version of it was filled in before."""

        def work() -> None:
            if not self._state.is_done(f"content-{name}", self._version):
                fill()
                self._state.mark_done(f"content-{name}", self._version)

        return work
