"""Nova 2.1: versions and microversions, flavors, key pairs, availability zones, and the table of all its paths."""

import base64
import binascii
import hashlib
import re
from typing import Any

from adapters.sandbox import nova_actions, nova_groups, nova_quotas, nova_servers, nova_usage, nova_volumes
from adapters.sandbox.entities import Flavor, KeyPair
from adapters.sandbox.microversions import FAULT_NAMES, OTHER_FAULT, Microversions, unauthorized, written
from adapters.sandbox.nova_views import flavor_document, links
from adapters.sandbox.paging import page
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, Service

VERSIONS = Microversions("compute", (2, 1), (2, 79), former="X-OpenStack-Nova-API-Version")


def _refuse(error: ApiError) -> Reply:
    if error.status == 401:
        return unauthorized(error)
    name = FAULT_NAMES.get(error.status, OTHER_FAULT)
    document = {name: {"code": error.status, "message": error.message}}
    return Reply(error.status, document, media_type="application/json; charset=UTF-8")


def _finish(call: Call, reply: Reply) -> None:
    if reply.status != 401 and call.path.rstrip("/") != "/compute":  # those are answered before Nova looks at versions
        reply.headers |= VERSIONS.headers(written(call.version))


SERVICE = Service("compute", _refuse, negotiate=VERSIONS.negotiate, finish=_finish)


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": "2.79",
        "min_version": "2.1",
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{call.base_url}/compute/v2.1/"}],
    }


def show_versions(call: Call) -> Reply:
    """Nova still names its first API, which it answers as the second without microversions; the sandbox does not."""
    first = {"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z"}
    link = {"rel": "self", "href": f"{call.base_url}/compute/v2/"}
    return Reply(200, {"versions": [first | {"links": [link]}, _version(call)]})


def show_version(call: Call) -> Reply:
    described = {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"}
    media = {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
    version = _version(call)
    more = {"links": [*version["links"], described], "media-types": [media]}
    return Reply(200, {"version": version | more})


def _flavors(call: Call) -> tuple[list[Flavor], dict[str, Any]]:
    _ = call.project
    min_ram, min_disk = (
        int(text) if text.isdigit() else 0 for text in (call.query.get("minRam", "0"), call.query.get("minDisk", "0"))
    )
    fitting = [
        flavor
        for flavor in call.cloud.flavors.values()
        if flavor.config.ram_mib >= min_ram and flavor.config.disk_gib >= min_disk
    ]
    chosen, following = page(call, fitting, lambda flavor: flavor.id, default_limit=call.cloud.config.page_limit)
    more = {} if following is None else {"flavors_links": [{"rel": "next", "href": following}]}
    return list(chosen), more


def list_flavors(call: Call) -> Reply:
    chosen, more = _flavors(call)
    documents = [
        {"id": flavor.id, "name": flavor.config.name, "links": links(call, "flavors", flavor.id)}
        | ({"description": None} if call.version >= (2, 55) else {})
        for flavor in chosen
    ]
    return Reply(200, {"flavors": documents, **more})


def list_flavors_in_detail(call: Call) -> Reply:
    chosen, more = _flavors(call)
    return Reply(200, {"flavors": [flavor_document(call, flavor) for flavor in chosen], **more})


def _flavor(call: Call) -> Flavor:
    _ = call.project
    flavor = call.cloud.flavors.get(call.params["flavor"])
    if flavor is None:
        raise ApiError(404, f"Flavor {call.params['flavor']} could not be found.")
    return flavor


def show_flavor(call: Call) -> Reply:
    return Reply(200, {"flavor": flavor_document(call, _flavor(call))})


def show_extra_specs(call: Call) -> Reply:
    return Reply(200, {"extra_specs": dict(_flavor(call).config.extra_specs)})


def _key_pair_document(call: Call, pair: KeyPair) -> dict[str, Any]:
    document = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
    return document | {"type": pair.type} if call.version >= (2, 2) else document


def list_key_pairs(call: Call) -> Reply:
    _ = call.project
    own = [pair for pair in call.cloud.key_pairs.values() if pair.user_id == call.token.user.id]
    own.sort(key=lambda pair: pair.name)
    body: dict[str, Any] = {}
    if call.version >= (2, 35):
        chosen, following = page(call, own, lambda pair: pair.name, default_limit=call.cloud.config.page_limit)
        own = list(chosen)
        if following is not None:
            body["keypairs_links"] = [{"rel": "next", "href": following}]
    body["keypairs"] = [{"keypair": _key_pair_document(call, pair)} for pair in own]
    return Reply(200, body)


def create_key_pair(call: Call) -> Reply:
    """Keep a public key. Nova before 2.92 also makes key pairs; the sandbox does not."""
    wanted = call.document("keypair")
    name, public_key = wanted.get("name"), wanted.get("public_key")
    user = call.token.user
    if not isinstance(name, str) or not re.fullmatch(r"[\w .@-]{1,255}", name, re.ASCII):
        raise ApiError(400, "Keypair data is invalid: Keypair name contains unsafe characters")
    if not isinstance(public_key, str):
        raise ApiError(400, "The sandbox makes no keys: give 'public_key'.")
    if (user.id, name) in call.cloud.key_pairs:
        raise ApiError(409, f"Key pair '{name}' already exists.")
    limit = call.project.quota.key_pairs
    if 0 <= limit <= sum(pair.user_id == user.id for pair in call.cloud.key_pairs.values()):
        raise ApiError(403, "Quota exceeded, too many key pairs.")
    pair = KeyPair(
        name=name,
        user_id=user.id,
        project_id=call.project.id,
        public_key=public_key,
        fingerprint=_fingerprint(public_key),
        type="ssh",
        created=call.now,
    )
    call.cloud.key_pairs[user.id, name] = pair
    call.cloud.record(call.now, "key_pair", "created", pair, request_id=call.request_id)
    document = _key_pair_document(call, pair) | {"user_id": user.id}
    return Reply(201 if call.version >= (2, 2) else 200, {"keypair": document})


def _fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes, pair by pair, as Nova shows it."""
    try:
        blob = base64.b64decode(public_key.split()[1], validate=True)
    except (IndexError, binascii.Error, ValueError) as error:
        raise ApiError(400, "Keypair data is invalid: failed to generate fingerprint") from error
    return hashlib.md5(blob, usedforsecurity=False).digest().hex(":")


def _key_pair(call: Call) -> KeyPair:
    _ = call.project
    pair = call.cloud.key_pairs.get((call.token.user.id, call.params["name"]))
    if pair is None:
        raise ApiError(404, f"Keypair {call.params['name']} not found for user {call.token.user.id}")
    return pair


def show_key_pair(call: Call) -> Reply:
    pair = _key_pair(call)
    more = {
        "user_id": pair.user_id,
        "id": 1,
        "deleted": False,
        "deleted_at": None,
        "updated_at": None,
        "created_at": f"{pair.created:%Y-%m-%dT%H:%M:%S.%f}",
    }
    return Reply(200, {"keypair": _key_pair_document(call, pair) | more})


def delete_key_pair(call: Call) -> Reply:
    pair = _key_pair(call)
    del call.cloud.key_pairs[pair.user_id, pair.name]
    call.cloud.record(call.now, "key_pair", "deleted", pair, request_id=call.request_id)
    return Reply(204 if call.version >= (2, 2) else 202)


def list_availability_zones(call: Call) -> Reply:
    _ = call.project
    zone = {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}
    return Reply(200, {"availabilityZoneInfo": [zone]})


def list_availability_zones_in_detail(call: Call) -> Reply:
    """With their hosts: the administrator's to see. The command line asks here first, and then without."""
    _ = call.project
    raise ApiError(403, "Policy doesn't allow os_compute_api:os-availability-zone:detail to be performed.")


_V = "/compute/v2.1"
TABLE: dict[str, dict[str, Handler]] = {
    "/compute": {"GET": show_versions},
    "/compute/": {"GET": show_versions},
    _V: {"GET": show_version},
    _V + "/": {"GET": show_version},
    **nova_servers.TABLE,
    **nova_actions.TABLE,
    **nova_volumes.TABLE,
    **nova_groups.TABLE,
    _V + "/flavors": {"GET": list_flavors},
    _V + "/flavors/detail": {"GET": list_flavors_in_detail},
    _V + "/flavors/{flavor}": {"GET": show_flavor},
    _V + "/flavors/{flavor}/os-extra_specs": {"GET": show_extra_specs},
    _V + "/os-keypairs": {"GET": list_key_pairs, "POST": create_key_pair},
    _V + "/os-keypairs/{name}": {"GET": show_key_pair, "DELETE": delete_key_pair},
    _V + "/os-availability-zone": {"GET": list_availability_zones},
    _V + "/os-availability-zone/detail": {"GET": list_availability_zones_in_detail},
    **nova_quotas.TABLE,
    **nova_usage.TABLE,
}
