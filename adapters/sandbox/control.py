"""The other side of the cloud, under `/_control/`: faults, the log of what happened, reset, foreign servers, quotas.

No client of OpenStack knows it, no token opens it, no fault hits it; only loopback is answered.

    GET    /_control/                   who this is
    GET    /_control/faults             all faults with their hits
    POST   /_control/faults             {"kind": ..., "service": ..., "path": ..., "times": ...} -> {"id"}
    DELETE /_control/faults[/{id}]      one, or all
    GET    /_control/log                ?since= &kind= &event= &id= -> {"entries", "next"}; `next` is the next `since`
    GET    /_control/most-active        ?by=leeway:lease -> {"most": {value: servers ever active at the same time}}
    POST   /_control/reset              {"keep_identity": true} leaves tokens and credentials
    POST   /_control/servers            {"count": 5000, "project": ..., "flavor": ...} -> {"ids"}
    DELETE /_control/servers/{id}       the server vanishes
    PUT    /_control/quotas/{project}   {"instances": 3, ...}
"""

import dataclasses
from typing import Any

from adapters.sandbox import machines
from adapters.sandbox.config import QuotaConfig
from adapters.sandbox.errors import ConfigError
from adapters.sandbox.foreign import add_foreign_servers, add_foreigners
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, Service


def _refuse(error: ApiError) -> Reply:
    return Reply(error.status, {"error": error.message})


SERVICE = Service("control", _refuse)


def _body(call: Call) -> dict[str, Any]:
    if call.body is None:
        return {}
    if not isinstance(call.body, dict):
        raise ApiError(400, "body: must be a JSON object")
    return dict(call.body)


def show_cloud(call: Call) -> Reply:
    config = call.cloud.config
    projects = [{"id": project.id, "name": project.name} for project in call.cloud.projects.values()]
    body = {"name": config.name, "region": config.region, "auth_url": f"{call.base_url}/v3", "projects": projects}
    return Reply(200, body)


def list_faults(call: Call) -> Reply:
    return Reply(200, {"faults": call.cloud.faults.documents()})


def add_fault(call: Call) -> Reply:
    body = _body(call)
    try:
        identifier = call.cloud.faults.add(str(body.pop("kind", "")), **body)
    except ConfigError as error:
        raise ApiError(400, str(error)) from error
    return Reply(201, {"id": identifier})


def remove_fault(call: Call) -> Reply:
    if not call.cloud.faults.remove(call.params["id"]):
        raise ApiError(404, f"id: no fault {call.params['id']!r}")
    return Reply(204)


def remove_faults(call: Call) -> Reply:
    call.cloud.faults.clear()
    return Reply(204)


def show_log(call: Call) -> Reply:
    """Since the beginning, or only what came after the last question: `next` counts all kinds of entries."""
    query = call.query
    since = query.get("since", "0")
    if not since.isdecimal():
        raise ApiError(400, f"since: is {since!r}; must be 0 or the `next` of an earlier answer")
    entries, following = call.cloud.log.since(int(since))
    wanted = {field: query[field] for field in ("kind", "event", "id") if field in query}
    documents = (entry.document() for entry in entries)
    fitting = [document for document in documents if all(document[field] == wanted[field] for field in wanted)]
    return Reply(200, {"entries": fitting, "next": following})


def show_most_active(call: Call) -> Reply:
    key = call.query.get("by")
    if not key:
        raise ApiError(400, "by: is missing; name the metadata key whose values are counted apart")
    return Reply(200, {"most": call.cloud.log.most_active(key)})


def reset(call: Call) -> Reply:
    """As just started, with the foreign things of the configuration."""
    call.cloud.reset(keep_identity=_body(call).get("keep_identity") is True)
    add_foreigners(call.cloud, call.now)
    return Reply(204)


def add_servers(call: Call) -> Reply:
    body = _body(call)
    count = body.get("count")
    if type(count) is not int or not 0 < count <= 100_000:
        raise ApiError(400, f"count: is {count!r}; must be a whole number from 1 to 100000")
    try:
        identifiers = add_foreign_servers(
            call.cloud, count, call.now, project_name=body.get("project"), flavor_name=body.get("flavor")
        )
    except ConfigError as error:
        raise ApiError(400, str(error)) from error
    return Reply(201, {"ids": identifiers})


def vanish_server(call: Call) -> Reply:
    server = call.cloud.servers.get(call.params["id"])
    if server is None:
        raise ApiError(404, f"id: no server {call.params['id']!r}")
    machines.vanish(call.cloud, server, call.now)
    return Reply(204)


def change_quota(call: Call) -> Reply:
    wanted = call.params["project"]
    project = next((item for item in call.cloud.projects.values() if wanted in (item.name, item.id)), None)
    if project is None:
        raise ApiError(404, f"project: no {wanted!r}")
    known = [field.name for field in dataclasses.fields(QuotaConfig)]
    for name, value in _body(call).items():
        if name not in known or type(value) is not int or value < -1:
            raise ApiError(400, f"{name}: {value!r}; give whole numbers, -1 for unlimited, for {', '.join(known)}")
    project.quota = dataclasses.replace(project.quota, **_body(call))
    return Reply(200, {"quota": dataclasses.asdict(project.quota)})


TABLE: dict[str, dict[str, Handler]] = {
    "/_control": {"GET": show_cloud},
    "/_control/": {"GET": show_cloud},
    "/_control/faults": {"GET": list_faults, "POST": add_fault, "DELETE": remove_faults},
    "/_control/faults/{id}": {"DELETE": remove_fault},
    "/_control/log": {"GET": show_log},
    "/_control/most-active": {"GET": show_most_active},
    "/_control/reset": {"POST": reset},
    "/_control/servers": {"POST": add_servers},
    "/_control/servers/{id}": {"DELETE": vanish_server},
    "/_control/quotas/{project}": {"PUT": change_quota},
}
