"""The core: items become rows, once, in order, whatever interrupts them."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.synthesis.rows import ItemFault, Row, RowFile, digest
from hourllava.synthesis.stage import Item, StopRun, run_stage


def items_of(count):
    return [Item(f"item {k}", digest(k), "maker", k) for k in range(count)]


async def square(item):
    await asyncio.sleep(random.random() / 1000)  # so that rows come in another order than items
    return {"square": item.input**2}


def run(path, items, work=square, **more):
    rows = RowFile(path)
    try:
        return asyncio.run(run_stage("test", items, work, rows, concurrency=5, **more))
    finally:
        rows.close()


def test_the_file_is_in_the_order_of_the_items(tmp_path):
    run(tmp_path / "a", items_of(50))
    rows = [Row.of_line(line) for line in (tmp_path / "a").read_bytes().splitlines()]
    assert [row.value["square"] for row in rows] == [k**2 for k in range(50)]


@given(cut=st.integers(0, 2500), garbage=st.binary(max_size=20))
@examples(20)
def test_a_file_cut_anywhere_ends_the_same(tmp_path_factory, cut, garbage):
    folder = tmp_path_factory.mktemp("cut")
    run(folder / "whole", items_of(20))
    whole = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(whole[:cut] + garbage)
    report = run(folder / "cut", items_of(20))
    lines = (folder / "cut").read_bytes()
    assert lines == whole
    assert report.num_made <= 20


def test_what_is_done_is_not_done_again(tmp_path):
    run(tmp_path / "a", items_of(10))
    asked = []

    async def work(item):
        asked.append(item.input)
        return {}

    report = run(tmp_path / "a", items_of(12), work)
    assert (sorted(asked), report.num_items, report.num_made) == ([10, 11], 12, 2)


def test_rows_that_nobody_asks_for_stay(tmp_path):
    run(tmp_path / "a", items_of(10))
    run(tmp_path / "a", items_of(3))
    report = run(tmp_path / "a", items_of(10))
    assert report.num_made == 0


def test_a_fault_is_a_row_until_it_is_tried_again(tmp_path):
    is_well = False

    async def work(item):
        if item.input == 3 and not is_well:
            raise ItemFault("refusal", "no\nthanks")
        return {}

    assert dict(run(tmp_path / "a", items_of(5), work).faults) == {"refusal": 1}
    assert dict(run(tmp_path / "a", items_of(5), work).faults) == {"refusal": 1}
    is_well = True
    assert run(tmp_path / "a", items_of(5), work).num_failed == 1
    report = run(tmp_path / "a", items_of(5), work, retry_errors=True)
    assert (report.num_made, report.num_failed) == (1, 0)


def test_faults_of_a_server_that_is_down_are_not_kept(tmp_path):
    async def work(item):
        if item.input < 3:
            return {}
        if item.input == 7:
            raise StopRun("down")
        raise ItemFault("timeout", "none", is_transport=True)

    with pytest.raises(StopRun):
        run(tmp_path / "a", items_of(9), work)
    rows = RowFile(tmp_path / "a")
    assert len(rows) == 3
    rows.close()


def test_a_stage_works_on_a_bounded_number_of_items(tmp_path):
    at_work, most, read = 0, 0, 0

    def reading():
        nonlocal read
        for item in items_of(200):
            read += 1
            yield item

    async def work(item):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        assert read - item.input <= 40
        await asyncio.sleep(0.0001)
        at_work -= 1
        return {}

    run(tmp_path / "a", reading(), work)
    assert most == 5


def test_an_error_of_ours_ends_the_stage(tmp_path):
    async def work(item):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run(tmp_path / "a", items_of(9), work)
