"""Other people's servers in the same project: a broker sees them in listings and must leave them alone."""

from datetime import datetime

from adapters.sandbox import machines
from adapters.sandbox.entities import Flavor, Nic, Project, Server, VmState
from adapters.sandbox.errors import ConfigError
from adapters.sandbox.foreign_things import add_foreign_things
from adapters.sandbox.state import Cloud, new_id
from adapters.sandbox.wiring import WiringError, bind_ports

_OWNERS = tuple(digit * 32 for digit in "012")


def add_foreign_servers(
    cloud: Cloud, count: int, now: datetime, *, project_name: str | None = None, flavor_name: str | None = None
) -> list[str]:
    """`count` running servers, by default in the first project and of the smallest flavor; their ids.

    They use quota, and may use more than there is: quotas are checked for the clients of the API only.

    Raises:
        ConfigError: no such project or flavor, or no address is left for so many.
    """
    project = _project(cloud, project_name)
    flavor = _flavor(cloud, flavor_name)
    image = next(iter(cloud.images.values()))
    network = next(
        (
            item
            for item in cloud.networks.values()
            if not item.external and (item.shared or item.project_id == project.id)
        ),
        None,
    )
    made: list[str] = []
    for _ in range(count):
        serial = cloud.serial()
        server = Server(
            id=new_id(),
            serial=serial,
            name=f"foreign-{serial}",
            project_id=project.id,
            user_id=_OWNERS[serial % len(_OWNERS)],
            flavor=flavor,
            image_id=image.id,
            image_config=image.config,
            created=now,
            updated=now,
            nics=(Nic(network.id),) if network else (),
            vm_state=VmState.ACTIVE,
            task_state=None,
            power_state=machines.POWER_RUNNING,
            launched_at=now,
            host=f"{cloud.config.name}-compute-{serial % 16}",
        )
        machines.add(cloud, server)
        try:
            bind_ports(cloud, server, now)
        except WiringError as error:
            machines.vanish(cloud, server, now)
            raise ConfigError(f"count: after {len(made)} of {count}: {error} Use a larger network") from error
        made.append(server.id)
    return made


def add_foreigners(cloud: Cloud, now: datetime) -> None:
    """The servers of other people that the configuration names, and what else these people have.

    Raises:
        ConfigError: no address is left for so many.
    """
    made = add_foreign_servers(cloud, cloud.config.foreign_servers, now)
    add_foreign_things(cloud, [cloud.servers[server_id] for server_id in made], now)


def _project(cloud: Cloud, name: str | None) -> Project:
    for project in cloud.projects.values():
        if name in (None, project.name, project.id):
            return project
    raise ConfigError(f"project: no {name!r}; there are {', '.join(item.name for item in cloud.projects.values())}")


def _flavor(cloud: Cloud, name: str | None) -> Flavor:
    by_size = sorted(cloud.flavors.values(), key=lambda flavor: (flavor.config.vcpus, flavor.config.ram_mib))
    for flavor in by_size:
        if name in (None, flavor.config.name, flavor.id):
            return flavor
    raise ConfigError(f"flavor: no {name!r}; there are {', '.join(item.config.name for item in by_size)}")
