"""Security groups and their rules."""

from typing import Any

from adapters.sandbox.entities import SecurityGroup, SecurityGroupRule
from adapters.sandbox.neutron_rest import Document, check_quota, checked_tags, collection, not_found
from adapters.sandbox.state import new_id
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, stamp


def _group_document(call: Call, group: SecurityGroup) -> Document:
    rules = call.cloud.security_group_rules
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "stateful": True,
        "shared": False,
        "security_group_rules": [
            _rule_document(rules[rule_id]) | {"standard_attr_id": number, "tags": []}
            for number, rule_id in enumerate(group.rule_ids, 1)
        ],
        "tags": list(group.tags),
        "revision_number": 1,
        "created_at": stamp(group.created),
        "updated_at": stamp(group.updated),
    }


def _rule_document(rule: SecurityGroupRule) -> Document:
    return {
        "id": rule.id,
        "security_group_id": rule.group_id,
        "tenant_id": rule.project_id,
        "project_id": rule.project_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "normalized_cidr": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": None,
        "description": rule.description,
        "revision_number": 0,
        "created_at": stamp(rule.created),
        "updated_at": stamp(rule.created),
    }


def list_groups(call: Call) -> Reply:
    own = [group for group in call.cloud.security_groups.values() if group.project_id == call.project.id]
    return collection(call, "security_groups", [_group_document(call, group) for group in own])


def create_group(call: Call) -> Reply:
    """A new group lets everything out and nothing in."""
    wanted = call.document("security_group")
    cloud, project = call.cloud, call.project
    used = sum(group.project_id == project.id for group in cloud.security_groups.values())
    check_quota("security_group", project.quota.security_groups, used)
    name = wanted.get("name") or ""
    if name == "default":
        raise ApiError(409, "Default security group already exists.", "SecurityGroupDefaultAlreadyExists")
    group = SecurityGroup(
        id=new_id(),
        name=str(name),
        description=str(wanted.get("description") or ""),
        project_id=project.id,
        created=call.now,
        updated=call.now,
        tags=checked_tags(wanted.get("tags", [])),
    )
    cloud.security_groups[group.id] = group
    for ethertype in ("IPv4", "IPv6"):
        _add_rule(call, group, {"direction": "egress", "ethertype": ethertype}).description = None
    cloud.record(call.now, "security_group", "created", group, request_id=call.request_id)
    return Reply(201, {"security_group": _group_document(call, group)})


def _group(call: Call, identifier: str) -> SecurityGroup:
    group = call.cloud.security_groups.get(identifier)
    if group is None or group.project_id != call.project.id:
        raise ApiError(404, f"Security group {identifier} does not exist", "SecurityGroupNotFound")
    return group


def show_group(call: Call) -> Reply:
    return Reply(200, {"security_group": _group_document(call, _group(call, call.params["id"]))})


def update_group(call: Call) -> Reply:
    group = _group(call, call.params["id"])
    wanted = call.document("security_group")
    group.name = str(wanted.get("name", group.name))
    group.description = str(wanted.get("description", group.description))
    group.updated = call.now
    return Reply(200, {"security_group": _group_document(call, group)})


def delete_group(call: Call) -> Reply:
    cloud, group = call.cloud, _group(call, call.params["id"])
    if group.name == "default":
        raise ApiError(409, "Removing default security group not allowed.", "SecurityGroupCannotRemoveDefault")
    if any(group.id in port.security_group_ids for port in cloud.ports.values()):
        raise ApiError(409, f"Security Group {group.id} in use.", "SecurityGroupInUse")
    for rule_id in group.rule_ids:
        del cloud.security_group_rules[rule_id]
    del cloud.security_groups[group.id]
    cloud.record(call.now, "security_group", "deleted", group, request_id=call.request_id)
    return Reply(204)


def list_rules(call: Call) -> Reply:
    own = [rule for rule in call.cloud.security_group_rules.values() if rule.project_id == call.project.id]
    return collection(call, "security_group_rules", [_rule_document(rule) for rule in own])


def create_rule(call: Call) -> Reply:
    wanted = call.document("security_group_rule")
    cloud, project = call.cloud, call.project
    group = _group(call, str(wanted.get("security_group_id")))
    used = sum(rule.project_id == project.id for rule in cloud.security_group_rules.values())
    check_quota("security_group_rule", project.quota.security_group_rules, used)
    if wanted.get("direction") not in ("ingress", "egress"):
        raise ApiError(400, "Invalid input for direction. Reason: not in ['ingress', 'egress'].")
    document = _rule_document(_add_rule(call, group, wanted))
    return Reply(201, {"security_group_rule": document})


_RULE_FIELDS = ("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id")
_SAME_RULE = (*_RULE_FIELDS, "direction", "ethertype")


def _add_rule(call: Call, group: SecurityGroup, wanted: dict[str, Any]) -> SecurityGroupRule:
    """Keep the rule; the same one twice is refused with the id of the first."""
    rules = call.cloud.security_group_rules
    rule = SecurityGroupRule(
        id=new_id(),
        group_id=group.id,
        project_id=group.project_id,
        direction=str(wanted["direction"]),
        ethertype=str(wanted.get("ethertype") or "IPv4"),
        description=str(wanted.get("description") or ""),
        created=call.now,
        **{field: wanted.get(field) for field in _RULE_FIELDS},
    )
    for rule_id in group.rule_ids:
        if all(getattr(rules[rule_id], field) == getattr(rule, field) for field in _SAME_RULE):
            text = f"Security group rule already exists. Rule id is {rule_id}."
            raise ApiError(409, text, "SecurityGroupRuleExists")
    rules[rule.id] = rule
    group.rule_ids.append(rule.id)
    return rule


def _rule(call: Call) -> SecurityGroupRule:
    rule = call.cloud.security_group_rules.get(call.params["id"])
    if rule is None or rule.project_id != call.project.id:
        raise not_found("SecurityGroupRuleNotFound", "Security group rule", call.params["id"])
    return rule


def show_rule(call: Call) -> Reply:
    return Reply(200, {"security_group_rule": _rule_document(_rule(call))})


def delete_rule(call: Call) -> Reply:
    rule = _rule(call)
    del call.cloud.security_group_rules[rule.id]
    call.cloud.security_groups[rule.group_id].rule_ids.remove(rule.id)
    return Reply(204)


_GROUPS = "/network/v2.0/security-groups"
_RULES = "/network/v2.0/security-group-rules"
TABLE: dict[str, dict[str, Handler]] = {
    _GROUPS: {"GET": list_groups, "POST": create_group},
    _GROUPS + "/{id}": {"GET": show_group, "PUT": update_group, "DELETE": delete_group},
    _RULES: {"GET": list_rules, "POST": create_rule},
    _RULES + "/{id}": {"GET": show_rule, "DELETE": delete_rule},
}
