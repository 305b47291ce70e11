"""What Nova says a server is doing, in Leeway's words."""

from __future__ import annotations

from typing import Any

from broker.remote import MachineState

# Nova's `status` (nova/api/openstack/common.py, _STATE_MAP): it is made from vm_state and task_state.
_BY_STATUS = {
    "ACTIVE": MachineState.RUNNING,
    "BUILD": MachineState.BUILDING,
    "DELETED": MachineState.DELETING,  # still shown, so not yet gone
    "ERROR": MachineState.ERROR,
    "HARD_REBOOT": MachineState.RUNNING,
    "MIGRATING": MachineState.RUNNING,
    "PASSWORD": MachineState.RUNNING,
    "PAUSED": MachineState.STOPPED,  # keeps memory and place on the host
    "REBOOT": MachineState.RUNNING,
    "REBUILD": MachineState.BUILDING,
    "RESCUE": MachineState.RUNNING,
    "RESIZE": MachineState.RUNNING,
    "REVERT_RESIZE": MachineState.RUNNING,
    "SHELVED": MachineState.STOPPED,  # shut down and saved, but its place is kept until it is offloaded
    "SHELVED_OFFLOADED": MachineState.SHELVED,
    "SHUTOFF": MachineState.STOPPED,
    "SOFT_DELETED": MachineState.DELETING,
    "SUSPENDED": MachineState.STOPPED,  # memory is on the host's disk; Placement keeps the allocation
    "VERIFY_RESIZE": MachineState.RUNNING,
}

# With older microversions and some releases the view says UNKNOWN or nothing for states that vm_state still tells.
_BY_VM_STATE = {
    "active": MachineState.RUNNING,
    "building": MachineState.BUILDING,
    "deleted": MachineState.DELETING,
    "error": MachineState.ERROR,
    "paused": MachineState.STOPPED,
    "rescued": MachineState.RUNNING,
    "resized": MachineState.RUNNING,
    "shelved": MachineState.STOPPED,
    "shelved_offloaded": MachineState.SHELVED,
    "soft-delete": MachineState.DELETING,
    "stopped": MachineState.STOPPED,
    "suspended": MachineState.STOPPED,
}
_DELETING_TASKS = frozenset({"deleting", "soft-deleting"})


def machine_state(server: dict[str, Any]) -> MachineState:
    """The state of a server as Nova shows it. What is not known is UNKNOWN, never gone."""
    if server.get("OS-EXT-STS:task_state") in _DELETING_TASKS:
        return MachineState.DELETING
    return (
        _BY_STATUS.get(server.get("status", ""))
        or _BY_VM_STATE.get(server.get("OS-EXT-STS:vm_state") or "")
        or MachineState.UNKNOWN
    )
