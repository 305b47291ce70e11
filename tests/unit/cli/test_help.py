"""Every command can be found, helps with an example, and answers programs too."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from web.cli.main import HELPS, cli

# They run until Ctrl-C and answer nothing: their logs are JSON already.
RUNNING = {"demo", "serve", "worker"}


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="leeway")
    for name in cli.list_commands(context):  # type: ignore[attr-defined] # mypy sees the decorator's type
        command = cli.get_command(context, name)  # type: ignore[attr-defined] # same
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", found) for sub, found in command.commands.items())


COMMANDS = dict(_commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_helps_with_an_example_of_itself(name: str) -> None:
    done = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="leeway")
    assert done.exit_code == 0, done.output
    assert re.search(rf"^  Examples?:\n(.*\n)*?.*leeway {name}\b", done.output, re.MULTILINE), done.output
    command = COMMANDS[name]
    assert command.help
    assert command.epilog is not None
    for line in command.epilog.replace("\\\n", " ").splitlines():
        if line.strip().startswith("leeway "):
            _parse(shlex.split(line.partition("<")[0])[1:])


def _parse(words: list[str]) -> None:
    """Options and arguments are as the command has them; nothing is run."""
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name="leeway")
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    command.make_context("leeway", list(words), parent=context)


def test_the_table_says_of_each_command_what_it_says_itself() -> None:
    for name, text in HELPS.items():
        assert COMMANDS[name].short_help == text
        assert COMMANDS[name].name == name
        assert text.endswith(".")
        assert len(text) < 60


@pytest.mark.parametrize("name", [name for name, found in COMMANDS.items() if not isinstance(found, click.Group)])
def test_a_command_answers_programs(name: str) -> None:
    has_json = any("--json" in option.opts for option in COMMANDS[name].params)
    assert has_json == (name not in RUNNING)


def test_the_list_of_commands_shows_each_and_costs_little() -> None:
    script = (
        "import sys, web.cli.main as m; code = m.run(['--help'])\n"
        "late = {'httpx', 'rich', 'sqlalchemy', 'fastapi', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "import resource; spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        "sys.exit(f'{code} {late} {spent}' if code or late or spent > 0.5 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, text in HELPS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", done.stdout, re.MULTILINE), name


def test_a_misspelt_command_is_told_the_nearest() -> None:
    done = CliRunner().invoke(cli, ["sumbit", "x.yaml"], prog_name="leeway")
    assert done.exit_code == 2
    assert "There is no command 'sumbit'. Did you mean submit?" in done.stderr


def test_the_version_is_one_line() -> None:
    done = CliRunner().invoke(cli, ["--version"], prog_name="leeway")
    assert done.exit_code == 0
    assert re.fullmatch(r"leeway \S+\n", done.output)
