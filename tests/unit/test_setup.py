"""The set-up program: what it decides, and what it mends. Its runs from end to end are those of `make` itself."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.setup.environment import exclusive, is_complete, must_go, remove_all, remove_half_installed
from tools.setup.machine import check_space, find_pip
from tools.setup.packages import diagnose
from tools.setup.report import SetupError
from tools.setup.state import (
    identity,
    is_current,
    locked_names,
    parse_version,
    project_digest,
    read_state,
    wanted_state,
    write_state,
)

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def find_python(path: Path, *, python: str = "") -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "tools" / "find-python")]
    return subprocess.run(
        command, env={"PATH": str(path), "PYTHON": python}, capture_output=True, text=True, check=False
    )


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


# ---- Which Python, which pip


def test_the_newest_python_that_starts_is_taken(tmp_path: Path) -> None:
    script(tmp_path / "python3.13", "echo 'shim: no such version' >&2; exit 127")
    good = script(tmp_path / "python3.12", "exit 0")
    script(tmp_path / "python3", "exit 0")
    assert find_python(tmp_path).stdout.strip() == str(good)


def test_an_old_python_is_refused_with_its_version_and_a_way_out(tmp_path: Path) -> None:
    script(tmp_path / "python3", 'case "$2" in *version_info*) exit 1;; *) echo 3.9.2;; esac')
    done = find_python(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "python3 (3.9.2)" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_the_python_that_was_asked_for_is_not_replaced_by_another(tmp_path: Path) -> None:
    script(tmp_path / "python3", "exit 0")
    done = find_python(tmp_path, python="python3.99")
    assert done.returncode == 1
    assert "PYTHON=python3.99" in done.stderr


def test_a_python_in_a_path_with_a_space_can_be_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "my pythons"
    folder.mkdir()
    good = script(folder / "python3", "exit 0")
    assert find_python(tmp_path, python=str(good)).stdout.strip() == str(good)


@pytest.mark.parametrize(("said", "good"), [("22.3", True), ("23.0.1+dfsg", True), ("22.2.9", False), ("9.0.3", False)])
def test_pip_must_know_how_to_install_into_another_python(tmp_path: Path, said: str, good: bool) -> None:
    python = str(script(tmp_path / "python3", f"echo 'pip {said} from /usr/lib (python 3.11)'"))
    if good:
        assert find_pip([python]).version == said
    else:
        with pytest.raises(SetupError, match=rf"too old: {re.escape(said)} of (?s:.*)python3-pip"):
            find_pip([python])


def test_any_pip_will_do_if_the_chosen_python_has_none(tmp_path: Path) -> None:
    without = str(script(tmp_path / "python3.13", "echo 'No module named pip' >&2; exit 1"))
    other = str(script(tmp_path / "python3", "echo 'pip 25.0 from /usr/lib'"))
    assert find_pip([without, other]).python == other
    with pytest.raises(SetupError, match="no pip found"):
        find_pip([without, str(tmp_path / "absent")])


@pytest.mark.parametrize(
    ("text", "numbers"), [("3.13.0rc2", (3, 13, 0)), ("22.0.2+dfsg-1", (22, 0, 2)), ("", ()), ("unknown", ())]
)
def test_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


# ---- What is current


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    for kind in ("run", "test"):
        (tmp_path / "requirements" / f"{kind}.txt").write_text(f"{kind}==1\n")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def test_what_fits_testing_fits_running_and_not_the_reverse(checkout: Path) -> None:
    run, test = wanted_state("run", checkout), wanted_state("test", checkout)
    assert is_current(test | {"python": "3.11 /usr"}, run, "3.11 /usr")
    assert not is_current(run | {"python": "3.11 /usr"}, test, "3.11 /usr")


def test_a_change_of_lock_python_place_or_metadata_makes_it_stale(checkout: Path) -> None:
    state = wanted_state("run", checkout) | {"python": "3.11 /usr"}
    assert is_current(state, wanted_state("run", checkout), "3.11 /usr")
    assert not is_current(state, wanted_state("run", checkout), "3.13 /usr")
    assert not is_current(state, wanted_state("run", checkout), None)
    assert not is_current(state | {"finished": False}, wanted_state("run", checkout), "3.11 /usr")
    assert not is_current(state | {"place": "/elsewhere"}, wanted_state("run", checkout), "3.11 /usr")
    (checkout / "requirements" / "run.txt").write_text("run==2\n")
    assert not is_current(state, wanted_state("run", checkout), "3.11 /usr")


def test_settings_of_tools_do_not_make_it_stale(checkout: Path) -> None:
    pyproject = checkout / "pyproject.toml"
    before = project_digest(pyproject)
    text = pyproject.read_text()
    pyproject.write_text(text.replace("line-length = 120", "line-length = 100"))
    assert project_digest(pyproject) == before
    pyproject.write_text(text.replace('leeway = "web', 'other = "web'))
    assert project_digest(pyproject) != before


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_damaged_state_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content, "utf-8", "surrogateescape")
    assert read_state(tmp_path) == {}


def test_state_is_read_as_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) == {}
    write_state(tmp_path, {"finished": True})
    assert read_state(tmp_path) == {"finished": True}


def test_an_interpreter_that_does_not_start_has_no_identity(tmp_path: Path) -> None:
    assert identity(tmp_path / "absent") is None
    assert identity(script(tmp_path / "broken", "exit 1")) is None
    assert identity(script(tmp_path / "old", "echo 3.9 /usr")) is None
    assert identity(script(tmp_path / "good", "echo 3.12 /opt/my python")) == "3.12 /opt/my python"


# ---- What is mended


def package(environment: Path, name: str) -> Path:
    """An installed package of one file; its metadata folder."""
    site = environment / "lib" / "python3.11" / "site-packages"
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{name}.py").write_text("answer = 42\n")
    (metadata / "INSTALLER").write_text("pip\n")
    (metadata / "RECORD").write_text(f"{name}.py,sha256=x,12\n{metadata.name}/RECORD,,\n")
    return metadata


def test_a_whole_package_stays(tmp_path: Path) -> None:
    metadata = package(tmp_path, "whole")
    assert is_complete(metadata)
    assert remove_half_installed(tmp_path) == []
    assert metadata.is_dir()


@pytest.mark.parametrize("lost", ["INSTALLER", "RECORD", "../cut.py"])
def test_a_package_that_lacks_a_file_is_installed_again(tmp_path: Path, lost: str) -> None:
    package(tmp_path, "whole")
    metadata = package(tmp_path, "cut")
    (metadata / lost).resolve().unlink()
    assert remove_half_installed(tmp_path) == ["cut-1.0"]
    assert not metadata.exists()


def test_a_package_with_a_truncated_file_is_installed_again(tmp_path: Path) -> None:
    metadata = package(tmp_path, "cut")
    (metadata.parent / "cut.py").write_text("answer")
    assert remove_half_installed(tmp_path) == ["cut-1.0"]


def test_what_pip_had_moved_aside_is_removed(tmp_path: Path) -> None:
    site = package(tmp_path, "whole").parent
    (site / "~hole").mkdir()
    (site / "~hole.py").touch()
    remove_half_installed(tmp_path)
    assert not list(site.glob("~*"))


def test_an_environment_of_another_place_or_python_must_go(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = script(tmp_path / "bin" / "python", "echo 3.11 /usr")
    state = {"place": str(tmp_path), "python": "3.11 /usr"}
    assert not must_go(tmp_path, state, tmp_path, None)
    assert not must_go(tmp_path, {}, tmp_path, "3.11 /usr")
    assert must_go(tmp_path, state, tmp_path, "3.12 /usr")
    assert must_go(tmp_path, state | {"place": "/elsewhere"}, tmp_path, None)
    assert must_go(tmp_path, state | {"python": "3.10 /usr"}, tmp_path, None)
    python.unlink()
    assert must_go(tmp_path, state, tmp_path, None)


def test_emptying_keeps_the_lock_that_is_held(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    with exclusive(environment):
        package(environment, "whole")
        (environment / "lib64").symlink_to("lib")
        remove_all(environment)
        assert [entry.name for entry in environment.iterdir()] == ["lock"]


def test_a_full_disk_is_found_before_anything_is_fetched(tmp_path: Path) -> None:
    assert check_space(tmp_path, 1) > 0
    with pytest.raises(SetupError, match="too full: set-up needs 999999999 MiB"):
        check_space(tmp_path, 999_999_999)


# ---- What is said


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "not the one that was locked"),
        (
            "WARNING: Retrying after NewConnectionError('Failed')\nERROR: No matching distribution found for alembic",
            "cannot be reached",
        ),
        ("ERROR: No matching distribution found for cffi==2.1.1", "no ready-made package for this machine"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate"),
        ("Segmentation fault", "pip failed"),
    ],
)
def test_what_pip_says_is_translated(output: str, problem: str) -> None:
    said = str(diagnose(output, Path("set-up.log")))
    assert problem in said
    assert "set-up.log" in said
    assert output.splitlines()[-1] in said


# ---- The locks


def test_names_of_a_lock_leave_out_other_systems() -> None:
    lock = """\
a-b==1.0 \\
    --hash=sha256:0
b==2 ; sys_platform == 'win32' \\
    --hash=sha256:0
c==3 ; sys_platform != 'emscripten' \\
    --hash=sha256:0
    # via a-b
"""
    assert locked_names(lock) == ["a-b", "c"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_hold_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|^\s*-e |file:", text, re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_test_lock_holds_the_run_lock() -> None:
    run, test = (pins(ROOT / "requirements" / f"{kind}.txt") for kind in ("run", "test"))
    assert run.items() <= test.items()


@pytest.mark.parametrize("kind", ["run", "test"])
def test_locks_are_in_step_with_pyproject(kind: str) -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ranges = list(tables["project"]["dependencies"]) + list(tables["build-system"]["requires"])
    if kind == "test":
        ranges += tables["dependency-groups"]["test"]
    locked = pins(ROOT / "requirements" / f"{kind}.txt")
    for requirement in map(Requirement, ranges):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not locked: make lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} is locked at {locked[name]}: make lock"
