"""`python -m tests.faults`: the crash run. Exit 0 where it did what was asked for and counted nothing, else 1."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tests.faults import state
from tests.faults.phase import Wanted, phase
from tests.faults.report import Total, details
from tests.faults.sabotage import SABOTAGE

# One phase of the long form: large, as start, restore and counting take a minute and a half of every phase.
_KILLS, _FREEZES, _ARMED = 400, 60, 6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the choices of a run, as far as time allows")
    parser.add_argument("--kills", type=int, help="at least so many in all (100; with --long 2000)")
    parser.add_argument("--freezes", type=int, help="at least so many in all (16; with --long 300)")
    parser.add_argument("--minutes", type=float, help="longest time for the kills of a phase (6; with --long 15)")
    parser.add_argument("--long", action="store_true", help="phase after phase, until there were enough")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="where the state is kept, and taken up again")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and database there")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGE), help="break the product on purpose: the run must fail")
    return parser.parse_args()


def main() -> int:
    """Run, print, judge."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended in order
    logging.getLogger().addHandler(logging.NullHandler())  # a PostgreSQL that was killed is no news
    seed = random.SystemRandom().randrange(1_000_000) if wanted.seed is None else wanted.seed
    total = Total()
    if wanted.resume is not None and wanted.resume.exists():
        seed, total = state.load(wanted.resume)
    kills = wanted.kills if wanted.kills is not None else 2000 if wanted.long else 100
    freezes = wanted.freezes if wanted.freezes is not None else 300 if wanted.long else 16
    while not _is_enough(total, kills, freezes) and (wanted.long or not total.phases):
        left = max(0, kills - total.tally.kills.total()), max(0, freezes - total.tally.freezes.total())
        todo = Wanted(
            seed=seed + total.phases,
            kills=min(left[0], _KILLS) if wanted.long else left[0],
            freezes=min(left[1], _FREEZES) if wanted.long else left[1],
            seconds=60 * (wanted.minutes or (15 if wanted.long else 6)),
            armed=_ARMED if wanted.long else 3,
        )
        if wanted.sabotage:
            todo = replace(todo, with_disasters=False, drain_seconds=80, sabotage=[wanted.sabotage])
        keep = None if wanted.keep is None else wanted.keep / f"phase-{total.phases + 1}"
        outcome = phase(todo, total.tally, total.seen, keep=keep)
        total.add(outcome)
        if outcome.faults or outcome.acted:
            print("\n".join(details(outcome)), flush=True)
        if wanted.resume is not None:
            state.save(wanted.resume, seed, total)
        if wanted.long:
            print(f"{total.line()} (phase {total.phases}, {outcome.seconds:.0f} s)", flush=True)
    print(total.line())
    print("\n".join(total.about(seed)))
    if not _is_enough(total, kills, freezes):
        print(f"too few: {kills} kills and {freezes} freezes were asked for", file=sys.stderr)
    return 0 if total.is_clean and _is_enough(total, kills, freezes) else 1


def _is_enough(total: Total, kills: int, freezes: int) -> bool:
    return total.tally.kills.total() >= kills and total.tally.freezes.total() >= freezes


if __name__ == "__main__":
    sys.exit(main())
