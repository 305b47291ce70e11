"""Stops the cloud, and removes its data if asked."""

import argparse
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

from rig.layout import State, state_folder
from rig.machine import RigError, require_root
from rig.processes import Processes
from rig.progress import say
from rig.services import STORES


def main(arguments: list[str]) -> int:
    """Run `down`; 0 when nothing of the rig runs any more."""
    parser = argparse.ArgumentParser(prog="down", description="Stop the OpenStack test peer.")
    parser.add_argument("--wipe", action="store_true", help="also remove all its data (installed packages stay)")
    options = parser.parse_args(arguments)
    state = State(state_folder())
    if not state.home.exists():
        say(f"nothing to stop: {state.home} does not exist")
        return 0
    try:
        require_root()
        with state.alone():
            stop_all(Processes(state.home))
            if options.wipe:
                wipe(state)
                say(f"removed what was in {state.home}")
    except RigError as error:
        print(f"down: {error}", file=sys.stderr)
        return 1
    return 0


def stop_all(processes: Processes) -> None:
    """Stop the services side by side, then what they store in."""
    names = processes.names()
    with ThreadPoolExecutor() as pool:
        list(pool.map(processes.stop, [name for name in names if name not in STORES]))
    for name in STORES:
        if name in names:
            processes.stop(name, seconds=60)
    if names:
        say(f"stopped {', '.join(names)}")


def wipe(state: State) -> None:
    """Remove everything that `up` made, except the lock in whose name this runs."""
    for entry in state.home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
