"""POST /servers: Nova's checks in Nova's order and words, then the machine begins to be built."""

import base64
import binascii
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from adapters.sandbox import machines, nova_disks, nova_groups
from adapters.sandbox.entities import Flavor, Image, Network, Nic, Project, Server
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.nova_fences import made_before, refuse_taken_name, remember
from adapters.sandbox.nova_views import links
from adapters.sandbox.state import Cloud, new_id
from adapters.sandbox.wire import ApiError, Call, Reply

_USER_DATA_CHARACTERS = 65535
_NAME_CHARACTERS = 255
_METADATA_KEY = re.compile(r"[a-zA-Z0-9_:. -]{1,255}")
_NOT_MODELLED = ("block_device_mapping", "personality")


def create_server(call: Call) -> Reply:
    """202 with id and password; the rest follows in time."""
    wanted = call.document("server")
    server = made_before(call, wanted)
    if server is None:
        server = _make(call, wanted)
        remember(call, wanted, server)
    document = {
        "id": server.id,
        "links": links(call, "servers", server.id),
        "OS-DCF:diskConfig": "MANUAL",
        "security_groups": [{"name": item} for item in server.security_groups],
        "adminPass": secrets.token_urlsafe(9),
    }
    return Reply(202, {"server": document}, {"Location": f"{call.base_url}/compute/v2.1/servers/{server.id}"})


def _make(call: Call, wanted: dict[str, Any]) -> Server:
    project = call.project
    _refuse_unmodelled(wanted)
    name = checked_name(wanted.get("name"))
    chosen = nova_disks.disks(call, wanted)
    flavor = _flavor(call.cloud, wanted.get("flavorRef"), chosen)
    server = Server(
        id=new_id(),
        serial=call.cloud.serial(),
        name=name,
        project_id=project.id,
        user_id=call.token.user.id,
        flavor=flavor,
        image_id=chosen.image.id if chosen.shows_image else "",
        image_config=chosen.image.config,
        root_disk=chosen.root,
        created=call.now,
        updated=call.now,
        key_name=_key_name(call, wanted.get("key_name")),
        metadata=metadata(wanted.get("metadata", {})),
        tags=_tags(call, wanted),
        security_groups=_security_groups(call, wanted.get("security_groups")),
        availability_zone=_availability_zone(wanted.get("availability_zone")),
        user_data=_user_data(wanted.get("user_data")),
        description=wanted.get("description") if call.version >= (2, 19) else None,
        nics=_nics(call, wanted),
        group_id=nova_groups.hinted(call),
        request_id=call.request_id,
    )
    refuse_taken_name(call, name)
    check_quota(call, project, flavor)
    _check_port_quota(call, project, server)
    nova_disks.promise(call, server, chosen)
    _begin(call, server)
    return server


def _begin(call: Call, server: Server) -> None:
    cloud = call.cloud
    hidden = call.effect(FaultKind.HIDDEN)
    if hidden is not None:
        server.visible_at = call.now + timedelta(seconds=hidden.seconds)
    machines.add(cloud, server)
    full = call.effect(FaultKind.NO_CAPACITY)
    machines.build(cloud, server, call.now, no_host_after=None if full is None else full.seconds)
    vanishing = call.effect(FaultKind.VANISH)
    if vanishing is not None:
        cloud.plan(call.now + timedelta(seconds=vanishing.seconds), _vanish_if_there(cloud, server))


def _vanish_if_there(cloud: Cloud, server: Server) -> Callable[[datetime], None]:
    def vanish(due: datetime) -> None:
        if server.id in cloud.servers:
            machines.vanish(cloud, server, due)

    return vanish


def _refuse_unmodelled(wanted: dict[str, Any]) -> None:
    for field in _NOT_MODELLED:
        if wanted.get(field):
            raise ApiError(400, f"The sandbox does not model '{field}': use 'block_device_mapping_v2'.")
    for field in ("min_count", "max_count"):
        if wanted.get(field, 1) not in (1, "1"):
            raise ApiError(400, f"The sandbox makes one server per request: leave out '{field}'.")


def checked_name(name: Any) -> str:
    """A name of a server or an image, without space around it.

    Raises:
        ApiError: 400.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > _NAME_CHARACTERS:
        raise ApiError(400, f"Invalid input for field/attribute name. Value: {name}. It must be 1 to 255 characters.")
    return name.strip()


def _flavor(cloud: Cloud, reference: Any, chosen: nova_disks.Disks) -> Flavor:
    flavor = cloud.flavors.get(str(reference or "").rpartition("/")[2])
    if flavor is None:
        raise ApiError(400, f"Flavor {reference} could not be found.")
    check_image(flavor, chosen.image, is_on_volume=chosen.root is not None)
    return flavor


def check_image(flavor: Flavor, image: Image, *, is_on_volume: bool = False) -> None:
    """Whether a server of the flavor can be made of the image; on a volume, the flavor's own disk does not matter.

    Raises:
        ApiError: 400.
    """
    if flavor.config.ram_mib < image.config.min_ram_mib:
        raise ApiError(400, "Flavor's memory is too small for requested image.")
    disk, needed = flavor.config.disk_gib, image.config.min_disk_gib
    if 0 < disk < needed and not is_on_volume:
        raise ApiError(
            400,
            "Flavor's disk is smaller than the minimum size specified in image metadata. "
            f"Flavor disk is {disk * 1024**3} bytes, minimum size is {needed * 1024**3} bytes.",
        )


def _key_name(call: Call, name: Any) -> str | None:
    if name is not None and (call.token.user.id, name) not in call.cloud.key_pairs:
        raise ApiError(400, "Invalid key_name provided.")
    return name if name is None else str(name)


def metadata(given: Any) -> dict[str, str]:
    """Checked metadata: texts of at most 255 characters, the keys of letters, digits and a few signs.

    Raises:
        ApiError: 400.
    """
    if not isinstance(given, dict) or not all(
        isinstance(value, str) and _METADATA_KEY.fullmatch(key) and len(value) <= _NAME_CHARACTERS
        for key, value in given.items()
    ):
        raise ApiError(400, "Invalid input for field/attribute metadata. Keys and values are texts of up to 255.")
    return dict(given)


def _tags(call: Call, wanted: dict[str, Any]) -> list[str]:
    if "tags" not in wanted:
        return []
    if call.version < (2, 52):
        raise ApiError(400, "Additional properties are not allowed ('tags' was unexpected)")
    return checked_tags(wanted["tags"])


def checked_tags(given: Any) -> list[str]:
    """Nova's rule: at most 50 tags, each 1-60 characters without slash and comma.

    Raises:
        ApiError: 400.
    """
    fine = isinstance(given, list) and all(
        isinstance(tag, str) and 1 <= len(tag) <= 60 and not {"/", ","} & set(tag) for tag in given
    )
    if not fine or len(given) > 50:
        raise ApiError(400, f"Invalid input for field/attribute tags. Value: {given}.")
    return sorted(set(given))


def _security_groups(call: Call, given: Any) -> list[str]:
    if given is not None and not (isinstance(given, list) and all(isinstance(item, dict) for item in given)):
        raise ApiError(400, f"Invalid input for field/attribute security_groups. Value: {given}.")
    names = [str(item.get("name")) for item in given or []]
    for name in names:
        if not any(
            name in (group.name, group.id) and group.project_id == call.project.id
            for group in call.cloud.security_groups.values()
        ):
            raise ApiError(400, f"Unable to find security_group with name or id '{name}'")
    return list(dict.fromkeys(names)) or ["default"]


def _availability_zone(name: Any) -> str:
    if name not in (None, "", "nova"):
        raise ApiError(400, "The requested availability zone is not available")
    return "nova"


def _user_data(text: Any) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _USER_DATA_CHARACTERS:
        raise ApiError(400, "Invalid input for field/attribute user_data. It must be at most 65535 characters.")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "Invalid input for field/attribute user_data. It is not a 'base64'") from error
    return text


def _nics(call: Call, wanted: dict[str, Any]) -> tuple[Nic, ...]:
    given = wanted.get("networks")
    if given is None and call.version >= (2, 37):
        raise ApiError(400, "Invalid input for field/attribute server. 'networks' is a required property")
    if given == "none":
        return ()
    if given in (None, "auto", []):
        return _automatic_nic(call, must_choose=given != "auto")
    if not isinstance(given, list):
        raise ApiError(400, f"Invalid input for field/attribute networks. Value: {given}.")
    return tuple(_nic(call, item) for item in given)


def _automatic_nic(call: Call, *, must_choose: bool) -> tuple[Nic, ...]:
    """The project's only network; none is fine unless 'auto' was asked for, two are one too many."""
    usable = [network for network in call.cloud.networks.values() if _usable(call, network) and not network.external]
    if len(usable) > 1:
        raise ApiError(409, "Multiple possible networks found, use a Network ID to be more specific.")
    if not usable and not must_choose:
        raise ApiError(400, "Unable to automatically allocate a network for project " + call.project.id)
    return tuple(Nic(network.id) for network in usable)


def _usable(call: Call, network: Network) -> bool:
    return network.shared or network.external or network.project_id == call.project.id


def _nic(call: Call, item: Any) -> Nic:
    if not isinstance(item, dict):
        raise ApiError(400, f"Invalid input for field/attribute networks. Value: {item}.")
    if item.get("port") is not None:
        port = call.cloud.ports.get(str(item["port"]))
        if port is None or port.project_id != call.project.id:
            raise ApiError(400, f"Port id {item['port']} could not be found.")
        if port.device_id:
            raise ApiError(409, f"Port {port.id} is still in use.")
        return Nic(port.network_id, port.id)
    network = call.cloud.networks.get(str(item.get("uuid")))
    if network is None or not _usable(call, network):
        raise ApiError(400, f"Network {item.get('uuid')} could not be found.")
    if network.external:
        raise ApiError(403, f"It is not allowed to create an interface on external network {network.id}")
    return Nic(network.id)


def check_quota(call: Call, project: Project, flavor: Flavor, *, former: Flavor | None = None) -> None:
    """Instances, cores and RAM, for a new server or for one that had another flavor.

    The text is Nova's, with the resources in alphabetical order.

    Raises:
        ApiError: 403.
    """
    usage, quota = call.cloud.usage[project.id], project.quota
    rows = (
        ("cores", flavor.config.vcpus - (former.config.vcpus if former else 0), usage.cores, quota.cores),
        ("instances", 0 if former else 1, usage.instances, quota.instances),
        ("ram", flavor.config.ram_mib - (former.config.ram_mib if former else 0), usage.ram_mib, quota.ram_mib),
    )
    over = [row for row in rows if row[1] > 0 and 0 <= row[3] < row[1] + row[2]]
    if call.effect(FaultKind.QUOTA) and not over:  # as if the others had used up all there is
        over = [(name, requested, limit, limit) for name, requested, _, limit in rows[:2]]
    if over:
        names, requested, used, allowed = (", ".join(str(row[column]) for row in over) for column in range(4))
        text = f"Requested {requested}, but already used {used} of {allowed} {names}"
        raise ApiError(403, f"Quota exceeded for {names}: {text}")


def _check_port_quota(call: Call, project: Project, server: Server) -> None:
    needed = sum(nic.port_id is None for nic in server.nics)
    used = sum(port.project_id == project.id for port in call.cloud.ports.values())
    if needed and 0 <= project.quota.ports < used + needed:
        raise ApiError(403, "Maximum number of ports exceeded")
