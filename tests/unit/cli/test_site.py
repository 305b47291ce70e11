"""A site that is connected is looked at, until a person says that Leeway may act there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.unit.cli.conftest import Leeway

LOOKS = "Leeway only looks at real, and changes nothing there; to let it act, add it with --broker."
ACTS = "Leeway may start machines at real; to only look, add it with --observe."


def add(leeway: Leeway, *options: str, adapter: str = "openstack") -> str:
    return leeway.ok(
        "site", "add", "real", "--provider", "real", "--adapter", adapter, "--endpoint", leeway.cloud.auth_url,
        "--username", "leeway", "--project-name", "leeway", "--password-stdin", *options, stdin=f"{DEMO_PASSWORD}\n",
    )  # fmt: skip


def use(leeway: Leeway) -> bool:
    return bool(leeway.json("site", "show", "real")["observe_only"])


def test_a_real_cloud_is_observed_until_brokering_is_said(bare: Leeway) -> None:
    assert LOOKS in add(bare)
    assert use(bare)
    hints = [step["hint"] or "" for step in bare.json("site", "check", "real")["diagnosis"]]
    assert [hint for hint in hints if hint.startswith("More than is needed: member may change things")]
    assert LOOKS in add(bare)
    assert ACTS in add(bare, "--broker")
    assert ACTS in add(bare)
    assert not use(bare)
    assert LOOKS in add(bare, "--observe")
    assert use(bare)


def test_ctrl_c_ends_the_waiting_for_a_check_and_says_that_it_goes_on(bare: Leeway) -> None:
    add(bare)
    bare.cloud.faults.add("slow", service="compute", seconds=1)
    environment = {key: value for key, value in (os.environ | bare.environment).items() if value is not None}
    program = subprocess.Popen(
        [sys.executable, "-m", "web.cli.main", "site", "check", "real"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert program.stderr is not None
    assert program.stderr.readline() == "checking real ...\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    bare.cloud.faults.clear()
    assert (program.returncode, out) == (130, "")
    assert "real is connected, and its check goes on" in err
    assert len(err.splitlines()) <= 2


def test_what_a_clouds_yaml_says_is_not_said_twice(bare: Leeway, tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text("clouds: {x: {auth: {auth_url: 'https://x.example.org/v3', username: a, password: b}}}\n")
    beside = ["site", "add", "real", "--provider", "real", "--from-clouds-yaml", str(file)]
    for option in (["--project-name", "genomes"], ["--username", "ann"], ["--password-stdin"]):
        done = bare(*beside, *option)
        assert (done.exit_code, "leave these options out" in done.stderr) == (2, True), option
