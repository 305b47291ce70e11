"""Progress for what is slow: what is waited for, how long already, and what happened meanwhile."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from web.cli.output import clean, screen


class Waiting:
    """On a terminal a line that counts the seconds; what is noted stays, each with its second. Elsewhere only notes."""

    def __init__(self, text: str, *, is_quiet: bool = False, console: Console | None = None) -> None:
        """`is_quiet`: for programs, which want the answer only. `console`: standard error where not given."""
        self._console = console or screen(errors=True)
        self._text = clean(text)
        self._is_quiet = is_quiet
        self._started = time.monotonic()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        """Begin to count."""
        if self._is_quiet:
            return self
        if self._console.is_terminal:
            self._status = self._console.status(self._line(), spinner="dots", refresh_per_second=4)
            self._status.start()
        else:
            self._console.print(Text(f"{self._text} ..."))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        self.stop()

    def stop(self) -> None:
        """Take the line away before the end."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._started

    def note(self, text: str, style: str = "") -> None:
        """A line that stays."""
        if not self._is_quiet:
            self._console.print(Text.assemble((f"{self.seconds:6.1f} s  ", "dim"), (clean(text), style)))

    def say(self, text: str) -> None:
        """What is waited for, in other words from the next pause on."""
        self._text = clean(text)

    def pause(self, seconds: float) -> None:
        """Sleep, with the count going on."""
        if self._status is not None:
            self._status.update(self._line())
        time.sleep(seconds)

    def _line(self) -> Text:
        return Text(f"{self._text} ({self.seconds:.0f} s)")
