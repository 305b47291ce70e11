"""Puts the migrations into the wheel, and only there.

`force-include` in pyproject.toml would also copy them into an editable installation, where the copy goes stale with the
next migration that is written. An editable installation reads them from the checkout.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MigrationsHook(BuildHookInterface):  # type: ignore[type-arg] # generic over a type that only hatchling needs
    """Ships `alembic/` as `broker/alembic`: at the top level it would land inside the library of that name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {"alembic": "broker/alembic", "alembic.ini": "broker/alembic.ini"}
