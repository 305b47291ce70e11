"""The core's rows. Importing this package registers them all on `Base.metadata`."""

from broker.models import audit, catalogue, federation, health, holds, inventory, leases, messages, people, workloads
from broker.models.base import Base

__all__ = [
    "Base",
    "audit",
    "catalogue",
    "federation",
    "health",
    "holds",
    "inventory",
    "leases",
    "messages",
    "people",
    "workloads",
]
