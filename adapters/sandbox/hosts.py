"""Which host a server is placed on: any, in turns, save for what its server group says.

With the policy `affinity` it is the host that the group has, with `anti-affinity` one that has fewer of the group than
its rule allows (one); the soft ones of these try, and take any host where that cannot be.
"""

from collections import Counter

from adapters.sandbox.entities import Server
from adapters.sandbox.state import Cloud


def choose(cloud: Cloud, server: Server) -> str:
    """The name of a host; empty where the group leaves none."""
    hosts = cloud.config.hosts
    names = [f"{cloud.config.name}-compute-{(server.serial + step) % hosts}" for step in range(hosts)]
    group = cloud.server_groups.get(server.group_id)
    if group is None:
        return names[0]
    there = Counter(
        other.host
        for other in cloud.servers.values()
        if other.group_id == group.id and other.host and other is not server
    )
    if group.policy.endswith("anti-affinity"):
        most = group.rules.get("max_server_per_host", 1)
        fitting = [name for name in names if there[name] < most]
        # Soft: where each has one already, the one that has fewest.
        return next(iter(fitting), min(names, key=there.__getitem__) if group.policy.startswith("soft-") else "")
    return next(iter(there), names[0])
