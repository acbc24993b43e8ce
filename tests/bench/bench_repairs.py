"""How much of what is broken in tool calls is repaired, told, or carried out wrongly.

Two parts: the corpus of published failure classes, one example each (tests/fixtures/broken_calls.json), and
generated breakages of good calls, 1,000 of each kind that there are seconds for.

Prediction, written before the first measurement: of the generated ones 60 % repaired, 40 % told, below 1 %
mended into something else, all of those where a single character went missing or came in. Mending one takes
0.3 ms. What came of it: docs/measurements/tool-calls.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict

from tests_support.broken_calls import Fate, corpus, fate, mutations

COUNT = 15_000


def main() -> None:
    """Print both tables."""
    asyncio.run(_main())


async def _main() -> None:
    cases = corpus()
    fates = [await fate(case) for case in cases]
    known = sum(case.meant is not None for case in cases)
    print(f"published classes: {len(cases)}, of which {known} have one meaning")
    print("  " + ", ".join(f"{one.value} {fates.count(one)}" for one in Fate))
    table: defaultdict[str, Counter[Fate]] = defaultdict(Counter)
    started_s = time.process_time()
    for case in mutations(seed=7, count=COUNT):
        table[case.kind][await fate(case)] += 1
    spent_s = time.process_time() - started_s
    for kind, counts in sorted(table.items()):
        shares = "  ".join(f"{one.value} {counts[one] / counts.total():6.1%}" for one in Fate)
        print(f"  {kind:32} {shares}")
    total = sum(table.values(), Counter())
    print("all: " + "  ".join(f"{one.value} {total[one] / COUNT:.2%}" for one in Fate))
    print(f"{1_000 * spent_s / COUNT:.2f} ms each")


if __name__ == "__main__":
    main()
