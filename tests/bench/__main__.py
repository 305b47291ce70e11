"""Run all benches, or those that are named."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.bench.figures import Figures
from tests.bench.inventory import inventory
from tests.bench.listing import listing
from tests.bench.orders import orders
from tests.bench.serving import help_cpu, serving

BENCHES: dict[str, Callable[[], Figures]] = {
    "help": help_cpu,
    "inventory": inventory,
    "listing": listing,
    "orders": orders,
    "serving": serving,
}


def main(names: list[str]) -> int:
    """Print a JSON line per figure; 2 for a name that there is not."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench {unknown[0]!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in names or BENCHES:
        for figure in BENCHES[name]():
            print(figure.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
