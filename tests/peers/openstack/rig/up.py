"""Brings the cloud up: packages, databases, services, content."""

import argparse
import errno
import signal
import sys

from rig.bringing import Bringing
from rig.clouds import write_clouds
from rig.content import Content
from rig.databases import Databases
from rig.down import stop_all, wipe
from rig.layout import KEYSTONE_PUBLIC, State, state_folder
from rig.machine import (
    STATE_BYTES,
    RigError,
    require_debian,
    require_enterable,
    require_free,
    require_root,
    require_space,
)
from rig.packages import install_packages, missing_packages
from rig.processes import Processes
from rig.progress import run_steps, say
from rig.services import all_services


def main(arguments: list[str]) -> int:
    """Run `up`; 0 when the whole cloud answers."""
    parser = argparse.ArgumentParser(prog="up", description="Bring up a real OpenStack on loopback (Debian 12, root).")
    parser.add_argument("--no-install", action="store_true", help="never call apt; fail when a package is missing")
    parser.add_argument("--reset", action="store_true", help="go back to the content of the first start")
    options = parser.parse_args(arguments)
    # Ctrl-C ends it at once; what was started goes on, and the next `up` or `down` knows it by its pid file.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        require_root()
        require_debian()
        state = State(state_folder())
        state.make_folders()
        with state.alone():
            bring_up(state, install=not options.no_install, reset=options.reset)
    except RigError as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"up: disk full while writing {error.filename or 'the state'}: free some space and run it again",
            file=sys.stderr,
        )
        return 1
    return 0


def bring_up(state: State, *, install: bool, reset: bool) -> None:
    """Everything from the packages to clouds.yaml; each part does nothing when it is done already."""
    require_enterable(state.home)
    if install:
        install_packages(state.home)
    elif missing := missing_packages():
        raise RigError(f"packages are missing and --no-install was given: apt-get install {' '.join(missing)}")
    processes = Processes(state.home)
    databases = Databases(state, processes)
    if reset:
        stop_all(processes)
        if databases.restore_snapshot():
            say("databases and images as they were first")
        else:
            wipe(state)
        state.make_folders()
    if not state.is_done("mariadb"):
        require_space(state.home, STATE_BYTES, "the state of the rig")
    state.render()
    services = all_services(state)
    idle = [service for service in services.values() if not processes.is_running(service.name)]
    require_free((service.name, port) for service in idle for port in service.ports)
    content = Content()
    run_steps(Bringing(state, processes, databases, content).steps())
    databases.save_snapshot()
    write_clouds(state.clouds, credential_id=content.credential_id())
    say(f"up; Keystone {KEYSTONE_PUBLIC}; logs in {state.home / 'log'}")
    print(f"OS_CLIENT_CONFIG_FILE={state.clouds}")
