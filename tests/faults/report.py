"""What the run says: one line of numbers, one about the run itself, and for each fault what a developer needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.counting import NAMES, UNSAVED
from tests.faults.phase import Outcome
from tests.faults.points import Deed
from tests.faults.run import Tally


@dataclass
class Total:
    """All phases so far. `acted`: what was done at clouds while Leeway was to observe only."""

    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    acted: int = 0
    seen: set[str] = field(default_factory=set)
    orders: int = 0
    charges: int = 0
    seconds: float = 0.0
    phases: int = 0

    def add(self, outcome: Outcome) -> None:
        """One phase more. Its tally went on from ours."""
        self.tally, self.seen = outcome.tally, outcome.seen
        self.counts.update(fault.count for fault in outcome.faults)
        self.acted += len(outcome.acted)
        self.orders += outcome.orders
        self.charges += outcome.charges
        self.seconds += outcome.seconds
        self.phases += 1

    @property
    def is_clean(self) -> bool:
        """Nothing was counted."""
        return not self.counts.total() and not self.acted

    def line(self) -> str:
        """The numbers."""
        deeds = f"kills={self.tally.kills.total()} freezes={self.tally.freezes.total()}"
        return " ".join([deeds, *(f"{name}={self.counts[name]}" for name in NAMES)])

    def about(self, seed: int) -> Iterator[str]:
        """How it came about."""
        hit = {point for deed in Deed for point in self.tally.of(deed)}
        yield (
            f"seed={seed} phases={self.phases} orders={self.orders} charges={self.charges} "
            f"points={len(hit)}/{len(self.seen | hit)} acted_while_observing={self.acted} "
            f"{UNSAVED}={self.counts[UNSAVED]} seconds={self.seconds:.0f}"
        )
        never = sorted(self.seen - hit)
        if never:
            yield f"seen but never hit ({len(never)}): {', '.join(never)}"


def details(outcome: Outcome) -> Iterable[str]:
    """One phase, where something was counted."""
    yield "at seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in outcome.laps.items())
    yield f"{outcome.orders} orders, {outcome.leases} leases, {outcome.charges} charges: {outcome.done}"
    if outcome.findings:
        yield f"open findings: {outcome.findings}"
    yield from (f"acted while observing: {text}" for text in outcome.acted[:20])
    yield from outcome.stories
    yield from (note for note in outcome.notes if "disaster" in note)
