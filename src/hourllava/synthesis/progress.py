"""The progress of a stage on stderr: items a second, tokens, cost and the time left."""

import sys
from collections import Counter
from types import TracebackType
from typing import Self

from tqdm import tqdm

from hourllava.data.records.statistics import short_number
from hourllava.synthesis.models.spending import Spending
from hourllava.synthesis.rows import Row

SHOWN = 3  # failed items of a kind; the others are counted, and all stand in the stage's file
UNITS = {
    "clips": "video",
    "captions": "clip",
    "events": "video",
    "event_captions": "event",
    "summaries": "video",
    "questions": "request",
    "checks": "question",
}
"""What the items of a stage are."""


class StageBar:
    """A progress bar.

    Args:
        stage: its name.
        total: number of its items.
        spending: of the run; the bar shows what this stage adds.
        is_shown: False: nothing is printed but what failed.
    """

    def __init__(self, stage: str, total: int, spending: Spending, *, is_shown: bool) -> None:
        self._spending, self._tokens, self._cost = spending, spending.tokens, spending.cost
        self._failed: Counter[str] = Counter()
        self._bar = tqdm(
            total=total, unit=UNITS[stage], desc=stage.replace("_", " "), disable=not is_shown, file=sys.stderr
        )

    def tell(self, row: Row | None) -> None:
        """Count an item: a row that was made, or None for one that was there."""
        if row is not None and row.fault is not None:
            self._failed[row.fault.kind] += 1
            if self._failed[row.fault.kind] <= SHOWN:
                self._bar.write(f"failed: {row.id}: {row.fault}", file=sys.stderr)
        parts = [f"{short_number(self._spending.tokens - self._tokens)} tokens"]
        if self._spending.cost > self._cost:
            parts.append(f"cost {self._spending.cost - self._cost:.2f}")
        if self._failed:
            parts.append(f"{self._failed.total()} failed")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
