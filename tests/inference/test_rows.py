"""Rows against transformers' own `generate`: alone, beside others, joining and leaving at any step."""

import functools
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import tiny_config, tiny_model
from hourllava.inference.rows import decoder as rows_module
from hourllava.inference.rows.decoder import DAMAGED, RowDecoder
from hourllava.inference.rows.prefill import prefill
from hourllava.inference.rows.sampling import Sampling

GREEDY = Sampling()


def prompts(model, lengths, seed=0):
    """Embedded random prompts [L, D]."""
    generator = torch.Generator().manual_seed(seed)
    width = model.config.text_config.hidden_size
    return [torch.randn(n, width, generator=generator, dtype=model.dtype).to(model.device) for n in lengths]


def generated(model, embeds_LD, num_tokens):
    output = super(type(model), model).generate(
        inputs_embeds=embeds_LD[None],
        attention_mask=torch.ones(1, len(embeds_LD), dtype=torch.long, device=model.device),
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0].tolist()


def run(decoder, plan):
    """The tokens of each row: (step at which it joins, prompt, number of tokens, sampling, step at which it leaves)."""
    tokens: dict[int, list[int]] = {number: [] for number in range(len(plan))}
    row_of: dict[int, object] = {}
    for step in itertools.count():
        for number, (joins, embeds, num_tokens, sampling, leaves) in enumerate(plan):
            if step == joins:
                row_of[number] = decoder.join(
                    prefill(decoder.model, embeds), max_new_tokens=num_tokens, sampling=sampling
                )
            if step == leaves and number in row_of:
                decoder.leave(row_of[number])
        if step >= max(joins for joins, *_ in plan) and not len(decoder):
            return list(tokens.values())
        for row, token in decoder.step():
            tokens[next(number for number, own in row_of.items() if own is row)].append(token)


def alone(model, embeds, num_tokens, sampling=GREEDY):
    return run(RowDecoder(model), [(0, embeds, num_tokens, sampling, None)])[0]


def test_tokens_are_transformers_own(model):
    for embeds in prompts(model, (20, 9, 1, 130)):
        assert alone(model, embeds, 12) == generated(model, embeds, 12)


cached_model = functools.cache(tiny_model)

row_plans = st.lists(
    st.tuples(
        st.integers(0, 8),  # joins
        st.integers(1, 30),  # prompt tokens
        st.integers(1, 9),  # new tokens
        st.sampled_from([GREEDY, GREEDY, Sampling(0.8, 0.9, 3), Sampling(1.5, 1.0, 4)]),
        st.one_of(st.none(), st.integers(0, 12)),  # leaves
    ),
    min_size=1,
    max_size=6,
)


@given(row_plans)
def test_rows_that_join_and_leave_give_the_tokens_that_they_give_alone(plan):
    model = cached_model()
    plan = [
        (joins, *prompts(model, [length], seed=number), num_tokens, sampling, leaves)
        for number, (joins, length, num_tokens, sampling, leaves) in enumerate(plan)
    ]
    decoder = RowDecoder(model)
    got = run(decoder, plan)
    for (joins, embeds, num_tokens, sampling, leaves), tokens in zip(plan, got):
        expected = alone(model, embeds, num_tokens, sampling)
        if leaves is None or leaves < joins:
            assert tokens == expected
        else:
            assert tokens == expected[: len(tokens)]
            assert len(tokens) <= max(0, leaves - joins)
    assert decoder._buffers is None or decoder._buffers.num_slots == 0


@pytest.mark.parametrize("max_bytes", [0, 10_000, 100_000])
def test_rows_in_flight_are_bounded_by_bytes(model, max_bytes):
    decoder, num_joined = RowDecoder(model, max_bytes=max_bytes, max_rows=8), 0
    (embeds,) = prompts(model, (20,))
    while decoder.has_room(25):
        decoder.join(prefill(model, embeds), max_new_tokens=5, sampling=GREEDY)
        num_joined += 1
    assert num_joined == min(8, max(1, max_bytes // (25 * decoder.bytes_per_slot)))
    buffers = decoder._buffers
    tensors = [tensor for layer in (*buffers.keys, *buffers.values) for tensor in layer]
    assert num_joined * 25 * decoder.bytes_per_slot == sum(tensor.nbytes for tensor in tensors)


def test_weights_that_are_no_numbers_are_told(model):
    (embeds,) = prompts(model, (20,))
    assert alone(model, embeds * torch.nan, 1) == [DAMAGED]


def test_release_drops_everything(model):
    decoder = RowDecoder(model)
    for embeds in prompts(model, (20, 9)):
        decoder.join(prefill(model, embeds), max_new_tokens=5, sampling=GREEDY)
    decoder.step()
    decoder.release()
    assert len(decoder) == 0
    assert decoder.step() == []
    assert decoder._buffers is None


# ------------------------------------------------------------------------- shared buffers, which the CPU can also use


@pytest.fixture
def shares(monkeypatch):
    """A decoder with shared buffers on the CPU, without graphs: otherwise what CUDA does."""
    monkeypatch.setattr(rows_module, "SLOTS_STEP", 16)
    monkeypatch.setattr(rows_module, "ROWS_OF_BUFFERS", (1, 3, 8))

    def make(model, **limits):
        decoder = RowDecoder(model, **limits)
        decoder._shares_buffers, decoder._max_waiting = True, 1
        return decoder

    return make


@functools.cache
def waiting_rows(window):
    """A model, prompts with the numbers of tokens that they ask for, and transformers' own tokens."""
    model = tiny_model(windowed(window)).double()
    lengths = (9, 20, 40, 5, 33, 12, 7, 26)
    waiting = [(embeds, 3 + n % 5 * 2) for n, embeds in enumerate(prompts(model, lengths))]
    return model, waiting, [generated(model, embeds, num_tokens) for embeds, num_tokens in waiting]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("max_rows", [1, 3, 4, 8])
def test_shared_buffers_give_the_same_tokens(shares, window, max_rows):
    """Rows grow the buffers, move when another row leaves, and fill buckets of other sizes."""
    model, waiting, expected = waiting_rows(window)
    decoder = shares(model, max_rows=max_rows)
    row_of, tokens = {}, [[] for _ in waiting]
    while len(row_of) < len(waiting) or len(decoder):
        while len(row_of) < len(waiting) and decoder.has_room(len(waiting[len(row_of)][0]) + waiting[len(row_of)][1]):
            embeds, num_tokens = waiting[len(row_of)]
            row = decoder.join(prefill(model, embeds), max_new_tokens=num_tokens, sampling=GREEDY)
            row_of[row] = len(row_of)
        for row, token in decoder.step():
            tokens[row_of[row]].append(token)
    assert tokens == expected


def test_a_few_rows_do_not_pay_for_more(shares, model):
    decoder, sizes = shares(model, max_rows=7), []
    (embeds,) = prompts(model, [4])
    for _ in range(7):
        decoder.join(prefill(model, embeds), max_new_tokens=9, sampling=GREEDY)
        sizes.append(decoder._buffers.num_rows)
    assert sizes == [1, 3, 3, 7, 7, 7, 7]
    while len(decoder):
        decoder.step()
    decoder.join(prefill(model, embeds), max_new_tokens=9, sampling=GREEDY)
    assert decoder._buffers.num_rows == 7, "what was paid for stays"


class NoNumberFromTheHost(TorchDispatchMode):
    """Refuses what waits for a GPU: to copy a single number of the host into a tensor, and to read one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a number is read"
        if function is torch.ops.aten.copy_.default and not args[1].dim():
            assert args[1].untyped_storage().nbytes() > args[1].nbytes, "a number is copied that is no part of a tensor"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_p=0.5)])
def test_rows_join_move_and_leave_without_numbers_from_the_host(shares, model, sampling):
    decoder, rows = shares(model, max_rows=8), []
    prefilled = [prefill(model, embeds) for embeds in prompts(model, [4, 9, 2, 5])]
    with NoNumberFromTheHost(), torch.inference_mode():
        for one in prefilled:
            rows.append(decoder.join(one, max_new_tokens=5, sampling=sampling))
            decoder._launch()
        decoder.leave(rows[1])
        decoder._launch()


@pytest.mark.parametrize("num_tokens", [1, 4])
def test_first_tokens_of_rows_that_join_together_are_handed_out_together(shares, model, num_tokens):
    """Whether or not other rows run; one that has left meanwhile gets none."""
    decoder = shares(model, max_rows=8)
    for _ in range(2):
        rows = [
            decoder.join(prefill(model, embeds), max_new_tokens=num_tokens, sampling=GREEDY)
            for embeds in prompts(model, (9, 20, 5))
        ]
        assert set(rows) <= set(decoder.running())
        decoder.leave(rows[1])
        assert rows[1] not in decoder.running()
        handed = decoder.step()
        while not any(row in rows for row, _ in handed):
            handed = decoder.step()
        assert [row for row, _ in handed] == [rows[0], rows[2]]


def test_numbers_of_an_earlier_row_do_not_reach_the_next_one(shares, model):
    """Values behind the prompt count for nothing, but nothing times NaN is NaN."""
    decoder = shares(model, max_rows=2)
    (embeds,) = prompts(model, (5,))
    spoilt = prefill(model, *prompts(model, (12,), seed=1))
    spoilt = spoilt._replace(values=[value * torch.nan for value in spoilt.values])
    row = decoder.join(spoilt, max_new_tokens=8, sampling=GREEDY)
    tokens = [token for _ in range(4) for own, token in decoder.step() if own is row]
    assert tokens[1:] == [DAMAGED] * (len(tokens) - 1)
    decoder.leave(row)
    assert run(decoder, [(0, embeds, 8, GREEDY, None)])[0][-8:] == generated(model, embeds, 8)


def test_slots_that_one_row_needed_are_given_back(shares, model):
    decoder = shares(model, max_rows=4, max_bytes=4 * 64 * RowDecoder(model).bytes_per_slot)
    (embeds,) = prompts(model, (5,))
    run(decoder, [(0, embeds, 200, GREEDY, 3)])
    for _ in range(4):
        assert decoder.has_room(40)
        decoder.join(prefill(model, embeds), max_new_tokens=35, sampling=GREEDY)


def windowed(window):
    base = tiny_config().text_config.to_dict()
    text = {
        "layer_types": ["full_attention", "sliding_attention"],
        "use_sliding_window": True,
        "sliding_window": window,
    }
    return tiny_config(text_config={**base, **text} if window else base)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_graphs_give_the_same_tokens(window, max_rows):
    model = tiny_model(windowed(window)).float().cuda()
    decoder = RowDecoder(model, max_rows=max_rows)
    for seed in range(3):
        plan, lengths = [], (9, 20, 40, 5, 33, 12, 7, 26)[:max_rows]
        for number, embeds in enumerate(prompts(model, lengths, seed)):
            plan.append((number, embeds, 4 + number, GREEDY, None))
        expected = [generated(model, embeds, num_tokens) for _, embeds, num_tokens, *_ in plan]
        assert run(decoder, plan) == expected
    assert decoder._buffers._graphs
