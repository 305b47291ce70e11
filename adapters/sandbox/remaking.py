"""Orders that change what a server is: its size, and its disk.

    active, stopped --resize--> resized --confirm--> as before, with the new flavor
                                        --revert--> as before, with the old flavor
    active, stopped, error --rebuild--> active, stopped, with a new disk

Until a resize is confirmed both sizes hold a place. One for which there is no room ends as if it had never been asked
for: only the server's list of actions tells.
"""

from datetime import datetime

from adapters.sandbox.entities import Flavor, Former, Image, Server, VmState
from adapters.sandbox.machines import POWER_OFF, POWER_RUNNING, begin, enter, fits
from adapters.sandbox.state import Cloud


def resize(cloud: Cloud, server: Server, flavor: Flavor, now: datetime, *, no_room_after: float | None = None) -> None:
    """Begin to give the server another flavor."""
    before = server.vm_state
    action = server.actions[-1]

    def finish(due: datetime) -> None:
        if no_room_after is not None or not fits(cloud, flavor):
            action.failed = True
            enter(server, due, before)
            return
        server.former = Former(server.flavor, before)
        _take(cloud, server, flavor)
        server.launched_at = due
        enter(server, due, VmState.RESIZED)
        cloud.record(due, "server", "resized", server, metadata=server.metadata, flavor=flavor.config.name)

    seconds = max(cloud.config.timing.resize_seconds, no_room_after or 0.0)
    begin(cloud, server, now, task="resize_prep", seconds=seconds, finish=finish)


def confirm(cloud: Cloud, server: Server, now: datetime) -> None:
    """Begin to give up the old place. The server shows no task meanwhile, and still waits."""

    def finish(due: datetime) -> None:
        former, server.former = server.former, None
        enter(server, due, former.vm_state if former else VmState.ACTIVE)
        cloud.record(due, "server", "resize_confirmed", server, metadata=server.metadata)

    begin(cloud, server, now, task=None, seconds=cloud.config.timing.resize_seconds, finish=finish)


def revert(cloud: Cloud, server: Server, now: datetime) -> None:
    """Begin to go back to the old place and flavor."""

    def finish(due: datetime) -> None:
        former, server.former = server.former, None
        if former is not None:
            _take(cloud, server, former.flavor)
        server.launched_at = due
        enter(server, due, former.vm_state if former else VmState.ACTIVE)
        flavor = server.flavor.config.name
        cloud.record(due, "server", "resize_reverted", server, metadata=server.metadata, flavor=flavor)

    begin(cloud, server, now, task="resize_reverting", seconds=cloud.config.timing.resize_seconds, finish=finish)


def is_being_confirmed(server: Server) -> bool:
    """Whether a confirmation is under way, which only the list of actions shows."""
    last = server.actions[-1] if server.actions else None
    return last is not None and last.name == "confirmResize" and last.finished is None


def _take(cloud: Cloud, server: Server, flavor: Flavor) -> None:
    usage = cloud.usage[server.project_id]
    usage.cores += flavor.config.vcpus - server.flavor.config.vcpus
    usage.ram_mib += flavor.config.ram_mib - server.flavor.config.ram_mib
    server.flavor = flavor


def rebuild(cloud: Cloud, server: Server, image: Image, now: datetime) -> None:
    """Begin to make the server's disk anew. It keeps its id, its place and its addresses; one in error is mended."""
    before = server.vm_state
    if server.root_disk is None:
        server.image_id = image.id
    server.image_config = image.config

    def finish(due: datetime) -> None:
        is_off = before is VmState.STOPPED
        enter(server, due, VmState.STOPPED if is_off else VmState.ACTIVE)
        server.power_state = POWER_OFF if is_off else POWER_RUNNING
        server.launched_at = due
        server.fault = None
        cloud.record(due, "server", "rebuilt", server, metadata=server.metadata, image=image.id)
        if not is_off:
            cloud.record(due, "server", "active", server, metadata=server.metadata)

    begin(cloud, server, now, task="rebuilding", seconds=cloud.config.timing.rebuild_seconds, finish=finish)
