"""A stage: items become rows of a file, several at a time, and what is done is not done again.

    items (id, key, input)  ->  work(item)  ->  row (value or fault)  ->  stages/NAME.jsonl

Every stage of synthesis is one call of `run_stage`. It skips items that have a row, keeps a bounded number at work, and
appends each result as it comes. Items are read lazily, so a stage of millions needs memory for those at work only.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from hourllava.errors import HourLlavaError
from hourllava.synthesis.rows import ItemFault, Row, RowFile


class StopRun(HourLlavaError):
    """The run cannot go on: the server does not answer, or the budget is spent. What is done is kept."""

    exit_code = 9


@dataclass(frozen=True)
class Item:
    """One thing to do.

    Attributes:
        id: for people, unique in the stage.
        key: digest of all that its row depends on.
        made_by: digest of the maker.
        input: what `work` needs.
    """

    id: str
    key: str
    made_by: str
    input: Any = None


Work = Callable[[Item], Awaitable[dict[str, Any]]]
"""Makes an item's value; raises `ItemFault` to give it up, and `StopRun` to end the run."""
Feed = Callable[[Iterator[Item]], AsyncGenerator[Item, None]]
"""Gives items with their input loaded, in their order: for inputs that are read one after the other, as frames are."""


@dataclass
class StageReport:
    """What a stage did.

    Attributes:
        num_items: of the stage, as far as they were reached.
        num_made: rows made now, with a value.
        faults: kind -> number of items given up, now or before.
    """

    name: str
    num_items: int = 0
    num_made: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def num_failed(self) -> int:
        """Items without a value."""
        return self.faults.total()


async def run_stage(
    name: str,
    items: Iterable[Item],
    work: Work,
    rows: RowFile,
    *,
    concurrency: int,
    retry_errors: bool = False,
    feed: Feed | None = None,
    on_row: Callable[[Row | None], None] | None = None,
) -> StageReport:
    """Make the rows that are missing.

    Args:
        name: of the stage.
        items: in the order that the file gets at the end.
        work: makes one.
        rows: the stage's file.
        concurrency: items at work at a time.
        retry_errors: whether items whose row is an error are tried again.
        feed: loads inputs; it is given only the items to be made.
        on_row: called with each row that is made, and with None for an item that has one.

    Raises:
        StopRun: from `work`. Faults of the server that came just before are not kept as rows: another run tries again.
    """
    report = StageReport(name)
    keys: list[str] = []
    tell = on_row or (lambda row: None)

    def to_do() -> Iterator[Item]:
        for item in items:
            report.num_items += 1
            keys.append(item.key)
            if rows.has(item.key) and not (retry_errors and rows.is_error(item.key)):
                tell(None)
            else:
                yield item

    writer = _Writer(rows, report, tell)
    running: set[asyncio.Task[None]] = set()
    try:
        async with aclosing((feed or _as_they_are)(to_do())) as ready:
            async for item in ready:
                if len(running) >= concurrency:
                    running = await _some_done(running)
                running.add(asyncio.create_task(writer.make(item, work)))
        while running:
            running = await _some_done(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    writer.release()
    for key in keys:
        if rows.is_error(key):
            row = rows.get(key)
            report.faults[row.fault.kind if row and row.fault else "damaged"] += 1
    rows.settle(keys)
    return report


async def _as_they_are(items: Iterator[Item]) -> AsyncGenerator[Item, None]:
    for item in items:
        yield item


async def _some_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return left


class _Writer:
    """Appends results. Faults of the server wait for the next success: if none comes, the server is down."""

    def __init__(self, rows: RowFile, report: StageReport, tell: Callable[[Row | None], None]) -> None:
        self._rows, self._report, self._tell = rows, report, tell
        self._held: list[Row] = []

    async def make(self, item: Item, work: Work) -> None:
        try:
            row = Row(item.id, item.key, item.made_by, value=await work(item))
        except ItemFault as fault:
            row = Row(item.id, item.key, item.made_by, fault=fault)
            if fault.is_transport:
                self._held.append(row)
                self._tell(row)
                return
        else:
            self.release()
            self._report.num_made += 1
        self._rows.append(row)
        self._tell(row)

    def release(self) -> None:
        for row in self._held:
            self._rows.append(row)
        self._held.clear()
