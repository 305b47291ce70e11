"""What a set-up tells the person who waits for it."""

import time
from dataclasses import dataclass, field


class SetupError(Exception):
    """Set-up cannot go on. Says what is wrong and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n  {remedy}")


@dataclass
class Progress:
    """One line per thing worth knowing, with the seconds since the start."""

    of: int
    started: float = field(default_factory=time.monotonic)
    step: int = 0

    def begin(self, what: str) -> None:
        self.step += 1
        self.say(what)

    def say(self, what: str) -> None:
        seconds = time.monotonic() - self.started
        print(f"set-up {self.step}/{self.of}  {what}  ({seconds:.0f} s)", flush=True)
