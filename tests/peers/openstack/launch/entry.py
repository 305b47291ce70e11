"""Runs a service's main function as its console script would: `entry.py MODULE NAME [ARGUMENT...]`.

Debian ships the scripts in packages whose only other content is init scripts; the functions come with python3-*.
"""

import importlib
import sys


def main() -> None:
    """Import the module, then hand over with the arguments a console script would have seen."""
    module, name, *arguments = sys.argv[1:]
    sys.argv = [name, *arguments]
    # Else the folder of this file, the first place Python looks, could hide a module of the service.
    del sys.path[0]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
