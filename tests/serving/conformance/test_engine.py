"""What every engine does, whatever is behind it: one suite over the protocol."""

import asyncio
import dataclasses
import pickle

import pytest

from hourllava.errors import Cancelled, EngineBusy, InputError
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.answers import Answer
from hourllava.inference.questions.subtitles import Cue
from hourllava.serving.protocol import EngineFailure, Question, TextPiece, Video, WatchView
from serving.looping import collected, in_loop, until

QUESTION = Question("What is on the desk?", max_new_tokens=4)


async def followed(engine, video):
    return (await collected(engine.follow(video)))[-1]


def parts(events):
    """(views, text, answer) of an answer's events, which come in this order."""
    views = [event for event in events if isinstance(event, WatchView)]
    pieces = [event for event in events if isinstance(event, TextPiece)]
    assert events == [*views, *pieces, events[-1]]
    assert isinstance(events[-1], Answer)
    return views, "".join(piece.text for piece in pieces), events[-1]


def another(video, n=2):
    return dataclasses.replace(video, digest=f"sha256:{n}")


# ----------------------------------------------------------------------------------------------------------- watching


@in_loop
async def test_a_video_is_watched_and_stays_ready(engine, video):
    assert await engine.view(video) is None
    begun = await engine.watch(video)
    assert begun.state in ("queued", "watching")
    views = await collected(engine.follow(video))
    last = views[-1]
    assert [view.is_final for view in views] == [False] * (len(views) - 1) + [True]
    assert (last.state, last.frames_done, last.frames_total, last.seconds_left) == ("ready", 120, 120, 0.0)
    assert last.duration_seconds > 0
    assert (last.attempt, last.failure, last.key) == (1, None, video.key)
    assert [view.frames_done for view in views] == sorted(view.frames_done for view in views)
    assert (await engine.watch(video)).state == "ready"
    assert (await engine.view(video)).state == "ready"
    assert [view.state for view in await collected(engine.follow(video))] == ["ready"]


@in_loop
async def test_the_key_is_content_and_part_not_path_and_name(engine, video):
    await engine.watch(video)
    await followed(engine, video)
    renamed = dataclasses.replace(video, path="/gone.mp4", name="other")
    assert (await engine.view(renamed)).state == "ready"
    assert (await engine.watch(renamed)).state == "ready"
    for other in (dataclasses.replace(video, fps=5.0), dataclasses.replace(video, start_seconds=1.0), another(video)):
        assert await engine.view(other) is None


@in_loop
async def test_many_who_want_one_video_share_its_watching(engine, video, frames):
    frames.close()
    await engine.watch(video)
    followers = [asyncio.create_task(followed(engine, video)) for _ in range(3)]
    asks = [asyncio.create_task(collected(engine.ask(video, QUESTION))) for _ in range(2)]
    await until(lambda: has_waiting(engine, 2))
    status = await engine.status()
    assert (status.watches_running, status.watches_waiting) == (1, 0)
    frames.open()
    assert {(await follower).state for follower in followers} == {"ready"}
    assert len({parts(await ask)[1] for ask in asks}) == 1


async def has_waiting(engine, number):
    return (await engine.status()).questions_waiting == number


@in_loop
async def test_a_video_that_nobody_watches_is_followed_by_one_view(engine, video):
    assert await collected(engine.follow(video)) == [WatchView(video.key, "cancelled")]


@in_loop
async def test_a_video_that_cannot_be_read_fails_without_naming_paths(engine, tmp_path):
    missing = Video(str(tmp_path / "missing.mp4"), "sha256:9", name="lecture.mp4")
    await engine.watch(missing)
    views = await collected(engine.follow(missing))
    assert views[-1].state == "failed"
    failure = views[-1].failure
    assert failure.code == "video_unreadable"
    assert "lecture.mp4" in failure.message
    assert str(tmp_path) not in failure.message
    assert (await engine.view(missing)).failure == failure
    with pytest.raises(EngineFailure) as raised:
        await collected(engine.ask(missing, QUESTION))
    assert (raised.value.code, str(raised.value)) == (failure.code, failure.message)
    assert (await engine.watch(missing)).state in ("queued", "watching")  # tried again
    assert (await followed(engine, missing)).state == "failed"


@in_loop
async def test_a_watching_that_is_cancelled_ends_for_all(engine, video, frames):
    frames.close()
    await engine.watch(video, keeps_running=True)
    follower, asking = engine.follow(video), engine.ask(video, QUESTION)
    await anext(follower)
    await anext(asking)
    await engine.cancel_watch(video)
    assert (await collected(follower))[-1].state == "cancelled"
    with pytest.raises(Cancelled):
        await collected(asking)
    assert await engine.view(video) is None
    await engine.cancel_watch(video)  # is not being watched: nothing happens
    frames.open()
    await engine.watch(video)
    assert (await followed(engine, video)).state == "ready"


@in_loop
async def test_the_last_follower_ends_the_watching_unless_it_keeps_running(engine, video, frames):
    frames.close()
    await engine.watch(video)
    first, second = engine.follow(video), engine.follow(video)
    await anext(first)
    await anext(second)
    await first.aclose()
    assert (await engine.view(video)).state in ("queued", "watching")
    await second.aclose()
    await until(lambda: nothing_runs(engine))
    assert await engine.view(video) is None
    await engine.watch(video, keeps_running=True)
    third = engine.follow(video)
    await anext(third)
    await third.aclose()
    assert (await engine.view(video)).state in ("queued", "watching")
    frames.open()
    assert (await followed(engine, video)).state == "ready"


async def nothing_runs(engine):
    status = await engine.status()
    running = (status.watches_running, status.watches_waiting, status.questions_running, status.questions_waiting)
    return running == (0, 0, 0, 0)


@in_loop
async def test_a_full_queue_of_watches_says_when_to_try_again(engine, video, frames):
    frames.close()
    for n in range(3):  # one runs, two wait
        assert (await engine.watch(another(video, n), keeps_running=True)).state in ("queued", "watching")
    for call in (engine.watch(another(video, 3)), collected(engine.ask(another(video, 3), QUESTION))):
        with pytest.raises(EngineBusy) as raised:
            await call
        assert 1 <= raised.value.retry_after_seconds <= 120
    assert (await engine.watch(another(video, 2))).state == "queued"  # joins
    await engine.cancel_watch(another(video, 2))
    await engine.watch(another(video, 3), keeps_running=True)
    frames.open()
    assert (await followed(engine, another(video, 3))).state == "ready"
    assert (await engine.view(another(video, 2))) is None


# ------------------------------------------------------------------------------------------------------------- asking


@in_loop
async def test_an_unwatched_video_is_watched_and_then_asked(engine, video):
    views, text, answer = parts(await collected(engine.ask(video, QUESTION)))
    assert views[-1].state == "ready"
    assert text == answer.text
    assert answer.question == QUESTION.text
    assert answer.evidence
    assert answer.num_new_tokens <= 4
    again_views, again_text, again = parts(await collected(engine.ask(video, QUESTION)))
    assert (again_views, again_text, again.evidence) == ([], text, answer.evidence)


@in_loop
async def test_without_a_video_the_language_model_answers(engine):
    views, text, answer = parts(await collected(engine.ask(None, QUESTION)))
    assert (views, text, answer.evidence) == ([], answer.text, [])
    assert len((await engine.choose(None, QUESTION, ["a lamp", "a cat"])).probabilities) == 2


@in_loop
async def test_history_subtitles_and_options_are_taken(engine, video):
    question = Question(
        "And now?",
        history=(("What is on the desk?", "A lamp."),),
        subtitles=(Cue(0.0, 2.0, "Look at the lamp."),),
        max_new_tokens=2,
        temperature=0.7,
        top_p=0.9,
        seed=3,
        stop=("\n",),
        caller="ann",
    )
    answer = parts(await collected(engine.ask(video, question)))[2]
    assert answer.num_new_tokens <= 2


@pytest.mark.parametrize("bad", [{"text": "  "}, {"max_new_tokens": 0}, {"stop": ("",)}])
def test_a_bad_question_is_refused_before_anything_is_watched(engine, video, bad):
    @in_loop
    async def refused(engine):
        with pytest.raises(InputError):
            await collected(engine.ask(video, dataclasses.replace(QUESTION, **bad)))
        assert await engine.view(video) is None

    refused(engine=engine)


@in_loop
async def test_choices_and_moments(engine, video):
    choice = await engine.choose(video, QUESTION, ["a lamp", "a cat"])
    assert choice.option in ("a lamp", "a cat")
    assert sum(choice.probabilities) == pytest.approx(1.0)
    spans = await engine.find(video, "a lamp")
    assert spans
    assert all(span.start_seconds < span.end_seconds for span in spans)
    with pytest.raises(InputError):
        await engine.find(video, " ")


@in_loop
async def test_who_leaves_an_answer_ends_it_and_its_watching(engine, video, frames):
    frames.close()
    asking = engine.ask(video, QUESTION)
    assert isinstance(await anext(asking), WatchView)
    await asking.aclose()
    await until(lambda: nothing_runs(engine))
    assert await engine.view(video) is None
    frames.open()
    async for event in (asking := engine.ask(video, QUESTION)):
        if isinstance(event, TextPiece):
            break
    await asking.aclose()
    await until(lambda: nothing_runs(engine))
    assert (await engine.view(video)).state == "ready"


@in_loop
async def test_a_cancelled_task_ends_its_question(engine, video, frames):
    frames.close()
    tasks = [asyncio.create_task(collected(engine.ask(video, QUESTION)))]
    tasks.append(asyncio.create_task(engine.choose(video, QUESTION, ["a", "b"])))
    tasks.append(asyncio.create_task(engine.find(video, "a lamp")))
    await until(lambda: has_waiting(engine, 3))
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError)
    await until(lambda: nothing_runs(engine))


@in_loop
async def test_a_full_queue_of_questions_says_when_to_try_again(engine, video, frames):
    frames.close()
    tasks = [asyncio.create_task(collected(engine.ask(video, QUESTION))) for _ in range(4)]
    await until(lambda: has_waiting(engine, 4))
    refused = (collected(engine.ask(video, QUESTION)), engine.choose(video, QUESTION, "ab"), engine.find(video, "a"))
    for call in refused:
        with pytest.raises(EngineBusy) as raised:
            await call
        assert 1 <= raised.value.retry_after_seconds <= 120
    frames.open()
    assert len({parts(await task)[1] for task in tasks}) == 1


# --------------------------------------------------------------------------------------------------------- everything


@in_loop
async def test_a_memory_is_exported_and_forgotten(engine, video, tmp_path):
    path = tmp_path / "lecture.memory.safetensors"
    with pytest.raises(EngineFailure, match="not watched"):
        await engine.export_memory(video, str(path))
    assert not path.exists()
    await engine.watch(video)
    await followed(engine, video)
    await engine.export_memory(video, str(path))
    assert Memory.load(path).num_frames == 120
    before = await engine.status()
    assert (before.ready_memories, before.model) == (1, "tiny")
    assert before.memory_cache_bytes > 0
    assert before.context_tokens > 0
    await engine.forget(video)
    assert await engine.view(video) is None
    assert (await engine.status()).ready_memories == 0
    await engine.forget(video)


@in_loop
async def test_whatever_is_given_can_be_pickled(engine, video):
    events = [
        video,
        QUESTION,
        *await collected(engine.ask(video, QUESTION)),
        await engine.watch(video),
        await engine.choose(video, QUESTION, ["a", "b"]),
        await engine.find(video, "a lamp"),
        await engine.status(),
        EngineFailure("no", "internal").code,
    ]
    assert pickle.loads(pickle.dumps(events)) == events


@in_loop
async def test_a_closed_engine_refuses_and_ends_what_runs(engine, video, frames):
    frames.close()
    asking, follower = engine.ask(video, QUESTION), engine.follow(video)
    await anext(asking)
    await anext(follower)
    choosing = asyncio.create_task(engine.choose(video, QUESTION, ["a", "b"]))
    await until(lambda: has_waiting(engine, 2))
    closing = asyncio.create_task(engine.close())
    frames.open()
    await closing
    assert (await collected(follower))[-1].state == "cancelled"
    for ends in (collected(asking), choosing):
        with pytest.raises((Cancelled, EngineFailure)):
            await ends
    for call in (engine.watch(video), collected(engine.ask(None, QUESTION)), engine.find(video, "a")):
        with pytest.raises(EngineFailure) as raised:
            await call
        assert raised.value.code == "shutting_down"
    await engine.close()


@in_loop
async def test_an_engine_that_drains_ends_its_work_and_takes_no_more(engine, video, frames):
    frames.close()
    asking = asyncio.create_task(collected(engine.ask(video, QUESTION)))
    await until(lambda: has_waiting(engine, 1))
    closing = asyncio.create_task(engine.close(drain_seconds=30))
    await until(lambda: is_draining(engine))
    with pytest.raises(EngineFailure):
        await engine.watch(another(video))
    frames.open()
    parts(await asking)
    await closing


async def is_draining(engine):
    return (await engine.status()).is_draining
