"""The life of a server: what an order does at once, and what follows after its time.

    building --build--> active, or error (no host, port taken)
    active, error --stop--> stopped --start--> active
    active --suspend--> suspended --resume--> active
    active --pause--> paused --unpause--> active
    active, stopped, paused, suspended --shelve--> shelved --offload--> shelved_offloaded
    shelved, shelved_offloaded --unshelve--> active
    active, stopped --resize--> resized --confirm, revert--> as before (see `remaking`)
    active, stopped, error --rebuild--> active, stopped (see `remaking`)
    any --delete--> deleted
    any --vanish--> gone, without a trace in the API

An order is refused while another is under way (`task_state`), as in Nova; only a delete overtakes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from adapters.sandbox import hosts, images, volumes
from adapters.sandbox.config import Timing
from adapters.sandbox.entities import Action, Flavor, Server, ServerFault, VmState
from adapters.sandbox.state import Cloud
from adapters.sandbox.wire import ApiError
from adapters.sandbox.wiring import WiringError, bind_ports, release_ports

NO_VALID_HOST = "No valid host was found. There are not enough hosts available."
POWER_NONE, POWER_RUNNING, POWER_PAUSED, POWER_OFF = 0, 1, 3, 4

_Step = Callable[[datetime], None]


def _later(cloud: Cloud, server: Server, now: datetime, *, seconds: float, step: _Step) -> None:
    """Let `step` happen in `seconds`, unless a newer order overtakes or the server is gone."""
    epoch = server.epoch

    def if_still_wanted(due: datetime) -> None:
        if server.epoch == epoch and server.id in cloud.servers:
            step(due)

    cloud.plan_after(now, seconds, if_still_wanted)


def enter(server: Server, now: datetime, vm_state: VmState, task_state: str | None = None) -> None:
    server.vm_state = vm_state
    server.task_state = task_state
    server.updated = now


def add(cloud: Cloud, server: Server) -> None:
    """The server exists from now on and uses quota."""
    cloud.servers[server.id] = server
    usage = cloud.usage[server.project_id]
    usage.instances += 1
    usage.cores += server.flavor.config.vcpus
    usage.ram_mib += server.flavor.config.ram_mib
    cloud.record(
        server.created,
        "server",
        "created",
        server,
        request_id=server.request_id,
        metadata=server.metadata,
        flavor=server.flavor.config.name,
        port_ids=[nic.port_id for nic in server.nics if nic.port_id],
    )


def _drop(cloud: Cloud, server: Server, now: datetime) -> None:
    volumes.release(cloud, server, now)
    del cloud.servers[server.id]
    images.drop_shelved(cloud, server, now)
    usage = cloud.usage[server.project_id]
    usage.instances -= 1
    usage.cores -= server.flavor.config.vcpus
    usage.ram_mib -= server.flavor.config.ram_mib


def build(cloud: Cloud, server: Server, now: datetime, *, no_host_after: float | None = None) -> None:
    """Place the server, give it its ports, boot it; or say after so many seconds that there is no host for it."""
    timing = cloud.config.timing
    creation = note(server, "create", now, request_id=server.request_id, user_id=server.user_id)
    to_bind = min(timing.bind_seconds, timing.build_seconds)

    def place(due: datetime) -> None:
        if no_host_after is None and fits(cloud, server.flavor):
            server.host = hosts.choose(cloud, server)
        if not server.host:
            fail(cloud, server, due, NO_VALID_HOST)
            return
        try:
            bind_ports(cloud, server, due)
            volumes.make_root(cloud, server, due)
        except WiringError as error:
            server.host = ""
            release_ports(cloud, server, due)
            volumes.release(cloud, server, due)
            fail(cloud, server, due, f"Build of instance {server.id} aborted: {error}")
            return
        enter(server, due, VmState.BUILDING, "spawning")
        _later(cloud, server, due, seconds=timing.build_seconds - to_bind, step=boot)

    def boot(due: datetime) -> None:
        enter(server, due, VmState.ACTIVE)
        server.power_state = POWER_RUNNING
        server.launched_at = creation.finished = due
        volumes.plug_in_all(cloud, server, due)
        cloud.record(due, "server", "active", server, metadata=server.metadata)

    _later(cloud, server, now, seconds=max(to_bind, no_host_after or 0.0), step=place)


def fits(cloud: Cloud, flavor: Flavor) -> bool:
    """Whether the cloud has room for one more of the flavor."""
    capacity = cloud.config.capacity
    if capacity is None:
        return True
    there = [other for other in cloud.servers.values() if other.host]
    held = [other.former.flavor.config for other in there if other.former]  # until the resize is confirmed
    placed = [other.flavor.config for other in there] + held + [flavor.config]
    return (
        sum(flavor.vcpus for flavor in placed) <= capacity.cores
        and sum(flavor.ram_mib for flavor in placed) <= capacity.ram_mib
    )


def fail(cloud: Cloud, server: Server, now: datetime, message: str) -> None:
    """The server stays, in ERROR, with the reason."""
    server.fault = ServerFault(message=message, code=500, created=now)
    server.power_state = POWER_NONE
    enter(server, now, VmState.ERROR)
    cloud.record(now, "server", "error", server, metadata=server.metadata, message=message)


def delete(cloud: Cloud, server: Server, now: datetime) -> None:
    """Begin to delete; asking again changes nothing. One that was never placed is gone at once."""
    if server.locked:
        raise ApiError(409, f"Instance {server.id} is locked")
    if server.task_state == "deleting":
        return
    server.epoch += 1
    server.task_state = "deleting"
    server.updated = now
    cloud.record(now, "server", "deleting", server, metadata=server.metadata)

    def finish(due: datetime) -> None:
        release_ports(cloud, server, due)
        _drop(cloud, server, due)
        enter(server, due, VmState.DELETED)
        server.power_state = POWER_NONE
        server.terminated_at = due
        cloud.deleted_servers[server.id] = server
        cloud.record(due, "server", "deleted", server, metadata=server.metadata)

    _later(cloud, server, now, seconds=cloud.config.timing.delete_seconds if server.host else 0.0, step=finish)


def vanish(cloud: Cloud, server: Server, now: datetime) -> None:
    """The server is gone as if it had never been: 404, not in `changes-since`; its ports are let go."""
    server.epoch += 1
    release_ports(cloud, server, now)
    _drop(cloud, server, now)
    cloud.record(now, "server", "vanished", server, metadata=server.metadata)


@dataclass(frozen=True, slots=True)
class Order:
    """One action: where it is allowed, the task shown meanwhile, how long it takes, what it ends in."""

    name: str
    allowed: tuple[VmState, ...]
    task_state: str
    seconds: Callable[[Timing], float]
    finish: Callable[[Cloud, Server, datetime], None]


def check(server: Server, name: str, allowed: tuple[VmState, ...]) -> None:
    """Whether the server takes an order now.

    Raises:
        ApiError: 409, it is locked, in a state that does not allow the order, busy, or never ran.
    """
    if server.locked:
        raise ApiError(409, f"Instance {server.id} is locked")
    refused = f"Cannot '{name}' instance {server.id} while it is in "
    if server.vm_state not in allowed:
        raise ApiError(409, f"{refused}vm_state {server.vm_state}")
    if server.task_state is not None:
        raise ApiError(409, f"{refused}task_state {server.task_state}")
    if server.launched_at is None:  # in error since it was built
        raise ApiError(409, f"Instance {server.id} is in an invalid state for '{name}'")


def begin(cloud: Cloud, server: Server, now: datetime, *, task: str | None, seconds: float, finish: _Step) -> None:
    """Let the server be at work for so long; then `finish` happens, and the action that asked for it is over."""
    server.epoch += 1
    server.task_state = task
    server.updated = now
    action = server.actions[-1] if server.actions else None

    def end(due: datetime) -> None:
        if action is not None:
            action.finished = due
        finish(due)

    _later(cloud, server, now, seconds=seconds, step=end)


def note(server: Server, name: str, now: datetime, *, request_id: str, user_id: str) -> Action:
    """Write down that somebody gave the server an order."""
    action = Action(name=name, request_id=request_id, user_id=user_id, started=now)
    server.actions.append(action)
    return action


def give(cloud: Cloud, server: Server, order: Order, now: datetime) -> None:
    """Begin an order that was checked."""
    seconds = order.seconds(cloud.config.timing)
    begin(
        cloud,
        server,
        now,
        task=order.task_state,
        seconds=seconds,
        finish=lambda due: order.finish(cloud, server, due),
    )


def _stopped(cloud: Cloud, server: Server, now: datetime) -> None:
    enter(server, now, VmState.STOPPED)
    server.power_state = POWER_OFF
    cloud.record(now, "server", "stopped", server, metadata=server.metadata)


def _started(cloud: Cloud, server: Server, now: datetime) -> None:
    enter(server, now, VmState.ACTIVE)
    server.power_state = POWER_RUNNING
    cloud.record(now, "server", "active", server, metadata=server.metadata)


def _suspended(cloud: Cloud, server: Server, now: datetime) -> None:
    enter(server, now, VmState.SUSPENDED)
    server.power_state = POWER_OFF
    cloud.record(now, "server", "suspended", server, metadata=server.metadata)


def _paused(cloud: Cloud, server: Server, now: datetime) -> None:
    enter(server, now, VmState.PAUSED)
    server.power_state = POWER_PAUSED
    cloud.record(now, "server", "paused", server, metadata=server.metadata)


def _shelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """A shelved server is off but keeps its host; by default Nova offloads it at once."""
    enter(server, now, VmState.SHELVED, "shelving_offloading")
    server.power_state = POWER_OFF
    images.keep_shelved(cloud, server, now)
    cloud.record(now, "server", "shelved", server, metadata=server.metadata)
    offload_seconds = cloud.config.timing.offload_seconds
    if offload_seconds > 0:
        server.task_state = None
    _later(cloud, server, now, seconds=offload_seconds, step=lambda due: _offloaded(cloud, server, due))


def _offloaded(cloud: Cloud, server: Server, now: datetime) -> None:
    enter(server, now, VmState.SHELVED_OFFLOADED)
    server.power_state = POWER_NONE
    server.host = ""
    cloud.record(now, "server", "offloaded", server, metadata=server.metadata)


def _unshelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """An offloaded server needs a host again, and may not find one; then it stays as it is."""
    if not server.host:
        if fits(cloud, server.flavor):
            server.host = hosts.choose(cloud, server)
        if not server.host:
            enter(server, now, VmState.SHELVED_OFFLOADED)
            return
    images.drop_shelved(cloud, server, now)
    _started(cloud, server, now)


_RESTING = (VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED)
_ORDERS = (
    Order("stop", (VmState.ACTIVE, VmState.ERROR), "powering-off", lambda timing: timing.stop_seconds, _stopped),
    Order("start", (VmState.STOPPED,), "powering-on", lambda timing: timing.start_seconds, _started),
    Order("suspend", (VmState.ACTIVE,), "suspending", lambda timing: timing.suspend_seconds, _suspended),
    Order("resume", (VmState.SUSPENDED,), "resuming", lambda timing: timing.suspend_seconds, _started),
    Order("pause", (VmState.ACTIVE,), "pausing", lambda timing: timing.suspend_seconds, _paused),
    Order("unpause", (VmState.PAUSED,), "unpausing", lambda timing: timing.suspend_seconds, _started),
    Order("reboot", (VmState.ACTIVE,), "rebooting", lambda timing: timing.reboot_seconds, _started),
    Order(
        "reboot_hard",
        (VmState.ACTIVE, VmState.ERROR, *_RESTING),
        "rebooting_hard",
        lambda timing: timing.reboot_seconds,
        _started,
    ),
    Order("shelve", (VmState.ACTIVE, *_RESTING), "shelving", lambda timing: timing.shelve_seconds, _shelved),
    Order(
        "unshelve",
        (VmState.SHELVED, VmState.SHELVED_OFFLOADED),
        "unshelving",
        lambda timing: timing.unshelve_seconds,
        _unshelved,
    ),
)
ORDERS = {order.name: order for order in _ORDERS}
