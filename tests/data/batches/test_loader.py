"""Reading a plan: the same batches for any number of workers, bad samples noted and skipped, no rank without work."""

import gc
import json
import multiprocessing
import zlib

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches

from conftest import tiny_config, tiny_model
from hourllava.data.batches.amounts import Stream
from hourllava.data.batches.loader import Failure, PackedCollator, merge_ledgers, planned_loader
from hourllava.data.batches.plan import BatchPlan, PlanSettings
from hourllava.errors import ConfigError, DataError
from hourllava.model.inputs import Sample
from hourllava.model.layout import video_layout

NUM_ROWS = 60
BAD_ROWS = (3, 17, 41)


def encode(row, seed):
    """`row` tokens: the row's number, then what its seed draws."""
    number, num_tokens = row
    ids = np.random.default_rng(seed).integers(100, 500, num_tokens)
    ids[0] = number
    return (Sample(ids, ids.copy(), np.zeros(num_tokens, bool)),)


def encode_but_bad(row, seed):
    if row[0] in BAD_ROWS:
        raise zlib.error("invalid stored block lengths")
    return encode(row, seed)


def encode_nothing(row, seed):
    raise DataError("cannot identify\nimage file")


def rows_and_plan(**changes):
    tokens = np.random.default_rng(0).integers(5, 40, NUM_ROWS)
    lengths = np.stack([0 * tokens, 0 * tokens, tokens], axis=1).astype(np.int32)
    rows = list(enumerate(tokens.tolist()))
    return [rows], BatchPlan([Stream("talks", lengths, tokens * 1.0)], PlanSettings(64, 4, **changes))


def collate(samples):
    return {
        "input_ids": torch.from_numpy(np.concatenate([sample.input_ids for sample in samples])),
        "labels": torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
        "rows": [int(sample.input_ids[0]) for sample in samples],
    }


def read(tmp_path, encode=encode, plan_changes=None, **options):
    sources, plan = rows_and_plan(**(plan_changes or {}))
    return list(planned_loader(plan, sources, encode, collate, ledger_folder=tmp_path / "failures", **options))


def all_rows(batches):
    return sorted(row for batch in batches for row in batch["rows"])


def test_every_row_once_for_any_number_of_ranks(tmp_path):
    for world_size in (1, 2, 4):
        batches = [read(tmp_path, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert all_rows(batch for share in batches for batch in share) == list(range(NUM_ROWS))
        assert len({len(share) for share in batches}) == 1
        assert all(len(batch["input_ids"]) <= 64 for share in batches for batch in share)


def test_workers_change_nothing(tmp_path):
    expected = read(tmp_path, encode_but_bad)
    for num_workers in (1, 2):  # more than a small machine has cores makes torch warn
        batches = read(tmp_path / str(num_workers), encode_but_bad, num_workers=num_workers)
        assert [batch["rows"] for batch in batches] == [batch["rows"] for batch in expected]
        assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches, expected, strict=True))
        assert merge_ledgers(tmp_path / str(num_workers) / "failures") == merge_ledgers(tmp_path / "failures")


def test_resume_on_other_ranks(tmp_path):
    epochs = {"num_epochs": 2}
    _, plan = rows_and_plan(**epochs)
    expected = read(tmp_path, plan_changes=epochs)
    for first_step in (1, plan.num_steps // 2 + 1, plan.num_steps - 1):
        shares = [
            read(tmp_path, plan_changes=epochs, rank=rank, world_size=2, first_step=first_step) for rank in (0, 1)
        ]
        assert len(shares[0]) == 2 * (plan.num_steps - first_step)
        rest = expected[4 * first_step :]
        assert all_rows([*shares[0], *shares[1]]) == all_rows(rest)
        tokens = sorted(tuple(batch["input_ids"].tolist()) for batch in rest)
        assert sorted(tuple(batch["input_ids"].tolist()) for share in shares for batch in share) == tokens


def test_bad_samples_are_noted_and_skipped(tmp_path):
    batches = read(tmp_path, encode_but_bad)
    assert all_rows(batches) == sorted(set(range(NUM_ROWS)) - set(BAD_ROWS))
    folder = tmp_path / "failures"
    lines = [json.loads(line) for line in (folder / "failures.rank0.worker0.jsonl").read_text().splitlines()]
    assert sorted(line["sample"] for line in lines) == list(BAD_ROWS)
    assert {(line["stream"], line["error"], line["message"]) for line in lines} == {
        ("talks", "error", "invalid stored block lengths")
    }
    read(tmp_path, encode_but_bad, rank=0, world_size=2)  # a second run meets some of them again
    with (folder / "failures.rank1.worker0.jsonl").open("w") as other:
        other.write(json.dumps(Failure("a", 5, 6, "OSError", "no")._asdict()) + '\n{"stream": "cu')
    merged = merge_ledgers(folder)
    assert [failure.sample for failure in merged] == [5, *BAD_ROWS]
    assert len((folder / "failures.jsonl").read_text().splitlines()) == 4


def test_no_failures_no_files(tmp_path):
    read(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_failures_stop_with_one_line(tmp_path, num_workers):
    with pytest.raises(
        DataError, match=r"^2 of \d+ samples failed, .*: DataError: cannot identify\\nimage file. All"
    ) as caught:
        read(tmp_path, encode_nothing, num_workers=num_workers, max_failed_share=0.001)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [DataError, RuntimeError])
def test_workers_end_with_an_error_and_not_when_garbage_is_collected(tmp_path, error):
    def give_up(samples):
        raise error("no more")

    sources, plan = rows_and_plan()
    loader = planned_loader(plan, sources, encode, give_up, ledger_folder=tmp_path, num_workers=2)
    before = multiprocessing.active_children()
    gc.disable()
    try:
        with pytest.raises(error, match="no more"):
            next(iter(loader))
        assert set(multiprocessing.active_children()) <= set(before)
    finally:
        gc.enable()


def test_share_is_judged_over_many_samples(tmp_path):
    with pytest.raises(DataError, match="7 of 7 samples failed"):  # of 60, no more than a tenth
        read(tmp_path, encode_nothing)
    with pytest.raises(DataError, match="1 of 1 samples failed"):
        read(tmp_path, encode_nothing, max_failed_share=0.0)


def test_micro_batch_without_samples_steps_for_nothing(tmp_path, processor):
    sources, plan = rows_and_plan()
    loader = planned_loader(
        plan,
        sources,
        encode_nothing,
        processor.collate_packed,
        ledger_folder=tmp_path,
        max_failed_share=1.0,
    )
    batches = list(loader)
    assert len(batches) == 4 * plan.num_steps
    model = tiny_model(tiny_config()).train()
    loss = model(**batches[0]).loss
    loss.backward()
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 10
    assert all((gradient == 0).all() for gradient in gradients)


def test_sample_longer_than_planned_is_not_packed(tmp_path):
    def longer(row, seed):
        return encode((row[0], row[1] + (row[0] == 8)), seed)

    batches = read(tmp_path, longer)
    assert all_rows(batches) == [row for row in range(NUM_ROWS) if row != 8]
    (failure,) = merge_ledgers(tmp_path / "failures")
    assert failure.error == "DataError"
    assert "its lengths promise" in failure.message


def test_source_of_another_size(tmp_path):
    sources, plan = rows_and_plan()
    with pytest.raises(DataError, match="talks has 59 samples but lengths of 60"):
        planned_loader(plan, [sources[0][:-1]], encode, collate, ledger_folder=tmp_path)


def test_ranks_that_do_not_divide_a_step(tmp_path):
    with pytest.raises(ConfigError, match="to 3 ranks"):
        read(tmp_path, world_size=3)


def test_the_trainers_way_to_skip_reads_nothing(tmp_path):
    sources, plan = rows_and_plan()
    loader = planned_loader(plan, sources, encode, collate, ledger_folder=tmp_path)
    expected = [batch["rows"] for batch in loader][5:]
    assert [batch["rows"] for batch in skip_first_batches(loader, 5)] == expected
    skipped = {row for batch in loader for row in batch["rows"]} - {row for rows in expected for row in rows}

    def encode_the_rest(row, seed):
        assert row[0] not in skipped
        return encode(row, seed)

    loader = planned_loader(plan, sources, encode_the_rest, collate, ledger_folder=tmp_path, max_failed_share=0.0)
    assert [batch["rows"] for batch in skip_first_batches(loader, 5)] == expected


def test_small_memories_come_first_and_the_samples_of_a_row_stay_together():
    config = tiny_config()
    layouts = {seconds: video_layout(seconds, config) for seconds in (50, 10, 30)}
    ids = np.zeros(3, np.int64)
    rows = [(Sample(ids, ids, ids == 0, layout=layout),) * 2 for layout in layouts.values()]
    rows += [(), encode((7, 5), 0)]  # a bad sample, and text
    memories = PackedCollator(lambda samples: {"layouts": [sample.layout for sample in samples]})(rows)["layouts"]
    assert memories == [None, *(layouts[seconds] for seconds in (10, 10, 30, 30, 50, 50))]
