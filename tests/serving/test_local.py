"""Faults, queues and figures of the engine in one process, with a model that follows a script."""

import asyncio
import dataclasses
import itertools
import time

import pytest
import torch

from hourllava.errors import (
    Cancelled,
    CheckpointError,
    ConfigError,
    EngineBusy,
    HourLlavaError,
    InputError,
    MemoryFileError,
    StorageError,
    VideoError,
    VideoLimitError,
)
from hourllava.inference.memories.cache import MemoryCache
from hourllava.serving.failures import failure_of, shown_error
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.memories import MemoryShelf
from hourllava.serving.protocol import EngineFailure, Question, TextPiece, Video, WatchView
from hourllava.serving.watches import VIEW_SECONDS
from hourllava.video import VideoLimits
from serving.looping import collected, in_loop, until
from serving.scripted import ENCODER, SPAN, ScriptedModel, scripted_memory

VIDEO = Video("/store/uploads/file-1/content", "sha256:1", name="lecture.mp4")
QUESTION = Question("What is on the desk?")


@pytest.fixture
def model():
    return ScriptedModel()


@pytest.fixture
def engine(model, tmp_path):
    return LocalEngine(model, tmp_path, EngineSettings(max_watches=2))


# ------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    (VideoError(f"{VIDEO.path}: it is damaged"), "video_unreadable", "lecture.mp4: it is damaged"),
    (VideoError("/store/uploads/file-1/other: what"), "video_unreadable", ".../other: what"),
    (MemoryFileError("no"), "memory_failed", "no"),
    (StorageError("full"), "storage_full", "full"),
    (ConfigError("fps"), "invalid_request", "fps"),
    (InputError("not finite"), "invalid_request", "not finite"),
    (CheckpointError("NaN in /models/x"), "internal", "NaN in /models/x"),
    (EngineFailure("too long", "video_too_long"), "video_too_long", "too long"),
    (torch.OutOfMemoryError("CUDA: 3 GB"), "out_of_memory", None),
    (MemoryError(), "out_of_memory", None),
    (RuntimeError("at /secret/path"), "internal", None),
    (OSError(28, "No space", "/secret/path"), "internal", None),
]


@pytest.mark.parametrize(("error", "code", "message"), ERRORS)
def test_every_error_has_a_code_and_names_no_path(error, code, message):
    failure = failure_of(error, VIDEO)
    assert failure.code == code
    assert message is None or failure.message == message
    assert "secret" not in failure.message
    assert "CUDA" not in failure.message


@pytest.mark.parametrize(("error", "code", "message"), ERRORS)
def test_a_video_that_fails_to_be_watched(model, engine, error, code, message):
    model.watch_error = error

    @in_loop
    async def fails(engine):
        await engine.watch(VIDEO)
        view = (await collected(engine.follow(VIDEO)))[-1]
        assert (view.state, view.failure.code) == ("failed", code)
        assert view.frames_done == 4
        model.watch_error, model.start_error = None, error
        await engine.watch(VIDEO)
        assert (await collected(engine.follow(VIDEO)))[-1].failure.code == code
        model.start_error = None
        await engine.watch(VIDEO)
        assert (await collected(engine.follow(VIDEO)))[-1].state == "ready"

    fails(engine=engine)


@pytest.mark.parametrize(("error", "code", "message"), ERRORS)
def test_an_answer_that_fails(model, engine, error, code, message):
    model.ask_error = error

    @in_loop
    async def fails(engine):
        with pytest.raises(HourLlavaError) as raised:
            await collected(engine.ask(VIDEO, QUESTION))
        if isinstance(error, InputError | ConfigError):
            assert raised.value is error
        else:
            assert raised.value.code == code
        model.ask_error = None
        assert (await collected(engine.ask(VIDEO, QUESTION)))[-1].text == "A lamp and a cat."
        status = await engine.status()
        assert (status.questions_waiting, status.questions_running) == (0, 0)

    fails(engine=engine)


@pytest.mark.parametrize("error", [EngineBusy("full", 3.0), Cancelled("closed"), EngineFailure("no", "internal")])
def test_errors_that_callers_know_stay_what_they_are(error):
    assert shown_error(error, VIDEO) is error


def test_a_question_error_that_names_the_path_is_told_again():
    shown = shown_error(InputError(f"the memory of {VIDEO.path} holds no frames"), VIDEO)
    assert (type(shown), str(shown)) == (InputError, "the memory of lecture.mp4 holds no frames")


# --------------------------------------------------------------------------------------------------------------- views


@in_loop
async def test_a_ready_video_has_gaps_and_length_on_the_players_clock(engine):
    view = [event for event in await collected(engine.ask(VIDEO, QUESTION)) if isinstance(event, WatchView)][-1]
    assert (view.duration_seconds, view.gaps) == (8.0, ((9.0, 10.0),))
    assert view == dataclasses.replace(await engine.view(VIDEO), frames_per_second=view.frames_per_second)


@pytest.mark.parametrize("first", ["ask", "choose", "find"])
def test_a_memory_that_was_just_watched_is_at_hand(model, engine, monkeypatch, first):
    """Another copy of it would be made ready once more, and have no kept prefix."""

    def refuse(*_):
        raise AssertionError("the disk is read")

    @in_loop
    async def asks_again(engine):
        if first == "ask":
            await collected(engine.ask(VIDEO, QUESTION))
        elif first == "choose":
            await engine.choose(VIDEO, QUESTION, ["a", "b"])
        else:
            await engine.find(VIDEO, "a lamp")
        monkeypatch.setattr(engine._shelf.cache, "get", refuse)
        assert (await collected(engine.ask(VIDEO, QUESTION)))[-1].text == "A lamp and a cat."
        assert len(model.started) == 1

    asks_again(engine=engine)


@in_loop
async def test_views_come_ten_times_a_second_and_the_last_one_at_once(tmp_path):
    model = ScriptedModel(num_frames=400)
    engine = LocalEngine(model, tmp_path)
    model.frames_may_pass.clear()
    await engine.watch(VIDEO)
    shown = []

    async def follow():
        async for view in engine.follow(VIDEO):
            shown.append((time.monotonic(), view))

    following = asyncio.create_task(follow())
    for _ in range(30):  # a frame at a time
        model.frames_may_pass.set()
        await asyncio.sleep(0)
        model.frames_may_pass.clear()
        await asyncio.sleep(0.01)
    model.frames_may_pass.set()
    await following
    await engine.close()
    assert shown[-1][1].state == "ready"
    gaps = [after - before for (before, _), (after, view) in itertools.pairwise(shown) if not view.is_final]
    assert all(gap > VIEW_SECONDS * 0.9 for gap in gaps)


@in_loop
async def test_what_is_known_of_failures_is_bounded(model, engine, monkeypatch):
    monkeypatch.setattr("hourllava.serving.watches.MAX_REMEMBERED", 2)
    model.start_error = VideoError("no")
    videos = [dataclasses.replace(VIDEO, digest=str(n)) for n in range(4)]
    for video in videos:
        await engine.watch(video)
        await collected(engine.follow(video))
    assert [await engine.view(video) is None for video in videos] == [True, True, False, False]


# -------------------------------------------------------------------------------------------------------------- queues


@in_loop
async def test_the_time_to_try_again_is_measured(model, engine, tmp_path):
    model.frames_may_pass.clear()
    videos = [dataclasses.replace(VIDEO, digest=str(n)) for n in range(19)]
    for video in videos[:18]:  # two run, 16 wait
        await engine.watch(video, keeps_running=True)
    await until(lambda: engine._watches.num_running == 2)
    for watch in engine._watches._running:
        watch.view = dataclasses.replace(watch.view, seconds_left=42.0)
    with pytest.raises(EngineBusy) as raised:
        await engine.watch(videos[18])
    assert raised.value.retry_after_seconds == 42.0
    for watch in engine._watches._running:
        watch.view = dataclasses.replace(watch.view, seconds_left=4200.0)
    with pytest.raises(EngineBusy) as raised:
        await engine.watch(videos[18])
    assert raised.value.retry_after_seconds == 120.0


@in_loop
async def test_watches_run_in_the_order_in_which_they_came(model, engine):
    videos = [dataclasses.replace(VIDEO, digest=str(n), path=f"/{n}") for n in range(8)]
    for video in videos:
        await engine.watch(video)
    for video in videos:
        await collected(engine.follow(video))
    assert sorted(model.started) == [video.path for video in videos]
    assert model.started.index("/0") < 2
    assert model.started.index("/7") > 5


@in_loop
async def test_a_left_answer_is_cancelled_at_the_device(model, engine):
    model.tokens_may_pass.clear()
    asking = engine.ask(None, QUESTION)
    assert await anext(asking) == TextPiece("A ")
    assert (await engine.status()).questions_running == 1
    await asking.aclose()
    await until(lambda: model.num_cancelled == 1)


@in_loop
async def test_choices_that_wait_do_not_hold_up_questions(model, engine):
    model.choices_may_pass.clear()
    choices = [asyncio.create_task(engine.choose(None, QUESTION, ["a", "b"])) for _ in range(20)]
    await until(lambda: engine._num_waiting == 20)
    assert (await collected(engine.ask(VIDEO, QUESTION)))[-1].evidence == [SPAN]
    for choice in choices[1:]:
        choice.cancel()
    await until(lambda: engine._num_waiting == 1)
    model.choices_may_pass.set()
    assert (await choices[0]).letter == "A"


@in_loop
async def test_the_event_loop_is_never_blocked(model, engine, monkeypatch):
    """Whatever the model does slowly, it does in a thread."""
    for name in ("start_watch", "stream", "choose", "find", "close"):
        quick = getattr(model, name)

        def slow(*arguments, quick=quick, **options):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return quick(*arguments, **options)

        monkeypatch.setattr(model, name, slow)
    for name in ("get", "usage", "remove"):
        method = getattr(MemoryCache, name)

        def slow(*arguments, method=method):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return method(*arguments)

        monkeypatch.setattr(MemoryCache, name, slow)
    await collected(engine.ask(VIDEO, QUESTION))
    await engine.choose(VIDEO, QUESTION, ["a", "b"])
    await engine.find(VIDEO, "a")
    await engine.status()
    await engine.forget(VIDEO)


@in_loop
async def test_an_answer_that_is_being_written_is_drained(model, engine):
    model.tokens_may_pass.clear()
    asking = asyncio.create_task(collected(engine.ask(None, QUESTION)))
    await until(lambda: engine._num_running == 1)
    closing = asyncio.create_task(engine.close(drain_seconds=30))
    await until(lambda: engine._is_draining)
    model.tokens_may_pass.set()
    assert (await asking)[-1].text == "A lamp and a cat."
    await closing


@in_loop
async def test_draining_ends_when_its_time_is_over(model, engine):
    model.tokens_may_pass.clear()
    model.choices_may_pass.clear()
    waiting = [asyncio.create_task(collected(engine.ask(None, QUESTION)))]
    waiting += [asyncio.create_task(engine.choose(None, QUESTION, ["a", "b"])) for _ in range(6)]
    await until(lambda: (engine._num_running, engine._num_waiting) == (1, 6))
    await engine.close(drain_seconds=0.05)
    for task in waiting:
        with pytest.raises(Cancelled):
            await task


# ------------------------------------------------------------------------------------------------------------ memories


def test_memories_at_hand_are_bounded_in_bytes(tmp_path):
    cache = MemoryCache(tmp_path)
    memory = scripted_memory()
    shelf = MemoryShelf(cache, ENCODER, max_bytes=2 * memory.num_bytes)
    videos = [Video("", str(n)) for n in range(3)]
    for video in videos:
        assert shelf.get(video) is None
        cache.put(shelf._cache_key(video), memory)
    first, second = shelf.get(videos[0]), shelf.get(videos[1])
    assert shelf.get(videos[0]) is first  # used again
    shelf.get(videos[2])
    assert len(shelf) == 2
    assert shelf.at_hand(videos[1]) is None
    assert shelf.get(videos[1]) is not second
    shelf.remove(videos[1])
    assert shelf.get(videos[1]) is None
    tight = MemoryShelf(cache, ENCODER, max_bytes=1)
    assert tight.get(videos[0]) is tight.get(videos[0])
    shelf.clear()
    assert len(shelf) == 0


@pytest.mark.parametrize("limit", ["seconds", "frames", "pixels", "streams"])
def test_limits_of_videos_have_codes_of_their_own(limit):
    failure = failure_of(VideoLimitError(f"{VIDEO.path} is too large", limit), VIDEO)
    assert failure.code == ("video_too_long" if limit == "seconds" else f"too_many_{limit}")
    assert failure.message == "lecture.mp4 is too large"


@in_loop
async def test_the_engine_hands_its_limits_on(model, tmp_path, monkeypatch):
    limits = VideoLimits(max_frames=3)
    seen = []
    start_watch = model.start_watch
    monkeypatch.setattr(
        model, "start_watch", lambda *path, **options: seen.append(options["limits"]) or start_watch(*path, **options)
    )
    engine = LocalEngine(model, tmp_path, EngineSettings(limits=limits))
    await collected(engine.ask(VIDEO, QUESTION))
    await engine.close()
    assert seen == [limits]
