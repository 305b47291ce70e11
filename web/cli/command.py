"""What every command is made with: its errors as people read them, `--json`, the client."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import click

from broker.errors import LeewayError
from web.cli import output
from web.cli.main import INTERRUPTED, REFUSED, UNREACHABLE
from web.client.client import Client
from web.client.errors import ClientError, Problem, Unreachable
from web.client.place import find_place

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """An expected failure, laid out in lines: what, why, the way out. The exit codes are those of `leeway --help`."""

    exit_code: ClassVar[int] = REFUSED

    def __init__(
        self,
        detail: str,
        *,
        title: str = "Failed",
        hint: str | None = None,
        more: Sequence[tuple[str, str | None]] = (),
    ) -> None:
        """`more`: further faults with their ways out."""
        super().__init__(detail)
        self.title = title
        self.hint = hint
        self.more = more

    def show(self, file: IO[Any] | None = None) -> None:
        """To standard error (or `file`)."""
        output.show_failure(self.title, self.message, self.hint, self.more, file=file)


class NotReached(Failure):
    exit_code: ClassVar[int] = UNREACHABLE


class Interrupted(Failure):
    exit_code: ClassVar[int] = INTERRUPTED


def failure(error: ClientError | LeewayError) -> Failure:
    """What a person is shown of an error."""
    if isinstance(error, Unreachable):
        return NotReached(error.detail, title=error.title, hint=error.hint)
    if not isinstance(error, Problem):
        return Failure(error.detail, title=error.title, hint=error.hint)
    faults = error.context.get("errors") or []
    more = [(_fault(fault), fault.get("hint")) for fault in faults[1:]]
    if error.status >= 500 and error.request_id:
        more.append((f"the request's id, for the server's log: {error.request_id}", None))
    where = f" (line {error.context['line']})" if error.context.get("line") else ""
    detail = error.detail if where in error.detail else f"{error.detail}{where}"
    return Failure(detail, title=error.title, hint=error.hint, more=more)


def _fault(fault: dict[str, Any]) -> str:
    line = f" (line {fault['line']})" if fault.get("line") else ""
    return f"{fault.get('field')}: {fault.get('reason')}{line}"


class LeewayCommand(click.Command):
    """A command whose expected failures become `Failure`, with one exit code each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except (ClientError, LeewayError) as error:
            raise failure(error) from error


@contextmanager
def connect() -> Iterator[Client]:
    """The client of the server that this account's commands talk to."""
    with Client(find_place(os.environ)) as client:
        yield client


def json_option(function: F) -> F:
    """`--json`: the command is given `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print what the API answered, as JSON.")(function)


def print_json(answer: object) -> None:
    """For programs: indented, so that people can read it too."""
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def read_document(file: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        Failure: it cannot be read.
    """
    if file == "-":
        if sys.stdin.isatty():
            click.echo("Reading standard input; end with Ctrl-D.", err=True)
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            is_folder = isinstance(error, IsADirectoryError)
            hint = "Name a file in it." if is_folder else "Give the path of a document, or - for standard input."
            raise Failure(f"{file}: {error.strerror}", title="The file cannot be read", hint=hint) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            f"{file}: byte {error.start} is not UTF-8",
            title="The file is no text",
            hint="Give a workload document in YAML or JSON.",
        ) from None
