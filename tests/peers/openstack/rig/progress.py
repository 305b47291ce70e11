"""Progress lines, and steps that run side by side as soon as what they need is done."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

_started = time.monotonic()
_printing = threading.Lock()


def say(text: str) -> None:
    """Print one line with the seconds since the program began."""
    with _printing:
        print(f"[{time.monotonic() - _started:4.0f} s] {text}", flush=True)


@dataclass(frozen=True)
class Step:
    """One piece of work; `after` names the steps that must be done first, `says` is printed when it is done."""

    name: str
    work: Callable[[], None]
    after: tuple[str, ...] = ()
    says: str = ""


def run_steps(steps: Sequence[Step]) -> None:
    """Run every step as early as its needs allow.

    Raises what the first failed step raised, after those already running have ended; nothing new starts by then.
    """
    waiting = list(steps)
    done: set[str] = set()
    running: dict[Future[None], Step] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        while running or (waiting and failure is None):
            if failure is None:
                ready = [step for step in waiting if done.issuperset(step.after)]
                waiting = [step for step in waiting if step not in ready]
                running |= {pool.submit(step.work): step for step in ready}
            if not running:
                raise ValueError(f"steps wait for each other: {[step.name for step in waiting]}")
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                step = running.pop(future)
                problem = future.exception()
                if problem is not None:
                    failure = failure or problem
                    continue
                done.add(step.name)
                if step.says:
                    say(step.says)
    if failure is not None:
        raise failure
