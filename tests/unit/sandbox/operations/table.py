"""All operations."""

from __future__ import annotations

from tests.unit.sandbox.operations.beside import IDENTITY, IMAGES, NETWORK, VOLUMES
from tests.unit.sandbox.operations.compute import COMPUTE, SERVERS

OPERATIONS = (*IDENTITY, *SERVERS, *COMPUTE, *NETWORK, *IMAGES, *VOLUMES)
