"""Asking behind a kept prefix equals asking with the whole prompt: embeddings, logits, tokens, evidence."""

import concurrent.futures
import dataclasses
import itertools
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, tiny_config, tiny_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.ready import ReadyMemories, make_ready
from hourllava.inference.questions import prompt as prompt_module
from hourllava.inference.questions.prompt import Context, PromptMaker, embed_together, launch_together
from hourllava.inference.questions.subtitles import Cue
from hourllava.inference.rows import decoder as decoder_module
from hourllava.inference.rows import prefixes as prefixes_module
from hourllava.inference.rows.decoder import DAMAGED, RowDecoder
from hourllava.inference.rows.prefill import prefill
from hourllava.inference.rows.prefixes import PrefillBehindPrefix, PrefixPool
from hourllava.inference.rows.sampling import Sampling
from hourllava.model.backbones import attention_window
from hourllava.model.config import MemAugConfig
from hourllava.model.kept_prefix import KeptPrefix, can_keep_prefix, kept_prefix_bytes
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory
from model.test_backbones import CASES, pair

GREEDY = Sampling()
CLOSE = {"atol": 1e-8, "rtol": 1e-8}
QUESTIONS = ["What?", "Who sleeps on the sofa, and when does it wake up?", "Why is that so? " * 6, "And then?"]
CUES = [Cue(float(n), n + 1.0, f"line number {n}") for n in range(40)]


def recalling(**memaug):
    return tiny_config(memaug=MemAugConfig(**{"recall": "question", "recall_tokens": 5, **memaug}))


@pytest.fixture(scope="module")
def engine(tokenizer):
    """In float64, in which equal computations agree to 1e-9."""
    config = recalling()
    return HourLlava(tiny_model(config), HourLlavaProcessor(tokenizer, config))


def makers(engine):
    """With a kept prefix, and without."""
    kept, whole = (PromptMaker(engine.model, engine.processor) for _ in range(2))
    whole.keeps_prefix = False
    return kept, whole


@pytest.fixture
def slowly(monkeypatch):
    """Does something with whole prompts."""

    def call(action):
        with monkeypatch.context() as patch:
            patch.setattr(prompt_module, "can_keep_prefix", lambda config: False)
            return action()

    return call


# ------------------------------------------------------------------------------------------ prompts


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("extra", [{}, {"normalize_inputs": True, "rotate_values": True}])
def test_embeddings_logits_and_evidence_are_those_of_the_whole_prompt(blocks, extra, tokenizer):
    config = recalling(num_blocks=blocks, **extra)
    engine = HourLlava(tiny_model(config), HourLlavaProcessor(tokenizer, config))
    kept, whole = makers(engine)
    ready = make_ready(random_memory(engine, 40).snapshot(), engine.model.model)
    for history in ((), [("What?", "A cat."), ("Where?", "On the sofa.")]):
        for question in QUESTIONS:
            context = Context(history)
            ours, theirs = (maker.prompt(ready, question, question, context) for maker in (kept, whole))
            prefix, behind, embeds = ours.prefix, ours.take_embeds(), theirs.take_embeds()
            assert prefix is ready.slot.prefix
            assert ours.num_tokens == theirs.num_tokens == prefix.num_tokens + len(behind)
            torch.testing.assert_close(behind, embeds[prefix.num_tokens :], **CLOSE)
            part, all_of_it = prefill(engine.model, behind, prefix), prefill(engine.model, embeds)
            torch.testing.assert_close(part.logits_V, all_of_it.logits_V, **CLOSE)
            for own, first, every in zip(part.keys, prefix.keys, all_of_it.keys, strict=True):
                torch.testing.assert_close(torch.cat([first, own], 1), every, **CLOSE)
            for span, wanted in zip(ours.evidence(), theirs.evidence(), strict=True):
                assert dataclasses.astuple(span) == pytest.approx(dataclasses.astuple(wanted))


@pytest.mark.parametrize("extra", [{}, {"normalize_inputs": True, "rotate_values": True}])
def test_questions_that_are_embedded_together_do_not_see_each_other(extra, tokenizer):
    """Embeddings and evidence are those of each alone, whichever of them are embedded already."""
    config = recalling(**extra)
    engine = HourLlava(tiny_model(config), HourLlavaProcessor(tokenizer, config))
    maker, _ = makers(engine)
    ready = make_ready(random_memory(engine, 40).snapshot(), engine.model.model)
    together, alone = ([maker.prompt(ready, text, text, Context()) for text in QUESTIONS] for _ in range(2))
    together[2].embed()
    embed_together(together)
    for one, other in zip(together, alone, strict=True):
        assert one.num_own_tokens == other.num_own_tokens
        embeds, wanted = one.take_embeds(), other.take_embeds()
        assert len(embeds) == one.num_own_tokens
        torch.testing.assert_close(embeds, wanted, **CLOSE)
        for span, expected in zip(one.evidence(), other.evidence(), strict=True):
            assert dataclasses.astuple(span) == pytest.approx(dataclasses.astuple(expected))


def test_evidence_that_is_measured_together_is_that_of_each_alone(engine):
    """Of questions about two memories and about none, with subtitles and without, measured already or not."""
    maker, _ = makers(engine)
    about = [make_ready(random_memory(engine, 40, seed=n).snapshot(), engine.model.model) for n in range(2)]
    asked = [
        (ready, text, cues) for text in QUESTIONS for ready, cues in zip((*about, None, about[0]), ((), (), (), CUES))
    ]
    together, alone = (
        [maker.prompt(ready, text, text, Context((), tuple(cues), 2000)) for ready, text, cues in asked]
        for _ in range(2)
    )
    together[1].launch_evidence()
    launch_together(together)
    assert all(prompt.has_evidence for prompt in together)
    for one, other in zip(together, alone, strict=True):
        for span, expected in zip(one.evidence(), other.evidence(), strict=True):
            assert dataclasses.astuple(span) == pytest.approx(dataclasses.astuple(expected))


def test_the_engine_answers_choices_and_finds_alike(engine, slowly):
    memory, other = random_memory(engine, 40), random_memory(engine, 30, seed=3)

    def all_of_it():
        own = HourLlava(engine.model, engine.processor)
        with own:
            answers = own.ask_all(memory, QUESTIONS * 3, max_new_tokens=9)  # more than there are rows
            streams = [own.stream(one, QUESTIONS[1], max_new_tokens=20) for one in (memory, other, None, memory)]
            answers += [stream.answer for stream in streams]
            answers += [
                own.ask(memory, "What?", subtitles=CUES, subtitle_tokens=number, max_new_tokens=6)
                for number in (60, 2000)
            ]
            answers += [
                own.ask(other, "And?", history=[("What?", "A cat.")], temperature=0.9, seed=4, max_new_tokens=20)
            ]
            choice = own.choose(memory, "Who?", ["a cat", "a dog", "nobody"])
            found = own.find(other, "a cat")
        texts = [(answer.text, answer.num_prompt_tokens, len(answer.evidence)) for answer in answers]
        return texts, choice.letter, [(span.start_seconds, span.end_seconds) for span in found], choice.probabilities

    *expected, shares = slowly(all_of_it)
    *actual, ours = all_of_it()
    assert actual == expected
    assert ours == pytest.approx(shares, abs=1e-6)
    assert len({text for text, *_ in actual[0]}) > 5


def test_a_prefix_is_made_once_for_each_state_of_a_memory(engine, monkeypatch, slowly):
    made = []
    make = prompt_module.make_kept_prefix
    monkeypatch.setattr(prompt_module, "make_kept_prefix", lambda *args: made.append(1) or make(*args))
    memory, more = random_memory(engine, 30), random_memory(engine, 20, seed=1)

    def ask():
        return [answer.text for answer in engine.ask_all(memory, QUESTIONS, max_new_tokens=6)]

    before = ask()
    assert len(made) == 1
    assert engine.ask(memory, "What?", max_new_tokens=1).num_cached_tokens > 0
    assert HourLlava(engine.model, engine.processor).ask(memory, "What?", max_new_tokens=1).num_cached_tokens == 0
    made.pop()
    memory.append(more.features, 30 + np.arange(20.0), 30 + np.arange(20.0), duration_seconds=50.0)
    after = ask()
    assert len(made) == 2
    assert before != after
    assert after == slowly(lambda: [a.text for a in HourLlava(engine.model, engine.processor).ask_all(
        memory, QUESTIONS, max_new_tokens=6)])  # fmt: skip


def test_a_question_behind_a_prefix_lays_out_its_own_text_only(engine, monkeypatch):
    kept, _ = makers(engine)
    ready = make_ready(random_memory(engine, 40).snapshot(), engine.model.model)
    wanted = [kept.prompt(ready, text, text, Context()).take_embeds() for text in QUESTIONS]
    monkeypatch.setattr(engine.processor, "encode", lambda *args, **options: pytest.fail("all of it was laid out"))
    for text, embeds in zip(QUESTIONS, wanted, strict=True):
        prompt = kept.prompt(ready, text, text, Context())
        assert prompt.num_cached_tokens == prompt.prefix.num_tokens == prompt.num_tokens - len(embeds)
        torch.testing.assert_close(prompt.take_embeds(), embeds, atol=0, rtol=0)


def test_the_bytes_of_a_prefix_count_and_make_room(engine):
    kept, _ = makers(engine)
    model = engine.model.model
    memories = [random_memory(engine, 40, seed=seed) for seed in range(3)]
    one = make_ready(memories[0].snapshot(), model)
    before = one.num_bytes
    prefix = kept.prompt(one, "What?", "What?", Context()).prefix
    assert one.num_bytes == before + prefix.num_bytes
    num_text = len(prefix.text_ids)
    of_decoder = sum(tensor.nbytes for tensor in (*prefix.keys, *prefix.values))
    assert prefix.num_bytes == kept_prefix_bytes(40, model.config, 8) + of_decoder * num_text // prefix.num_tokens

    ready = ReadyMemories(model, max_bytes=2 * one.num_bytes + 1000)
    for memory in memories:
        kept.prompt(ready.get(memory, memory.snapshot()), "What?", "What?", Context())
    assert len(ready) == 2
    assert ready.num_bytes == 2 * one.num_bytes
    watched = weakref.ref(ready.get(memories[2], memories[2].snapshot()).slot.prefix)
    assert watched() is not None
    ready.release()
    assert watched() is None


@pytest.mark.parametrize(("family", "fields"), CASES)
def test_every_decoder_without_windows_reads_behind_a_prefix(family, fields):
    _, ours = pair(family, fields)
    ours.config.memaug = MemAugConfig(recall="question")
    if not can_keep_prefix(ours.config):
        assert attention_window(ours.config.text_config) is not None
        return
    embeds = ours.get_input_embeddings()(torch.randint(0, 100, (23,), generator=torch.Generator().manual_seed(2)))
    whole, before = prefill(ours, embeds), prefill(ours, embeds[:14])
    behind = prefill(ours, embeds[14:], KeptPrefix((), 14, before.keys, before.values, [], np.arange(0), 0))
    torch.testing.assert_close(behind.logits_V, whole.logits_V, atol=1e-5, rtol=1e-5)
    for own, every in zip((*behind.keys, *behind.values), (*whole.keys, *whole.values), strict=True):
        torch.testing.assert_close(own, every[:, 14:], atol=1e-5, rtol=1e-5)


def test_models_that_cannot_be_asked_behind_a_prefix(tokenizer):
    assert can_keep_prefix(recalling())
    assert not can_keep_prefix(tiny_config())
    assert not can_keep_prefix(recalling(recall_tokens=0))
    base = tiny_config().text_config.to_dict()
    windows = {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True, "sliding_window": 6}
    config = tiny_config(text_config={**base, **windows}, memaug=MemAugConfig(recall="question"))
    assert not can_keep_prefix(config)
    engine = HourLlava(tiny_model(config), HourLlavaProcessor(tokenizer, config))
    assert engine.ask(random_memory(engine, 40), "What?", max_new_tokens=3).num_new_tokens == 3


# ------------------------------------------------------------------------- the pool of prefixes, as CUDA uses it


@pytest.fixture(scope="module")
def asked(engine):
    """Three memories with prefixes of different lengths; prompts about them, and about none, with their own tokens."""
    kept, _ = makers(engine)
    prompts = []
    for number, num_frames in enumerate((40, 9, 65)):
        memory = random_memory(engine, num_frames, seed=number)
        ready = make_ready(memory.snapshot(), engine.model.model)
        prompts += [kept.prompt(ready, question, question, Context()) for question in QUESTIONS[: 3 - number]]
    prompts.append(kept.prompt(None, "What?", "What?", Context()))
    parts = [(prompt.take_embeds(), prompt.prefix, 4 + number) for number, prompt in enumerate(prompts)]
    return parts, [tokens_of(RowDecoder(engine.model), [part])[0] for part in parts]


def tokens_of(decoder, parts):
    """The tokens of prompts that join as soon as there is room, in this order; neighbours with one prefix together."""
    waiting, row_of, tokens = list(enumerate(parts)), {}, [[] for _ in parts]

    def may_join(joining):
        embeds, prefix, num_tokens = waiting[0][1]
        if joining and (prefix is None or prefix is not joining[0][1][1]):
            return False
        before = [len(one) + more for _, (one, _, more) in joining]
        lengths = [len(one) for _, (one, _, _) in joining]
        return decoder.go_together([*lengths, len(embeds)]) and decoder.has_room(
            len(embeds) + num_tokens, prefix, before
        )

    while waiting or len(decoder):
        joining = []
        while waiting and may_join(joining):
            joining.append(waiting.pop(0))
        if joining:
            prompts = decoder.prefill([embeds for _, (embeds, _, _) in joining], joining[0][1][1])
            for (number, (_, _, num_tokens)), prompt in zip(joining, prompts, strict=True):
                row_of[decoder.join(prompt, max_new_tokens=num_tokens, sampling=GREEDY)] = number
        for row, token in decoder.step():
            tokens[row_of[row]].append(token)
    return tokens


@pytest.fixture
def replayed(monkeypatch):
    """Prefills overwrite what the one before gave, as a graph does that is replayed."""
    run = PrefillBehindPrefix._run

    def overwrite(self):
        fixed = (self._logits_NV, self._keys_values)
        run(self)
        if fixed[0].numel():
            fixed[0].copy_(self._logits_NV)
            fixed[1].copy_(self._keys_values)
            self._logits_NV, self._keys_values = fixed

    monkeypatch.setattr(PrefillBehindPrefix, "_run", overwrite)


QUICK_POOLS = {(1, 0, 64), (3, 2, 64), (8, 9, 256)}


@pytest.mark.parametrize(
    ("max_rows", "most_prefixes", "filled"),
    [
        pytest.param(rows, most, filled, marks=() if (rows, most, filled[-1]) in QUICK_POOLS else pytest.mark.slow)
        for rows in (1, 3, 8)
        for most in (0, 2, 9)
        for filled in ((8, 16, 64), (256,))
    ],
)
def test_rows_that_share_a_pool_give_the_same_tokens(
    engine, asked, max_rows, most_prefixes, filled, replayed, monkeypatch
):
    """Whatever joins whom, and whether prefixes fit beside each other: what CUDA does."""
    parts, expected = asked
    largest = max((prefix for _, prefix, _ in parts if prefix), key=lambda one: one.num_tokens)
    of_largest = sum(tensor.nbytes for tensor in (*largest.keys, *largest.values))
    monkeypatch.setattr(decoder_module, "SLOTS_STEP", 16)
    monkeypatch.setattr(decoder_module, "ROWS_OF_BUFFERS", (1, 2, 5))
    monkeypatch.setattr(decoder_module, "MAX_PREFIX_BYTES", most_prefixes * of_largest)
    monkeypatch.setattr(prefixes_module, "PREFIX_STEP", 8)
    monkeypatch.setattr(prefixes_module, "FILLED_UP_TO", filled)
    decoder = RowDecoder(engine.model, max_rows=max_rows)
    decoder._shares_buffers, decoder._max_waiting = True, 1
    order = np.random.default_rng(most_prefixes + max_rows).permutation(2 * len(parts)) % len(parts)
    for numbers in (order, sorted(order)):  # neighbours with the same prefix are rare, then many
        assert tokens_of(decoder, [parts[n] for n in numbers]) == [expected[n] for n in numbers]


def test_a_prefill_does_not_change_what_is_handed_out_of_rows_that_joined_before(engine, asked, replayed):
    prefix = next(part[1] for part in asked[0] if part[1])
    decoder = RowDecoder(engine.model, max_rows=4)
    decoder._shares_buffers = True
    width = engine.model.config.text_config.hidden_size
    good, damaged = torch.randn(5, width, dtype=torch.float64), torch.full((5, width), torch.nan, dtype=torch.float64)
    for prompt in (good, damaged, good):
        (prefilled,) = decoder.prefill([prompt], prefix)
        decoder.join(prefilled, max_new_tokens=1, sampling=GREEDY)
    tokens = []
    while len(decoder):
        tokens += [token == DAMAGED for _, token in decoder.step()]
    assert tokens == [False, True, False]


@examples(30)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=7),
    seed=st.integers(0, 9),
    filled=st.sampled_from([8, 70]),
)
def test_prompts_that_are_prefilled_together_do_not_see_each_other(engine, asked, lengths, seed, filled):
    """Behind a prefix, in a pool that holds another one too: logits, keys and values are those of each alone."""
    prefixes = list({part[1]: None for part in asked[0] if part[1]})
    draws = torch.Generator().manual_seed(seed)
    width = engine.model.config.text_config.hidden_size
    prompts = [torch.randn(length, width, generator=draws, dtype=torch.float64) for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes_module, "FILLED_UP_TO", (filled,))
        patch.setattr(prefixes_module, "MAX_TOGETHER", 3)
        decoder = RowDecoder(engine.model)
        decoder._shares_buffers = True
        decoder.prefill(prompts[:1], prefixes[1])
        assert decoder.go_together(lengths) is (len(lengths) == 1 or (len(lengths) <= 3 and sum(lengths) <= filled))
        while not decoder.go_together([len(prompt) for prompt in prompts]):
            prompts.pop()
        together = decoder.prefill(prompts, prefixes[0])
        for one, prompt in zip(together, prompts, strict=True):
            alone = prefill(engine.model, prompt, prefixes[0])
            for actual, wanted in zip(
                (one.logits_V, *one.keys, *one.values), (alone.logits_V, *alone.keys, *alone.values), strict=True
            ):
                torch.testing.assert_close(actual, wanted, **CLOSE)


def test_a_prefix_of_few_tokens_goes_without_a_graph(engine, asked, monkeypatch):
    """It cannot be read in pieces, none of which may be empty."""
    prefix = next(part[1] for part in asked[0] if part[1])
    prompts = [torch.randn(n, engine.model.config.text_config.hidden_size, dtype=torch.float64) for n in (3, 5)]
    for pieces, has_graph in ((prefix.num_tokens, True), (prefix.num_tokens + 1, False)):
        monkeypatch.setattr(prefixes_module, "MAX_PIECES", pieces)
        monkeypatch.setattr(prefixes_module, "BLOCKS_PER_PREFILL", 10**6)
        decoder = RowDecoder(engine.model)
        decoder._shares_buffers = True
        for one, prompt in zip(decoder.prefill(prompts, prefix), prompts, strict=True):
            torch.testing.assert_close(one.logits_V, prefill(engine.model, prompt, prefix).logits_V, **CLOSE)
        assert bool(decoder._prefixed._prefills) is has_graph


def test_the_scheduler_prefills_waiting_questions_about_one_memory_together(tokenizer, replayed, monkeypatch):
    """On shared rows, as CUDA uses them; the answers are those of questions that are asked alone."""
    config = recalling()
    model, processor = tiny_model(config), HourLlavaProcessor(tokenizer, config)
    memories = [random_memory(HourLlava(model, processor), 40, seed=seed) for seed in range(2)]
    questions = QUESTIONS[:2] * 5
    with HourLlava(model, processor) as alone:
        expected = [alone.ask(memory, text, max_new_tokens=6).text for memory in memories for text in questions]
    groups = []
    monkeypatch.setattr(prefixes_module, "MAX_TOGETHER", 3)
    prefill_rows = RowDecoder.prefill
    monkeypatch.setattr(
        RowDecoder,
        "prefill",
        lambda self, prompts, *args: groups.append(len(prompts)) or prefill_rows(self, prompts, *args),
    )
    with HourLlava(model, processor) as engine:
        engine._scheduler._rows._shares_buffers = True
        engine._scheduler._rows.max_rows = 7
        actual = [answer.text for memory in memories for answer in engine.ask_all(memory, questions, max_new_tokens=6)]
        probabilities = engine.choose(memories[0], "Who?", ["a cat", "a dog"]).probabilities
    assert actual == expected
    assert sum(groups) == 2 * len(questions) + 1
    assert max(groups) == 3
    with HourLlava(model, processor) as alone:
        assert probabilities == pytest.approx(alone.choose(memories[0], "Who?", ["a cat", "a dog"]).probabilities)


def test_on_a_cpu_answers_go_on_while_others_wait_for_their_prefill(tokenizer, monkeypatch):
    config = recalling()
    done = []
    for name in ("prefill", "_launch"):
        do = getattr(RowDecoder, name)
        monkeypatch.setattr(RowDecoder, name, lambda *args, do=do, name=name: done.append(name) or do(*args))
    with HourLlava(tiny_model(config), HourLlavaProcessor(tokenizer, config)) as engine:
        memory = random_memory(engine, 40)
        engine.ask_all(memory, QUESTIONS[:2] * 3, max_new_tokens=20)
    assert done.count("prefill") == 6
    assert all(pair != ("prefill", "prefill") for pair in itertools.pairwise(done))


@pytest.mark.parametrize(
    ("place", "after"), [("has_room", 1), ("has_room", 2), ("prefill", 0), ("join", 0), ("join", 1)]
)
@pytest.mark.parametrize("error", [ZeroDivisionError("there"), SystemExit("there")], ids=["error", "exit"])
def test_an_error_among_questions_that_join_together_ends_them_all(tokenizer, monkeypatch, place, after, error):
    """Each caller is told of it, or has its answer; none waits for ever."""
    config = recalling()
    model = tiny_model(config)
    with HourLlava(model, HourLlavaProcessor(tokenizer, config)) as engine:
        memory = random_memory(engine, 40)
        engine.ask(memory, "What?", max_new_tokens=1)
        engine._scheduler._rows._shares_buffers, engine._scheduler._rows.max_rows = True, 8
        do, calls = getattr(RowDecoder, place), []

        def fails(*args, **options):
            calls.append(1)
            if len(calls) > after:
                raise error
            return do(*args, **options)

        monkeypatch.setattr(RowDecoder, place, fails)
        begun, go = threading.Event(), threading.Event()
        engine._scheduler.encode(lambda: begun.set() or go.wait(10))
        assert begun.wait(10)
        streams = [engine.stream(memory, question, max_new_tokens=2) for question in QUESTIONS]
        go.set()
        for stream in streams:
            future = concurrent.futures.Future()
            threading.Thread(target=lambda stream=stream, future=future: told(stream, future), daemon=True).start()
            assert future.result(timeout=20) in ("answered", "there")


def told(stream, future):
    try:
        future.set_result(stream.answer and "answered")
    except BaseException as error:  # noqa: BLE001 - also SystemExit
        future.set_result(str(error))


@examples(40)
@given(order=st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 5), max_size=3)), max_size=12))
def test_a_pool_never_moves_or_overwrites_what_is_in_use(order):
    sizes = (3, 8, 5, 2, 13, 7)

    def of(number):
        tensor = torch.full((1, sizes[number], 2), float(number + 1))
        return type("", (), {"num_tokens": sizes[number], "keys": [tensor], "values": [-tensor]})()

    prefixes = [of(number) for number in range(6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes_module, "PREFIX_STEP", 4)
        pool = PrefixPool(prefixes[0], 18)
    assert pool.num_tokens == 20
    shown = {}
    for number, in_use in order:
        used = {prefixes[one] for one in in_use if one in shown}
        fits = pool.fits(prefixes[number], used)
        assert pool.place(prefixes[number], used) is fits
        shown = {one: start for one, start in shown.items() if prefixes[one] in pool._starts}
        assert all(pool._starts[prefixes[one]] == start for one, start in shown.items())
        if fits:
            shown[number] = pool._starts[prefixes[number]]
        for one in shown:
            (bias,) = pool.no_bias(1)
            pool.show(bias, prefixes[one])
            assert (pool.keys[0][0, bias == 0] == one + 1).all()
            assert (pool.values[0][0, bias == 0] == -(one + 1)).all()
            assert (bias == 0).sum() == sizes[one]
        assert {one for one in in_use if prefixes[one] in used} <= shown.keys()


@pytest.mark.gpu
@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_graphs_behind_prefixes_give_the_same_tokens(tokenizer, max_rows):
    config = recalling()
    engine = HourLlava(tiny_model(config).float().cuda(), HourLlavaProcessor(tokenizer, config))
    kept, whole = makers(engine)
    parts, expected = [], []
    for number, num_frames in enumerate((40, 9, 65)):
        ready = make_ready(random_memory(engine, num_frames, seed=number).snapshot(), engine.model.model)
        for question in QUESTIONS:
            prompt = kept.prompt(ready, question, question, Context())
            parts.append((prompt.take_embeds(), prompt.prefix, 4 + number))
            embeds = whole.prompt(ready, question, question, Context()).take_embeds()
            expected += tokens_of(RowDecoder(engine.model), [(embeds, None, 4 + number)])
    decoder = RowDecoder(engine.model, max_rows=max_rows)
    for _ in range(2):
        assert tokens_of(decoder, parts) == expected
    assert decoder._buffers._graphs
    assert all(one._graph is not None for one in decoder._prefixed._prefills.values())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("config", [tiny_config(), recalling()], ids=["kept", "question"])
def test_no_question_waits_for_cuda(tokenizer, config):
    """But for its tokens: torch raises where it would wait for the device by itself."""
    engine = HourLlava(tiny_model(config).bfloat16().cuda(), HourLlavaProcessor(tokenizer, config))
    memory = random_memory(engine, 40)
    engine.ask_all(memory, QUESTIONS * 5, max_new_tokens=6)  # captures graphs
    try:
        torch.cuda.set_sync_debug_mode("error")
        answers = engine.ask_all(memory, QUESTIONS * 5, max_new_tokens=6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(answers) == 5 * len(QUESTIONS)
