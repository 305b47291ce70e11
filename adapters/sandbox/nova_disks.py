"""`block_device_mapping_v2` of a request for a server: what it boots from, and which volumes it is made with."""

from dataclasses import dataclass
from typing import Any

from adapters.sandbox import volumes
from adapters.sandbox.entities import Image, RootDisk, Server
from adapters.sandbox.state import is_visible
from adapters.sandbox.volume_entities import Volume
from adapters.sandbox.wire import ApiError, Call

_FIELD = "block_device_mapping_v2"
_KNOWN = frozenset(
    {
        "boot_index",
        "uuid",
        "source_type",
        "destination_type",
        "volume_size",
        "delete_on_termination",
        "device_name",
        "device_type",
        "disk_bus",
        "guest_format",
        "no_device",
        "tag",
        "volume_type",
    }
)


@dataclass(frozen=True, slots=True)
class Disks:
    """What a server boots from, and the volumes that it has from the start, each with whether it goes with it.

    `shows_image`: the server names its image, which one that boots from a volume does only if its request did.
    """

    image: Image
    shows_image: bool
    root: RootDisk | None = None
    volumes: tuple[tuple[Volume, bool], ...] = ()


def disks(call: Call, wanted: dict[str, Any]) -> Disks:
    """The disks that a request asks for, in Nova's checks and words.

    Raises:
        ApiError: 400.
    """
    items = _items(wanted.get(_FIELD))
    reference = str(wanted.get("imageRef") or "").rpartition("/")[2]
    if not items:
        if not reference and "imageRef" not in wanted:
            raise ApiError(400, "Missing imageRef attribute")
        return Disks(_image(call, reference), shows_image=True)
    image = _image(call, reference) if reference else None
    roots = [item for item in items if _boot_index(item) == 0]
    if len(roots) != 1:
        text = "Boot sequence for the instance and image/block device mapping combination is not valid."
        raise ApiError(400, f"Block Device Mapping is Invalid: {text}")
    root_image, root = _root(call, roots[0])
    others = tuple(_second(call, item) for item in items if item is not roots[0])
    return Disks(image or root_image, shows_image=image is not None, root=root, volumes=others)


def _items(given: Any) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list):
        text = f"Value: {given}. '{given}' is not of type 'array'"
        raise ApiError(400, f"Invalid input for field/attribute {_FIELD}. {text}")
    for index, item in enumerate(given):
        unknown = sorted(set(item) - _KNOWN) if isinstance(item, dict) else []
        if unknown or not isinstance(item, dict):
            text = f"Additional properties are not allowed ('{unknown[0]}' was unexpected)" if unknown else "no object"
            raise ApiError(400, f"Invalid input for field/attribute {index}. Value: {item}. {text}")
    return given


def _boot_index(item: dict[str, Any]) -> int:
    given = item.get("boot_index")
    return int(given) if isinstance(given, int | str) and str(given).lstrip("-").isdecimal() else -1


def _image(call: Call, identifier: str) -> Image:
    image = call.cloud.images.get(identifier)
    if image is None or image.project_id not in ("", call.project.id):
        raise ApiError(400, "Can not find requested image")
    if image.config.status != "active":
        raise ApiError(400, f"Image {image.id} is not active.")
    return image


def _root(call: Call, item: dict[str, Any]) -> tuple[Image, RootDisk | None]:
    """The image that a server boots, and the volume that it is put on; None: on the flavor's own disk."""
    identifier, kind = str(item.get("uuid")), (item.get("source_type"), item.get("destination_type"))
    if kind[0] != "image" or kind[1] not in ("local", "volume"):
        raise ApiError(400, "The sandbox does not model this root disk: it is made of an image.")
    image = call.cloud.images.get(identifier)
    if image is None or image.project_id not in ("", call.project.id):
        raise ApiError(400, f"Block Device Mapping is Invalid: failed to get image {identifier}.")
    if image.config.status != "active":
        raise ApiError(400, f"Image {image.id} is not active.")
    if kind[1] == "local":
        return image, None
    size = item.get("volume_size")
    size = int(size) if isinstance(size, int | str) and str(size).isdecimal() else 0
    if not size:
        raise ApiError(400, "Images with destination_type 'volume' need to have a non-zero size specified")
    needed = image.config.min_disk_gib
    if size < needed:
        text = "Volume is smaller than the minimum size specified in image metadata."
        raise ApiError(400, f"{text} Volume size is {size * 1024**3} bytes, minimum size is {needed * 1024**3} bytes.")
    return image, RootDisk(image=image, size_gib=size, goes_with_it=item.get("delete_on_termination") is True)


def _second(call: Call, item: dict[str, Any]) -> tuple[Volume, bool]:
    if (item.get("source_type"), item.get("destination_type", "volume")) != ("volume", "volume"):
        raise ApiError(400, "The sandbox does not model this disk: a second one is a volume that exists.")
    identifier = str(item.get("uuid"))
    volume = call.cloud.volumes.get(identifier)
    if volume is None or not is_visible(volume, call.project.id, call.now):
        raise ApiError(400, f"Volume {identifier} could not be found.")
    if volume.status != "available":
        text = f"Volume {volume.id} status must be available or downloading to reserve, but the current status is"
        if volume.status == "error":
            text = (
                "Volume attachments can not be created if the volume is in an error state. "
                f"The Volume {volume.id} currently has a status of:"
            )
        refused = f"Invalid volume: Invalid input received: Invalid volume: {text} {volume.status}."
        raise ApiError(400, f"{refused} (HTTP 400) (Request-ID: {call.request_id})")
    return volume, item.get("delete_on_termination") is True


def promise(call: Call, server: Server, chosen: Disks) -> None:
    """From now on nobody else gets the volumes."""
    for volume, goes_with_it in chosen.volumes:
        volumes.reserve(call.cloud, volume, server, call.now, goes_with_it=goes_with_it)
