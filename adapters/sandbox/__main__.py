"""`python -m adapters.sandbox --profile aurora --port 0 --port-file F`: one cloud as its own process.

Prints one line of JSON with name, port and auth_url when it listens, and writes the same into the port file. SIGTERM
and SIGINT end it.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from adapters.sandbox.config import CloudConfig, from_file
from adapters.sandbox.errors import ConfigError
from adapters.sandbox.profiles import PROFILES, profile
from adapters.sandbox.running import HOST, listen, new_cloud, serve

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent ends; end at once when it just has.

    To Linux the parent is the thread that started this process: start it from one that lives as long as needed.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m adapters.sandbox", description="An OpenStack cloud on loopback.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--profile", choices=sorted(PROFILES), help="a ready cloud")
    source.add_argument(
        "--config", type=Path, help="a JSON file with the fields of adapters.sandbox.config.CloudConfig"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="where to write name, port and auth_url once it listens")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends (Linux)")
    return parser.parse_args()


def _announce(config: CloudConfig, port: int, port_file: Path | None) -> None:
    line = json.dumps({"name": config.name, "port": port, "auth_url": f"http://{HOST}:{port}/v3"})
    if port_file is not None:
        part = port_file.with_name(f"{port_file.name}.{os.getpid()}.part")
        part.write_text(line + "\n", encoding="utf-8")
        part.replace(port_file)  # whoever waits for the file never reads half of it
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _refuse(reason: str) -> int:
    sys.stderr.write(f"sandbox: {reason}\n")
    return 2


def main() -> int:
    """0 after a signal, 2 when it cannot start."""
    arguments = _arguments()
    if arguments.die_with_parent:
        _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # also what uvicorn's own handler raises again at its end
    try:
        config = profile(arguments.profile) if arguments.profile else from_file(arguments.config)
        cloud = new_cloud(config)
    except ConfigError as error:
        return _refuse(str(error))
    try:
        listener = listen(arguments.port)
    except (OSError, OverflowError) as error:
        return _refuse(f"--port: port {arguments.port} cannot be had ({error}); choose another, or 0 for a free one")
    try:
        _announce(config, listener.getsockname()[1], arguments.port_file)
    except OSError as error:
        return _refuse(f"--port-file: {arguments.port_file} cannot be written ({error.strerror}); choose another place")
    serve(cloud, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
