"""The state of a long run, so that it goes on where it ended: after each phase one small file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.faults.report import Total
from tests.faults.run import Tally


def save(path: Path, seed: int, total: Total) -> None:
    """Write it whole or not at all."""
    document = {
        "seed": seed,
        "kills": total.tally.kills,
        "freezes": total.tally.freezes,
        "counts": total.counts,
        "acted": total.acted,
        "seen": sorted(total.seen),
        "orders": total.orders,
        "charges": total.charges,
        "seconds": total.seconds,
        "phases": total.phases,
    }
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(document, indent=1))
    draft.replace(path)


def load(path: Path) -> tuple[int, Total]:
    """The seed, and what there was so far."""
    document = json.loads(path.read_text())
    total = Total(
        tally=Tally(Counter(document["kills"]), Counter(document["freezes"])),
        counts=Counter(document["counts"]),
        acted=document["acted"],
        seen=set(document["seen"]),
        orders=document["orders"],
        charges=document["charges"],
        seconds=document["seconds"],
        phases=document["phases"],
    )
    return document["seed"], total
