"""Many callers of one model: whatever they do at once, each answer is the one that the question gets alone."""

import asyncio
import functools
import gc
import itertools
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import tiny_config, tiny_model
from hourllava.errors import Cancelled, EngineBusy, InputError
from hourllava.inference.engine import MAX_BEGUN, HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions import prompt as prompt_module
from hourllava.inference.questions.subtitles import Cue
from hourllava.inference.queues import RoundRobin
from hourllava.model.devices import HostCopy
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory

TOKENS = 5


def untimed(answer):
    return answer.text, answer.evidence, answer.finish_reason, answer.num_prompt_tokens, answer.num_new_tokens


@pytest.fixture
def own(engine):
    """An engine of this test's own, whose thread must be gone afterwards."""
    before = set(threading.enumerate())
    own = HourLlava(engine.model, engine.processor)
    yield own
    own.close()
    assert set(threading.enumerate()) <= before


class Held:
    """Keeps the engine's thread busy until it is let go."""

    def __init__(self, engine):
        self.begun, self.go = threading.Event(), threading.Event()
        self.future = engine._scheduler.encode(self._wait)
        assert self.begun.wait(10)

    def _wait(self):
        self.begun.set()
        assert self.go.wait(10)


# ----------------------------------------------------------------------------------------- the same answers as alone


def generated_frames(number, seed):
    return np.random.default_rng(seed).integers(0, 256, (number, 24, 24, 3), dtype=np.uint8)


class Crowd:
    """What callers do at once, at random, with the answers expected.

    A memory grows while it is asked: an answer is right if it is that of some length which the memory had between the
    call and its end.
    """

    def __init__(self, engine, num_memories, seed):
        self.engine, self.seed = engine, seed
        self.memories = [
            engine.remember_frames(generated_frames(20 + 10 * n, n), np.arange(20.0 + 10 * n))
            for n in range(num_memories)
        ]
        self.questions = [f"What happens at {n}?" for n in range(3)]
        self.expected = {
            (n, question): untimed(engine.ask(memory, question, max_new_tokens=TOKENS))
            for n, memory in enumerate(self.memories)
            for question in self.questions
        }
        self.choices = {n: engine.choose(memory, "Which?", ["a", "b"]) for n, memory in enumerate(self.memories)}
        self.num_answers = self.num_cancelled = 0

    def ask_at_random(self, number, num_questions):
        chance = random.Random(self.seed * 1000 + number)
        for _ in range(num_questions):
            place = chance.randrange(len(self.memories))
            question = chance.choice(self.questions)
            way = chance.choice(["ask", "inside", "cancel", "choose", "all", "drop", "task"])
            getattr(self, f"_{way}")(place, question, chance)

    def _check(self, answer, place, question):
        expected = self.expected[place, question]
        if answer.finish_reason == "cancelled":
            assert expected[0].startswith(answer.text.rstrip("\ufffd"))
            self.num_cancelled += 1
        else:
            assert untimed(answer) == expected
            self.num_answers += 1

    def _ask(self, place, question, chance):
        self._check(self.engine.ask(self.memories[place], question, max_new_tokens=TOKENS), place, question)

    def _inside(self, place, question, chance):
        other = chance.choice(self.questions)

        def on_text(piece):
            self._ask(place, other, chance)

        answer = self.engine.ask(self.memories[place], question, max_new_tokens=TOKENS, on_text=on_text)
        self._check(answer, place, question)

    def _cancel(self, place, question, chance):
        stream = self.engine.stream(self.memories[place], question, max_new_tokens=TOKENS)
        for _ in zip(range(chance.randrange(3)), stream):
            pass
        stream.cancel()
        self._check(stream.answer, place, question)

    def _drop(self, place, question, chance):
        self.engine.stream(self.memories[place], question, max_new_tokens=TOKENS)

    def _choose(self, place, question, chance):
        assert self.engine.choose(self.memories[place], "Which?", ["a", "b"]) == self.choices[place]

    def _all(self, place, question, chance):
        answers = self.engine.ask_all(self.memories[place], self.questions, max_new_tokens=TOKENS)
        for answer in answers:
            self._check(answer, place, answer.question)

    def _task(self, place, question, chance):
        async def both():
            streams = [self.engine.stream(self.memories[place], question, max_new_tokens=TOKENS) for _ in range(2)]
            return await asyncio.gather(*(stream.result() for stream in streams))

        for answer in asyncio.run(both()):
            self._check(answer, place, question)


def crowded(engine, num_threads, num_questions, num_memories, seed=0):
    crowd = Crowd(engine, num_memories, seed)
    with ThreadPoolExecutor(num_threads) as pool:
        for future in [pool.submit(crowd.ask_at_random, n, num_questions) for n in range(num_threads)]:
            future.result(timeout=600)
    return crowd


def test_answers_are_those_of_each_question_alone(own):
    crowd = crowded(own, num_threads=4, num_questions=5, num_memories=3)
    assert crowd.num_answers > 20


def first_frames(memory, number):
    """A memory of the first frames of another."""
    times = memory.timestamps_seconds[:number], memory.sample_seconds[:number]
    known = {"fps": memory.fps, "source": memory.source, "encoder": memory.encoder}
    return Memory(memory.features[:number].clone(), *times, duration_seconds=float(number), **known)


def test_asks_beside_a_growing_memory_and_a_watched_video(own, clips):
    """An answer is that of a length which the memory had between the call and the answer."""
    whole, lengths = random_memory(own, 60), range(20, 61, 10)
    expected = {n: untimed(own.ask(first_frames(whole, n), "What?", max_new_tokens=TOKENS)) for n in lengths}
    assert len(set(map(str, expected.values()))) == len(lengths)
    watched = own.watch(clips["short"], progress=False)
    growing = first_frames(whole, lengths[0])

    def ask():
        seen = set()
        while len(growing) < len(whole):
            before = len(growing)
            answer = untimed(own.ask(growing, "What?", max_new_tokens=TOKENS))
            right = [n for n in lengths if before <= n <= len(growing) and expected[n] == answer]
            assert right
            seen |= set(right)
        return seen

    def watch():
        while len(growing) < len(whole):
            assert torch.equal(own.watch(clips["short"], progress=False).features, watched.features)

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(ask), pool.submit(ask), pool.submit(watch)]
        for start, stop in itertools.pairwise(lengths):
            own.ask(growing, "What?", max_new_tokens=1)
            times = whole.timestamps_seconds[start:stop], whole.sample_seconds[start:stop]
            growing.append(whole.features[start:stop], *times, duration_seconds=float(stop))
        seen = [job.result(timeout=60) for job in jobs][:2]
    assert set.union(*seen) > {lengths[0]}
    assert untimed(own.ask(growing, "What?", max_new_tokens=TOKENS)) == expected[len(whole)]


@pytest.mark.slow
def test_a_large_crowd_with_nano():
    """Eight threads, 50 questions each, over four memories."""
    with HourLlava.from_pretrained("nano") as engine:
        before = set(threading.enumerate())
        crowd = crowded(engine, num_threads=8, num_questions=50, num_memories=4, seed=1)
        assert crowd.num_answers > 400
        assert crowd.num_cancelled > 20
    assert set(threading.enumerate()) <= before


def test_release_in_between_changes_no_answer(own):
    memory = random_memory(own)
    expected = untimed(own.ask(memory, "What?", max_new_tokens=TOKENS))
    stream = own.stream(memory, "What?", max_new_tokens=TOKENS)
    for _ in stream:
        own.release()
    assert untimed(stream.answer) == expected
    own.release()
    assert own._scheduler._rows._buffers is None
    assert untimed(own.ask(memory, "What?", max_new_tokens=TOKENS)) == expected


# ----------------------------------------------------------------------------------------- turns, limits, cancelling


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=30))
def test_callers_take_turns_and_keep_their_order(items):
    queue = RoundRobin()
    for caller, item in items:
        queue.put(caller, (caller, item))
    assert len(queue) == len(items)
    taken = [queue.take() for _ in items]
    assert queue.take() is None
    for caller in "abc":
        assert [pair for pair in taken if pair[0] == caller] == [pair for pair in items if pair[0] == caller]
    waiting = [caller for caller, _ in items]
    for number, (caller, _) in enumerate(taken):  # between two items of a caller, every other waiting caller has one
        waiting.remove(caller)
        later = [n for n in range(number + 1, len(taken)) if taken[n][0] == caller]
        between = {pair[0] for pair in taken[number + 1 : later[0]]} if later else set()
        assert not later or between == set(waiting) - {caller}


def test_a_question_goes_before_the_next_batch_of_frames(own):
    memory, streams, answered = random_memory(own), [], []
    held = Held(own)
    frames = [own._scheduler.encode(lambda: answered.append(streams[0].has_ended)) for _ in range(20)]
    streams.append(own.stream(memory, "What?", max_new_tokens=1))
    held.go.set()
    for future in frames:
        future.result(timeout=10)
    assert answered == [True] * 20


def test_too_many_questions_are_refused_and_a_call_that_may_wait_waits(own, monkeypatch):
    monkeypatch.setattr(own._scheduler, "_max_waiting", 2)
    held = Held(own)
    streams = [own.stream(None, "What?", max_new_tokens=1) for _ in range(2)]
    with pytest.raises(EngineBusy, match="2 questions wait"):
        own.stream(None, "What?", max_new_tokens=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(own.ask_all, None, ["What?"] * 5, max_new_tokens=1)
        held.go.set()
        assert len({answer.text for answer in waiting.result(timeout=60)}) == 1
    assert [stream.answer.finish_reason for stream in streams] == ["length"] * 2


@pytest.mark.parametrize("num_tokens", [1, 2, 7])
def test_cancelling_takes_effect_within_one_token(own, monkeypatch, num_tokens):
    memory = random_memory(own)
    whole = own.ask(memory, "What happens?", max_new_tokens=40)
    assert whole.num_new_tokens > 10
    stream = own.stream(memory, "What happens?", max_new_tokens=40)
    step = own._scheduler._rows.step

    def step_and_cancel():
        tokens = step()
        if stream._state.num_tokens == num_tokens - len(tokens):
            stream.cancel()
        return tokens

    monkeypatch.setattr(own._scheduler._rows, "step", step_and_cancel)
    assert stream.answer.finish_reason == "cancelled"
    assert stream.answer.num_new_tokens == num_tokens
    assert whole.text.startswith(stream.answer.text.rstrip("\ufffd"))
    assert not own._scheduler._rows.running()


def test_what_waits_can_be_cancelled(own):
    held = Held(own)
    streams = [own.stream(None, "What?", max_new_tokens=2) for _ in range(3)]
    streams[1].cancel()
    held.go.set()
    assert [stream.answer.finish_reason for stream in streams] == ["length", "cancelled", "length"]
    assert streams[1].answer.text == ""


def test_an_error_in_on_text_cancels_the_answer(own):
    with pytest.raises(ZeroDivisionError):
        own.ask(None, "What?", max_new_tokens=200, on_text=lambda piece: 1 / 0)
    own.ask(None, "What?", max_new_tokens=1)
    assert not own._scheduler._rows.running()


# ----------------------------------------------------------------------------------------- errors, and the end


def test_an_error_is_one_callers_own(tokenizer):
    config = tiny_config(max_sequence_tokens=150)
    with HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config)) as own:
        expected = own.ask(None, "What?", max_new_tokens=TOKENS).text
        held = Held(own)
        streams = [own.stream(None, text, max_new_tokens=TOKENS) for text in ("What?", "why " * 200, "What?")]
        held.go.set()
        assert [streams[n].answer.text for n in (0, 2)] == [expected] * 2
        with pytest.raises(InputError, match="the model takes 150"):
            list(streams[1])
        with pytest.raises(InputError, match="the model takes 150"):
            own.ask_all(None, ["What?", "why " * 200], max_new_tokens=TOKENS)


def test_a_failed_step_fails_its_rows_and_no_later_ones(own, monkeypatch):
    expected = own.ask(None, "What?", max_new_tokens=TOKENS).text
    with monkeypatch.context() as patch:
        patch.setattr("hourllava.inference.rows.decoder.OwnRows.step", lambda *args: 1 / 0)
        for stream in [own.stream(None, "What?", max_new_tokens=TOKENS) for _ in range(2)]:
            with pytest.raises(ZeroDivisionError):
                list(stream)
    assert own.ask(None, "What?", max_new_tokens=TOKENS).text == expected


def test_work_on_the_device_raises_in_its_caller(own):
    with pytest.raises(ZeroDivisionError):
        own._scheduler.run(lambda: 1 / 0)
    assert own._scheduler.run(lambda: own._scheduler.run(lambda: 5)) == 5
    assert isinstance(own._scheduler.encode(lambda: 1 / 0).exception(timeout=10), ZeroDivisionError)


def test_closing_ends_the_thread_and_what_waits(own):
    expected = own.ask(None, "What?", max_new_tokens=2).text
    held = Held(own)
    streams = [own.stream(None, "What?", max_new_tokens=2) for _ in range(2)]
    frames = own._scheduler.encode(lambda: 5)
    closing = threading.Thread(target=own.close)
    closing.start()
    held.go.set()
    closing.join(timeout=10)
    assert not closing.is_alive()
    for stream in streams:
        with pytest.raises(Cancelled, match="closed"):
            list(stream)
    assert isinstance(frames.exception(timeout=10), Cancelled)
    assert not [thread for thread in threading.enumerate() if thread is own._scheduler._thread]
    assert own.ask(None, "What?", max_new_tokens=2).text == expected  # a new thread


def test_the_thread_ends_with_the_last_holder_of_the_model(engine):
    own = HourLlava(engine.model, engine.processor)
    stream = own.with_ready(lambda memory, model: None).stream(None, "What?", max_new_tokens=2)
    thread = own._scheduler._thread
    del own
    assert stream.answer.num_new_tokens == 2  # a stream holds the model
    del stream
    thread.join(timeout=10)
    assert not thread.is_alive()


# ----------------------------------------------------------------------------------------- faults of the engine itself


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("hourllava.inference.rows.decoder.OwnRows", "put"),
        ("hourllava.inference.rows.decoder.RowDecoder", "join"),
        ("hourllava.inference.rows.decoder.RowDecoder", "has_room"),
        ("hourllava.inference.rows.decoder.RowDecoder", "leave"),
        ("hourllava.inference.rows.decoder.OwnRows", "clear"),
        ("hourllava.inference.streams.AnswerState", "put"),
        ("hourllava.inference.streams.AnswerState", "finish"),
        ("hourllava.inference.questions.prompt.Prompt", "evidence"),
        ("hourllava.inference.questions.prompt.Prompt", "launch_evidence"),
        ("hourllava.inference.scheduler.Scheduler", "_turn"),
    ],
)
@pytest.mark.parametrize("error", [ZeroDivisionError("there"), SystemExit("there")], ids=["error", "exit"])
def test_an_error_anywhere_ends_what_runs_and_nothing_later(own, monkeypatch, place, name, error):
    expected = own.ask(None, "What?", max_new_tokens=TOKENS).text

    def fails(*args, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", fails)
        with pytest.raises((ZeroDivisionError, SystemExit), match="there"):
            own.ask(None, "What?", max_new_tokens=TOKENS)
        with pytest.raises((ZeroDivisionError, SystemExit), match="there"):
            own.ask(None, "And?", max_new_tokens=TOKENS)

    def answered():
        try:
            return own.ask(None, "What?", max_new_tokens=TOKENS).text
        except (ZeroDivisionError, SystemExit):
            return None  # it came before the thread that failed had ended

    assert expected in (answered(), answered())


def test_a_thread_that_cannot_start_fails_its_call_alone(engine, monkeypatch):
    with HourLlava(engine.model, engine.processor) as own:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                own.ask(None, "What?", max_new_tokens=1)
        assert own.ask(None, "What?", max_new_tokens=1).num_new_tokens == 1


def test_failed_answers_are_not_kept(own):
    memory = random_memory(own)
    known = weakref.ref(memory)
    for _ in range(3):
        with pytest.raises(InputError):
            own.ask(memory, "why " * 3000)
    del memory
    gc.collect()
    assert known() is None


def test_a_prompt_that_is_too_long_is_refused_before_the_work(own, monkeypatch):
    monkeypatch.setattr(own.model.model, "embed", lambda *args: pytest.fail("it was embedded"))
    for memory in (None, random_memory(own)):
        with pytest.raises(InputError, match="the model takes"):
            own.ask(memory, "why " * 3000)


def test_lists_may_be_changed_after_the_call(own):
    memory, cues = random_memory(own), [Cue(3.0, 4.0, "a line")]
    history = [("What?", "A lamp.")]
    options = {"max_new_tokens": TOKENS, "subtitle_tokens": 50}
    expected = untimed(own.ask(memory, "And?", history=history, subtitles=cues, **options))
    held = Held(own)
    stream = own.stream(memory, "And?", history=history, subtitles=cues, **options)
    history.append(("Who?", "He."))
    cues.clear()
    held.go.set()
    assert untimed(stream.answer) == expected


def test_a_memory_may_change_without_a_frame(own):
    memory = random_memory(own)
    before = own.ask(memory, "What?", max_new_tokens=1)
    memory.append(memory.features[:0], [], [], duration_seconds=40.0, player_offset_seconds=100.0)
    after = own.ask(memory, "What?", max_new_tokens=1)
    assert [span.start_seconds for span in after.evidence] == [span.start_seconds + 100 for span in before.evidence]


def test_a_call_with_many_questions_leaves_room_for_others(own, monkeypatch):
    monkeypatch.setattr(own._scheduler, "_max_waiting", MAX_BEGUN + 2)
    held = Held(own)
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(own.ask_all, None, ["What?"] * (MAX_BEGUN + 20), max_new_tokens=1)
        while len(own._scheduler._questions) < MAX_BEGUN:
            assert not many.done()
        streams = [own.stream(None, "What?", max_new_tokens=1) for _ in range(2)]
        held.go.set()
        assert len(many.result(timeout=60)) == MAX_BEGUN + 20
        assert len({stream.answer.text for stream in streams}) == 1


def test_calls_that_wait_for_room_end_when_the_model_is_closed(own, monkeypatch):
    monkeypatch.setattr(own._scheduler, "_max_waiting", 2)
    held = Held(own)
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(own.ask_all, None, ["What?"] * 10, max_new_tokens=1)
        while len(own._scheduler._questions) < 2:
            assert not many.done()
        closing = threading.Thread(target=own.close)
        closing.start()
        while not own._scheduler._is_closing:
            pass
        held.go.set()
        with pytest.raises(Cancelled):
            many.result(timeout=10)
        closing.join(timeout=10)
    assert own._scheduler._thread is None


# ------------------------------------------------------------------------------------- evidence that is on its way


class Late(HostCopy):
    """A copy that is here when somebody waits for it, or when it was asked for often enough."""

    def __init__(self, tensor, asked_before=3):
        super().__init__(tensor)
        self.asked_before = asked_before

    @property
    def is_here(self):
        self.asked_before -= 1
        return self.asked_before < 0


@pytest.mark.parametrize("asked_before", [0, 3, 1000])
def test_answers_end_though_their_evidence_is_late(own, monkeypatch, asked_before):
    """As on a GPU, which measures behind the steps that are queued: other answers go on, and each one ends."""
    memory = random_memory(own)
    questions = [f"What happens at {n}?" for n in range(12)]
    expected = [untimed(own.ask(memory, question, max_new_tokens=TOKENS)) for question in questions]
    monkeypatch.setattr(prompt_module, "HostCopy", functools.partial(Late, asked_before=asked_before))
    assert [untimed(answer) for answer in own.ask_all(memory, questions, max_new_tokens=TOKENS)] == expected
    assert untimed(own.ask(memory, questions[0], max_new_tokens=TOKENS)) == expected[0]


def test_answers_whose_evidence_is_on_its_way_fail_when_the_engine_closes(own, monkeypatch):
    memory = random_memory(own)
    launched = threading.Event()

    class Never(Late):
        is_here = False

        def __init__(self, tensor):
            super().__init__(tensor)
            launched.set()

    monkeypatch.setattr(prompt_module, "HostCopy", Never)
    long = own.stream(memory, "What happens?", max_new_tokens=2000)
    short = own.stream(memory, "Who is it?", max_new_tokens=2)
    assert launched.wait(10)
    own.close()
    for stream in (long, short):
        with pytest.raises(Cancelled):
            _ = stream.answer
