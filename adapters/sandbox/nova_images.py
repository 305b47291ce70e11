"""The action createImage: Nova's checks and words, then the server's disk begins to be saved."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from adapters.sandbox import images
from adapters.sandbox.entities import Image, Server, VmState
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.nova_create import checked_name, metadata
from adapters.sandbox.state import Cloud
from adapters.sandbox.wire import ApiError, Call, Reply

_ALLOWED = (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED)


def create_image(call: Call, server: Server, argument: Any) -> Reply:
    """202 with the image's id: in the body from 2.45 on, before that at the end of its address. A lock is no hindrance.

    Raises:
        ApiError: 400 for a name or metadata that Nova refuses, 403 for a quota, 409 for the server's state.
    """
    if not isinstance(argument, dict):
        raise ApiError(400, "Invalid input for field/attribute createImage.")
    name, given = checked_name(argument.get("name")), metadata(argument.get("metadata", {}))
    refused = f"Cannot 'createImage' instance {server.id} while it is in "
    if server.vm_state not in _ALLOWED:
        raise ApiError(409, f"{refused}vm_state {server.vm_state}")
    if server.task_state is not None:
        raise ApiError(409, f"{refused}task_state {server.task_state}")
    if call.effect(FaultKind.QUOTA):
        raise ApiError(403, "Quota exceeded or out of space for image None in the image service.")
    failing = call.effect(FaultKind.NO_CAPACITY)
    wish = images.Wish(
        name=name,
        given=given,
        fails_after=None if failing is None else failing.seconds,
        request_id=call.request_id,
    )
    save = images.take_snapshot if server.root_disk is None else images.save_volumes
    image = save(call.cloud, server, wish, call.now)
    _trouble(call, image)
    if call.version >= (2, 45):
        return Reply(202, {"image_id": image.id})
    return Reply(202, headers={"Location": f"{call.base_url}/image/images/{image.id}"})


def _trouble(call: Call, image: Image) -> None:
    hidden = call.effect(FaultKind.HIDDEN)
    if hidden is not None:
        image.visible_at = call.now + timedelta(seconds=hidden.seconds)
    vanishing = call.effect(FaultKind.VANISH)
    if vanishing is not None:
        call.cloud.plan(call.now + timedelta(seconds=vanishing.seconds), _vanish_if_there(call.cloud, image))


def _vanish_if_there(cloud: Cloud, image: Image) -> Callable[[datetime], None]:
    def vanish(due: datetime) -> None:
        if image.id in cloud.images:
            images.remove(cloud, image, due, event="vanished")

    return vanish
