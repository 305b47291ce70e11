"""Runs nova-compute with the hypervisor of `hypervisor/` beside the drivers that Nova brings."""

import sys
from pathlib import Path

import nova.virt  # type: ignore[import-not-found] # Debian's, not in the project's environment
from nova.cmd.compute import main  # type: ignore[import-not-found] # same

if __name__ == "__main__":
    sys.argv[0] = "nova-compute"
    # Nova loads drivers from its own namespace only.
    nova.virt.__path__.append(str(Path(__file__).parent / "hypervisor"))
    sys.exit(main())
