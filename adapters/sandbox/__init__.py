"""Clouds that speak the real wire APIs on loopback: for the demo, for training and for tests.

One process, one port, everything in memory: Keystone v3, Nova 2.1 (microversions to 2.79), Glance v2, Neutron v2.0, as
openstacksdk and libcloud speak to them. `running(config)` starts one in a thread, `python -m adapters.sandbox` one as
a process. Faults can be switched on (`faults`), and a log tells what really existed when (`truth`). By configuration
a cloud has another fence than Nova's (`nova_fences`).

What it does not model, and a real site does:

- No machine boots: user data is checked and kept, never run; addresses lead nowhere; images have no bytes.
- Two roles, member and reader. No administrators, no trusts, no groups, no domains but Default, no federation.
- Cells, hosts, placement and affinity: there is one pool of cores and RAM (`Capacity`), or none.
- Rescue, migration, evacuation, consoles.
- Shelving makes no image in Glance. A server is built alone: no `min_count`.
- Networks, subnets and routers are configured, not made; IPv4 only, one address per port; every network of a project
  reaches the external one, and security groups filter nothing.
- A token of a deleted application credential is over at once; a real site may accept it for minutes.
- Other policies, rate limits and races between services, save what the faults switch on and the late binding of ports.
"""

from adapters.sandbox.config import CloudConfig
from adapters.sandbox.errors import ConfigError
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import profile
from adapters.sandbox.running import SandboxCloud, running

__all__ = ["CloudConfig", "ConfigError", "FaultKind", "SandboxCloud", "profile", "running"]
