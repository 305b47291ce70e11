"""Makes Nova's databases in one process: `nova_databases.py nova.conf CELL0_URL HOST`.

What `nova-manage api_db sync`, `cell_v2 map_cell0`, `db sync`, `cell_v2 create_cell` and `cell_v2 discover_hosts` do,
without loading Nova five times. May be run again on databases that are made or half made.
"""

import sys

from nova import config, context, objects  # type: ignore[import-not-found] # Debian's, not in the project's environment
from nova.cmd import manage  # type: ignore[import-not-found] # same

CELL = "cell1"


def main() -> None:
    """Migrate, then map both cells and the compute host."""
    path, cell0_url, host = sys.argv[1:]
    config.parse_args(["nova-manage", "--config-file", path])
    objects.register_all()
    manage.ApiDbCommands().sync()
    manage.CellV2Commands().map_cell0(cell0_url)
    manage.DbCommands().sync()
    admin = context.get_admin_context()
    if CELL not in {cell.name for cell in objects.CellMappingList.get_all(admin)}:
        manage.CellV2Commands().create_cell(name=CELL)
    (cell,) = (cell for cell in objects.CellMappingList.get_all(admin) if cell.name == CELL)
    if host not in {mapping.host for mapping in objects.HostMappingList.get_by_cell_id(admin, cell.id)}:
        objects.HostMapping(admin, host=host, cell_mapping=cell).create()


if __name__ == "__main__":
    main()
