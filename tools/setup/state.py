"""What should be in an environment, and what is."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 11)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def project_digest(pyproject: Path) -> str:
    """Of what the installed metadata is made from; the tables of tools may change freely."""
    tables = tomllib.loads(pyproject.read_text("utf-8"))
    relevant = [tables["build-system"], tables["project"], tables.get("tool", {}).get("hatch")]
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def locked_names(lock: str) -> list[str]:
    """The names in a lock file that apply to Linux, in the order of the file."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==\S+(?: ; (.*?))?(?: \\)?$", lock, re.MULTILINE)
    return [name for name, marker in pins if not re.search(r"== '(win32|emscripten|darwin)'", marker)]


def read_state(environment: Path) -> dict[str, Any]:
    """What the last set-up wrote; empty if there was none or its file is damaged."""
    try:
        state = json.loads((environment / "state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(environment: Path, state: dict[str, Any]) -> None:
    new = environment / "state.json.new"
    new.write_text(json.dumps(state, indent=1), "utf-8")
    new.replace(environment / "state.json")


def wanted_state(kind: str, root: Path) -> dict[str, Any]:
    """What `state.json` says once everything of this kind is there."""
    # The test lock holds every pin of the run lock, so what fits testing fits running.
    kinds = ("run", "test") if kind == "test" else ("run",)
    return {
        "finished": True,
        "place": str(root),  # scripts carry absolute paths: a moved checkout needs a new environment
        "project": project_digest(root / "pyproject.toml"),
        "packages": {name: digest(root / "requirements" / f"{name}.txt") for name in kinds},
    }


def is_current(state: dict[str, Any], wanted: dict[str, Any], python: str | None) -> bool:
    """Whether the environment needs nothing; `python` is the identity of its interpreter now."""
    have = state.get("packages")
    return (
        python is not None
        and state.get("python") == python
        and all(state.get(key) == wanted[key] for key in ("finished", "place", "project"))
        and isinstance(have, dict)
        and wanted["packages"].items() <= have.items()
    )


def identity(python: str | Path) -> str | None:
    """Which Python this is, as "3.11 /usr"; None if it does not start or is too old.

    Without the third number: distributions mend their Python in place, and environments survive that.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.base_prefix)"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    said = done.stdout.strip()
    return said if done.returncode == 0 and parse_version(said) >= OLDEST_PYTHON else None


def parse_version(text: str) -> tuple[int, ...]:
    """The leading numbers: "23.0.1+dfsg" -> (23, 0, 1); empty if there are none."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
