"""Debian packages: the fewest that bring the services, installed without starting anything."""

import os
import subprocess
from pathlib import Path

from rig.machine import SYSTEM_PATH, RigError, require_space
from rig.progress import say

# Debian's nova-compute and cinder-volume would pull in libvirt and LVM; mariadb-server and the other service packages
# only add init scripts. The modules of python3-* are started directly instead (launch/), so these suffice:
WANTED = (
    "python3-keystone",
    "python3-placement",
    "python3-glance",
    "glance-common",  # paste pipelines, glance-manage
    "python3-neutron",
    "neutron-common",  # paste pipelines, neutron-server, neutron-db-manage
    "python3-nova",
    "nova-common",  # paste pipelines
    "python3-fixtures",  # nova.virt.fake imports it
    "python3-cinder",
    "cinder-common",  # paste pipelines, cinder-manage
    "python3-pymysql",
    "python3-memcache",
    "mariadb-server-core",
    "mariadb-client-core",
    "rabbitmq-server",
    "memcached",
    "uwsgi-core",
    "uwsgi-plugin-python3",
)
INSTALL_BYTES = 1_500_000_000
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Made for the time of an installation by an OpenStack test peer.\nexit 101\n"


def missing_packages() -> list[str]:
    """Those of WANTED that dpkg does not hold as installed."""
    query = ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *WANTED]
    found = subprocess.run(query, check=False, capture_output=True, text=True).stdout
    installed = {line.split()[0] for line in found.splitlines() if line.endswith(" installed")}
    return [name for name in WANTED if name not in installed]


def install_packages(state: Path) -> None:
    """Install what is missing; apt's own words go to `log/apt.log`."""
    _allow_service_starts()  # in case an earlier run was cut off
    missing = missing_packages()
    if not missing:
        return
    require_space(Path("/usr"), INSTALL_BYTES, "installing the packages")
    say(f"installing {len(missing)} Debian packages and what they need (log: {state / 'log/apt.log'})")
    lazy = _lazy_compiler(state)
    _forbid_service_starts()
    try:
        log = state / "log/apt.log"
        log.unlink(missing_ok=True)
        _apt(["update"], log)
        install = [
            *("install", "--yes", "--no-install-recommends"),
            *("-o", "Dpkg::Options::=--force-confold"),
            *("-o", "Dpkg::Options::=--force-unsafe-io"),  # no fsync per file: the machine is for tests
            *("-o", f"DPkg::Path={lazy}:{SYSTEM_PATH}"),
        ]
        _apt([*install, *missing], log)
    finally:
        _allow_service_starts()
    say("packages installed")


def _apt(arguments: list[str], log: Path) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments]
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": SYSTEM_PATH}
    with log.open("ab") as out:
        status = subprocess.run(command, check=False, stdout=out, stderr=out, env=environment).returncode
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith(("E:", "dpkg:"))]
        reason = "\n    ".join(errors[-6:]) or f"status {status}"
        raise RigError(f"apt-get {arguments[0]} failed (whole log: {log}):\n    {reason}")


def _forbid_service_starts() -> None:
    """Make Debian's policy-rc.d refuse starts during the installation; somebody else's policy stays."""
    if not POLICY.exists():
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)


def _allow_service_starts() -> None:
    """Remove the policy if it is ours."""
    if POLICY.exists() and POLICY.read_text(errors="replace") == POLICY_TEXT:
        POLICY.unlink()


def _lazy_compiler(state: Path) -> Path:
    """A folder whose py3compile only notes its call.

    Byte-compiling every Python file of 350 packages is more than half of the installation (72 s against 29 s), and
    most are never imported; those that are get compiled when a service first imports them. The notes are a shell
    script that does the rest, for who wants it: `sh $STATE/lazy/compile`.
    """
    folder = state / "lazy"
    folder.mkdir(exist_ok=True)
    program = folder / "py3compile"
    program.write_text(f'#!/bin/sh\necho "/usr/bin/py3compile $*" >> "{folder}/compile"\n')
    program.chmod(0o755)
    return folder
